//! A client of TLS 1.3 that seals its records itself, with rustls's algorithms: for messages in pieces, which no library sends.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use handoff_tls::{Secret, Session, State, Version};
use rustls::crypto::cipher::{AeadKey, Iv, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::tls13::OkmBlock;
use rustls::{CipherSuite, ContentType, KeyLog, ProtocolVersion, Tls13CipherSuite};

use super::rustls_client::{self, RawClient, all_suites};
use super::tls_site::Site;

const SUITE: CipherSuite = CipherSuite::TLS13_AES_256_GCM_SHA384;

/// What the server must not send, since it would be taken for a breach here.
pub const NO_TICKETS: &str = "ssl_protocols TLSv1.3; ssl_conf_command NumTickets 0;";

/// Its handshake is rustls's.
pub struct Tls13Client {
    socket: TcpStream,
    suite: &'static Tls13CipherSuite,
    /// The present traffic secret, and how many records it has protected.
    secret: Vec<u8>,
    count: u64,
    unsent: Vec<u8>,
    /// Opens what the server sends: the client's own is the server's the other way round.
    session: Session,
    sealed: Vec<u8>,
}

impl Tls13Client {
    /// Connects to a site with [`NO_TICKETS`]: the next that is sealed is the request.
    pub fn connected(site: &Site) -> Tls13Client {
        let suite = all_suites().into_iter().find(|suite| suite.suite() == SUITE).expect("a suite");
        let mut config = rustls_client::config(&[site.nginx.dir().join("cert.pem")], &[suite]);
        let log = Arc::new(Log::default());
        config.key_log = Arc::<Log>::clone(&log);
        let (_, socket) = RawClient::connect(site.port, Arc::new(config)).into_parts();
        let secret = |label| log.0.lock().expect("a log").get(label).expect("a secret").clone();
        let (own, theirs) = (secret("CLIENT_TRAFFIC_SECRET_0"), secret("SERVER_TRAFFIC_SECRET_0"));
        let state = State {
            version: Version::Tls13,
            suite: SUITE.into(),
            rx_seq: 0,
            tx_seq: 0,
            rx_secret: Secret::new(&theirs).expect("a secret"),
            tx_secret: Secret::new(&own).expect("a secret"),
            owes_key_update: false,
        };
        Tls13Client {
            socket,
            suite: suite.tls13().expect("TLS 1.3"),
            secret: own,
            count: 0,
            unsent: Vec::new(),
            session: Session::new(&state).expect("a session"),
            sealed: Vec::new(),
        }
    }

    /// A record that is not sent yet.
    pub fn seal(&mut self, kind: ContentType, content: &[u8]) {
        let key: [u8; 32] = self.expanded("key").try_into().expect("32 bytes");
        let iv: [u8; 12] = self.expanded("iv").try_into().expect("12 bytes");
        let mut encrypter = self.suite.aead_alg.encrypter(AeadKey::from(key), Iv::from(iv));
        let plain = OutboundPlainMessage {
            typ: kind,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(content),
        };
        let record = encrypter.encrypt(plain, self.count).expect("sealed");
        self.count += 1;
        self.unsent.extend(record.encode());
    }

    /// New keys from the next record on.
    pub fn next_keys(&mut self) {
        self.secret = self.expanded("traffic upd");
        self.count = 0;
    }

    /// Sends all that was sealed.
    pub fn send(&mut self) {
        self.socket.write_all(&self.unsent).expect("sent");
        self.unsent.clear();
    }

    /// Reads data up to this text.
    pub fn read_to(&mut self, text: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        let mut buffer = [0; 1 << 14];
        while !data.ends_with(text) {
            let read = self.socket.read(&mut buffer).expect("records");
            assert!(read > 0, "the end of file behind {}", String::from_utf8_lossy(&data));
            self.sealed.extend_from_slice(&buffer[..read]);
            let opened = self.session.open(&mut self.sealed);
            assert_eq!((opened.alert, opened.closed), (None, None));
            data.extend_from_slice(&self.sealed[..opened.data]);
            self.sealed.drain(..opened.used);
        }
        data
    }

    /// HKDF-Expand-Label without a context (RFC 8446 section 7.1).
    fn expanded(&self, label: &str) -> Vec<u8> {
        let mut out = match label {
            "key" => vec![0; 32],
            "iv" => vec![0; 12],
            _ => vec![0; self.secret.len()],
        };
        let (len, label) = (out.len() as u8, format!("tls13 {label}"));
        let info = [&[0, len, label.len() as u8], label.as_bytes(), &[0]].concat();
        let expander = self.suite.hkdf_provider.expander_for_okm(&OkmBlock::new(&self.secret));
        expander.expand_slice(&[&info], &mut out).expect("not too long");
        out
    }
}

/// The secrets that rustls tells of.
#[derive(Debug, Default)]
struct Log(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Log {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().expect("a log").insert(label.to_owned(), secret.to_vec());
    }
}
