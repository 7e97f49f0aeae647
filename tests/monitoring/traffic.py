"""Clients that come and go, of every kind that the dashboard tells apart."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time

from websockets.asyncio import client as asyncio_client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stack import MAX_MESSAGE_SIZE, Stack

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# What nginx answers.
FAILURES = {"answer": 502, "timeout": 504, "connect": 502, "send": 502, "slow": 403}


class Traffic:
    """Runs from a thread until it ends. Some clients stay all the time."""

    def __init__(self, stack: Stack):
        self.stack = stack
        self.tls = ssl.create_default_context(cafile=stack.certificate)
        self.ended = threading.Event()
        self.rounds = 0
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Traffic:
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def run(self) -> None:
        try:
            with contextlib.ExitStack() as stay:
                staying = [stay.enter_context(self.open(f"/ws/rooms/{number % 2}")) for number in range(20)]
                while not self.ended.is_set():
                    self.round(staying)
                    self.rounds += 1
                    time.sleep(0.1)
        except BaseException as error:  # for the tests' own thread to tell
            self.error = error

    def round(self, staying: list) -> None:
        for path in ("/ws/echo", "/proxy/echo", "/tunnel/echo"):
            with self.open(path) as client:
                client.send("x" * 1000)
                assert len(client.recv(timeout=10)) == 1000
        asyncio.run(self.echo_over_tls())
        staying[0].send("to the room")
        assert staying[2].recv(timeout=10) == "to the room"
        with self.open("/ws/echo") as client:
            client.send(b"x" * (MAX_MESSAGE_SIZE + 1))
            expect_close(client, 1009)
        with self.open("/ws/echo") as client:
            # Neither side says goodbye.
            client.socket.shutdown(socket.SHUT_RDWR)

        for name, status in FAILURES.items():
            assert self.ask(f"/fail/{name}") == status, name
        assert self.ask("/ws/nowhere") == 404
        assert self.ask("/ws/echo", key="short") == 400
        assert self.ask("/ws/echo", upgrade="h2c") == 426
        # A client that leaves before its backend has answered.
        with self.connection() as client:
            client.sendall(self.handshake("/fail/timeout"))
            time.sleep(0.05)
        # Frames behind the head: early data.
        with self.connection() as client:
            client.sendall(self.handshake("/ws/echo") + b"\x81\x82\0\0\0\0hi")
            while b"\x81\x02hi" not in client.recv(4096):
                pass
        # Somebody who is no nginx.
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(self.stack.directory / "backend.sock"))
            stranger.sendall(b"what?\r\n\r\n")
            stranger.recv(1000)

    def open(self, path: str):
        return connect(f"ws://{self.stack.address}{path}", proxy=None, open_timeout=10, compression=None)

    async def echo_over_tls(self) -> None:
        # Not `websockets.sync`, whose two threads are too many for one TLS connection (tests/python/echo.py).
        url = f"wss://{self.stack.tls_address}/ws/echo"
        options = {"ssl": self.tls, "proxy": None, "open_timeout": 10, "compression": None}
        async with asyncio_client.connect(url, **options) as client:
            await client.send("x" * 1000)
            assert len(await asyncio.wait_for(client.recv(), timeout=10)) == 1000

    def ask(self, path: str, **fields: str) -> int:
        """The status of a handshake's answer."""
        with self.connection() as client:
            client.sendall(self.handshake(path, **fields))
            return int(client.recv(4096).split(b" ")[1])

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.stack.port), timeout=10)

    def handshake(self, path: str, key: str = KEY, upgrade: str = "websocket") -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: {self.stack.address}\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode()


def expect_close(client, code: int) -> None:
    try:
        client.recv(timeout=10)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None and closed.rcvd.code == code, closed
    else:
        raise AssertionError("a message instead of a close")
