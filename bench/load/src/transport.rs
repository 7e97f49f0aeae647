//! A client's socket, with or without TLS: what the frames go through. Blocking or not, as the socket is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::tls::{Session, Trust};

pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<Box<Session>>,
    /// With TLS: what has not been sealed.
    plain: Vec<u8>,
    /// What the kernel has not taken, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
}

/// What a receive has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// As much as there was room for, or less: epoll(7): then the socket is empty.
    Some { is_short: bool },
    /// Nothing now; of a socket that blocks: within its time.
    Nothing,
    /// The server sends no more.
    End,
}

impl Transport {
    /// Of a connected socket that blocks; a TLS handshake is done over it.
    pub(crate) fn new(mut socket: TcpStream, trust: Option<&Trust>) -> io::Result<Transport> {
        let tls = trust.map(|trust| Session::open(trust, &mut socket)).transpose()?;
        let (plain, out) = (Vec::new(), Vec::new());
        Ok(Transport { socket, tls: tls.map(Box::new), plain, out, out_at: 0 })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// To append what [`Transport::flush`] is to send.
    pub(crate) fn queue(&mut self) -> &mut Vec<u8> {
        if self.tls.is_some() { &mut self.plain } else { &mut self.out }
    }

    /// Sends what is queued as far as the kernel takes it. Returns whether nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            if !self.plain.is_empty() {
                tls.seal(&self.plain, &mut self.out)?;
                self.plain.clear();
            }
        }
        while self.out_at < self.out.len() {
            match self.socket.write(&self.out[self.out_at..]) {
                Ok(len) => self.out_at += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_at = 0;
        Ok(true)
    }

    /// Sends all that is queued over a socket that blocks, and keeps no room for more.
    pub(crate) fn send_all(&mut self) -> io::Result<()> {
        if !self.flush()? {
            return Err(ErrorKind::TimedOut.into());
        }
        (self.plain, self.out) = (Vec::new(), Vec::new());
        Ok(())
    }

    /// Reads once, and gives what came to `deliver`. `buffer` has at least [`crate::tls::MIN_BUFFER`] bytes.
    pub(crate) fn receive<E: From<io::Error>>(
        &mut self,
        buffer: &mut [u8],
        mut deliver: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Received, E> {
        let held = self.tls.as_ref().map_or(0, |tls| tls.held(buffer));
        let len = loop {
            match self.socket.read(&mut buffer[held..]) {
                Ok(0) => return Ok(Received::End),
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(error.into()),
            }
        };
        let is_short = held + len < buffer.len();
        let received = &mut buffer[..held + len];
        let is_end = match &mut self.tls {
            None => deliver(received).map(|()| false),
            Some(tls) => tls.receive(received, &mut self.out, deliver),
        }?;
        Ok(if is_end { Received::End } else { Received::Some { is_short } })
    }
}
