//! `fanout`: all clients are in a room, and the first sends to it. Every delivery is checked; the next message is sent when
//! fewer than so many have not reached everybody.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{FanoutOptions, Target};
use crate::connection::{Connection, ConnectionError};
use crate::contents::{Contents, Keys, Label};
use crate::echo::{BUFFER, DRAIN, MapSeconds};
use crate::failures::Failures;
use crate::histogram::{Histogram, Percentiles};
use crate::poller::{Event, Poller};
use crate::window::{Control, Window};

/// A client has its 101 before the server has let it into the room: so long is waited after the last one.
const SETTLE: Duration = Duration::from_millis(500);

/// Thousands of clients would sleep in as many processes, elsewhere. These are one thread, which the server would wake for
/// each delivery anew, at its own expense: while little is there to read, the thread lets some more come.
const FEW: usize = 128;
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Serialize)]
struct Report {
    mode: &'static str,
    connections: u32,
    size: u32,
    depth: u32,
    /// Its messages are deliveries.
    #[serde(flatten)]
    window: Window,
    /// From sending to a member's receiving.
    latency_us: Option<Percentiles>,
    #[serde(flatten)]
    failures: Failures,
}

/// Whether everything came as it should.
pub(crate) fn run(target: &Target, options: &FanoutOptions) -> io::Result<bool> {
    let traffic = &options.traffic;
    let contents = Contents::new(traffic.size as usize);
    let control = Control::new();
    let mut room = Room {
        options,
        contents: &contents,
        control: &control,
        members: Vec::new(),
        in_flight: VecDeque::new(),
        first_in_flight: 0,
        keys: Keys::new(std::process::id().into()),
        latencies: Histogram::new(),
        failures: Failures::default(),
    };
    room.open(target);
    thread::sleep(SETTLE);
    let (window, room) = thread::scope(|scope| {
        let member = scope.spawn(|| {
            let ended = room.run();
            control.ended.fetch_add(1, Ordering::Release);
            ended.map(|()| room)
        });
        let (warm_up, span) = (traffic.warm_up, Some(traffic.seconds)).map_seconds();
        let window = control.measure(warm_up, span, 1, &traffic.cpu_of);
        let joined = member.join();
        // A panic has left its message on standard error.
        (window, joined.unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
    });
    let room = room?;
    let is_good = room.failures.is_empty();
    let report = Report {
        mode: "fanout",
        connections: traffic.connections,
        size: traffic.size,
        depth: traffic.depth,
        window: window?,
        latency_us: room.latencies.percentiles(),
        failures: room.failures,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(is_good)
}

struct Room<'a> {
    options: &'a FanoutOptions,
    contents: &'a Contents,
    control: &'a Control,
    /// The first is the sender. `None`: failed.
    members: Vec<Option<Connection>>,
    /// Of each message that has not reached everybody.
    in_flight: VecDeque<Flight>,
    /// The number of its first.
    first_in_flight: u32,
    keys: Keys,
    latencies: Histogram,
    failures: Failures,
}

struct Flight {
    sent: Instant,
    /// Members that it has not reached.
    missing: usize,
}

impl Room<'_> {
    fn open(&mut self, target: &Target) {
        let traffic = &self.options.traffic;
        let expected = Label { sender: 0, number: 0, size: traffic.size as usize };
        for index in 0..traffic.connections {
            match Connection::open(target, index, expected, traffic.text) {
                Ok(member) => self.members.push(Some(member)),
                Err(error) => self.failures.add(format_args!("client {index}: {error}")),
            }
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut poller = Poller::new()?;
        let mut buffer = vec![0; BUFFER];
        for (place, member) in self.members.iter().enumerate() {
            if let Some(member) = member {
                poller.add(member.socket(), place)?;
            }
        }
        let mut deadline = None;
        // One that failed makes the figures worthless.
        while self.failures.is_empty() {
            self.send_more();
            if self.in_flight.is_empty() {
                break;
            }
            if !self.control.is_sending() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + DRAIN);
                if Instant::now() > deadline {
                    let missing: usize = self.in_flight.iter().map(|flight| flight.missing).sum();
                    self.failures.add(format_args!("{missing} messages did not come"));
                    break;
                }
            }
            let mut events = 0;
            for event in poller.wait(Duration::from_millis(100))? {
                events += 1;
                let handled = self.handle(event, &mut buffer);
                self.settle(event.place, handled);
            }
            if events < FEW {
                thread::sleep(PAUSE);
            }
        }
        for member in self.members.drain(..).flatten() {
            member.close();
        }
        Ok(())
    }

    fn send_more(&mut self) {
        if !self.control.is_sending() {
            return;
        }
        let count = (self.options.traffic.depth as usize).saturating_sub(self.in_flight.len());
        if count == 0 {
            return;
        }
        let missing = self.members.len();
        let sent = Instant::now();
        self.in_flight.extend((0..count).map(|_| Flight { sent, missing }));
        if let Some(Some(sender)) = self.members.first_mut() {
            let outcome = sender.send(count as u32, self.contents, &mut self.keys);
            self.settle(0, outcome);
        }
    }

    fn handle(&mut self, event: Event, buffer: &mut [u8]) -> Result<(), ConnectionError> {
        let Some(member) = self.members.get_mut(event.place).and_then(Option::as_mut) else {
            return Ok(());
        };
        if event.is_writable {
            member.flush()?;
        }
        if !event.is_readable {
            return Ok(());
        }
        let first = member.receiver.expected.number;
        let complete = member.receive(self.contents, buffer, event.is_hang_up)?;
        if complete == 0 {
            return Ok(());
        }
        let now = Instant::now();
        for number in (0..complete).map(|offset| first.wrapping_add(offset)) {
            // One that was never sent has other contents than were expected.
            let place = number.wrapping_sub(self.first_in_flight) as usize;
            let Some(flight) = self.in_flight.get_mut(place) else { break };
            flight.missing -= 1;
            if self.control.is_measuring() {
                self.latencies.record((now - flight.sent).as_nanos() as u64);
            }
        }
        while self.in_flight.front().is_some_and(|flight| flight.missing == 0) {
            self.in_flight.pop_front();
            self.first_in_flight = self.first_in_flight.wrapping_add(1);
        }
        self.control.arrived.fetch_add(u64::from(complete), Ordering::Relaxed);
        Ok(())
    }

    fn settle(&mut self, place: usize, outcome: Result<(), ConnectionError>) {
        if let Err(error) = outcome {
            self.failures.add(format_args!("client {place}: {error}"));
            self.members[place] = None;
        }
    }
}
