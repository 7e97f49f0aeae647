"""A TLS client that has its records in its own hands: for what no library lets one do with them."""

import argparse
import itertools
import os
import signal
import socket
import ssl
import struct
import time

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GET = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"
MASK = b"\x37\xfa\x21\x3d"
TEXTS = [b"one", b"two", b"three"]


class Client:
    """A TLS connection whose records are written by hand."""

    def __init__(self, args, earlier=None, name="localhost", receive_buffer=None, hold=False, between=None):
        """`earlier` is a client whose session is resumed; `hold`: the end of the handshake stays in `held`; `between`: takes the
        server's part of it in small pieces, and does this after each."""
        self.context = ssl.create_default_context(cafile=args.cafile)
        session = None
        if earlier:
            self.context, session = earlier.context, earlier.tls.session
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(
            self.incoming, self.outgoing, server_hostname=name, session=session
        )
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", args.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.chunk, self.between = (600, between) if between else (65536, lambda: None)
        self._drive(self.tls.do_handshake)
        self.chunk, self.between = 65536, lambda: None
        self.held = self.outgoing.read()
        if not hold:
            self.send_raw(self.held)

    def seal(self, plain: bytes) -> bytes:
        """One record for each 16 KiB."""
        assert self.tls.write(plain) == len(plain)
        return self.outgoing.read()

    def goodbye(self) -> bytes:
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def send_raw(self, data: bytes) -> None:
        # Nothing is too much behind a shutdown.
        if data:
            self.socket.sendall(data)

    def send(self, plain: bytes) -> None:
        self.send_raw(self.seal(plain))

    def read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            chunk = self._drive(lambda: self.tls.read(length - len(data)))
            assert chunk, f"end of file after {data!r}"
            data += chunk
        return data

    def read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        return head

    def expect_101(self) -> None:
        head = self.read_head()
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
        assert b"s3pplmbitxaq9kygzzhzrbk+xoo=" in head.lower(), head

    def expect_echo(self, texts=TEXTS) -> None:
        for text in texts:
            answer = frame(text)
            got = self.read(len(answer))
            assert got == answer, (got[:20], answer[:20])

    def expect_goodbye(self) -> None:
        """The server's close_notify; an end of file without one is another error."""
        try:
            more = self._drive(lambda: self.tls.read(1))
        except ssl.SSLZeroReturnError:
            return
        raise AssertionError(more)

    def expect_alert(self, description: str) -> None:
        """The server breaks the session off, and says why; data may come before."""
        try:
            while self._drive(lambda: self.tls.read(1)):
                pass
        except ssl.SSLError as error:
            assert (error.reason or "").endswith(f"ALERT_{description}"), error
        else:
            raise AssertionError("an orderly end")

    def close(self) -> None:
        """An orderly end: both sides say goodbye."""
        self.send(masked(0x8, struct.pack("!H", 1000)))
        assert self.read(4) == b"\x88\x02\x03\xe8"
        self.send_raw(self.goodbye())
        try:
            self._drive(lambda: self.tls.unwrap())
        except OSError:
            pass
        self.socket.close()

    def _drive(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.send_raw(self.outgoing.read())
                data = self.socket.recv(self.chunk)
                self.between()
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("cafile")
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--other", help="the name of another server")
    parser.add_argument("--worker", type=int, help="the pid of nginx's worker")
    args = parser.parse_args()
    PARTS[args.part](args)


def echo(args) -> None:
    """Nothing out of the ordinary."""
    client = Client(args)
    client.send(HANDSHAKE)
    client.expect_101()
    client.send(frames())
    client.expect_echo()
    client.close()


def same_record(args) -> None:
    """Frames in the record of the handshake."""
    client = Client(args)
    client.send(HANDSHAKE + frames())
    client.expect_101()
    client.expect_echo()
    client.close()


def other_records(args) -> None:
    """Frames in records of their own that arrive with the handshake."""
    for count in (1, 3, 40):
        client = Client(args)
        texts = [b"%d" % n for n in range(count)]
        client.send_raw(client.seal(HANDSHAKE) + b"".join(client.seal(masked(1, t)) for t in texts))
        client.expect_101()
        client.expect_echo(texts)
        client.close()


def interleaved(args) -> None:
    """Many handshakes at once: all are begun before the first one ends, some never end, and others come in between."""
    clients = [Client(args, hold=True) for _ in range(12)]
    for client in clients[8:]:
        client.socket.close()
    for number, client in enumerate(reversed(clients[:8])):
        if number % 3 == 0:
            same_record(args)
        client.send_raw(client.held + client.seal(HANDSHAKE + frames()))
    for client in clients[:8]:
        client.expect_101()
        client.expect_echo()
        client.close()


def slow_flight(args) -> None:
    """The server's part of the handshake does not fit into its socket: others go by before each further piece."""
    client = Client(args, receive_buffer=2304, between=lambda: same_record(args))
    client.send(HANDSHAKE + frames())
    client.expect_101()
    client.expect_echo()
    client.close()


def split(args) -> None:
    """The rest of a record arrives later: cut at every offset of its header and of a short body, and behind it."""
    length = len(Client(args).seal(masked(0x1, b"split")))
    for offset in range(length + 1):
        client = Client(args)
        first, second = client.seal(HANDSHAKE + masked(0x1, b"early")), client.seal(masked(0x1, b"split"))
        client.send_raw(first + second[:offset])
        time.sleep(0.003)
        client.send_raw(second[offset:])
        client.send(masked(0x1, b"later"))
        client.expect_101()
        client.expect_echo([b"early", b"split", b"later"])
        client.close()


def split_handshake(args) -> None:
    """The same with the handshake's own record."""
    length = len(Client(args).seal(HANDSHAKE + masked(0x1, b"early")))
    for offset in range(1, length):
        client = Client(args)
        record = client.seal(HANDSHAKE + masked(0x1, b"early"))
        client.send_raw(record[:offset])
        time.sleep(0.003)
        client.send_raw(record[offset:])
        client.expect_101()
        client.expect_echo([b"early"])
        client.close()


def long_records(args) -> None:
    """Records of full length behind the handshake, cut anywhere."""
    texts = [bytes([97 + n]) * 16_000 for n in range(3)]
    for offset in range(100, 51_000, 1_777):
        client = Client(args)
        data = client.seal(HANDSHAKE) + b"".join(client.seal(masked(0x1, t)) for t in texts)
        client.send_raw(data[:offset])
        time.sleep(0.003)
        client.send_raw(data[offset:])
        client.expect_101()
        client.expect_echo(texts)
        client.close()


def flood(args) -> None:
    """A client that does not stop, in records that are never at an end when nginx looks: nothing is lost."""
    client = Client(args)
    client.socket.setblocking(True)
    texts = [b"%06d" % n * 100 for n in range(400)]
    client.send_raw(client.seal(HANDSHAKE) + b"".join(client.seal(masked(0x1, t)) for t in texts))
    client.expect_101()
    client.expect_echo(texts)
    client.close()


def third_request(args) -> None:
    """The connection has served two others before."""
    client = Client(args)
    for _ in range(2):
        client.send(GET)
        head = client.read_head()
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert client.read(5) == b"other"
    client.send(HANDSHAKE + frames())
    client.expect_101()
    client.expect_echo()
    client.close()


def pipelined(args) -> None:
    """Behind another request, in the same record."""
    client = Client(args)
    client.send(GET + HANDSHAKE + frames())
    assert client.read_head().startswith(b"HTTP/1.1 200 ")
    assert client.read(5) == b"other"
    client.expect_101()
    client.expect_echo()
    client.close()


def resumed(args) -> None:
    """A session that goes on where an earlier one was handed over."""
    client = None
    for visit in range(3):
        client = Client(args, client)
        assert client.tls.session_reused == (visit > 0), visit
        client.send(HANDSHAKE + frames())
        client.expect_101()
        client.expect_echo()
        client.close()


def names(args) -> None:
    """The server that is asked for by its name has a certificate, and a context, of its own."""
    for name in ("localhost", args.other):
        client = Client(args, name=name)
        client.send(HANDSHAKE + frames())
        client.expect_101()
        client.expect_echo()
        client.close()


def leave(args) -> None:
    """Says goodbye right behind the handshake."""
    client = Client(args)
    client.send_raw(client.seal(HANDSHAKE + frames()) + client.goodbye())
    try:
        client.expect_101()
        client.expect_echo()
    except (AssertionError, OSError) as error:
        print(f"left: {error}")


def talk(args) -> None:
    """Messages one by one, and many of them; and large ones, in records of every length up to the greatest."""
    client = Client(args)
    client.send(HANDSHAKE)
    client.expect_101()
    for n in range(300):
        client.send(masked(0x1, b"%d" % n))
        client.expect_echo([b"%d" % n])
    texts = [b"%d" % n for n in range(2_000)]
    client.send(b"".join(masked(0x1, text) for text in texts))
    client.expect_echo(texts)
    for length in (16_000, 16_380, 16_384, 20_000, 60_000):
        client.send(masked(0x1, b"x" * length))
        client.expect_echo([b"x" * length])
    client.close()


def last_words(args) -> None:
    """Asks for more than the kernel's buffers hold, says goodbye, and reads only then: all is there, and the server's goodbye.

    For some of the sizes the last of it leaves no room for the goodbye.
    """
    for size in range(60_000, 100_000, 2_300):
        client = Client(args, receive_buffer=4_096)
        client.send(HANDSHAKE)
        client.expect_101()
        client.send(masked(0x1, b"x" * size) + masked(0x8, struct.pack("!H", 1000)))
        client.send_raw(client.goodbye())
        client.socket.shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        expected = frame(b"x" * size) + b"\x88\x02\x03\xe8"
        got = b""
        while len(got) < len(expected):
            # Little by little, as the server's buffer empties.
            got += client.read(min(4_000, len(expected) - len(got)))
        assert got == expected, size
        client.expect_goodbye()


def broken(args) -> None:
    """A record that was changed on its way, right behind one that was not."""
    client = upgraded(args)
    good, changed = client.seal(masked(0x1, b"good")), bytearray(client.seal(masked(0x1, b"changed")))
    changed[-1] ^= 1
    client.send_raw(good + bytes(changed))
    client.expect_echo([b"good"])
    client.expect_alert("BAD_RECORD_MAC")


def broken_flight(args) -> None:
    """A record that was changed on its way, together with the request."""
    client = Client(args)
    request, changed = client.seal(HANDSHAKE), bytearray(client.seal(masked(0x1, b"changed")))
    changed[-1] ^= 1
    client.send_raw(request + bytes(changed))
    client.expect_alert("BAD_RECORD_MAC")
    # The server ends the connection, not the client.
    try:
        while client.socket.recv(65536):
            pass
    except ConnectionResetError:
        pass


def replayed(args) -> None:
    """A record that comes twice."""
    client = upgraded(args)
    record = client.seal(masked(0x1, b"again"))
    client.send_raw(record)
    client.expect_echo([b"again"])
    client.send_raw(record)
    client.expect_alert("BAD_RECORD_MAC")


def oversized(args) -> None:
    """A record that says that it is longer than records are."""
    client = upgraded(args)
    # Some of it, too: Linux judges a header together with the nonce that TLS 1.2 has behind it.
    client.send_raw(b"\x17\x03\x03" + struct.pack("!H", 0x4000 + 2049) + bytes(32))
    client.expect_alert("RECORD_OVERFLOW")


def misled(args) -> None:
    """A record without a possible header, in one segment with a message, which is answered: the session ends all the same."""
    client = upgraded(args)
    client.send_raw(client.seal(masked(0x1, b"good")) + b"\x17\x03\x03\xff\xff" + bytes(32))
    client.expect_echo([b"good"])
    client.expect_alert("RECORD_OVERFLOW")


def truncated(args) -> None:
    """The end of file without a goodbye."""
    client = upgraded(args)
    client.socket.shutdown(socket.SHUT_WR)
    try:
        while client.socket.recv(1000):
            pass
    except ConnectionResetError:
        pass


def half(args) -> None:
    """The rest of a record does not come before the answer."""
    client = Client(args)
    handshake, record = client.seal(HANDSHAKE), client.seal(masked(0x1, b"half"))
    client.send_raw(handshake + record[:9])
    client.expect_101()
    client.send_raw(record[9:])
    client.expect_echo([b"half"])
    client.close()


def burst(args) -> None:
    """More than a backend should be given, and half a record, all of it there when nginx looks."""
    client = Client(args)
    texts = [b"%05d" % n * 200 for n in range(100)]
    data = client.seal(HANDSHAKE) + b"".join(client.seal(masked(0x1, t)) for t in texts)
    record = client.seal(masked(0x1, b"half"))
    os.kill(args.worker, signal.SIGSTOP)
    client.send_raw(data + record[:9])
    os.kill(args.worker, signal.SIGCONT)
    client.expect_101()
    client.send_raw(record[9:])
    client.expect_echo([*texts, b"half"])
    client.close()


def large(args) -> None:
    """A head and early data that fill the backend's socket together."""
    client = Client(args)
    head = HANDSHAKE[:-2] + b"Cookie: " + b"c" * 190_000 + b"\r\n\r\n"
    texts = [b"%05d" % n * 200 for n in range(60)]
    data = client.seal(head) + b"".join(client.seal(masked(0x1, text)) for text in texts)
    os.kill(args.worker, signal.SIGSTOP)
    client.send_raw(data)
    os.kill(args.worker, signal.SIGCONT)
    client.expect_101()
    client.send(masked(0x1, b"last"))
    client.expect_echo([*texts, b"last"])
    client.close()


def upgraded(args) -> Client:
    client = Client(args)
    client.send(HANDSHAKE)
    client.expect_101()
    return client


def frames() -> bytes:
    return b"".join(masked(0x1, text) for text in TEXTS)


def frame(text: bytes) -> bytes:
    return header(0x1, len(text), 0) + text


def masked(opcode: int, payload: bytes) -> bytes:
    body = bytes(b ^ m for b, m in zip(payload, itertools.cycle(MASK)))
    return header(opcode, len(payload), 0x80) + MASK + body


def header(opcode: int, length: int, bit: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, bit | length)
    if length < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, bit | 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, bit | 127, length)


PARTS = {
    part.__name__: part
    for part in (
        echo,
        same_record,
        other_records,
        interleaved,
        slow_flight,
        split,
        split_handshake,
        long_records,
        flood,
        third_request,
        pipelined,
        resumed,
        talk,
        last_words,
        broken,
        broken_flight,
        replayed,
        oversized,
        misled,
        truncated,
        names,
        leave,
        half,
        burst,
        large,
    )
}


if __name__ == "__main__":
    main()
