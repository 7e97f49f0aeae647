"""Many WebSocket clients in a few processes, on plain sockets: a library would cost more than what is measured."""

import asyncio
import base64
import multiprocessing
import os
import resource
import socket
import struct

from servers import BenchError

PROCESSES = 4
# Handshakes under way at once in each process. What nginx allocates for one is free memory afterwards, but stays its
# own: a larger burst leaves more of it, whatever the number of connections.
CONCURRENCY = 16
TIMEOUT = 30

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


class Clients:
    """`count` connections to `path`, open from `__enter__` to `__exit__`; idle in between but for `echo`."""

    def __init__(self, port: int, path: str, count: int):
        self.counts = [count // PROCESSES + (i < count % PROCESSES) for i in range(PROCESSES)]
        self.port, self.path = port, path
        self._workers = []

    def __enter__(self):
        # Forked processes would share this one's memory and state; these start clean.
        context = multiprocessing.get_context("spawn")
        for index, count in enumerate(self.counts):
            ours, theirs = context.Pipe()
            # An address each: one alone has some 28,000 ports for all connections to the same server.
            arguments = (theirs, f"127.0.1.{index + 1}", self.port, self.path, count)
            worker = context.Process(target=serve, args=arguments, daemon=True)
            worker.start()
            theirs.close()
            self._workers.append((worker, ours))
        try:
            self._replies()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for worker, pipe in self._workers:
            pipe.close()
        for worker, _ in self._workers:
            worker.join(timeout=20)
            if worker.is_alive():
                worker.kill()
                worker.join()

    def echo(self):
        """Sends a text on every connection and awaits it: an error unless every one is alive."""
        for _, pipe in self._workers:
            pipe.send("echo")
        self._replies()

    def _replies(self):
        failures = []
        for _, pipe in self._workers:
            try:
                failures += pipe.recv()
            except EOFError:
                failures.append("a client process died")
        if failures:
            shown = "\n  ".join(failures[:5])
            raise BenchError(f"{len(failures)} connections failed at {self.path}:\n  {shown}")


def serve(pipe, source: str, port: int, path: str, count: int):
    """A client process: opens, then echoes whenever it is told to; leaves when the pipe is closed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner() as runner:
        sockets = []
        pipe.send(runner.run(on_each(range(count), lambda i: open_one(source, port, path, sockets))))
        try:
            while pipe.recv():
                pipe.send(runner.run(on_each(sockets, echo_one)))
        except (EOFError, KeyboardInterrupt):
            pass


async def on_each(items, action) -> list[str]:
    """Runs `action` for each, `CONCURRENCY` at once; the errors as text."""
    failures = []
    queue = iter(items)

    async def worker():
        for item in queue:
            try:
                await asyncio.wait_for(action(item), TIMEOUT)
            except Exception as error:  # noqa: BLE001  whatever it is, this connection failed
                failures.append(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return failures


async def open_one(source: str, port: int, path: str, opened: list):
    loop = asyncio.get_running_loop()
    client = socket.socket()
    try:
        client.setblocking(False)
        # The port is chosen by connect(), for this destination; bind() would want one that nobody uses.
        client.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        client.bind((source, 0))
        await loop.sock_connect(client, ("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        await loop.sock_sendall(
            client,
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
        )
        head = b""
        while b"\r\n\r\n" not in head:
            # A byte at a time at its end would be right too; the echo application says nothing by itself.
            data = await loop.sock_recv(client, 4096)
            if not data:
                raise ConnectionError(f"closed after {head!r}")
            head += data
        if not head.startswith(b"HTTP/1.1 101 ") or not head.endswith(b"\r\n\r\n"):
            raise ConnectionError(f"not upgraded: {head[:200]!r}")
    except BaseException:
        client.close()
        raise
    opened.append(client)


async def echo_one(client: socket.socket):
    loop = asyncio.get_running_loop()
    text = b"still here " + os.urandom(4).hex().encode()
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))
    await loop.sock_sendall(client, bytes([0x80 | TEXT, 0x80 | len(text)]) + mask + masked)
    received = b""
    while True:
        while (frame := split_frame(received)) is None:
            data = await loop.sock_recv(client, 4096)
            if not data:
                raise ConnectionError("closed by the server")
            received += data
        opcode, payload, received = frame
        if opcode == CLOSE:
            raise ConnectionError(f"close frame {payload!r}")
        if opcode not in (PING, PONG):
            break
    if (opcode, payload, received) != (TEXT, text, b""):
        raise ConnectionError(f"sent {text!r}, received {payload!r} {received!r}")


def split_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """An unfragmented server's frame of less than 64 kB at the head of `data`: opcode, payload, what follows."""
    if len(data) < 2:
        return None
    start, length = 2, data[1] & 0x7F
    if length == 126:
        if len(data) < 4:
            return None
        start, (length,) = 4, struct.unpack("!H", data[2:4])
    if len(data) < start + length:
        return None
    return data[0] & 0xF, data[start : start + length], data[start + length :]
