"""A raw TLS client for what a WebSocket library does not do: the parts of the tests of wss."""

import argparse
import fcntl
import itertools
import socket
import ssl
import struct
import sys
import termios
import time

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="
MASK = b"\x37\xfa\x21\x3d"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("cafile")
    parser.add_argument("part", choices=["early", "send", "receive", "leave", "behind", "status"])
    parser.add_argument("how", nargs="?", choices=["close_notify", "fin"])
    args = parser.parse_args()

    context = ssl.create_default_context(cafile=args.cafile)
    if args.part == "behind":
        # Finer than a 101, from nothing in its way to more than the buffers hold.
        for size in range(1, 60_000, 400):
            behind(context, args.port, size)
        return
    plain = socket.create_connection(("127.0.0.1", args.port), timeout=20)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
        if args.part == "early":
            early(tls)
        elif args.part == "send":
            send(tls, args.how)
        elif args.part == "receive":
            receive(tls)
        elif args.part == "leave":
            leave(tls)
        else:
            tls.sendall(HANDSHAKE)
            print(read_head(tls).split(b"\r\n")[0].decode())


def early(tls: ssl.SSLSocket) -> None:
    """Frames in the record of the handshake come back, once and in order."""
    texts = [b"one", b"two", b"three"]
    tls.sendall(HANDSHAKE + b"".join(masked(0x1, text) for text in texts))
    expect_101(tls)
    for text in texts:
        answer = bytes([0x81, len(text)]) + text
        assert read_exactly(tls, len(answer)) == answer
    tls.sendall(masked(0x8, struct.pack("!H", 1000)))
    assert read_exactly(tls, 1) == b"\x88"


def send(tls: ssl.SSLSocket, how: str) -> None:
    """Sends a large message and leaves without waiting for anything."""
    tls.sendall(HANDSHAKE)
    expect_101(tls)
    tls.sendall(masked(0x2, bytes(n >> 8 & 0xFF for n in range(1 << 20))))
    if how == "fin":
        tls.shutdown(socket.SHUT_WR)
    else:
        try:
            tls.unwrap()
        except (OSError, ssl.SSLError):
            pass  # nginx closes without a close_notify of its own


def receive(tls: ssl.SSLSocket) -> None:
    """Prints how much came before the end of file."""
    tls.sendall(HANDSHAKE)
    expect_101(tls)
    total = 0
    while chunk := tls.recv(65536):
        total += len(chunk)
    print(total)


def leave(tls: ssl.SSLSocket) -> None:
    """Says goodbye behind the handshake, and waits for nothing."""
    tls.sendall(HANDSHAKE)
    tls.settimeout(0)
    try:
        tls.unwrap()
    except (OSError, ssl.SSLError):
        pass  # it would wait for nginx's answer to the goodbye


def behind(context: ssl.SSLContext, port: int, size: int) -> None:
    """Pipelines a handshake behind a response of `size` bytes, and reads only when both have been dealt with."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(20)
    plain.connect(("127.0.0.1", port))
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
        get = f"GET /blob HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-{size - 1}\r\n\r\n"
        tls.sendall(get.encode() + HANDSHAKE + masked(0x1, b"behind"))
        wait_for_standstill(tls)
        head = read_head(tls)
        assert head.startswith(b"HTTP/1.1 206 "), head
        assert read_exactly(tls, size) == b"b" * size
        expect_101(tls)
        answer = b"\x81\x06behind"
        assert read_exactly(tls, len(answer)) == answer, size


def wait_for_standstill(tls: ssl.SSLSocket) -> None:
    """Until no more arrives: the kernel's buffers are full, or nginx has nothing more to send."""
    waiting = -1
    while (now := readable(tls)) != waiting:
        waiting = now
        time.sleep(0.01)


def readable(tls: ssl.SSLSocket) -> int:
    count = bytearray(4)
    fcntl.ioctl(tls.fileno(), termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def expect_101(tls: ssl.SSLSocket) -> None:
    head = read_head(tls)
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    assert ACCEPT in head.lower(), head


def read_head(tls: ssl.SSLSocket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(tls, 1)
    return head


def read_exactly(tls: ssl.SSLSocket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = tls.recv(length - len(data))
        assert chunk, f"end of file after {data!r}"
        data += chunk
    return data


def masked(opcode: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        header = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
    elif length < 1 << 16:
        header = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        header = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
    return header + MASK + bytes(b ^ m for b, m in zip(payload, itertools.cycle(MASK)))


if __name__ == "__main__":
    main()
