//! `idle`: clients that are there, and say nothing but what standard input tells them to.
//!
//! Their sockets block, and few of them are busy at a time: a burst would leave memory behind at the server that no idle
//! connection costs.

use std::io::{self, BufRead, Write};
use std::thread;

use serde::Serialize;

use crate::cli::{IdleOptions, Target};
use crate::connection::ConnectionError;
use crate::contents::{Contents, Keys, Label};
use crate::failures::Failures;
use crate::open::{self, OpenError};
use crate::receiver::Receiver;
use crate::tls::MIN_BUFFER;
use crate::transport::{Received, Transport};

const MAX_SIZE: usize = 1 << 24;

/// The answer to a command.
#[derive(Serialize)]
struct Done<'a> {
    done: &'a str,
    connections: usize,
    #[serde(flatten)]
    failures: Failures,
}

/// Whether every client did as told.
pub(crate) fn run(target: &Target, options: &IdleOptions) -> io::Result<bool> {
    let mut crowd = Crowd { target, options, clients: Vec::new(), heard: 0 };
    let mut is_good = true;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let failures = match *line.split_ascii_whitespace().collect::<Vec<_>>() {
            ["open", count] => crowd.open(parse(count, u32::MAX as usize)? as u32),
            ["visit", count] => crowd.visit(parse(count, u32::MAX as usize)? as u32),
            ["echo", size] => crowd.echo(parse(size, MAX_SIZE)?),
            ["send", size] => crowd.send(parse(size, MAX_SIZE)?),
            ["receive", size] => crowd.receive(parse(size, MAX_SIZE)?),
            _ => return Err(io::Error::other(format!("unknown command {line:?}"))),
        };
        is_good &= failures.is_empty();
        let done = Done { done: &line, connections: crowd.clients.len(), failures };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", serde_json::to_string(&done)?)?;
        stdout.flush()?;
    }
    Ok(is_good)
}

fn parse(text: &str, most: usize) -> io::Result<usize> {
    let number = text.parse().ok().filter(|number| (0..=most).contains(number));
    number.ok_or_else(|| io::Error::other(format!("expected 0 to {most}, not {text:?}")))
}

struct Crowd<'a> {
    target: &'a Target,
    options: &'a IdleOptions,
    clients: Vec<Idler>,
    /// Messages of the room that came. Who joins later misses some, and numbers go on.
    heard: u32,
}

struct Idler {
    transport: Transport,
    index: u32,
    /// Messages that it sent.
    sent: u32,
    /// What came before it was asked for.
    early: Vec<u8>,
}

/// All messages to a room seem to be one client's: who sends is another process's affair.
const ROOM: u32 = u32::MAX;

