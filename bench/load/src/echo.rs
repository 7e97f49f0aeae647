//! `echo`: each client has a number of messages in flight, and sends another for each that comes back; or all together send
//! at a steady rate.

use std::collections::VecDeque;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{EchoOptions, Target};
use crate::connection::{Connection, ConnectionError};
use crate::contents::{Contents, Keys, Label};
use crate::failures::Failures;
use crate::histogram::{Histogram, Percentiles};
use crate::pace::Pace;
use crate::poller::{Event, Poller};
use crate::window::{Control, Window};

/// For what is in flight when the sending ends.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// Several messages that arrive at once are read at once.
pub(crate) const BUFFER: usize = 256 * 1024;

/// The timer's place; no client has it.
const TIMER: usize = usize::MAX;

#[derive(Serialize)]
struct Report {
    mode: &'static str,
    connections: u32,
    threads: u32,
    size: u32,
    depth: u32,
    #[serde(flatten)]
    window: Window,
    latency_us: Option<Percentiles>,
    #[serde(flatten)]
    failures: Failures,
}

/// Whether everything came as it should.
pub(crate) fn run(target: &Target, options: &EchoOptions) -> io::Result<bool> {
    let traffic = &options.traffic;
    let contents = Contents::new(traffic.size as usize);
    let control = Control::new();
    let threads = options.threads.min(traffic.connections);
    let all_open = Barrier::new(threads as usize + 1);
    let (window, results) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (contents, control, all_open) = (&contents, &control, &all_open);
                scope.spawn(move || {
                    let mut worker = Worker::new(options, contents, control, thread, threads);
                    // Connections of one thread come from all addresses, those of one address go to all threads.
                    for index in (thread..traffic.connections).step_by(threads as usize) {
                        worker.open(target, index);
                    }
                    all_open.wait();
                    let ended = worker.run();
                    control.ended.fetch_add(1, Ordering::Release);
                    ended.map(|()| (worker.latencies, worker.failures))
                })
            })
            .collect();
        all_open.wait();
        let (warm_up, span) = match options.messages {
            Some(_) => (Duration::ZERO, None),
            None => (traffic.warm_up, Some(traffic.seconds)).map_seconds(),
        };
        let window = control.measure(warm_up, span, threads.into(), &traffic.cpu_of);
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (window, results)
    });
    let mut latencies = Histogram::new();
    let mut failures = Failures::default();
    for result in results {
        // A panic has left its message on standard error.
        let (ours, wrong) =
            result.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
        latencies.merge(&ours);
        failures.merge(wrong);
    }
    let is_good = failures.is_empty();
    let report = Report {
        mode: "echo",
        connections: traffic.connections,
        threads,
        size: traffic.size,
        depth: traffic.depth,
        window: window?,
        latency_us: latencies.percentiles(),
        failures,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(is_good)
}

/// Seconds of a command line as durations.
pub(crate) trait MapSeconds {
    fn map_seconds(self) -> (Duration, Option<Duration>);
}

impl MapSeconds for (f64, Option<f64>) {
    fn map_seconds(self) -> (Duration, Option<Duration>) {
        (Duration::from_secs_f64(self.0), self.1.map(Duration::from_secs_f64))
    }
}

/// One thread's clients.
struct Worker<'a> {
    options: &'a EchoOptions,
    contents: &'a Contents,
    control: &'a Control,
    /// All workers.
    threads: u32,
    /// Whose turn it was, at a steady rate.
    turn: usize,
    /// `None`: failed.
    clients: Vec<Option<Client>>,
    keys: Keys,
    latencies: Histogram,
    failures: Failures,
}

struct Client {
    connection: Connection,
    /// When each was sent, or was to be sent.
    in_flight: VecDeque<Instant>,
    /// Messages that it still has to send.
    left: u64,
}

