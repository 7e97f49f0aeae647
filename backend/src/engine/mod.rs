//! An engine for hundreds of thousands of WebSocket connections, each of which costs some tens of bytes while it is idle.
//!
//! A few threads, each with an epoll of its own, serve all connections; nothing is kept of one that is between
//! messages but a small record, and what the application keeps. The application is a [`Handler`]: callbacks for a
//! connection's begin, its messages and its end. Whatever else wants to send uses a [`Sender`], or a [`Group`] for many
//! at a time.
//!
//! ```no_run
//! # async fn example(client: ws_handoff_backend::DetachedClient) -> std::io::Result<()> {
//! use ws_handoff_backend::engine::{Context, Engine, EngineOptions, Handler, Message, Request};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Connection = ();
//!     type Ticket = ();
//!
//!     fn on_open(&self, _: Request, _: (), _: &mut Context<'_>) {}
//!
//!     fn on_message(&self, _: &mut (), message: Message<'_>, context: &mut Context<'_>) {
//!         context.send(message);
//!     }
//! }
//!
//! let engine = Engine::start(Echo, EngineOptions::default())?;
//! // For each client that an offer's `send_detached()` gives:
//! engine.serve(client, None, ());
//! # Ok(())
//! # }
//! ```

mod connection;
mod context;
mod ending;
mod groups;
mod handler;
mod input;
mod mailbox;
mod options;
mod output;
mod poller;
mod prepared;
mod slab;
mod sweep;
mod thread;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use handoff_websocket::{Agreement, Message};

pub use self::context::Context;
pub use self::groups::Group;
pub use self::handler::{Cause, Ended, Handler, Request, Traffic};
pub use self::mailbox::{SendError, Sender};
pub use self::options::{EngineOptions, SlowReceiver};
pub use self::prepared::Prepared;

use self::mailbox::{Arrival, Arrivals, Command, Mailbox};
use self::thread::Thread;
use crate::websocket::DetachedClient;

/// A running engine; cheap to clone. When the last clone is dropped, its threads hang up on whoever is connected, and end.
pub struct Engine<H: Handler>(Arc<Shared<H>>);

struct Shared<H: Handler> {
    handler: Arc<H>,
    mailboxes: Arc<[Arc<Mailbox>]>,
    arrivals: Vec<Arc<Arrivals<H::Ticket>>>,
    loads: Vec<Arc<AtomicUsize>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where to begin looking for the least loaded thread.
    turn: AtomicUsize,
}

impl<H: Handler> Engine<H> {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// No thread, no runtime or no epoll could be had.
    pub fn start(handler: H, options: EngineOptions) -> io::Result<Engine<H>> {
        let wanted = options.threads.map_or_else(std::thread::available_parallelism, Ok)?;
        let count: usize = NonZeroUsize::get(wanted);
        let handler = Arc::new(handler);
        let options = Arc::new(options);
        let mailboxes: Arc<[Arc<Mailbox>]> = (0..count).map(|_| Arc::default()).collect();
        let loads: Vec<Arc<AtomicUsize>> = (0..count).map(|_| Arc::default()).collect();
        let arrivals: Vec<_> = (0..count).map(|_| Arc::new(Arrivals::new())).collect();
        // From here on a failure stops those that have been started.
        let engine = Engine(Arc::new(Shared {
            handler: Arc::clone(&handler),
            mailboxes: Arc::clone(&mailboxes),
            arrivals: arrivals.clone(),
            loads: loads.clone(),
            threads: Mutex::default(),
            turn: AtomicUsize::new(0),
        }));
        for (index, (arrivals, load)) in arrivals.into_iter().zip(loads).enumerate() {
            let (handler, options) = (Arc::clone(&handler), Arc::clone(&options));
            let mailboxes = Arc::clone(&mailboxes);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = {
                let _within = runtime.enter();
                Thread::new(index, handler, options, mailboxes, arrivals, load)?
            };
            let run = move || {
                let _end = End(Arc::clone(&thread.arrivals), Arc::clone(&thread.load));
                if let Err(error) = runtime.block_on(thread.run()) {
                    // Its epoll has failed: there is no serving without it.
                    tracing::error!("a thread of the engine ends: {error}");
                }
            };
            let spawned = std::thread::Builder::new().name(format!("engine-{index}")).spawn(run)?;
            engine.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(spawned);
        }
        Ok(engine)
    }

    /// Serves a client on the thread that has the fewest. `agreement`: the extension that its 101 has named.
    pub fn serve(&self, client: DetachedClient, agreement: Option<Agreement>, ticket: H::Ticket) {
        let (socket, early, request) = client.into_owned();
        let mut arrival = Arrival { socket, early, request, agreement, ticket };
        let loads = &self.0.loads;
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let load = |index: &usize| loads.get(*index).map(|load| load.load(Ordering::Relaxed));
        // Among equals, one after the other.
        let mut threads: Vec<usize> =
            (0..loads.len()).map(|offset| turn.wrapping_add(offset) % loads.len()).collect();
        threads.sort_by_key(load);
        for index in threads {
            let thread =
                (self.0.mailboxes.get(index), self.0.arrivals.get(index), loads.get(index));
            let (Some(mailbox), Some(arrivals), Some(load)) = thread else { return };
            load.fetch_add(1, Ordering::AcqRel);
            match arrivals.push(arrival) {
                Ok(()) => {
                    // Only messages can be too many.
                    let _ = mailbox.post(Command::Arrive);
                    return;
                }
                // It has ended: the next one.
                Err(back) => arrival = *back,
            }
            load.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The application.
    pub fn handler(&self) -> &H {
        &self.0.handler
    }

    /// A group without members.
    pub fn new_group(&self) -> Group {
        Group::new(&self.0.mailboxes)
    }

    /// Connections, those included whose conversation is over and whose socket is not closed yet.
    pub fn connections(&self) -> usize {
        self.0.loads.iter().map(|load| load.load(Ordering::Acquire)).sum()
    }

    /// Closes all connections with 1001, spread evenly over `span`; those that come later, too. Nothing waits for it here:
    /// see [`connections`](Self::connections).
    pub fn drain(&self, span: Duration) {
        let begin = Instant::now();
        for mailbox in self.0.mailboxes.iter() {
            let _ = mailbox.post(Command::Drain { begin, span });
        }
    }

    /// Hangs up on whoever is connected, and waits for the threads to end.
    pub fn stop(&self) {
        self.0.stop();
        let threads =
            std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// When a thread ends, be it by a panic of the application's: its connections have been closed, and nobody is left waiting
/// for it.
struct End<T>(Arc<Arrivals<T>>, Arc<AtomicUsize>);

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        self.0.close();
        self.1.store(0, Ordering::Release);
    }
}

impl<H: Handler> Shared<H> {
    fn stop(&self) {
        for mailbox in self.mailboxes.iter() {
            let _ = mailbox.post(Command::Stop);
        }
    }
}

impl<H: Handler> Drop for Shared<H> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<H: Handler> Clone for Engine<H> {
    fn clone(&self) -> Engine<H> {
        Engine(Arc::clone(&self.0))
    }
}

impl<H: Handler> fmt::Debug for Engine<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("threads", &self.0.loads.len())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}
