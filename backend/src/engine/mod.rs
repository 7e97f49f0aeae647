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
//! let _ = engine.serve(client, ());
//! # Ok(())
//! # }
//! ```

mod batch;
mod connection;
mod context;
mod ending;
mod groups;
mod handler;
mod input;
mod kernel;
mod kernel_read;
mod kernel_socket;
mod mailbox;
mod options;
mod output;
mod poller;
mod prepared;
mod slab;
mod sweep;
mod thread;
mod transmit;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use handoff_websocket::{Agreement, Message};

pub use self::context::Context;
pub use self::groups::Group;
pub use self::handler::{Cause, Ended, Handler, Request, TlsFallbacks, Traffic};
pub use self::mailbox::{SendError, Sender};
pub use self::options::{EngineOptions, SlowReceiver};
pub use self::prepared::Prepared;

use self::kernel::KernelTls;
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
        let kernel_tls = options.kernel_tls.then(|| Arc::new(KernelTls::probe()));
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
            let handler = Arc::clone(&handler);
            let options = (Arc::clone(&options), kernel_tls.clone());
            let mailboxes = Arc::clone(&mailboxes);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = {
                let _within = runtime.enter();
                Thread::new(index, handler, options, mailboxes, arrivals, load)?
            };
            let run = move || {
                let mut thread = thread;
                let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(thread.run())));
                match ended {
                    Ok(Ok(())) => (),
                    // Its epoll has failed: there is no serving without it.
                    Ok(Err(error)) => tracing::error!("a thread of the engine ends: {error}"),
                    Err(_) => tracing::error!("a thread of the engine ends: a handler panicked"),
                }
                thread.mailbox.close();
                // A handler that panics when it is told of the end, too, is not asked again.
                let _ = catch_unwind(AssertUnwindSafe(|| thread.stop()));
                thread.arrivals.close(&thread.load);
            };
            let spawned = std::thread::Builder::new().name(format!("engine-{index}")).spawn(run)?;
            engine.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(spawned);
        }
        Ok(engine)
    }

    /// Serves a client on the thread that has the fewest.
    ///
    /// # Errors
    ///
    /// Gives the client back if all threads have ended.
    pub fn serve(
        &self,
        client: DetachedClient,
        ticket: H::Ticket,
    ) -> Result<(), Box<DetachedClient>> {
        let (socket, early, request, tls) = client.into_owned();
        let mut arrival = Arrival { socket, early, request, tls, ticket };
        let Shared { loads, mailboxes, arrivals, turn, .. } = &*self.0;
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let after =
            |first: usize| (0..loads.len()).map(move |n| first.wrapping_add(n) % loads.len());
        // Among equals, one after the other.
        let load = |index: &usize| loads.get(*index).map(|load| load.load(Ordering::Relaxed));
        let least = after(turn).min_by_key(load).unwrap_or(0);
        for index in after(least) {
            let thread = (mailboxes.get(index), arrivals.get(index), loads.get(index));
            let (Some(mailbox), Some(arrivals), Some(load)) = thread else { continue };
            match arrivals.push(arrival, load) {
                Ok(()) => {
                    // It ends with what it has if it ends now.
                    let _ = mailbox.post(Command::Arrive);
                    return Ok(());
                }
                // It has ended: the next one.
                Err(back) => arrival = *back,
            }
        }
        let Arrival { socket, early, request, tls, .. } = arrival;
        Err(Box::new(DetachedClient::new(socket, early, request, tls)))
    }

    /// Whether there is a thread that would serve another client.
    pub fn is_alive(&self) -> bool {
        self.0.arrivals.iter().any(|arrivals| arrivals.is_open())
    }

    /// Waits until each thread has gone through what was due, once: a sign of life, for a watchdog. A handler that blocks its
    /// thread keeps this from ending; a thread that has ended does not. False if there is none left.
    ///
    /// A thread answers however much waits to be sent by it.
    pub async fn responds(&self) -> bool {
        let asked: Vec<_> = self.0.mailboxes.iter().map(|mailbox| mailbox.ask()).collect();
        let mut any = false;
        for answer in asked.into_iter().flatten() {
            any |= answer.await.is_ok();
        }
        any
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

    /// Hangs up on whoever is connected, and waits for the threads to end; not for the one that it is called on, by a
    /// handler.
    pub fn stop(&self) {
        self.0.stop();
        let threads =
            std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let this = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this) {
            let _ = thread.join();
        }
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
