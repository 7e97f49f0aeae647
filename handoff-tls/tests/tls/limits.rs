//! How long keys are used, what nonces go with them, and that nothing follows the end.

use handoff_tls::{
    Alert, Closed, MAX_PLAINTEXT, SealError, Secret, Session, State, Suite, Version,
};

/// Each protection: the version, and the suite's number.
const PROTECTIONS: [(Version, u16); 6] = [
    (Version::Tls13, 0x1301),
    (Version::Tls13, 0x1302),
    (Version::Tls13, 0x1303),
    (Version::Tls12, 0xc02f),
    (Version::Tls12, 0xc030),
    (Version::Tls12, 0xcca8),
];

/// Records of full length that one key of AES-GCM may seal.
const MOST: u64 = 1 << 24;

/// After so many records of the client's and of the server's. All the same keys in both directions, so that the client's side is
/// the same with the numbers exchanged.
fn session((version, number): (Version, u16), rx_seq: u64, tx_seq: u64) -> Session {
    let suite = Suite::from_number(version, number).expect("a suite");
    let secret = Secret::new(&[7; 48][..suite.secret_len(version)]).expect("a secret");
    let state = State {
        version,
        suite: number,
        rx_seq,
        tx_seq,
        rx_secret: secret.clone(),
        tx_secret: secret,
        owes_key_update: false,
    };
    Session::new(&state).expect("a session")
}

/// How many there are.
fn records(mut wire: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, l1, l0, rest @ ..] = wire {
        count += 1;
        wire = &rest[usize::from(u16::from_be_bytes([*l1, *l0]))..];
    }
    assert_eq!(wire, []);
    count
}

fn sealed(session: &mut Session, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    session.seal(data, &mut out).expect("sealed");
    out
}

/// What comes out, where nothing is wrong.
fn opened(session: &mut Session, mut wire: Vec<u8>) -> Vec<u8> {
    let opened = session.open(&mut wire);
    assert_eq!((opened.alert, opened.closed, opened.used), (None, None, wire.len()));
    wire.truncate(opened.data);
    wire
}

fn is_chacha((version, number): (Version, u16)) -> bool {
    Suite::from_number(version, number) == Some(Suite::ChaCha20Poly1305)
}

#[test]
fn a_tls_13_server_goes_on_to_its_next_keys_in_time() {
    for protection in PROTECTIONS.into_iter().filter(|(version, _)| *version == Version::Tls13) {
        let mut server = session(protection, 0, MOST - 1);
        let mut client = session(protection, MOST - 1, 0);
        let (mut count, mut updates) = (0, 0);
        let full = vec![1; MAX_PLAINTEXT];
        for n in 0..2000_usize {
            let data = if n % 500 == 499 { &full[..] } else { b"x" };
            let wire = sealed(&mut server, data);
            let now = records(&wire);
            (count, updates) = (count + now, updates + usize::from(now == 2));
            assert!(opened(&mut client, wire) == data, "{protection:?}, {n}");
        }
        // No more of the blocks are left than a single record of full length has.
        let expected = usize::from(!is_chacha(protection));
        assert_eq!((count, updates), (2000 + expected, expected), "{protection:?}");
    }
}

