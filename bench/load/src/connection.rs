//! A client that is open, and its socket; nonblocking.

use std::io;
use std::net::TcpStream;

use crate::cli::Target;
use crate::contents::{Contents, Keys, Label};
use crate::open::{self, OpenError};
use crate::receiver::{Receiver, Wrong};
use crate::transport::{Received, Transport};

/// One client.
pub(crate) struct Connection {
    transport: Transport,
    pub(crate) receiver: Receiver,
    /// The message to send next.
    next: Label,
    is_text: bool,
    /// What came together with the 101.
    early: Vec<u8>,
}

/// How a conversation went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server hung up")]
    Gone,
    #[error("more came than was asked for")]
    Unasked,
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

impl Connection {
    /// The client number `index` sends messages in its own name, and expects those of `expected`.
    pub(crate) fn open(
        target: &Target,
        index: u32,
        expected: Label,
        is_text: bool,
    ) -> Result<Connection, OpenError> {
        let (transport, early) = open::open(target, index)?;
        transport.socket().set_nonblocking(true)?;
        let next = Label { sender: index, number: 0, size: expected.size };
        let receiver = Receiver::new(expected, is_text);
        Ok(Connection { transport, receiver, next, is_text, early })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.transport.socket()
    }

    /// Sends `count` messages, together, as far as the kernel takes them.
    pub(crate) fn send(
        &mut self,
        count: u32,
        contents: &Contents,
        keys: &mut Keys,
    ) -> Result<(), ConnectionError> {
        for _ in 0..count {
            contents.encode(self.next, self.is_text, keys.next(), self.transport.queue());
            self.next.number = self.next.number.wrapping_add(1);
        }
        self.flush()
    }

    /// Sends what the kernel did not take.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionError> {
        self.transport.flush()?;
        Ok(())
    }

    /// Reads all that is there, `to_end`: up to the end of file. Returns how many messages it completed.
    pub(crate) fn receive(
        &mut self,
        contents: &Contents,
        buffer: &mut [u8],
        to_end: bool,
    ) -> Result<u32, ConnectionError> {
        let (mut complete, mut pongs) = (0, Vec::new());
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            complete += self.receiver.feed(&early, contents, &mut pongs)?;
        }
        loop {
            let outcome = self.transport.receive(buffer, |bytes| {
                complete += self.receiver.feed(bytes, contents, &mut pongs)?;
                Ok::<_, ConnectionError>(())
            })?;
            match outcome {
                Received::Some { is_short } if is_short && !to_end => break,
                Received::Some { .. } => (),
                Received::Nothing => break,
                Received::End => return Err(ConnectionError::Gone),
            }
        }
        self.transport.queue().append(&mut pongs);
        self.flush()?;
        Ok(complete)
    }

    /// Says goodbye; what the server answers is not waited for.
    pub(crate) fn close(mut self) {
        if let Ok(true) = self.transport.flush() {
            // 1000, masked with a key of which only the last byte is not zero.
            self.transport.queue().extend_from_slice(&[0x88, 0x82, 0, 0, 0, 1, 0x03, 0xe8]);
            let _ = self.transport.flush();
        }
    }
}
