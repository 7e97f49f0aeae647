//! A client of TLS 1.2 whose records are sealed by this project's own library: for those that no other would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use handoff_tls::{Alert, Closed, Secret, Session, State, Version};
use rustls::{CipherSuite, ConnectionTrafficSecrets};

use super::rustls_client::{self, RawClient, all_suites};
use super::tls_site::{HANDSHAKE, Site};

/// Its session is rustls's up to the upgrade.
pub struct SealingClient {
    socket: TcpStream,
    session: Session,
    unsent: Vec<u8>,
    /// What came and is not opened yet.
    sealed: Vec<u8>,
}

impl SealingClient {
    /// Connects, and upgrades.
    pub fn upgraded(site: &Site) -> SealingClient {
        SealingClient::after(site, |client| {
            client.write(HANDSHAKE);
            client.send(None);
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        })
    }

    /// Connects: the next that is sealed is the request.
    pub fn connected(site: &Site) -> SealingClient {
        SealingClient::after(site, |_| ())
    }

    fn after(site: &Site, begin: impl FnOnce(&mut RawClient)) -> SealingClient {
        let number = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        let suites: Vec<_> =
            all_suites().into_iter().filter(|suite| suite.suite() == number).collect();
        let mut config = rustls_client::config(&[site.nginx.dir().join("cert.pem")], &suites);
        config.enable_secret_extraction = true;
        let mut client = RawClient::connect(site.port, Arc::new(config));
        begin(&mut client);
        let (tls, socket) = client.into_parts();
        let secrets = tls.dangerous_extract_secrets().expect("the keys");
        // The server's own side of it is the client's other way round.
        let state = State {
            version: Version::Tls12,
            suite: number.into(),
            rx_seq: secrets.rx.0,
            tx_seq: secrets.tx.0,
            rx_secret: secret(&secrets.rx.1),
            tx_secret: secret(&secrets.tx.1),
            owes_key_update: false,
        };
        let session = Session::new(&state).expect("a session");
        SealingClient { socket, session, unsent: Vec::new(), sealed: Vec::new() }
    }

    /// A record with data that is not sent yet.
    pub fn seal(&mut self, data: &[u8]) {
        self.session.seal(data, &mut self.unsent).expect("keys");
    }

    /// One with an alert.
    pub fn seal_alert(&mut self, alert: Alert) {
        self.session.seal_alert(alert, &mut self.unsent);
    }

    /// Sends all of these at once.
    pub fn send(&mut self) {
        self.socket.write_all(&self.unsent).expect("sent");
        self.unsent.clear();
    }

    /// Reads so much data, or what there is up to the end; and how the server has ended the session, if it has.
    pub fn read(&mut self, len: usize) -> (Vec<u8>, Option<Closed>) {
        let mut data = Vec::new();
        let mut buffer = [0; 1 << 14];
        while data.len() < len {
            let read = self.socket.read(&mut buffer).expect("records, or the end of file");
            if read == 0 {
                assert!(self.sealed.is_empty(), "a part of a record");
                return (data, None);
            }
            self.sealed.extend_from_slice(&buffer[..read]);
            let opened = self.session.open(&mut self.sealed);
            assert_eq!(opened.alert, None, "records that cannot be opened");
            data.extend_from_slice(&self.sealed[..opened.data]);
            self.sealed.drain(..opened.used);
            if opened.closed.is_some() {
                return (data, opened.closed);
            }
        }
        (data, None)
    }
}

/// The key, and the part of the IV that all records have in common.
fn secret(secrets: &ConnectionTrafficSecrets) -> Secret {
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        panic!("the keys of another suite")
    };
    Secret::new(&[key.as_ref(), &iv.as_ref()[..4]].concat()).expect("a secret")
}
