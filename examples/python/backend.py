"""Serves clients that nginx hands over: docs/protocol.md by hand, with the standard library alone.

    backend.py /run/ws-handoff/backend.sock
"""

import os
import socket
import struct
import sys
import threading

from frames import echo

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nno echo\n"
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n"


def serve(conn):
    """A connection of nginx's, which is for one client."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if len(head) > 65536:
            return conn.sendall(TOO_LARGE)
        piece = conn.recvmsg(4096)[0]  # behind the head nginx is silent until it has an answer
        if not piece:
            return
        head += piece
    if b"/echo" not in head.split(b"\r\n")[0]:
        conn.sendall(NOT_FOUND)  # a refusal, which the client gets
    elif not is_offered(head):
        conn.sendall(UPGRADE + b"\r\n")  # wss: nginx tunnels, and this connection is the client's
        echo(conn, b"")
    else:
        conn.sendall(UPGRADE + b"Handoff: fd\r\n\r\n")
        with receive_offer(conn) as client:
            try:
                early_data = receive_commit(conn.makefile("rb"))
                client.setblocking(True)  # not before the commit: until then it is nginx's
                echo(client, early_data)
            except ValueError:
                # Close alone hangs up on nobody while nginx has the socket as well. Where no commit came, it is right.
                client.shutdown(socket.SHUT_RDWR)
                raise


def is_offered(head):
    """`Handoff` is a list, in any case. A version of `fd` other than 1 is not this one."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        for element in value.split(b",") if name == b"handoff" else []:
            way, *parameters = [part.strip() for part in element.split(b";")]
            if way == b"fd" and all(p == b"v=1" for p in parameters if p.startswith(b"v=")):
                return True
    return False


def receive_offer(conn):
    """The client's socket, beside the byte F. It may not be touched yet."""
    byte, descriptors, flags, _ = socket.recv_fds(conn, 1, 8, socket.MSG_CMSG_CLOEXEC)
    if byte == b"F" and len(descriptors) == 1 and not flags & socket.MSG_CTRUNC:
        return socket.socket(fileno=descriptors[0])
    for descriptor in descriptors:
        os.close(descriptor)
    raise EOFError("nginx gave up before the offer")


def receive_commit(stream):
    """What the client had sent already. Sections other than 0 (the end) and 1 are skipped."""
    if exactly(stream, 1) != b"C":
        raise ValueError("not a commit")
    early_data = b""
    while True:
        kind, length = struct.unpack(">BI", exactly(stream, 5))
        if (kind, length) == (0, 0):
            return early_data
        if kind == 0 or (kind == 1 and len(early_data) + length > 65536):
            raise ValueError("malformed commit, or too much early data")
        while length:
            content = exactly(stream, min(length, 65536))
            length -= len(content)
            early_data += content if kind == 1 else b""


def exactly(stream, count):
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("end of file instead of a whole commit")
    return data


def run(conn):
    with conn:
        try:
            serve(conn)
        except (OSError, EOFError, ValueError) as error:  # the end of one client
            print(error, file=sys.stderr)


def main(path):
    os.umask(0o117)  # the socket is for its owner and its group, nginx's
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(511)
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=run, args=(conn,), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
