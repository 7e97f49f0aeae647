//! What other threads, tasks and other connections' handlers tell a thread.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use handoff_tls::Session;
use handoff_websocket::Message;
use tokio::sync::{Notify, oneshot};

use super::Request;
use super::prepared::Prepared;
use super::slab::Key;
use crate::receive::Owned;

/// A thread's mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// `None` once the thread has ended.
    commands: Mutex<Option<Vec<Command>>>,
    arrived: Notify,
    /// Bytes of messages that wait in it.
    bytes: AtomicUsize,
    /// Who asks whether the thread still comes round; `None` once it has ended. Not a command: it would wait behind all that
    /// a busy thread has yet to send.
    asking: Mutex<Option<Vec<oneshot::Sender<()>>>>,
    is_asked: AtomicBool,
}

#[derive(Debug)]
pub(crate) enum Command {
    /// Clients have come.
    Arrive,
    Send(Key, Prepared),
    Publish {
        group: u64,
        message: Prepared,
    },
    Close(Key, u16, &'static str),
    Drain {
        begin: Instant,
        span: Duration,
    },
    Stop,
}

/// Clients on their way to the thread that is to serve them; `None` once it serves nobody any more.
#[derive(Debug)]
pub(crate) struct Arrivals<T>(Mutex<Option<Vec<Arrival<T>>>>);

#[derive(Debug)]
pub(crate) struct Arrival<T> {
    pub(crate) socket: Owned,
    pub(crate) early: Bytes,
    pub(crate) request: Request,
    pub(crate) tls: Option<Box<Session>>,
    /// The application's.
    pub(crate) ticket: T,
}

impl<T> Arrivals<T> {
    pub(crate) fn new() -> Arrivals<T> {
        Arrivals(Mutex::new(Some(Vec::new())))
    }

    /// Gives it back if nobody would take it; else it is counted in `load`.
    pub(crate) fn push(
        &self,
        arrival: Arrival<T>,
        load: &AtomicUsize,
    ) -> Result<(), Box<Arrival<T>>> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(arrivals) => {
                load.fetch_add(1, Ordering::AcqRel);
                arrivals.push(arrival);
                Ok(())
            }
            None => Err(Box::new(arrival)),
        }
    }

    pub(crate) fn take(&self) -> Vec<Arrival<T>> {
        let mut arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Hangs up on those who wait, and takes nobody any more.
    pub(crate) fn close(&self, load: &AtomicUsize) {
        let mut arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = arrivals.take();
        load.store(0, Ordering::Release);
        drop(arrivals);
        drop(waiting);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Bytes that may wait for a thread, all its connections together: a producer that is faster than the thread for long would
/// take all memory otherwise.
const MAX_BYTES: usize = 256 << 20;

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox {
            commands: Mutex::new(Some(Vec::new())),
            arrived: Notify::new(),
            bytes: AtomicUsize::new(0),
            asking: Mutex::new(Some(Vec::new())),
            is_asked: AtomicBool::new(false),
        }
    }
}

impl Mailbox {
    pub(crate) fn post(&self, command: Command) -> Result<(), SendError> {
        let size = command.size();
        if command.can_be_refused() && self.bytes.load(Ordering::Relaxed) > MAX_BYTES {
            return Err(SendError::Overloaded);
        }
        let mut waiting = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(commands) = &mut *waiting else { return Err(SendError::Ended) };
        self.bytes.fetch_add(size, Ordering::Relaxed);
        let was_empty = commands.is_empty();
        commands.push(command);
        drop(waiting);
        // Whoever put in the first has woken the thread.
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes everything; nothing is taken while there is something in `into`.
    pub(crate) fn take(&self, into: &mut VecDeque<Command>) {
        if !into.is_empty() {
            return;
        }
        let mut waiting = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = waiting.as_mut().filter(|commands| !commands.is_empty()).map(std::mem::take);
        drop(waiting);
        *into = commands.unwrap_or_default().into();
    }

    /// A command has been carried out.
    pub(crate) fn done(&self, size: usize) {
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    /// Asks the thread for a sign of life: it comes with the thread's next round, or an error if the thread ends before.
    /// `None` if it has ended.
    pub(crate) fn ask(&self) -> Option<oneshot::Receiver<()>> {
        let (sign, answer) = oneshot::channel();
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.push(sign);
        self.is_asked.store(true, Ordering::Release);
        self.arrived.notify_one();
        Some(answer)
    }

    /// Gives the sign to those who have asked.
    pub(crate) fn answer(&self) {
        if self.is_asked.load(Ordering::Relaxed) && self.is_asked.swap(false, Ordering::Acquire) {
            let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            for sign in asking.as_mut().map(std::mem::take).unwrap_or_default() {
                // Who has stopped waiting does not mind.
                let _ = sign.send(());
            }
        }
    }

    /// Takes nothing any more.
    pub(crate) fn close(&self) {
        let waiting = self.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(waiting);
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(asking);
    }
}

impl Command {
    /// In the mailbox, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Command::Send(_, message) | Command::Publish { message, .. } => {
                message.payload_len() + 64
            }
            _ => 64,
        }
    }

    /// Only messages.
    fn can_be_refused(&self) -> bool {
        matches!(self, Command::Send(..) | Command::Publish { .. })
    }
}

/// Sends to one connection, from any thread or task; cheap to clone.
///
/// What is sent to a connection that has ended is dropped.
#[derive(Debug, Clone)]
pub struct Sender {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) key: Key,
}

impl Sender {
    /// Sends a message.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send(&self, message: Message<'_>) -> Result<(), SendError> {
        self.send_prepared(&Prepared::new(message))
    }

    /// Sends a text.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send_text(&self, text: &str) -> Result<(), SendError> {
        self.send(Message::Text(text))
    }

    /// Sends a message that is sent to others, too.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send_prepared(&self, message: &Prepared) -> Result<(), SendError> {
        self.mailbox.post(Command::Send(self.key, message.clone()))
    }

    /// Closes the connection after what has been sent, with a code that may be sent (RFC 6455 7.4: 1000, 1008, 3000 to 4999
    /// and so on; else the close has none); `reason` is cut to 123 bytes.
    pub fn close(&self, code: u16, reason: &'static str) {
        // Takes no room that could be lacking.
        let _ = self.mailbox.post(Command::Close(self.key, code, reason));
    }
}

/// Two are equal if they send to the same connection.
impl PartialEq for Sender {
    fn eq(&self, other: &Sender) -> bool {
        self.key == other.key && Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }
}

impl Eq for Sender {}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// 256 MiB wait for the thread that serves the connection: it cannot keep up.
    #[error("the engine's thread is overloaded")]
    Overloaded,
    /// The engine has been stopped, or the thread has ended.
    #[error("the engine's thread has ended")]
    Ended,
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> io::Error {
        io::Error::new(io::ErrorKind::WouldBlock, error)
    }
}
