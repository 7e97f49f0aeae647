//! One of an engine's threads: a tokio runtime of its own, and in it one task that serves all of the thread's
//! connections.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use handoff_tls::Session;
use handoff_websocket::Inflater;
use tokio::time::sleep;

use super::batch::Numbered;
use super::connection::{Busy, Connection, Flags, Phase, Rate, Tenths};
use super::context::{Context, Desk};
use super::groups::{Memberships, Roster};
use super::handler::{Cause, Handler, Traffic};
use super::kernel::{KernelTls, Placed};
use super::mailbox::{Arrival, Arrivals, Command, Mailbox};
use super::options::EngineOptions;
use super::output::Sent;
use super::poller::{Poller, Ready};
use super::slab::{Key, Slab};
use super::sweep::Sweeper;
use super::transmit::Scratch;

/// Messages from elsewhere that are sent in a round.
const ROUND: usize = 8192;

/// Bytes read at a time: all that one connection can have in a turn.
const READ: usize = 64 << 10;

pub(crate) struct Thread<H: Handler> {
    pub(crate) handler: Arc<H>,
    pub(crate) options: Arc<EngineOptions>,
    /// If sessions are to be given to the kernel.
    pub(crate) kernel_tls: Option<Arc<KernelTls>>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) arrivals: Arc<Arrivals<H::Ticket>>,
    /// Connections of this thread, those on their way to it included.
    pub(crate) load: Arc<AtomicUsize>,
    pub(crate) poller: Poller,
    pub(crate) slab: Slab<Connection<H::Connection>>,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) inflater: Inflater,
    pub(crate) desk: Desk,
    /// Those with more to read than they could have in their turn; each once.
    pub(crate) ready: VecDeque<Key>,
    /// Those who are to answer a close, and those who are to close their end; since when.
    pub(crate) closing: VecDeque<(Tenths, Key)>,
    pub(crate) lingering: VecDeque<(Tenths, Key)>,
    pub(crate) drain: Option<Draining>,
    pub(crate) sweeper: Sweeper,
    pub(crate) begin: Instant,
    pub(crate) now: Tenths,
    /// Room that `deliver` and `catch_up` use, kept from one time to the next.
    pub(crate) publishing: Vec<Key>,
    pub(crate) missed: Vec<Numbered>,
    pub(crate) failed: Vec<(Key, Sent)>,
}

#[derive(Debug)]
pub(crate) struct Draining {
    pub(crate) begin: Instant,
    pub(crate) span: Duration,
    /// When it began.
    pub(crate) clients: usize,
    pub(crate) closed: usize,
    pub(crate) place: u32,
    pub(crate) walked: bool,
}

impl<H: Handler> Thread<H> {
    /// Within the thread's runtime.
    pub(crate) fn new(
        index: usize,
        handler: Arc<H>,
        (options, kernel_tls): (Arc<EngineOptions>, Option<Arc<KernelTls>>),
        mailboxes: Arc<[Arc<Mailbox>]>,
        arrivals: Arc<Arrivals<H::Ticket>>,
        load: Arc<AtomicUsize>,
    ) -> io::Result<Thread<H>> {
        let mailbox = mailboxes.get(index).map(Arc::clone).unwrap_or_default();
        let desk = Desk {
            thread: index,
            mailboxes,
            out: Vec::new(),
            scratch: Scratch::default(),
            deflater: Default::default(),
            roster: Roster::new(index),
            traffic: Traffic::default(),
            deliveries: 0,
        };
        Ok(Thread {
            sweeper: Sweeper::new(&options),
            handler,
            options,
            kernel_tls,
            mailbox,
            arrivals,
            load,
            poller: Poller::new()?,
            slab: Slab::new(),
            buffer: vec![0; READ].into_boxed_slice(),
            inflater: Inflater::default(),
            desk,
            ready: VecDeque::new(),
            closing: VecDeque::new(),
            lingering: VecDeque::new(),
            drain: None,
            begin: Instant::now(),
            now: 0,
            publishing: Vec::new(),
            missed: Vec::new(),
            failed: Vec::new(),
        })
    }

