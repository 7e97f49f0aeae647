//! Handshakes by others: rustls in both roles, until the client has its keys and the server's can be taken out. The backend's
//! tests use this file, too.

use std::sync::{Arc, Mutex};

use handoff_tls::{Secret, State, Version};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, DigitallySignedStruct, KeyLog,
    ServerConfig, ServerConnection, SignatureScheme, SupportedCipherSuite,
};

/// A client after its handshake, and the server's side as nginx would pass it on.
pub fn shake_hands(suite: SupportedCipherSuite) -> (ClientConnection, State) {
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
    (client, state)
}

/// All that both rustls and a session have: three of each version.
pub fn suites() -> Vec<SupportedCipherSuite> {
    let suites = default_provider().cipher_suites;
    // rcgen's certificate has an ECDSA key.
    let is_rsa = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("_RSA_");
    suites.into_iter().filter(|suite| !is_rsa(suite)).collect()
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
