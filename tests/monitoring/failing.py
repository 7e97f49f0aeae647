"""A backend that fails as the end of the path says."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path


class FailingBackend:
    def __init__(self, path: Path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.accept)]

    def __enter__(self) -> FailingBackend:
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        # Wakes accept(2).
        self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def accept(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                head = read_head(connection)
                getattr(self, head.split(b" ")[1].decode().rpartition("/")[2])(connection)
            except OSError:
                # nginx has given up, as it is meant to.
                pass

    def answer(self, connection: socket.socket) -> None:
        connection.sendall(b"what?\r\n\r\n")

    def timeout(self, connection: socket.socket) -> None:
        # Until nginx closes, or this does.
        connection.settimeout(0.2)
        while not self.ended.is_set():
            try:
                if not connection.recvmsg(1)[0]:
                    return
            except TimeoutError:
                continue

    def slow(self, connection: socket.socket) -> None:
        time.sleep(0.4)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def send(self, connection: socket.socket) -> None:
        """Says yes, and cannot be sent the socket."""
        connection.shutdown(socket.SHUT_RD)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\nUpgrade: websocket\r\n\r\n")
        # Until nginx has seen that.
        time.sleep(0.2)


def read_head(connection: socket.socket) -> bytes:
    head = b""
    # recvmsg, and never past the head: a descriptor may follow.
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recvmsg(1)[0]
        if not byte:
            raise ConnectionError
        head += byte
    return head