/// What counts is how much was sealed: there may be many more short records than long ones.
#[test]
fn a_tls_12_session_says_that_it_wears_out_long_before_it_has() {
    for protection in PROTECTIONS.into_iter().filter(|(version, _)| *version == Version::Tls12) {
        let can_wear_out = !is_chacha(protection);
        let most_of_it = MOST / 4 * 3;
        let full = vec![1; MAX_PLAINTEXT];
        let mut server = session(protection, 0, most_of_it - 1);
        assert!(!server.is_wearing_out());
        let _ = sealed(&mut server, &full);
        assert_eq!(server.is_wearing_out(), can_wear_out, "{protection:?}");

        let mut server = session(protection, most_of_it - 1, 0);
        let mut client = session(protection, 0, most_of_it - 1);
        assert!(!server.is_wearing_out());
        let wire = sealed(&mut client, &full);
        assert!(opened(&mut server, wire) == full);
        assert_eq!(server.is_wearing_out(), can_wear_out, "the client's keys, {protection:?}");

        // There is room for all that may wait: 60 GiB.
        let mut server = session(protection, 0, most_of_it + (60 << 30) / MAX_PLAINTEXT as u64);
        assert_eq!(records(&sealed(&mut server, &vec![1; 1 << 20])), 64);

        let mut server = session(protection, 0, MOST - 1);
        let mut out = b"before".to_vec();
        let result = server.seal(&full, &mut out);
        if can_wear_out {
            assert_eq!((result, &*out), (Err(SealError::Exhausted), &b"before"[..]));
        } else {
            assert_eq!(result, Ok(()));
        }
        out.clear();
        server.seal_alert(Alert::CloseNotify, &mut out);
        assert_eq!(records(&out), 1, "{protection:?}");
    }
}

#[test]
fn a_tls_13_client_is_asked_once_to_update_keys_that_it_has_used_for_long() {
    for protection in PROTECTIONS.into_iter().filter(|(version, _)| *version == Version::Tls13) {
        let before = MOST / 4 * 3;
        let mut server = session(protection, before, 0);
        let mut client = session(protection, 0, before);
        for word in [&b"first"[..], b"second"] {
            let wire = sealed(&mut client, word);
            assert_eq!(opened(&mut server, wire), word);
        }
        if is_chacha(protection) {
            assert!(!server.wants_to_send());
            continue;
        }
        assert!(server.wants_to_send());
        let wire = sealed(&mut server, b"answer");
        assert_eq!(records(&wire), 2);
        assert_eq!(opened(&mut client, wire), b"answer");
        assert!(client.wants_to_send(), "it was asked");
        let wire = sealed(&mut client, b"updated");
        assert_eq!(records(&wire), 2);
        assert_eq!(opened(&mut server, wire), b"updated");
        for _ in 0..3 {
            let wire = sealed(&mut client, b"on");
            assert_eq!(opened(&mut server, wire), b"on");
            assert!(!server.wants_to_send(), "once is enough");
        }
    }
}

#[test]
fn nothing_follows_the_end() {
    for protection in PROTECTIONS {
        for last in [Alert::CloseNotify, Alert::BadRecordMac] {
            let mut server = session(protection, 0, 0);
            let mut client = session(protection, 0, 0);
            let mut wire = sealed(&mut server, b"before");
            server.seal_alert(last, &mut wire);
            let len = wire.len();
            server.seal_alert(Alert::CloseNotify, &mut wire);
            assert_eq!(server.seal(b"after", &mut wire), Err(SealError::Closed));
            assert_eq!(wire.len(), len, "{protection:?}");
            let opened = client.open(&mut wire);
            let closed = match last {
                Alert::CloseNotify => Closed::Notify,
                other => Closed::Alert(other.to_bytes()[1]),
            };
            assert_eq!((opened.closed, opened.data), (Some(closed), 6));
        }
        // This one ends nothing.
        let mut server = session(protection, 0, 0);
        server.seal_alert(Alert::NoRenegotiation, &mut Vec::new());
        assert_eq!(server.seal(b"after", &mut Vec::new()), Ok(()));
    }
}

/// Uniqueness of nonces within one session is what GCM stands and falls with.
#[test]
fn explicit_nonces_go_on_from_the_sequence_number() {
    for protection in [PROTECTIONS[3], PROTECTIONS[4]] {
        let mut server = session(protection, 0, 5);
        let mut wire = sealed(&mut server, &vec![0; 2 * MAX_PLAINTEXT + 1]);
        server.seal_alert(Alert::CloseNotify, &mut wire);
        let (mut rest, mut seq) = (&wire[..], 5_u64);
        while let [_, _, _, l1, l0, record @ ..] = rest {
            assert_eq!(record[..8], seq.to_be_bytes());
            rest = &record[usize::from(u16::from_be_bytes([*l1, *l0]))..];
            seq += 1;
        }
        assert_eq!(seq, 5 + 4);
    }
}
