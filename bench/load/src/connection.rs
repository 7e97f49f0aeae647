//! A client that is open, and its socket; nonblocking.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::cli::Target;
use crate::contents::{Contents, Keys, Label};
use crate::open::{self, OpenError};
use crate::receiver::{Receiver, Wrong};

/// One client.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) receiver: Receiver,
    /// The message to send next.
    next: Label,
    is_text: bool,
    /// What the kernel has not taken, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
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
        let (socket, early) = open::open(target, index)?;
        socket.set_nonblocking(true)?;
        let next = Label { sender: index, number: 0, size: expected.size };
        let receiver = Receiver::new(expected, is_text);
        Ok(Connection { socket, receiver, next, is_text, out: Vec::new(), out_at: 0, early })
    }

    /// Sends `count` messages, together, as far as the kernel takes them.
    pub(crate) fn send(
        &mut self,
        count: u32,
        contents: &Contents,
        keys: &mut Keys,
    ) -> Result<(), ConnectionError> {
        for _ in 0..count {
            contents.encode(self.next, self.is_text, keys.next(), &mut self.out);
            self.next.number = self.next.number.wrapping_add(1);
        }
        self.flush()
    }

    /// Sends what the kernel did not take.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionError> {
        while self.out_at < self.out.len() {
            match self.socket.write(&self.out[self.out_at..]) {
                Ok(len) => self.out_at += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out_at = 0;
        Ok(())
    }

    /// Reads all that is there, `to_end`: up to the end of file. Returns how many messages it completed.
    pub(crate) fn receive(
        &mut self,
        contents: &Contents,
        buffer: &mut [u8],
        to_end: bool,
    ) -> Result<u32, ConnectionError> {
        let mut complete = 0;
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            complete += self.receiver.feed(&early, contents, &mut self.out)?;
        }
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(ConnectionError::Gone),
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    complete += self.receiver.feed(bytes, contents, &mut self.out)?;
                    // epoll(7): a read of less than was asked for has emptied the socket.
                    if len < buffer.len() && !to_end {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(error.into()),
            }
        }
        // Pongs.
        self.flush()?;
        Ok(complete)
    }

    /// Says goodbye; what the server answers is not waited for.
    pub(crate) fn close(mut self) {
        if self.out.is_empty() {
            // 1000, masked with a key of which only the last byte is not zero.
            let _ = self.socket.write(&[0x88, 0x82, 0, 0, 0, 1, 0x03, 0xe8]);
        }
    }
}
