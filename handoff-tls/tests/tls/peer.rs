//! A client by others: rustls in both roles until the handshake is over, then a session instead of its server.

use std::sync::{Arc, Mutex};

use handoff_tls::{Alert, Closed, Secret, Session, State, Version};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, DigitallySignedStruct, KeyLog,
    ServerConfig, ServerConnection, SignatureScheme, SupportedCipherSuite,
};
use std::io::{Read, Write};

/// Takes any certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.3's application traffic secrets, the client's and the server's.
#[derive(Debug, Default)]
struct Secrets(Mutex<[Vec<u8>; 2]>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().expect("not poisoned");
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => secrets[0] = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => secrets[1] = secret.to_vec(),
            _ => (),
        }
    }
}

/// A client after its handshake, and the session that the server has handed over.
pub struct Pair {
    pub client: ClientConnection,
    pub session: Session,
    state: State,
    /// What the client has sent and the session has not used.
    input: Vec<u8>,
}

impl Pair {
    pub fn new(suite: SupportedCipherSuite) -> Pair {
        let versions = [suite.version()];
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let provider = Arc::new(provider);
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let certified = certified.expect("a certificate");
        let key = PrivateKeyDer::try_from(certified.key_pair.serialize_der()).expect("a key");
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .expect("a certificate");
        // Each would be a record.
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true;
        let secrets = Arc::new(Secrets::default());
        server.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("written");
            server.read_tls(&mut &wire[..]).expect("read");
            server.process_new_packets().expect("good packets");
            wire.clear();
            server.write_tls(&mut wire).expect("written");
            if !wire.is_empty() {
                client.read_tls(&mut &wire[..]).expect("read");
                client.process_new_packets().expect("good packets");
            }
        }
        let extracted = server.dangerous_extract_secrets().expect("secrets");
        let ((tx_seq, tx), (rx_seq, rx)) = (extracted.tx, extracted.rx);
        let is_13 = suite.tls13().is_some();
        let secrets = secrets.0.lock().expect("not poisoned");
        let secret = |index: usize, keys: ConnectionTrafficSecrets| {
            let bytes = if is_13 { secrets[index].clone() } else { key_and_iv(&keys) };
            Secret::new(&bytes).expect("a secret")
        };
        let state = State {
            version: if is_13 { Version::Tls13 } else { Version::Tls12 },
            suite: suite.suite().into(),
            rx_seq,
            tx_seq,
            rx_secret: secret(0, rx),
            tx_secret: secret(1, tx),
            owes_key_update: false,
        };
        let session = Session::new(&state).expect("a session");
        Pair { client, session, state, input: Vec::new() }
    }

    /// Another session, from where the handshake ended.
    pub fn again(&self) -> Session {
        Session::new(&self.state).expect("a session")
    }

    /// What the client has sent, whole records or not.
    pub fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).expect("written");
        }
        wire
    }

    /// What the session makes of all that the client has sent.
    pub fn received(&mut self) -> (Vec<u8>, Option<Closed>) {
        let wire = self.wire();
        self.input.extend(wire);
        let opened = self.session.open(&mut self.input);
        assert_eq!(opened.alert, None);
        let data = self.input[..opened.data].to_vec();
        self.input.drain(..opened.used);
        (data, opened.closed)
    }

    /// What the client makes of these records.
    pub fn delivered(&mut self, mut wire: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).expect("read");
            let state = self.client.process_new_packets().expect("good packets");
            let mut part = vec![0; state.plaintext_bytes_to_read()];
            self.client.reader().read_exact(&mut part).expect("data");
            data.extend(part);
        }
        data
    }

    pub fn send(&mut self, data: &[u8]) {
        for part in data.chunks(10_000) {
            self.client.writer().write_all(part).expect("room");
        }
    }
}

fn key_and_iv(keys: &ConnectionTrafficSecrets) -> Vec<u8> {
    match keys {
        // rustls keeps GCM's four bytes as the first of twelve.
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            [key.as_ref(), &iv.as_ref()[..4]].concat()
        }
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            [key.as_ref(), iv.as_ref()].concat()
        }
        _ => panic!("a suite of another kind"),
    }
}

pub fn suites() -> Vec<SupportedCipherSuite> {
    let suites = default_provider().cipher_suites;
    // rcgen's certificate has an ECDSA key.
    let is_rsa = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("_RSA_");
    suites.into_iter().filter(|suite| !is_rsa(suite)).collect()
}