impl<'a> Worker<'a> {
    fn new(
        options: &'a EchoOptions,
        contents: &'a Contents,
        control: &'a Control,
        thread: u32,
        threads: u32,
    ) -> Worker<'a> {
        Worker {
            options,
            contents,
            control,
            threads,
            turn: 0,
            clients: Vec::new(),
            keys: Keys::new(u64::from(thread) << 32 | u64::from(std::process::id())),
            latencies: Histogram::new(),
            failures: Failures::default(),
        }
    }

    fn open(&mut self, target: &Target, index: u32) {
        let traffic = &self.options.traffic;
        let expected = Label { sender: index, number: 0, size: traffic.size as usize };
        let share = |messages: u64| {
            let count = u64::from(traffic.connections);
            messages / count + u64::from(u64::from(index) < messages % count)
        };
        match Connection::open(target, index, expected, traffic.text) {
            Ok(connection) => self.clients.push(Some(Client {
                connection,
                in_flight: VecDeque::with_capacity(traffic.depth as usize),
                left: self.options.messages.map_or(u64::MAX, share),
            })),
            Err(error) => self.failures.add(format_args!("client {index}: {error}")),
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut poller = Poller::new()?;
        let mut buffer = vec![0; BUFFER];
        let step = |rate| Duration::from_secs_f64(f64::from(self.threads) / f64::from(rate));
        let mut pace = self.options.rate.map(|rate| Pace::new(step(rate))).transpose()?;
        if let Some(pace) = &pace {
            poller.add_timer(pace, TIMER)?;
        }
        for place in 0..self.clients.len() {
            if let Some(client) = &mut self.clients[place] {
                poller.add(client.connection.socket(), place)?;
                if pace.is_some() {
                    continue;
                }
                let (depth, now) = (self.options.traffic.depth, Instant::now());
                let sent = client.send(depth, now, self.contents, &mut self.keys);
                self.settle(place, sent);
            }
        }
        let mut deadline = None;
        loop {
            let will_send = pace.is_some() && self.control.is_sending();
            let mut clients = self.clients.iter().flatten();
            if !will_send && clients.all(|client| client.in_flight.is_empty()) {
                break;
            }
            if !self.control.is_sending() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + DRAIN);
                if Instant::now() > deadline {
                    break;
                }
            }
            for event in poller.wait(Duration::from_millis(100))? {
                let handled = self.handle(event, &mut buffer);
                self.settle(event.place, handled);
            }
            if let Some(pace) = &mut pace {
                pace.acknowledge();
                self.send_due(pace);
            }
        }
        for (place, client) in self.clients.drain(..).enumerate() {
            let Some(client) = client else { continue };
            if !client.in_flight.is_empty() {
                let lost = client.in_flight.len();
                self.failures
                    .add(format_args!("client {place} of a thread: {lost} never came back"));
            }
            client.connection.close();
        }
        Ok(())
    }

    /// Sends what is due, the clients in turn.
    fn send_due(&mut self, pace: &mut Pace) {
        while self.control.is_sending() && !self.clients.is_empty() {
            let Some(due) = pace.next(Instant::now()) else { return };
            self.turn = (self.turn + 1) % self.clients.len();
            if let Some(client) = &mut self.clients[self.turn] {
                let sent = client.send(1, due, self.contents, &mut self.keys);
                self.settle(self.turn, sent);
            }
        }
    }

    fn handle(&mut self, event: Event, buffer: &mut [u8]) -> Result<(), ConnectionError> {
        let Some(client) = self.clients.get_mut(event.place).and_then(Option::as_mut) else {
            return Ok(());
        };
        if event.is_writable {
            client.connection.flush()?;
        }
        if !event.is_readable {
            return Ok(());
        }
        let complete = client.connection.receive(self.contents, buffer, event.is_hang_up)?;
        if complete == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let is_measuring = self.control.is_measuring();
        for _ in 0..complete {
            // More than were sent have other contents than were expected.
            let Some(sent) = client.in_flight.pop_front() else { break };
            if is_measuring {
                self.latencies.record(now.saturating_duration_since(sent).as_nanos() as u64);
            }
        }
        self.control.arrived.fetch_add(u64::from(complete), Ordering::Relaxed);
        if self.options.rate.is_none() && self.control.is_sending() {
            client.send(complete, now, self.contents, &mut self.keys)?;
        }
        Ok(())
    }

    /// A client that failed is gone.
    fn settle(&mut self, place: usize, outcome: Result<(), ConnectionError>) {
        if let Err(error) = outcome {
            self.failures.add(format_args!("client {place} of a thread: {error}"));
            self.clients[place] = None;
        }
    }
}

impl Client {
    fn send(
        &mut self,
        count: u32,
        now: Instant,
        contents: &Contents,
        keys: &mut Keys,
    ) -> Result<(), ConnectionError> {
        let count = u64::from(count).min(self.left) as u32;
        self.left -= u64::from(count);
        self.in_flight.extend((0..count).map(|_| now));
        self.connection.send(count, contents, keys)
    }
}
