//! One client's conversation, whatever the application: reading, writing, pings, and every way to end it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::OpCode;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::Shared;
use super::apps::{Application, Outgoing};
use super::arrivals::Arrivals;
use super::messages::{Event, MessageReader, ReadError};
use super::metrics::Closed;
use super::writer::FrameWriter;
use crate::stream::ClientStream;

/// Serves a client to its end. `number` tells clients apart.
///
/// This future is what an idle client costs: large things are boxed.
pub(crate) async fn serve(
    mut stream: ClientStream,
    app: Box<dyn Application>,
    shared: Arc<Shared>,
    number: u64,
) {
    let active = shared.metrics.serving();
    let ending = converse(&mut stream, app, &shared, number).await;
    tracing::debug!(client = number, ?ending, "connection ended");
    shared.metrics.closed(ending.closed());
    if !matches!(ending, Ending::Lost(_)) {
        // A close that is overtaken by a reset was never sent.
        let _ = timeout(LINGER, hang_up(&mut stream)).await;
    }
    drop(stream);
    drop(active);
}

/// How a conversation ended.
#[derive(Debug)]
enum Ending {
    /// The client closed.
    ByClient,
    /// This side closed, with this code.
    ByServer(u16),
    /// No closing handshake: end of file, an error, or a send that timed out.
    Lost(#[expect(dead_code, reason = "for the log")] Option<io::Error>),
}

impl Ending {
    fn closed(&self) -> Closed {
        match self {
            Ending::ByClient => Closed::ByClient,
            Ending::ByServer(code) => Closed::ByServer(*code),
            Ending::Lost(_) => Closed::Lost,
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        Ending::Lost(Some(error))
    }
}

/// How long the client has to answer a close, and then to close its end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(2);

async fn converse(
    stream: &mut ClientStream,
    app: Box<dyn Application>,
    shared: &Shared,
    number: u64,
) -> Ending {
    let settings = &shared.settings;
    let (read, write) = stream.split();
    let arrivals = Arrivals::new();
    let mut reader = MessageReader::new(read, &arrivals, settings.max_message_size);
    let session = Session {
        writer: FrameWriter::new(write, settings.send_timeout),
        app,
        shared,
        closing: None,
        arrivals: &arrivals,
        pinged: Instant::now(),
    };
    match session.run(&mut reader, number).await {
        Ok(ending) | Err(ending) => ending,
    }
}

struct Session<'s> {
    writer: FrameWriter<'s>,
    app: Box<dyn Application>,
    shared: &'s Shared,
    /// The code of a close that was sent and is to be answered.
    closing: Option<u16>,
    arrivals: &'s Arrivals,
    pinged: Instant,
}

impl<'s> Session<'s> {
    async fn run(mut self, reader: &mut MessageReader<'s>, number: u64) -> Result<Ending, Ending> {
        let mut turn = pin!(self.shared.drain.turn(number));
        let mut alarm = pin!(sleep_until(self.deadline()));
        loop {
            // Never dropped before it is ready: it is not cancel-safe. So everything else happens while it is pending.
            let mut next = pin!(reader.next());
            let event = loop {
                tokio::select! {
                    event = &mut next => break event,
                    outgoing = std::future::poll_fn(|cx| self.app.poll_outgoing(cx)),
                        if self.closing.is_none() => self.send(outgoing, alarm.as_mut()).await?,
                    () = &mut turn, if self.closing.is_none() => {
                        self.close(1001, "going away", alarm.as_mut()).await?;
                    }
                    () = &mut alarm => self.alarm(alarm.as_mut()).await?,
                }
            };
            if let Some(ending) = self.handle(event).await? {
                return Ok(ending);
            }
        }
    }

    async fn handle(&mut self, event: Result<Event, ReadError>) -> Result<Option<Ending>, Ending> {
        match (event, self.closing) {
            (Ok(Event::Close(_)), Some(code)) => return Ok(Some(Ending::ByServer(code))),
            (Err(ReadError::Violation(..)), Some(code)) => return Ok(Some(Ending::ByServer(code))),
            // After its own close a server sends nothing more (RFC 6455 5.5.1).
            (Ok(_), Some(_)) => (),
            (Ok(Event::Message(message)), None) => {
                let metrics = &self.shared.metrics;
                metrics.messages_received.inc();
                metrics.bytes_received.inc_by(message.payload.len() as u64);
                if let Some(reply) = self.app.received(message) {
                    self.message(reply.opcode(), &reply.payload).await?;
                }
            }
            (Ok(Event::Ping(payload)), None) => self.writer.send(OpCode::Pong, &payload).await?,
            (Ok(Event::Pong), None) => (),
            (Ok(Event::Close(code)), None) => {
                self.writer.close(code, "").await?;
                return Ok(Some(Ending::ByClient));
            }
            (Err(ReadError::Violation(code, reason)), None) => {
                self.writer.close(Some(code), reason).await?;
                return Ok(Some(Ending::ByServer(code)));
            }
            // Many clients take a close and disconnect.
            (Err(ReadError::Gone(_)), Some(code)) => return Ok(Some(Ending::ByServer(code))),
            (Err(ReadError::Gone(error)), None) => return Err(Ending::Lost(error)),
        }
        Ok(None)
    }

