"""TLS clients of the backend's engine, by Python's ssl and websockets: rooms, limits, and how connections end."""

import argparse
import asyncio
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections import Counter

import websockets.asyncio.client
from tls_handoff import HANDSHAKE, Client, masked

CLOSE, PING = 0x8, 0x9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("cafile")
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--plain", type=int, help="nginx's port without TLS")
    parser.add_argument("--backend", type=int, help="the pid of the backend")
    args = parser.parse_args()
    PARTS[args.part](args)


def room(args) -> None:
    """Members with TLS and without: each gets every message once, each sender's in order."""
    members, each = 6, 300

    async def member(number: int) -> None:
        tls = number % 3 != 0
        options = {"ssl": ssl.create_default_context(cafile=args.cafile)} if tls else {}
        url = f"wss://127.0.0.1:{args.port}/ws" if tls else f"ws://127.0.0.1:{args.plain}/ws"
        async with websockets.asyncio.client.connect(
            url, proxy=None, open_timeout=20, **options
        ) as websocket:
            joined.append(number)
            while len(joined) < members:
                await asyncio.sleep(0.01)
            # Whoever has the answer to a message of its own is a member.
            await websocket.send(f"{number} hello")
            heard: Counter = Counter()
            greeted = asyncio.Event()

            async def listen() -> None:
                while sum(heard.values()) < members * each:
                    sender, what = (await asyncio.wait_for(websocket.recv(), 30)).split(" ", 1)
                    if what == "hello":
                        if sender == str(number):
                            greeted.set()
                        continue
                    assert what == f"{heard[sender]} {'x' * (heard[sender] * 7 % 3000)}", what[:20]
                    heard[sender] += 1

            listening = asyncio.create_task(listen())
            await asyncio.wait_for(greeted.wait(), 30)
            ready.append(number)
            while len(ready) < members:
                await asyncio.sleep(0.01)
            for n in range(each):
                await websocket.send(f"{number} {n} {'x' * (n * 7 % 3000)}")
            await listening
            assert heard == {str(n): each for n in range(members)}, heard

    joined: list = []
    ready: list = []

    async def all_of_them() -> None:
        await asyncio.gather(*(member(number) for number in range(members)))

    asyncio.run(all_of_them())


def compressed(args) -> None:
    """permessage-deflate is agreed on, and used."""

    async def talk() -> None:
        context = ssl.create_default_context(cafile=args.cafile)
        url = f"wss://127.0.0.1:{args.port}/ws"
        async with websockets.asyncio.client.connect(
            url, proxy=None, ssl=context, open_timeout=20, max_size=1 << 22
        ) as websocket:
            extensions = [extension.name for extension in websocket.protocol.extensions]
            assert extensions == ["permessage-deflate"], extensions
            for size in (0, 1, 100, 70_000, 1_000_000):
                for message in ("words, " * (size // 7), os.urandom(size)):
                    await websocket.send(message)
                    assert await asyncio.wait_for(websocket.recv(), 30) == message, size

    asyncio.run(talk())


def deaf(args) -> None:
    """Some who do not read, and one who does."""
    quick = opened(args)
    text = b"z" * 16_000
    deaf = [opened(args) for _ in range(5)]

    def stuff(client: Client) -> None:
        try:
            while True:
                client.send(masked(0x1, text))
        except OSError:
            pass  # The end of the test, or nothing is taken for long.

    stuffing = [threading.Thread(target=stuff, args=(client,), daemon=True) for client in deaf]
    for thread in stuffing:
        thread.start()
    time.sleep(0.5)
    for n in range(100):
        begin = time.monotonic()
        quick.send(masked(0x1, b"%d" % n))
        quick.expect_echo([b"%d" % n])
        assert time.monotonic() - begin < 10, "held up"
    for client in deaf:
        client.socket.shutdown(socket.SHUT_RDWR)
    for thread in stuffing:
        thread.join()
    quick.close()


def drained(args) -> None:
    """The backend is told to end: 1001, and a goodbye behind the answer."""
    client = opened(args)
    os.kill(args.backend, signal.SIGTERM)
    expect_close(client, 1001)


def silent(args) -> None:
    """No pong, no more."""
    client = opened(args)
    expect_close(client, 1001)


def large(args) -> None:
    """More than a message may have; in fragments, across records."""
    client = opened(args)
    part = b"y" * 600
    fragment = bytearray(masked(0x1, part))
    fragment[0] &= 0x7F
    client.send_raw(client.seal(bytes(fragment)) + client.seal(masked(0x0, part)))
    expect_close(client, 1009)


def hasty(args) -> None:
    """More messages than it may send."""
    client = opened(args)
    client.send(masked(0x1, b"x") * 300)
    expect_close(client, 1008)


def truncated(args) -> None:
    """End of file without a goodbye, in the middle of a record."""
    client = opened(args)
    client.send_raw(client.seal(masked(0x1, b"never whole"))[:-3])
    client.socket.shutdown(socket.SHUT_WR)
    assert read(client, 1) == b"", "a goodbye all the same"


def forged(args) -> None:
    """A record that nobody sealed: the alert for it."""
    client = opened(args)
    record = bytearray(client.seal(masked(0x1, b"forged")))
    record[-1] ^= 1
    client.send_raw(bytes(record))
    try:
        got = read(client, 1)
    except ssl.SSLError as error:
        assert "BAD_RECORD_MAC" in str(error).upper().replace(" ", "_"), error
        return
    raise AssertionError(f"no alert but {got!r}")


def opened(args) -> Client:
    client = Client(args)
    client.send(HANDSHAKE)
    client.expect_101()
    client.send(masked(0x1, b"here"))
    client.expect_echo([b"here"])
    return client


def read(client: Client, length: int) -> bytes:
    """Empty after a goodbye; an end of file without one raises."""
    while True:
        try:
            return client.tls.read(length)
        except ssl.SSLWantReadError:
            if data := client.socket.recv(65536):
                client.incoming.write(data)
            else:
                client.incoming.write_eof()


def expect_close(client: Client, code: int) -> None:
    while True:
        head = client.read(2)
        payload = client.read(head[1])
        opcode = head[0] & 0xF
        if opcode == CLOSE:
            break
        assert opcode in (0x1, PING), head
    assert payload[:2] == struct.pack("!H", code), payload
    client.send(masked(CLOSE, payload[:2]))
    assert read(client, 1) == b"", "a goodbye"


PARTS = {
    part.__name__: part
    for part in (room, compressed, deaf, drained, silent, large, hasty, truncated, forged)
}


if __name__ == "__main__":
    main()