impl Crowd<'_> {
    fn open(&mut self, count: u32) -> Failures {
        let begin = self.clients.len() as u32;
        let target = self.target;
        let indices: Vec<u32> = (begin..count).collect();
        let opened = self.at_once(indices, |index| {
            let (transport, early) = open::open(target, index)?;
            Ok::<_, OpenError>(Idler { transport, index, sent: 0, early })
        });
        let mut failures = Failures::default();
        for result in opened {
            match result {
                Ok(idler) => self.clients.push(idler),
                Err(error) => failures.add(error),
            }
        }
        self.clients.sort_by_key(|idler| idler.index);
        failures
    }

    /// Opens as many, each of which says goodbye and is closed by the server before the next one comes.
    fn visit(&mut self, count: u32) -> Failures {
        let target = self.target;
        let visited = self.at_once((0..count).collect(), |index| {
            let (mut transport, early) =
                open::open(target, index).map_err(|error| error.to_string())?;
            say_goodbye(&mut transport, early).map_err(|error| format!("client {index}: {error}"))
        });
        let mut failures = Failures::default();
        for error in visited.into_iter().filter_map(Result::err) {
            failures.add(error);
        }
        failures
    }

    fn echo(&mut self, size: usize) -> Failures {
        let contents = Contents::new(size);
        self.all(|idler| {
            let label = Label { sender: idler.index, number: idler.sent, size };
            idler.send(label, &contents)?;
            idler.receive(label, &contents)
        })
    }

    fn send(&mut self, size: usize) -> Failures {
        let mut failures = Failures::default();
        let outcome = match self.clients.first_mut() {
            None => Err(ConnectionError::Gone),
            Some(first) => {
                let label = Label { sender: ROOM, number: self.heard, size };
                first.send(label, &Contents::new(size))
            }
        };
        if let Err(error) = outcome {
            failures.add(error);
        }
        failures
    }

    fn receive(&mut self, size: usize) -> Failures {
        let contents = Contents::new(size);
        let label = Label { sender: ROOM, number: self.heard, size };
        self.heard = self.heard.wrapping_add(1);
        self.all(|idler| idler.receive(label, &contents))
    }

    /// With every client; those that fail are gone.
    fn all<F>(&mut self, action: F) -> Failures
    where
        F: Fn(&mut Idler) -> Result<(), ConnectionError> + Sync,
    {
        let clients = std::mem::take(&mut self.clients);
        let results = self.at_once(clients, |mut idler| match action(&mut idler) {
            Ok(()) => Ok(idler),
            Err(error) => Err(format!("client {}: {error}", idler.index)),
        });
        let mut failures = Failures::default();
        for result in results {
            match result {
                Ok(idler) => self.clients.push(idler),
                Err(error) => failures.add(error),
            }
        }
        failures
    }

    /// Acts on all items, on as many at a time as the options permit.
    fn at_once<T, U, F>(&self, mut items: Vec<T>, action: F) -> Vec<U>
    where
        T: Send,
        U: Send,
        F: Fn(T) -> U + Sync,
    {
        let share = items.len().div_ceil(self.options.concurrency as usize).max(1);
        let action = &action;
        thread::scope(|scope| {
            let mut threads = Vec::new();
            while !items.is_empty() {
                let part = items.split_off(items.len().saturating_sub(share));
                threads.push(scope.spawn(move || part.into_iter().map(action).collect::<Vec<_>>()));
            }
            // In the order of the items. A panic goes on here.
            let join = |thread: thread::ScopedJoinHandle<'_, Vec<U>>| match thread.join() {
                Ok(results) => results,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().rev().flat_map(join).collect()
        })
    }
}

/// The closing handshake (RFC 6455 section 7.1.2), up to the server's end; `came`: what has come already.
fn say_goodbye(transport: &mut Transport, mut came: Vec<u8>) -> Result<(), ConnectionError> {
    // Masked with zeros: 1000.
    transport.queue().extend_from_slice(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
    transport.send_all()?;
    let mut buffer = [0; MIN_BUFFER];
    loop {
        let outcome = transport.receive(&mut buffer, |bytes| {
            came.extend_from_slice(bytes);
            Ok::<_, ConnectionError>(())
        })?;
        match outcome {
            Received::Some { .. } => (),
            Received::Nothing => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            Received::End if came == [0x88, 0x02, 0x03, 0xe8] => return Ok(()),
            Received::End if came.is_empty() => return Err(ConnectionError::Gone),
            Received::End => return Err(ConnectionError::Unasked),
        }
    }
}

impl Idler {
    fn send(&mut self, label: Label, contents: &Contents) -> Result<(), ConnectionError> {
        let mut keys = Keys::new(u64::from(self.index) << 32 | u64::from(self.sent));
        contents.encode(label, false, keys.next(), self.transport.queue());
        self.sent = self.sent.wrapping_add(1);
        Ok(self.transport.send_all()?)
    }

    /// Awaits the one message, and nothing but that.
    fn receive(&mut self, label: Label, contents: &Contents) -> Result<(), ConnectionError> {
        let mut receiver = Receiver::new(label, false);
        let mut pongs = Vec::new();
        let early = std::mem::take(&mut self.early);
        let mut complete = receiver.feed(&early, contents, &mut pongs)?;
        let mut buffer = [0; MIN_BUFFER];
        while complete == 0 {
            let outcome = self.transport.receive(&mut buffer, |bytes| {
                complete += receiver.feed(bytes, contents, &mut pongs)?;
                Ok::<_, ConnectionError>(())
            })?;
            match outcome {
                Received::Some { .. } => (),
                Received::Nothing => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                Received::End => return Err(ConnectionError::Gone),
            }
        }
        if complete > 1 {
            return Err(ConnectionError::Unasked);
        }
        self.transport.queue().append(&mut pongs);
        Ok(self.transport.send_all()?)
    }
}