    async fn send(&mut self, outgoing: Outgoing, alarm: Pin<&mut Sleep>) -> Result<(), Ending> {
        match outgoing {
            Outgoing::Message(message) => self.message(message.opcode(), &message.payload).await,
            Outgoing::Encoded { frame, payload_len } => self.encoded(frame, payload_len).await,
            Outgoing::Close(code, reason) => self.close(code, reason, alarm).await,
        }
    }

    async fn message(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), Ending> {
        let begin = Instant::now();
        self.writer.send(opcode, payload).await?;
        self.sent(payload.len(), begin);
        Ok(())
    }

    async fn encoded(&mut self, frame: Bytes, payload_len: usize) -> Result<(), Ending> {
        let begin = Instant::now();
        let Session { writer, app, .. } = self;
        let expelled = async {
            let code = std::future::poll_fn(|cx| app.poll_expelled(cx)).await;
            sleep(CLOSE_TIMEOUT).await;
            code
        };
        tokio::select! {
            sent = writer.send_encoded(&frame) => sent?,
            // In the middle of a frame no close can be sent.
            code = expelled => return Err(Ending::ByServer(code)),
        }
        self.sent(payload_len, begin);
        Ok(())
    }

    fn sent(&self, len: usize, begin: Instant) {
        // The socket's buffer was full: the client took something. Meanwhile nothing was read that it may have sent.
        if begin.elapsed() >= Duration::from_secs(1) {
            self.arrivals.sign_of_life();
        }
        self.shared.metrics.messages_sent.inc();
        self.shared.metrics.bytes_sent.inc_by(len as u64);
    }

    async fn close(
        &mut self,
        code: u16,
        reason: &str,
        mut alarm: Pin<&mut Sleep>,
    ) -> Result<(), Ending> {
        self.writer.close(Some(code), reason).await?;
        self.closing = Some(code);
        alarm.as_mut().reset(Instant::now() + CLOSE_TIMEOUT);
        Ok(())
    }

    async fn alarm(&mut self, mut alarm: Pin<&mut Sleep>) -> Result<(), Ending> {
        if let Some(code) = self.closing {
            return Err(Ending::ByServer(code));
        }
        let now = Instant::now();
        let settings = &self.shared.settings;
        if settings.idle_timeout.is_some_and(|idle| now >= self.arrivals.last() + idle) {
            return self.close(1001, "idle", alarm).await;
        }
        if settings.ping_interval.is_some_and(|interval| now >= self.last_sign() + interval) {
            self.writer.send(OpCode::Ping, &[]).await?;
            self.pinged = now;
        }
        alarm.as_mut().reset(self.deadline());
        Ok(())
    }

    /// When to look again. Not moved by each message: an alarm that finds nothing to do sets itself anew.
    fn deadline(&self) -> Instant {
        let settings = &self.shared.settings;
        let ping = settings.ping_interval.map(|interval| self.last_sign() + interval);
        let idle = settings.idle_timeout.map(|idle| self.arrivals.last() + idle);
        // A day: both are off.
        let never = Instant::now() + Duration::from_secs(86_400);
        [ping, idle].into_iter().flatten().min().unwrap_or(never)
    }

    fn last_sign(&self) -> Instant {
        self.arrivals.last().max(self.pinged)
    }
}

/// Closes this side and reads, to no purpose but that none of it is unread when the socket is closed: the kernel would
/// answer unread bytes with a reset, which destroys what the client has not read yet.
async fn hang_up(stream: &mut ClientStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut left: usize = 64 << 20;
    std::future::poll_fn(|cx| {
        // On the poll's stack, not in the future.
        let mut chunk = [0; 4096];
        while left > 0 {
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    left = left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(result) => return Poll::Ready(result),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
