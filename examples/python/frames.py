"""WebSocket frames (RFC 6455, section 5), just enough for an echo. A library does it better, and checks more."""

import socket
import struct

CLOSE, PING, PONG = 8, 9, 10


def echo(client, received):
    """Sends each frame back, a ping as a pong. `received` comes before what the socket has."""

    def exactly(count):
        nonlocal received
        while len(received) < count:
            piece = client.recv(65536)
            if not piece:
                raise ConnectionError("the client has gone")
            received += piece
        taken, received = received[:count], received[count:]
        return taken

    opcode = None
    while opcode != CLOSE:
        first, second = exactly(2)
        opcode, length = first & 15, second & 127
        if length > 125:
            length = int.from_bytes(exactly(2 if length == 126 else 8), "big")
        if first & 0x70 or not second & 0x80 or length > 1 << 24:
            break  # an extension that was not agreed on, no mask, or 16 MiB
        mask = int.from_bytes((exactly(4) * (length // 4 + 1))[:length], "big")
        payload = (int.from_bytes(exactly(length), "big") ^ mask).to_bytes(length, "big")
        if opcode == PING:
            client.sendall(header(first & 0xF0 | PONG, length) + payload)
        elif opcode != PONG:
            client.sendall(header(first, length) + payload)
    client.shutdown(socket.SHUT_RDWR)


def header(first, length):
    if length < 126:
        return bytes([first, length])
    return struct.pack(">BBH", first, 126, length) if length < 65536 else struct.pack(">BBQ", first, 127, length)
