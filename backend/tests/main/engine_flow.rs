//! Nothing is lost, doubled or reordered: messages of random sizes and fragmentations, in random pieces, checked by content.
//!
//! Both ends of each conversation are made from one seed, so that neither has to remember it.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use crate::fake::client::{BINARY, CLOSE, Client, FIN, PING, PONG, TEXT, frame};
use crate::fake::is_at_end;
use crate::fake::program::{Program, is_strict, wait_until};
use crate::fake::random::Random;

/// In all.
pub fn messages() -> usize {
    let number = std::env::var("WS_HANDOFF_TEST_MESSAGES");
    number.map_or(1_000_000, |number| number.parse().expect("a number of messages"))
}

/// What a seed makes a client say: messages, and pings between their fragments.
pub struct Script(Random);

/// A message: its opcode, its payload, and the bytes after which it is cut, with a ping or without.
pub struct Said {
    opcode: u8,
    payload: Vec<u8>,
    cuts: Vec<(usize, Option<Vec<u8>>)>,
}

impl Script {
    pub fn new(seed: u64) -> Script {
        Script(Random::new(seed))
    }

    pub fn next(&mut self) -> Said {
        let random = &mut self.0;
        let len = match random.below(1000) {
            0 => random.below(70_000),
            1..50 => random.below(5000),
            50..100 => 120 + random.below(12),
            _ => random.below(200),
        };
        let (opcode, payload) = if random.once_in(2) {
            (BINARY, random.bytes(len))
        } else {
            let start = random.below(LETTERS.len());
            (TEXT, LETTERS.chars().cycle().skip(start).take(len / 2).collect::<String>().into())
        };
        let mut cuts = Vec::new();
        if random.once_in(4) {
            let mut places: Vec<usize> =
                (0..random.below(7)).map(|_| random.below(payload.len() + 1)).collect();
            places.sort_unstable();
            let mut ping = || {
                let len = random.below(20);
                random.once_in(4).then(|| random.bytes(len))
            };
            cuts = places.into_iter().map(|place| (place, ping())).collect();
        }
        Said { opcode, payload, cuts }
    }
}

/// Of one byte to four: cuts go through them.
const LETTERS: &str = "aé€🚀bcdßø→z";

impl Said {
    /// As a client sends it.
    pub fn wire(&self, out: &mut Vec<u8>) {
        let (mut from, mut opcode) = (0, self.opcode);
        for (to, ping) in &self.cuts {
            out.extend(frame(opcode, &self.payload[from..*to]));
            if let Some(ping) = ping {
                out.extend(frame(FIN | PING, ping));
            }
            (from, opcode) = (*to, 0);
        }
        out.extend(frame(FIN | opcode, &self.payload[from..]));
    }

    /// The frames that an echo answers with: pongs come before the message that the pings are in.
    fn answers(self) -> Vec<(u8, Vec<u8>)> {
        let pings = self.cuts.into_iter().filter_map(|(_, ping)| ping);
        let mut answers: Vec<_> = pings.map(|ping| (FIN | PONG, ping)).collect();
        answers.push((FIN | self.opcode, self.payload));
        answers
    }
}

/// Writes what a seed makes a client say, in pieces of every size; and then a close.
pub fn say(mut stream: impl Write, seed: u64, count: usize, skip: usize) {
    let mut script = Script::new(seed);
    let mut pieces = Random::new(!seed);
    let mut wire = Vec::new();
    let mut skip = skip;
    for n in 0..count {
        script.next().wire(&mut wire);
        if n + 1 == count {
            wire.extend(frame(FIN | CLOSE, &1000u16.to_be_bytes()));
        }
        if wire.len() < skip + (100 << 10) && n + 1 < count {
            continue;
        }
        let mut rest = &wire[skip..];
        while !rest.is_empty() {
            let most = [3, 200, 5000, 100_000][pieces.below(4)];
            let (piece, behind) = rest.split_at(rest.len().min(1 + pieces.below(most)));
            stream.write_all(piece).expect("write");
            rest = behind;
        }
        wire.clear();
        skip = 0;
    }
}

/// Checks that an echo answers just that.
pub fn hear_echo<S: Read + Write>(stream: S, seed: u64, count: usize) {
    let mut client = Client { stream };
    let mut script = Script::new(seed);
    for n in 0..count {
        for answer in script.next().answers() {
            assert!(client.receive() == answer, "message {n} of seed {seed}");
        }
    }
    assert_eq!(client.receive_close(), 1000);
    assert!(is_at_end(&mut client.stream));
}

/// Buffered for reading: two reads for each frame would take most of the time.
pub struct Buffered<S>(BufReader<S>);

impl<S: Read> Read for Buffered<S> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl<S: Write> Write for Buffered<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn buffered<S: Read>(stream: S) -> Buffered<S> {
    Buffered(BufReader::with_capacity(64 << 10, stream))
}