fn contents(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[test]
fn data_of_any_length_passes_both_ways_with_every_suite() {
    assert_eq!(suites().len(), 6, "three each of both versions");
    for suite in suites() {
        let mut pair = Pair::new(suite);
        for len in [1, 2, 100, 16_383, 16_384, 16_385, 100_000, 1 << 20] {
            let data = contents(len);
            // rustls takes some 64 KiB at a time.
            let mut received = Vec::new();
            for part in data.chunks(50_000) {
                pair.send(part);
                received.extend(pair.received().0);
            }
            assert!(received == data, "{len} bytes from the client, {suite:?}");
            let mut out = Vec::new();
            pair.session.seal(&data, &mut out).expect("sealed");
            assert!(pair.delivered(&out) == data, "{len} bytes to the client, {suite:?}");
        }
        pair.client.send_close_notify();
        assert_eq!(pair.received(), (Vec::new(), Some(Closed::Notify)));
        let mut out = Vec::new();
        pair.session.seal_alert(Alert::CloseNotify, &mut out);
        assert_eq!(pair.delivered(&out), []);
        // An end without close_notify would be an error.
        assert_eq!(pair.client.reader().read(&mut [0]).expect("closed cleanly"), 0);
    }
}

#[test]
fn keys_are_updated_both_ways() {
    for suite in suites().into_iter().filter(|suite| suite.tls13().is_some()) {
        let mut pair = Pair::new(suite);
        for round in 0..5_u8 {
            pair.send(&[round; 10]);
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            pair.send(&[round; 20]);
            let (data, closed) = pair.received();
            assert_eq!((data, closed), (vec![round; 30], None));
            assert!(pair.session.wants_to_send(), "the client asks for new keys of the server");
            let mut out = Vec::new();
            if round % 2 == 0 {
                pair.session.seal(&[], &mut out).expect("sealed");
                assert!(!out.is_empty() && !pair.session.wants_to_send());
            }
            pair.session.seal(&[round; 40], &mut out).expect("sealed");
            assert!(!pair.session.wants_to_send());
            assert_eq!(pair.delivered(&out), [round; 40]);
        }
    }
}

/// Both sides' counters begin near the limit.
#[test]
fn keys_are_not_used_for_longer_than_is_safe() {
    for suite in suites() {
        let mut pair = Pair::new(suite);
        let is_13 = suite.tls13().is_some();
        let most = 1 << 24;
        let mut out = Vec::new();
        let state = |seq| State {
            version: if is_13 { Version::Tls13 } else { Version::Tls12 },
            suite: suite.suite().into(),
            rx_seq: 0,
            tx_seq: seq,
            rx_secret: Secret::new(&vec![1; secret_len(suite)]).expect("a secret"),
            tx_secret: Secret::new(&vec![2; secret_len(suite)]).expect("a secret"),
            owes_key_update: false,
        };
        let mut session = Session::new(&state(most - 20)).expect("a session");
        let records = |out: &[u8]| {
            let (mut count, mut rest) = (0, out);
            while let [_, _, _, l1, l0, tail @ ..] = rest {
                count += 1;
                rest = &tail[usize::from(u16::from_be_bytes([*l1, *l0]))..];
            }
            count
        };
        for _ in 0..4 {
            session.seal(b"x", &mut out).expect("sealed");
        }
        assert_eq!(records(&out), 4);
        if is_13 {
            for _ in 0..20 {
                session.seal(b"x", &mut out).expect("sealed");
            }
            assert_eq!(records(&out), 4 + 20 + 1, "and a KeyUpdate");
        } else {
            let before = out.len();
            assert!(session.seal(b"x", &mut out).is_err(), "{suite:?}");
            assert_eq!(out.len(), before);
            session.seal_alert(Alert::CloseNotify, &mut out);
            assert_eq!(records(&out), 5);
        }
        // With a peer: the announced keys are those that it comes to.
        if is_13 {
            out.clear();
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            let _ = pair.received();
            pair.session.seal(b"y", &mut out).expect("sealed");
            assert_eq!((records(&out), pair.delivered(&out)), (2, b"y".to_vec()));
        }
    }
}

fn secret_len(suite: SupportedCipherSuite) -> usize {
    let name = format!("{:?}", suite.suite());
    match (suite.tls13().is_some(), name.contains("AES_256"), name.contains("AES")) {
        (true, true, _) => 48,
        (true, false, _) => 32,
        (false, true, _) => 36,
        (false, false, true) => 20,
        (false, ..) => 44,
    }
}