    /// Serves until it is told to stop.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        let mailbox = Arc::clone(&self.mailbox);
        let mut events: Vec<Ready> = Vec::new();
        let mut commands: VecDeque<Command> = VecDeque::new();
        let mut ticked = Instant::now();
        loop {
            let patience = self.patience();
            let rest = patience.map(|patience| patience.saturating_sub(ticked.elapsed()));
            let mut tick = false;
            tokio::select! {
                biased;
                result = self.poller.wait(&mut events) => result?,
                () = mailbox.arrived() => (),
                () = tokio::task::yield_now(), if !self.ready.is_empty() || !commands.is_empty() => (),
                () = sleep(rest.unwrap_or_default()), if rest.is_some() => (),
            }
            // Always both: neither keeps the other waiting, however much of it keeps coming.
            mailbox.take(&mut commands);
            if events.is_empty() {
                self.poller.poll(&mut events)?;
            }
            self.now = (self.begin.elapsed().as_millis() / 100) as Tenths;
            self.desk.scratch.now = self.now;
            if patience.is_some_and(|patience| ticked.elapsed() >= patience) {
                ticked = Instant::now();
                tick = true;
            }
            // Only those who were waiting already: whoever is put there now has the next turn.
            for _ in 0..self.ready.len() {
                if let Some(key) = self.ready.pop_front() {
                    if let Some(connection) = self.slab.get_mut(key) {
                        connection.in_ready = false;
                        self.readable(key);
                    }
                }
            }
            for ready in events.drain(..) {
                if ready.writable {
                    self.writable(ready.key);
                }
                let Some(connection) = self.slab.get_mut(ready.key) else { continue };
                if ready.ended {
                    connection.flags.set(Flags::ENDED, true);
                }
                // Who waits for a turn has it in the next round.
                if ready.readable && !connection.in_ready {
                    self.readable(ready.key);
                }
            }
            let mut work = 0;
            while let Some(command) = commands.pop_front() {
                mailbox.done(command.size());
                match self.obey(command) {
                    Some(more) => work += 1 + more,
                    None => {
                        self.deliver();
                        return Ok(());
                    }
                }
                if work > ROUND {
                    break;
                }
            }
            self.deliver();
            if tick {
                self.overdue();
                self.drain_some();
                self.sweep();
                self.deliver();
            }
            self.look_after_keys();
            self.report();
            mailbox.answer();
        }
    }

    /// Says how many sends are to follow; `None`: to stop.
    fn obey(&mut self, command: Command) -> Option<usize> {
        match command {
            Command::Arrive => {
                for arrival in self.arrivals.take() {
                    self.open(arrival);
                }
            }
            Command::Send(key, message) => {
                self.catch_up(key);
                self.flush(key);
                self.send_prepared(key, &message);
            }
            Command::Publish { group, message } => {
                let work = self.desk.roster.add(group, &message, None);
                if self.desk.roster.is_full() {
                    self.deliver();
                }
                return Some(work.min(ROUND / 2));
            }
            Command::Close(key, code, reason) => {
                self.catch_up(key);
                self.flush(key);
                self.close(key, code, reason, Cause::Application);
            }
            Command::Drain { begin, span } => {
                self.deliver();
                let clients = self.slab.len();
                let (closed, place, walked) = (0, 0, false);
                self.drain = Some(Draining { begin, span, clients, closed, place, walked });
                self.drain_some();
            }
            Command::Stop => return None,
        }
        Some(0)
    }

    fn open(&mut self, arrival: Arrival<H::Ticket>) {
        let Arrival { mut socket, early, request, tls, ticket } = arrival;
        let agreement = request.compression;
        let Some(socket) = socket.take() else { return };
        let now = self.now;
        let placed = tls.map(|session| self.place(&socket, session)).unwrap_or_default();
        let inserted = self.slab.insert(|_| Connection {
            socket,
            seen: now,
            pinged: now,
            memberships: Memberships::NONE,
            rate: Rate::default(),
            phase: Phase::Open,
            in_ready: false,
            flags: placed.flags,
            agreement,
            state: None,
            tls: placed.session,
            busy: placed_busy(placed.unsent, now),
        });
        // Dropped, its socket is closed; nobody has that many.
        let Some(key) = inserted else { return };
        let Some(connection) = self.slab.get_mut(key) else { return };
        self.desk.traffic.opened += 1;
        let registered = self.poller.add(&connection.socket, key);
        let memberships = &mut connection.memberships;
        let mut context =
            Context { key, agreement, memberships, queued: 0, close: None, desk: &mut self.desk };
        connection.state = Some(self.handler.on_open(request, ticket, &mut context));
        let close = context.close;
        if let Err(error) = registered {
            tracing::error!("epoll_ctl: {error}");
            self.desk.clear_out();
            return self.lose(key);
        }
        self.end_turn(key);
        if let Some((code, reason)) = close {
            self.close(key, code, reason, Cause::Application);
        }
        self.settle_tls(key);
        if !early.is_empty() {
            let mut early = Vec::from(early);
            self.feed(key, &mut early);
        }
    }

    /// Gives a client's session to the kernel, if that is asked for.
    fn place(&mut self, socket: &OwnedFd, session: Box<Session>) -> Placed {
        let Desk { scratch, traffic, .. } = &mut self.desk;
        match &self.kernel_tls {
            Some(kernel) => kernel.place(socket, session, &mut scratch.kernel, traffic),
            None => Placed::in_user_space(session, traffic),
        }
    }

    /// Hangs up on everybody.
    pub(crate) fn stop(&mut self) {
        for place in 0..self.slab.places() {
            if let Some((key, _)) = self.slab.at(place) {
                self.lose(key);
            }
        }
        self.report();
    }

    fn report(&mut self) {
        let traffic = std::mem::take(&mut self.desk.traffic);
        if traffic != Traffic::default() {
            self.handler.on_traffic(&traffic);
        }
    }
}

/// For the rest of a record that has to be out before anything else.
fn placed_busy(unsent: Vec<u8>, now: Tenths) -> Option<Box<Busy>> {
    let busy = |sealed| Box::new(Busy { sealed, taken: now, ..Busy::default() });
    Some(unsent).filter(|unsent| !unsent.is_empty()).map(busy)
}
