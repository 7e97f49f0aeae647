"""Clients that come, talk and go for as long as one likes: whether memory and descriptors stay where they are.

    make bench-soak [MINUTES=30]

1,500 clients are connected, handed over, half of them in rooms of 25; about a hundred a second leave, by a
close that is answered, an end of file or a reset, and others come. Each echo is compared; what rooms bring is read. Every minute a
line says what nginx and the backend hold; the last ones compare the second half with the first, less the first five minutes.
Exit status 1: memory grew by more than a twentieth, descriptors are left over, or nginx logged anything at warn or above.
"""

import argparse
import os
import random
import selectors
import socket
import statistics
import struct
import sys
import time

from results import DIRECTORY
from servers import BenchError, Servers, Usage, isolate, settled, wait_until

CLIENTS = 1500
ROOM = 25
# A second's.
CHURN = 110
ECHOES = 250
PUBLICATIONS = 60
STEPS = 20
WARM_UP_MINUTES = 5

REQUEST = (
    "GET {} HTTP/1.1\r\nHost: soak\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Client:
    def __init__(self, port: int, path: str):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(REQUEST.format(path).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.socket.recv(4096)
            if not part:
                raise BenchError(f"no answer at {path}: {head!r}")
            head += part
        head, _, self.unread = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise BenchError(f"{path}: {head.splitlines()[0].decode()}")
        self.is_member = "rooms" in path

    def send(self, payload: bytes, opcode: int = 2):
        key = os.urandom(4)
        size = len(payload)
        head = bytes([0x80 | opcode])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += bytes([0x80 | 126]) + struct.pack(">H", size)
        else:
            head += bytes([0x80 | 127]) + struct.pack(">Q", size)
        mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
        masked = (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")
        self.socket.sendall(head + key + masked)

    def frames(self) -> list[bytes]:
        """The payloads of all whole frames in `unread`, which loses them."""
        found = []
        while len(self.unread) >= 2:
            size, begin = self.unread[1] & 0x7F, 2
            if size >= 126:
                begin = 4 if size == 126 else 10
                size = int.from_bytes(self.unread[2:begin], "big")
            if len(self.unread) < begin + size:
                break
            found.append(self.unread[begin : begin + size])
            self.unread = self.unread[begin + size :]
        return found

    def echo(self, size: int):
        payload = os.urandom(size)
        self.send(payload)
        while not (found := self.frames()):
            part = self.socket.recv(65536)
            if not part:
                raise BenchError("an echo's connection ended")
            self.unread += part
        if found != [payload]:
            raise BenchError("an echo differs from what was sent")

    def leave(self, way: int):
        if way == 0:
            self.send(struct.pack(">H", 1000), opcode=8)
            self.read_out()
            # The close's answer is the last that comes.
            if not self.unread.endswith(b"\x88\x02\x03\xe8"):
                raise BenchError("a close was not answered")
        elif way == 1:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.socket.shutdown(socket.SHUT_WR)
            self.read_out()
        self.socket.close()

    def read_out(self):
        """Reads to the end: nothing is left that closing would answer with a reset."""
        while part := self.socket.recv(65536):
            self.unread += part


class Crowd:
    def __init__(self, servers: Servers):
        self.servers = servers
        self.random = random.Random(1)
        self.selector = selectors.DefaultSelector()
        self.echoes: list[Client] = []
        self.members: list[Client] = []
        self.came = self.echoed = self.heard = 0

    def fill(self):
        """Opens what is missing."""
        while len(self.echoes) < CLIENTS // 2:
            path = self.random.choice(["/ws/echo", "/ws-keepalive/echo"])
            self.echoes.append(Client(self.servers.port, path))
            self.came += 1
        while len(self.members) < CLIENTS // 2:
            room = self.random.randrange(CLIENTS // 2 // ROOM)
            client = Client(self.servers.port, f"/ws/rooms/{room}")
            self.members.append(client)
            self.selector.register(client.socket, selectors.EVENT_READ, client)
            self.came += 1

    def step(self):
        """A part of a second's traffic."""
        for _ in range(CHURN // STEPS):
            group = self.random.choice([self.echoes, self.members])
            client = group.pop(self.random.randrange(len(group)))
            if client.is_member:
                self.selector.unregister(client.socket)
            client.leave(self.random.randrange(3))
        self.fill()
        for _ in range(ECHOES // STEPS):
            size = int(2 ** self.random.uniform(0, 16))
            self.random.choice(self.echoes).echo(size)
            self.echoed += 1
        for _ in range(PUBLICATIONS // STEPS):
            self.random.choice(self.members).send(os.urandom(int(2 ** self.random.uniform(0, 12))))
        for key, _ in self.selector.select(0):
            part = key.data.socket.recv(65536)
            if not part:
                raise BenchError("a member's connection ended")
            key.data.unread += part
            self.heard += len(key.data.frames())

    def leave(self):
        for client in self.echoes + self.members:
            client.leave(0)
        self.echoes, self.members = [], []
        self.selector.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="how long (30)")
    arguments = parser.parse_args()
    isolate()
    try:
        with Servers(DIRECTORY / "soak") as servers:
            before = servers.backends().descriptors
            samples = soak(servers, arguments.minutes)
            wait_until(lambda: servers.backend_connections() == 0, lambda: "connections stay open")
            after = settled(servers.backends)
            print(f"afterwards: backend {after.memory / 1e3:,.0f} kB, {after.descriptors} descriptors ({before} before)")
            complaints = servers.complaints()
            for line in complaints:
                print(f"nginx: {line}")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    # The connection that asks for the metrics, and one that the tasks' first client left.
    is_good = after.descriptors <= before + 4 and not complaints
    return 0 if judge(samples) and is_good else 1


def soak(servers: Servers, minutes: float) -> list[tuple[Usage, Usage]]:
    crowd = Crowd(servers)
    crowd.fill()
    begin = time.monotonic()
    samples = []
    print(f"{'minute':>8}{'nginx, kB':>12}{'backend, kB':>12}{'descriptors':>14}{'came':>12}{'echoes':>12}{'heard':>14}")
    while (elapsed := time.monotonic() - begin) < 60 * minutes:
        step_begin = time.monotonic()
        crowd.step()
        if elapsed >= 60 * len(samples):
            nginx, backend = servers.nginx(), servers.backends()
            samples.append((nginx, backend))
            print(
                f"{len(samples) - 1:>8}{nginx.memory / 1e3:>12,.0f}{backend.memory / 1e3:>12,.0f}"
                f"{nginx.descriptors:>7}{backend.descriptors:>7}{crowd.came:>12,}{crowd.echoed:>12,}{crowd.heard:>14,}",
                flush=True,
            )
        time.sleep(max(0, 1 / STEPS - (time.monotonic() - step_begin)))
    crowd.leave()
    return samples


def judge(samples: list[tuple[Usage, Usage]]) -> bool:
    """Whether nothing has grown; true, too, of what is too short to tell."""
    warm = samples[WARM_UP_MINUTES:]
    if len(warm) < 4:
        print("too short to compare its halves")
        return True
    halves = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    is_flat = True
    for place, name in enumerate(["nginx", "backend"]):
        first, second = (statistics.median(sample[place].memory for sample in half) for half in halves)
        is_flat &= second <= 1.05 * first
        print(f"{name}: second half {second / first:.3f} × the first")
        first, second = (statistics.median(sample[place].descriptors for sample in half) for half in halves)
        is_flat &= second <= first + 8
    return is_flat


if __name__ == "__main__":
    sys.exit(main())
