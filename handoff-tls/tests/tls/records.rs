//! What a client's records may hold, and how the session ends when they hold anything else.

use handoff_tls::{Alert, Closed, MAX_PLAINTEXT, Opened, Secret, Session, State, Version};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

// RFC 8448 section 3: the client's application traffic secret, and its key and IV.
const SECRET: [u8; 32] = [
    0x9e, 0x40, 0x64, 0x6c, 0xe7, 0x9a, 0x7f, 0x9d, 0xc0, 0x5a, 0xf8, 0x88, 0x9b, 0xce, 0x65, 0x52,
    0x87, 0x5a, 0xfa, 0x0b, 0x06, 0xdf, 0x00, 0x87, 0xf7, 0x92, 0xeb, 0xb7, 0xc1, 0x75, 0x04, 0xa5,
];
const KEY: [u8; 16] = [
    0x17, 0x42, 0x2d, 0xda, 0x59, 0x6e, 0xd5, 0xd9, 0xac, 0xd8, 0x90, 0xe3, 0xc6, 0x3f, 0x50, 0x51,
];
const IV: [u8; 12] = [0x5b, 0x78, 0x92, 0x3d, 0xee, 0x08, 0x57, 0x90, 0x33, 0xe5, 0x23, 0xd9];

/// A client that can send anything, and the server's session.
struct Peer {
    version: Version,
    key: LessSafeKey,
    seq: u64,
    session: Session,
}

impl Peer {
    fn new(version: Version) -> Peer {
        let secret = match version {
            Version::Tls13 => SECRET.to_vec(),
            Version::Tls12 => [&KEY[..], &IV[..4]].concat(),
        };
        let secret = Secret::new(&secret).expect("a secret");
        let session = Session::new(&State {
            version,
            suite: if version == Version::Tls13 { 0x1301 } else { 0xc02f },
            rx_seq: 7,
            tx_seq: 0,
            rx_secret: secret.clone(),
            tx_secret: secret,
            owes_key_update: false,
        });
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY).expect("a key"));
        Peer { version, key, seq: 7, session: session.expect("a session") }
    }

    /// A record as it should be, whatever is in it.
    fn record(&mut self, kind: u8, plain: &[u8]) -> Vec<u8> {
        match self.version {
            Version::Tls13 => self.inner([plain, &[kind]].concat()),
            Version::Tls12 => {
                let explicit = (self.seq ^ 0xaaaa_5555).to_be_bytes();
                let nonce = [&IV[..4], &explicit].concat().try_into().expect("12 bytes");
                let len = (plain.len() as u16).to_be_bytes();
                let aad = [&self.seq.to_be_bytes()[..], &[kind, 3, 3], &len].concat();
                let mut sealed = plain.to_vec();
                self.key
                    .seal_in_place_append_tag(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::from(aad),
                        &mut sealed,
                    )
                    .expect("sealed");
                self.seq += 1;
                let len = ((8 + sealed.len()) as u16).to_be_bytes();
                [&[kind, 3, 3][..], &len, &explicit, &sealed].concat()
            }
        }
    }

    /// TLS 1.3: a record with this as its TLSInnerPlaintext.
    fn inner(&mut self, mut inner: Vec<u8>) -> Vec<u8> {
        let mut nonce = IV;
        nonce.iter_mut().skip(4).zip(self.seq.to_be_bytes()).for_each(|(n, s)| *n ^= s);
        let [l1, l0] = ((inner.len() + 16) as u16).to_be_bytes();
        let header = [DATA, 3, 3, l1, l0];
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                &mut inner,
            )
            .expect("sealed");
        self.seq += 1;
        [&header[..], &inner].concat()
    }

    /// Data, then these records: what they lead to, and what data comes out.
    fn after_data(&mut self, records: &[Vec<u8>]) -> (Opened, Vec<u8>) {
        let mut input = records.concat();
        let opened = self.session.open(&mut input);
        let data = input[..opened.data].to_vec();
        (opened, data)
    }
}

/// The data before is good; the alert is this; and nothing that follows is looked at.
#[track_caller]
fn ends_with(version: Version, make: impl Fn(&mut Peer) -> Vec<u8>, alert: Alert) {
    let mut peer = Peer::new(version);
    let before = peer.record(DATA, b"before");
    let wrong = make(&mut peer);
    let after = peer.record(DATA, b"after");
    let (opened, data) = peer.after_data(&[before, wrong, after.clone()]);
    assert_eq!((opened.alert, opened.closed), (Some(alert), None), "{version:?}");
    assert_eq!(data, b"before");
    let (opened, _) = peer.after_data(&[after]);
    assert_eq!((opened.data, opened.alert, opened.closed), (0, None, None), "all is over");
}

const BOTH: [Version; 2] = [Version::Tls12, Version::Tls13];

