"""WebSocket clients: many at a time, and one that does not wait for its handshake's answer."""

import asyncio
import socket

import websockets
from websockets.frames import Frame, Opcode

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def connect(demo, path: str) -> websockets.ClientConnection:
    return await websockets.connect(f"ws://{demo.address}{path}", open_timeout=10, proxy=None)


async def echoes(client: websockets.ClientConnection, text: str) -> None:
    await client.send(text)
    assert await asyncio.wait_for(client.recv(), 10) == text


async def connect_many(demo, path: str, count: int) -> list[websockets.ClientConnection]:
    """No more handshakes at a time than any listen queue takes."""
    gate = asyncio.Semaphore(50)

    async def one():
        async with gate:
            return await connect(demo, path)

    return await asyncio.gather(*(one() for _ in range(count)))


async def all_echo(clients: list[websockets.ClientConnection], text: str) -> None:
    await asyncio.gather(*(echoes(client, f"{text} {number}") for number, client in enumerate(clients)))


async def close_all(clients: list[websockets.ClientConnection]) -> None:
    await asyncio.gather(*(client.close() for client in clients))


def handshake(demo, path: str, early: bytes = b"") -> socket.socket:
    """Sends the request and `early` behind it in one piece; what comes back is for the caller to read."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {demo.address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", demo.port), timeout=10)
    client.sendall(request.encode() + early)
    return client


def text_frame(text: str, mask: bool) -> bytes:
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=mask)


def read_head(reader) -> list[str]:
    """Status line and fields of a response."""
    lines = []
    while line := reader.readline().decode().rstrip("\r\n"):
        lines.append(line)
    return lines