#[test]
fn an_echo_loses_doubles_and_reorders_nothing() {
    let program = Program::start(&["--workers", "2"]);
    let each = messages() / 8;
    thread::scope(|scope| {
        for seed in 1..=8 {
            let program = &program;
            scope.spawn(move || {
                // Each way to come; the early data ends wherever it does.
                let mut skip = 0;
                let stream: OwnedFd = match seed % 4 {
                    0 => Client::tunnelled(&program.socket(), "/").stream.into(),
                    1 => Client::connect(program.listen, "/").stream.into(),
                    _ => {
                        let mut wire = Vec::new();
                        Script::new(seed).next().wire(&mut wire);
                        skip = Random::new(seed).below(wire.len());
                        let early = &wire[..skip];
                        Client::handed_over(&program.socket(), "/", early).stream.into()
                    }
                };
                // Both kinds of socket read and write by the same calls.
                let stream = TcpStream::from(stream);
                let writer = stream.try_clone().expect("clone");
                scope.spawn(move || say(writer, seed, each, skip));
                hear_echo(buffered(stream), seed, each);
            });
        }
    });
    assert_eq!(program.metric("websocket_messages_received_total"), (8 * each) as f64);
    assert_eq!(program.metric("websocket_messages_sent_total"), (8 * each) as f64);
    wait_until("all are gone", || program.metric("websocket_connections_active") == 0.0);
}

/// Every member gets every message once, each sender's in the order in which it sent them, its own among them. Members on
/// other threads, too.
#[test]
fn a_room_loses_doubles_and_reorders_nothing() {
    if !is_strict() {
        // The other engine closes who is 64 messages behind: on a busy machine anybody is at times.
        return;
    }
    const MEMBERS: usize = 4;
    let program = Program::start(&["--app", "broadcast", "--workers", "2", "--max-queue", "512m"]);
    let each = messages() / 4 / MEMBERS;
    let members: Vec<TcpStream> = (0..MEMBERS)
        .map(|n| match n % 2 {
            0 => Client::connect(program.listen, "/room").stream,
            _ => Client::handed_over(&program.socket(), "/room", b"").stream,
        })
        .collect();
    wait_until("all are in", || program.metric("websocket_connections_active") == MEMBERS as f64);
    thread::scope(|scope| {
        for (n, stream) in members.iter().enumerate() {
            let writer = stream.try_clone().expect("clone");
            scope.spawn(move || say_in_room(writer, n, each));
            scope.spawn(move || hear_room(stream, MEMBERS, each));
        }
    });
    assert_eq!(program.metric("websocket_messages_sent_total"), (MEMBERS * MEMBERS * each) as f64);
    assert_eq!(program.metric("websocket_messages_dropped_total"), 0.0);
}

/// Messages that begin with who says them: the first byte.
fn said_in_room(script: &mut Script, who: usize) -> Said {
    let mut said = script.next();
    said.opcode = BINARY;
    said.payload.insert(0, who as u8);
    said
}

pub fn say_in_room(mut stream: impl Write, who: usize, count: usize) {
    let mut script = Script::new(who as u64);
    let mut wire = Vec::new();
    for _ in 0..count {
        said_in_room(&mut script, who).wire(&mut wire);
        if wire.len() > 20_000 {
            stream.write_all(&wire).expect("write");
            wire.clear();
        }
    }
    stream.write_all(&wire).expect("write");
}

pub fn hear_room(stream: impl Read + Write, members: usize, each: usize) {
    let mut client = Client { stream: buffered(stream) };
    let mut scripts: Vec<Script> = (0..members).map(|who| Script::new(who as u64)).collect();
    let mut heard = vec![0; members];
    while heard.iter().sum::<usize>() < members * each {
        let (first, payload) = client.receive();
        if first == FIN | PONG {
            continue;
        }
        let who = usize::from(payload[0]);
        let expected = said_in_room(&mut scripts[who], who);
        assert!(payload == expected.payload, "message {} of member {who}", heard[who]);
        heard[who] += 1;
    }
    assert_eq!(heard, vec![each; members]);
    // Nothing comes after the last: the answer to a ping is next.
    client.raw(&frame(FIN | PING, b"the end"));
    assert_eq!(client.receive(), (FIN | PONG, b"the end".to_vec()));
}

/// Pipelined requests, then the end of one direction: everything that was asked for is answered.
#[test]
fn the_last_messages_before_a_client_stops_sending_are_answered() {
    let program = Program::start(&[]);
    for seed in 100..120 {
        let client = Client::connect(program.listen, "/");
        let writer = client.stream.try_clone().expect("clone");
        thread::scope(|scope| {
            scope.spawn(|| {
                say(&writer, seed, 50, 0);
                writer.shutdown(Shutdown::Write).expect("shutdown");
            });
            hear_echo(buffered(&client.stream), seed, 50);
        });
    }
}
