//! TLS of a client, by rustls without buffers of its own: records are opened in the buffer that they were read into, so that
//! an idle client keeps little and a busy one copies little.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{ClientConfig, RootCertStore};

/// More than a record and what is around it, RFC 8446 5.2: a smaller buffer might never hold a whole one.
pub(crate) const MIN_BUFFER: usize = 32 * 1024;

/// RFC 8446 5.1.
const MAX_FRAGMENT: usize = 1 << 14;
/// Header, explicit nonce or content type, tag; of TLS 1.2 and 1.3.
const OVERHEAD: usize = 5 + 8 + 16;

/// The certificate that a server must have. Its clients resume no sessions: each handshake is a whole one.
#[derive(Debug, Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

/// One client's.
pub(crate) struct Session {
    connection: UnbufferedClientConnection,
    /// The beginning of a record whose rest has not come.
    held: Vec<u8>,
}

impl Trust {
    /// From a file in PEM, for a command line.
    pub(crate) fn load(path: &str) -> Result<Trust, String> {
        let certificate = CertificateDer::from_pem_file(path).map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Trust(Arc::new(config)))
    }
}

impl Session {
    /// The whole handshake over a blocking socket.
    pub(crate) fn open(trust: &Trust, socket: &mut TcpStream) -> io::Result<Session> {
        let name = ServerName::from(socket.peer_addr()?.ip());
        let connection = UnbufferedClientConnection::new(Arc::clone(&trust.0), name);
        let mut connection = connection.map_err(invalid)?;
        let mut incoming = vec![0; MIN_BUFFER];
        let mut outgoing = Vec::new();
        let mut used = 0;
        loop {
            let (mut wants_more, mut is_done) = (false, false);
            let UnbufferedStatus { discard, state } =
                connection.process_tls_records(incoming.get_mut(..used).unwrap_or_default());
            match state.map_err(invalid)? {
                ConnectionState::EncodeTlsData(data) => encode(data, &mut outgoing)?,
                ConnectionState::TransmitTlsData(data) => {
                    socket.write_all(&outgoing)?;
                    outgoing.clear();
                    data.done();
                }
                ConnectionState::BlockedHandshake => wants_more = true,
                ConnectionState::WriteTraffic(_) => is_done = true,
                other => return Err(invalid(format!("{other:?} in the TLS handshake"))),
            }
            incoming.copy_within(discard..used, 0);
            used -= discard;
            if is_done {
                let held = incoming.get(..used).unwrap_or_default().to_vec();
                return Ok(Session { connection, held });
            }
            if wants_more {
                match socket.read(incoming.get_mut(used..).unwrap_or_default())? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    len => used += len,
                }
            }
        }
    }

    /// Puts what it holds of a record at the begin of `buffer`, where the rest is to be read behind it; how much that is.
    pub(crate) fn held(&self, buffer: &mut [u8]) -> usize {
        if let Some(begin) = buffer.get_mut(..self.held.len()) {
            begin.copy_from_slice(&self.held);
        }
        self.held.len()
    }

    /// Opens the records in `received`, which [`Session::held`] has begun, and keeps the last one's beginning. Answers to
    /// the server's TLS go to `out`. Returns whether the server has said goodbye.
    pub(crate) fn receive<E: From<io::Error>>(
        &mut self,
        received: &mut [u8],
        out: &mut Vec<u8>,
        mut deliver: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut rest = received;
        let is_end = loop {
            let (mut wants_more, mut is_end) = (false, false);
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            match state.map_err(invalid)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        deliver(record.payload)?;
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(data, out)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) => wants_more = true,
                ConnectionState::PeerClosed | ConnectionState::Closed => is_end = true,
                other => return Err(invalid(format!("{other:?} behind the handshake")).into()),
            }
            rest = rest.get_mut(discard..).unwrap_or_default();
            if wants_more || is_end {
                break is_end;
            }
        };
        // An idle client keeps no room for it.
        self.held = rest.to_vec();
        Ok(is_end)
    }

    /// Appends `plain` to `out`, as records.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let status = self.connection.process_tls_records(&mut []);
        let ConnectionState::WriteTraffic(mut traffic) = status.state.map_err(invalid)? else {
            return Err(invalid("the session is at an end"));
        };
        let mut room = plain.len() + (plain.len() / MAX_FRAGMENT + 1) * OVERHEAD;
        let at = out.len();
        loop {
            out.resize(at + room, 0);
            match traffic.encrypt(plain, out.get_mut(at..).unwrap_or_default()) {
                Ok(len) => {
                    out.truncate(at + len);
                    return Ok(());
                }
                // An update of the keys goes first.
                Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                    room = size.required_size;
                }
                Err(error) => return Err(invalid(error)),
            }
        }
    }
}

/// Appends a message of the handshake's.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> io::Result<()> {
    let at = out.len();
    let mut room = 512;
    loop {
        out.resize(at + room, 0);
        match data.encode(out.get_mut(at..).unwrap_or_default()) {
            Ok(len) => {
                out.truncate(at + len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(error) => return Err(invalid(error)),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
