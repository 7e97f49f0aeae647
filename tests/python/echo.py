"""Echoes messages of many sizes through a WebSocket, text and binary, with an independent client.

Prints the subprotocol that the server chose.
"""

import argparse
import os
import ssl

from websockets.sync.client import connect

SIZES = [0, 1, 2, 125, 126, 127, 1000, 65_535, 65_536, 65_537, 262_144, 1_048_576]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--subprotocol", action="append")
    parser.add_argument("--cafile", help="trust this certificate (wss)")
    args = parser.parse_args()

    options = {}
    if args.cafile:
        options["ssl"] = ssl.create_default_context(cafile=args.cafile)

    with connect(
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
                websocket.send(message)
                answer = websocket.recv(timeout=30)
                assert answer == message, f"{size} of {type(message)} came back different"
        # Fragmented, and answered as one message or in fragments: the client cannot tell.
        websocket.send(["frag", "men", "ted"])
        assert websocket.recv(timeout=30) == "fragmented"
        # Many in flight at once.
        for number in range(200):
            websocket.send(str(number))
        for number in range(200):
            assert websocket.recv(timeout=30) == str(number)
        websocket.ping().wait(timeout=30)


def text_of(size: int) -> str:
    """Text of `size` bytes in UTF-8, with characters of every length."""
    text = ("aé漢🦀" * (size // 10 + 1)).encode()[:size].decode(errors="ignore")
    return text + "." * (size - len(text.encode()))


if __name__ == "__main__":
    main()