#[test]
fn records_that_were_tampered_with_end_the_session() {
    for version in BOTH {
        let good = Peer::new(version).record(DATA, b"data").len();
        // The length says where the record ends: another one is another error, or none yet.
        for place in (0..good).filter(|place| !(3..5).contains(place)) {
            let mut peer = Peer::new(version);
            let mut wrong = peer.record(DATA, b"data");
            wrong[place] ^= 1;
            let (opened, data) = peer.after_data(&[wrong]);
            let alert = match (place, version) {
                (0, Version::Tls13) => Alert::UnexpectedMessage,
                // 23 ^ 1 is the handshake's type.
                (1 | 2, Version::Tls12) => Alert::ProtocolVersion,
                _ => Alert::BadRecordMac,
            };
            assert_eq!(
                (opened.alert, data),
                (Some(alert), Vec::new()),
                "byte {place}, {version:?}"
            );
        }
    }
}

#[test]
fn records_that_come_again_or_too_early_end_the_session() {
    for version in BOTH {
        let again = |peer: &mut Peer| {
            let record = peer.record(DATA, b"once");
            [record.clone(), record].concat()
        };
        let mut peer = Peer::new(version);
        let records = again(&mut peer);
        let (opened, data) = peer.after_data(&[records]);
        assert_eq!((opened.alert, data), (Some(Alert::BadRecordMac), b"once".to_vec()));

        let mut peer = Peer::new(version);
        let (first, second) = (peer.record(DATA, b"first"), peer.record(DATA, b"second"));
        let (opened, data) = peer.after_data(&[second, first]);
        assert_eq!((opened.alert, data), (Some(Alert::BadRecordMac), Vec::new()));
    }
}

#[test]
fn records_that_are_too_long_end_the_session() {
    for version in BOTH {
        let most = vec![1; MAX_PLAINTEXT];
        let mut peer = Peer::new(version);
        let longest = peer.record(DATA, &most);
        let (opened, data) = peer.after_data(&[longest]);
        assert_eq!((opened.alert, data == most), (None, true));
        let more = [&most[..], &[1]].concat();
        ends_with(version, |peer| peer.record(DATA, &more), Alert::RecordOverflow);
        // It is known from the header alone, before all of it is here.
        let mut peer = Peer::new(version);
        let mut header = [DATA, 3, 3, 0xff, 0xff];
        let opened = peer.session.open(&mut header);
        assert_eq!(opened.alert, Some(Alert::RecordOverflow));
    }
    // Zeros are a part of the plaintext's length.
    let padded = |len: usize| [&[1, DATA][..], &vec![0; len]].concat();
    let mut peer = Peer::new(Version::Tls13);
    let record = peer.inner(padded(MAX_PLAINTEXT - 1));
    let (opened, data) = peer.after_data(&[record]);
    assert_eq!((opened.alert, data), (None, vec![1]));
    let overflow = Alert::RecordOverflow;
    ends_with(Version::Tls13, |peer| peer.inner(padded(MAX_PLAINTEXT)), overflow);
}

#[test]
fn records_of_types_that_have_no_place_end_the_session() {
    let wrong = Alert::UnexpectedMessage;
    for version in BOTH {
        ends_with(version, |peer| peer.record(20, &[1]), wrong);
        ends_with(version, |peer| peer.record(99, &[1]), wrong);
        ends_with(version, |_| vec![20, 3, 3, 0, 1, 1], wrong);
        // Not sealed at all.
        let plain = if version == Version::Tls13 { wrong } else { Alert::BadRecordMac };
        ends_with(version, |_| vec![ALERT, 3, 3, 0, 2, 1, 0], plain);
    }
    ends_with(Version::Tls13, |peer| peer.inner(vec![0; 40]), wrong);
    ends_with(Version::Tls13, |peer| peer.record(HANDSHAKE, &[]), wrong);
    // A ClientHello, a NewSessionTicket.
    ends_with(Version::Tls13, |peer| peer.record(HANDSHAKE, &[1, 0, 0, 0]), wrong);
    ends_with(Version::Tls13, |peer| peer.record(HANDSHAKE, &[4, 0, 0, 0]), wrong);
}

#[test]
fn key_updates_have_a_form() {
    let tls13 = Version::Tls13;
    let update = |bytes: &'static [u8]| move |peer: &mut Peer| peer.record(HANDSHAKE, bytes);
    ends_with(tls13, update(&[24, 0, 0, 1, 2]), Alert::IllegalParameter);
    ends_with(tls13, update(&[24, 0, 0, 2, 0, 0]), Alert::DecodeError);
    ends_with(tls13, update(&[24, 0, 0, 0]), Alert::DecodeError);
    // The rest would be under the new keys.
    ends_with(tls13, update(&[24, 0, 0, 1, 0, 24]), Alert::UnexpectedMessage);

    // In several records; but with nothing else between them.
    let mut peer = Peer::new(tls13);
    let records: Vec<_> =
        [&[24_u8][..], &[0, 0], &[1, 1]].iter().map(|part| peer.record(HANDSHAKE, part)).collect();
    let (opened, _) = peer.after_data(&records);
    assert_eq!((opened.alert, peer.session.wants_to_send()), (None, true));
    let between =
        |peer: &mut Peer| [peer.record(HANDSHAKE, &[24, 0, 0]), peer.record(DATA, b"x")].concat();
    ends_with(tls13, between, Alert::UnexpectedMessage);
    // Under the old keys nothing is good any more.
    let late = |peer: &mut Peer| {
        [peer.record(HANDSHAKE, &[24, 0, 0, 1, 0]), peer.record(DATA, b"x")].concat()
    };
    ends_with(tls13, late, Alert::BadRecordMac);
}

