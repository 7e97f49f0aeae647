//! WebSocket clients by others: tungstenite over rustls, and rustls alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedCipherSuite,
};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Bytes, Message};

use super::PATIENCE;
use super::frame::{CLOSE, Frame};

/// An open one.
pub struct RustlsClient {
    socket: WebSocket<StreamOwned<ClientConnection, TcpStream>>,
}

/// What is agreed on with the servers whose certificates are in these files: any version, these suites.
pub fn config(certificates: &[PathBuf], suites: &[SupportedCipherSuite]) -> ClientConfig {
    builder(certificates, suites).with_no_client_auth()
}

/// The same for a client that has a certificate: `NAME.pem` and `NAME.key` in `dir`.
pub fn config_with_certificate(servers: &[PathBuf], dir: &Path, name: &str) -> ClientConfig {
    let chain = vec![certificate(&dir.join(format!("{name}.pem")))];
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).expect("a key");
    let builder = builder(servers, &all_suites());
    builder.with_client_auth_cert(chain, key).expect("a certificate and its key")
}

/// All that rustls has: three of TLS 1.3, and of TLS 1.2 as many for each kind of key.
pub fn all_suites() -> Vec<SupportedCipherSuite> {
    default_provider().cipher_suites
}

fn builder(
    certificates: &[PathBuf],
    suites: &[SupportedCipherSuite],
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut provider = default_provider();
    provider.cipher_suites = suites.to_vec();
    let mut roots = RootCertStore::empty();
    for path in certificates {
        roots.add(certificate(path)).expect("a certificate that can be trusted");
    }
    // Only the versions that the suites are of.
    let mut versions: Vec<_> = suites.iter().map(SupportedCipherSuite::version).collect();
    versions.dedup();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .expect("versions that have suites")
        .with_root_certificates(roots)
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

impl RustlsClient {
    /// Connects to the server `name` at a port of 127.0.0.1, and upgrades.
    pub fn connect(port: u16, name: &str, config: &Arc<ClientConfig>) -> RustlsClient {
        let stream = stream(port, name, config);
        // No limit of its own.
        let options = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let url = format!("wss://{name}:{port}/ws");
        let opened = tungstenite::client::client_with_config(url, stream, Some(options));
        let (socket, _) = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
        RustlsClient { socket }
    }

    /// rustls's side: what was agreed on, and the keys.
    pub fn tls(&mut self) -> &mut ClientConnection {
        &mut self.socket.get_mut().conn
    }

    /// Has a text and binary data of so many bytes come back.
    pub fn echo(&mut self, size: usize) {
        let binary: Vec<u8> = (0..size).map(|n| (n * 31 + n / 251) as u8).collect();
        let text: String = ('a'..='z').cycle().take(size).collect();
        for message in [Message::Binary(Bytes::from(binary)), Message::text(text)] {
            self.socket.send(message.clone()).expect("sent");
            let answer = self.socket.read().expect("an answer");
            assert!(answer == message, "{size} bytes came back different");
        }
    }

    /// The server closes, for this reason.
    pub fn is_closed(&mut self, code: u16, reason: &str) {
        self.socket.flush().expect("sent");
        let Message::Close(Some(close)) = self.socket.read().expect("a close") else {
            panic!("something else than a close");
        };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (code, reason));
    }

    /// Sends a text; what comes back is not read.
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("sent");
    }

    /// Has `count` small messages come back, in order, a hundred at a time.
    pub fn echo_many(&mut self, count: usize) {
        let message = |number: usize| Message::text(format!("message {number}"));
        for first in (0..count).step_by(100) {
            for number in first..count.min(first + 100) {
                self.socket.write(message(number)).expect("written");
            }
            self.socket.flush().expect("sent");
            for number in first..count.min(first + 100) {
                assert_eq!(self.socket.read().expect("an answer"), message(number));
            }
        }
    }

    /// Closes the WebSocket, and insists on an orderly end of the TLS session, too.
    pub fn close(mut self) {
        self.socket.close(None).expect("sent");
        let closed = loop {
            match self.socket.read() {
                Ok(_) => (),
                Err(error) => break error,
            }
        };
        assert!(matches!(closed, tungstenite::Error::ConnectionClosed), "{closed:?}");
        // Without close_notify rustls gives UnexpectedEof.
        let end = self.socket.get_mut().read(&mut [0]).expect("an end that was announced");
        assert_eq!(end, 0);
    }
}

/// One whose records are sent when the test says so.
pub struct RawClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl RawClient {
    /// Connects to `localhost`, and does the TLS handshake.
    pub fn connect(port: u16, config: Arc<ClientConfig>) -> RawClient {
        let mut stream = stream(port, "localhost", &config);
        while stream.conn.is_handshaking() || stream.conn.wants_write() {
            stream.conn.complete_io(&mut stream.sock).expect("a handshake");
        }
        RawClient { stream }
    }

    /// A record that is not sent yet.
    pub fn write(&mut self, data: &[u8]) {
        self.stream.conn.writer().write_all(data).expect("room");
    }

    /// New keys from the next record on, and a wish for the server's; in a record that is not sent yet.
    pub fn update_keys(&mut self) {
        self.stream.conn.refresh_traffic_keys().expect("TLS 1.3");
    }

    /// All that was written, to be sent by the test itself.
    pub fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.stream.conn.wants_write() {
            self.stream.conn.write_tls(&mut records).expect("written");
        }
        records
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.sock.write_all(bytes).expect("sent");
    }

    /// Sends all that was written, at once, or what is behind `cut` bytes a little later.
    pub fn send(&mut self, cut: Option<usize>) {
        let records = self.records();
        let (first, second) = records.split_at(cut.unwrap_or(records.len()).min(records.len()));
        self.send_bytes(first);
        if !second.is_empty() {
            // No fact tells that nginx has looked: some cuts are seen, and all have to do no harm.
            std::thread::sleep(std::time::Duration::from_millis(3));
            self.send_bytes(second);
        }
    }

    pub fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        String::from_utf8(head).expect("ASCII")
    }

    /// Reads to the connection's end, or a fatal alert: which.
    pub fn read_alert(&mut self) -> Option<AlertDescription> {
        loop {
            // An end that is a reset is one, too.
            let read = self.stream.conn.read_tls(&mut self.stream.sock);
            let outcome = self.stream.conn.process_new_packets();
            if let Err(rustls::Error::AlertReceived(alert)) = outcome {
                return Some(alert);
            }
            outcome.expect("records of the server's");
            match read {
                Ok(0) => return None,
                Ok(_) => (),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What is below rustls, which has nothing more to read or to send.
    pub fn into_parts(self) -> (ClientConnection, TcpStream) {
        self.stream.into_parts()
    }

    pub fn read_frame(&mut self) -> Frame {
        Frame::read(&mut self.stream).expect("a frame")
    }

    /// Reads this frame; false if that may be and the server closes instead, since its kernel cannot change keys.
    pub fn comes_back(&mut self, expected: &Frame, may_close: bool) -> bool {
        let frame = self.read_frame();
        if may_close && frame.opcode == CLOSE && frame.payload.starts_with(&[3, 233]) {
            return false;
        }
        assert_eq!(frame, *expected);
        true
    }
}

fn stream(
    port: u16,
    name: &str,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    socket.set_read_timeout(Some(*PATIENCE)).expect("a deadline");
    socket.set_write_timeout(Some(*PATIENCE)).expect("a deadline");
    socket.set_nodelay(true).expect("an option");
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let tls = ClientConnection::new(Arc::clone(config), server).expect("a client");
    StreamOwned::new(tls, socket)
}
