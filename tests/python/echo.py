"""Echoes messages of many sizes through a WebSocket, text and binary, with an independent client.

Prints the subprotocol that the server chose.

The client with asyncio, not `websockets.sync`: that one reads and writes one TLS connection from two threads at a time,
which OpenSSL does not allow. With TLS 1.3, whose session tickets are read while the request is written, such a client now
and then never sends its request, whatever the server (docs/operations.md).
"""

import argparse
import asyncio
import os
import ssl

from websockets.asyncio.client import ClientConnection, connect

SIZES = [0, 1, 2, 125, 126, 127, 1000, 65_535, 65_536, 65_537, 262_144, 1_048_576]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--subprotocol", action="append")
    parser.add_argument("--cafile", help="trust this certificate (wss)")
    asyncio.run(run(parser.parse_args()))


async def run(args: argparse.Namespace) -> None:
    options = {}
    if args.cafile:
        options["ssl"] = ssl.create_default_context(cafile=args.cafile)

    async with connect(
        args.url,
        subprotocols=args.subprotocol,
        max_size=2 * SIZES[-1],
        proxy=None,
        open_timeout=20,
        **options,
    ) as websocket:
        print(websocket.subprotocol)
        for size in SIZES:
            binary = os.urandom(size)
            text = text_of(size)
            for message in (binary, text):
                await websocket.send(message)
                assert await answer(websocket) == message, f"{size} of {type(message)} came back different"
        # Fragmented, and answered as one message or in fragments: the client cannot tell.
        await websocket.send(["frag", "men", "ted"])
        assert await answer(websocket) == "fragmented"
        # Many in flight at once.
        for number in range(200):
            await websocket.send(str(number))
        for number in range(200):
            assert await answer(websocket) == str(number)
        pong = await websocket.ping()
        await asyncio.wait_for(pong, timeout=30)


async def answer(websocket: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(websocket.recv(), timeout=30)


def text_of(size: int) -> str:
    """Text of `size` bytes in UTF-8, with characters of every length."""
    text = ("aé漢🦀" * (size // 10 + 1)).encode()[:size].decode(errors="ignore")
    return text + "." * (size - len(text.encode()))


if __name__ == "__main__":
    main()