#[test]
fn alerts_end_the_session() {
    for version in BOTH {
        let mut peer = Peer::new(version);
        let records =
            [peer.record(DATA, b"last"), peer.record(ALERT, &[1, 0]), peer.record(DATA, b"later")];
        let used = records[0].len() + records[1].len();
        let (opened, data) = peer.after_data(&records);
        assert_eq!((opened.closed, opened.alert), (Some(Closed::Notify), None));
        assert_eq!((opened.used, data), (used, b"last".to_vec()));

        let mut peer = Peer::new(version);
        let record = peer.record(ALERT, &[2, 40]);
        assert_eq!(peer.after_data(&[record]).0.closed, Some(Closed::Alert(40)));
        let mut answer = Vec::new();
        peer.session.seal_alert(Alert::CloseNotify, &mut answer);
        assert_eq!(answer, [], "nothing is answered to an alert");
        // RFC 8446 section 5.4.
        ends_with(version, |peer| peer.record(ALERT, &[]), Alert::UnexpectedMessage);
        ends_with(version, |peer| peer.record(ALERT, &[1]), Alert::DecodeError);
        ends_with(version, |peer| peer.record(ALERT, &[1, 0, 0]), Alert::DecodeError);

        // Announces a close_notify, which then comes.
        let mut peer = Peer::new(version);
        let records = [peer.record(ALERT, &[1, 90]), peer.record(DATA, b"still")];
        assert_eq!(peer.after_data(&records).1, b"still");
    }
    // Its levels mean nothing in TLS 1.3.
    let mut peer = Peer::new(Version::Tls13);
    let record = peer.record(ALERT, &[1, 40]);
    assert_eq!(peer.after_data(&[record]).0.closed, Some(Closed::Alert(40)));
}

#[test]
fn a_tls_12_client_is_told_once_that_nothing_is_negotiated_anew() {
    let mut peer = Peer::new(Version::Tls12);
    let records = [peer.record(HANDSHAKE, &[1, 0, 0, 0]), peer.record(DATA, b"on")];
    let (opened, data) = peer.after_data(&records);
    assert_eq!((opened.alert, data), (Some(Alert::NoRenegotiation), b"on".to_vec()));
    let again = peer.record(HANDSHAKE, &[1, 0, 0, 0]);
    let (opened, _) = peer.after_data(&[again]);
    assert_eq!(opened.alert, Some(Alert::UnexpectedMessage));
}

#[test]
fn empty_records_are_nothing() {
    for version in BOTH {
        let mut peer = Peer::new(version);
        let records = [peer.record(DATA, b""), peer.record(DATA, b"x"), peer.record(DATA, b"")];
        let (opened, data) = peer.after_data(&records);
        assert_eq!(
            (opened.alert, opened.used, data),
            (None, records.concat().len(), b"x".to_vec())
        );
    }
}

/// As many as OpenSSL bears; each is work for the server and nothing for the application.
const MOST_IDLE: usize = 32;

#[test]
fn only_so_many_records_in_a_row_may_bring_nothing() {
    for version in BOTH {
        let mut peer = Peer::new(version);
        let idle = |peer: &mut Peer, n: usize| match n % 3 {
            0 => peer.record(ALERT, &[1, 90]),
            _ => peer.record(DATA, b""),
        };
        // However they come: the count goes on from one call to the next.
        for round in 0..3 {
            let mut records: Vec<_> = (0..MOST_IDLE).map(|n| idle(&mut peer, n)).collect();
            if round == 1 {
                for record in records.drain(..) {
                    assert_eq!(peer.after_data(&[record]).0.alert, None);
                }
            }
            records.push(peer.record(DATA, b"x"));
            let (opened, data) = peer.after_data(&records);
            assert_eq!((opened.alert, data), (None, b"x".to_vec()), "and all may begin again");
        }
        let records: Vec<_> = (0..=MOST_IDLE).map(|n| idle(&mut peer, n)).collect();
        let (opened, _) = peer.after_data(&records[..MOST_IDLE]);
        assert_eq!(opened.alert, None);
        let (opened, _) = peer.after_data(&records[MOST_IDLE..]);
        assert_eq!(opened.alert, Some(Alert::UnexpectedMessage), "{version:?}");
        // An end is one all the same.
        let mut peer = Peer::new(version);
        let mut records: Vec<_> = (0..MOST_IDLE).map(|n| idle(&mut peer, n)).collect();
        records.push(peer.record(ALERT, &[1, 0]));
        assert_eq!(peer.after_data(&records).0.closed, Some(Closed::Notify));
    }
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 256, "{}", size_of::<Session>());
}
