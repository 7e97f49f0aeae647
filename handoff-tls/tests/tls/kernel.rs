//! The pieces that a kernel takes, and what it gives back.

use handoff_tls::{
    Alert, Closed, Control, KEY_UPDATE_ANSWER, Secret, Session, State, Suite, Version,
};

fn session(version: Version, suite: u16, rx: &[u8], tx: &[u8]) -> Session {
    let secret = |bytes| Secret::new(bytes).expect("a secret");
    let state = State {
        version,
        suite,
        rx_seq: 0x0102,
        tx_seq: 0x0304,
        rx_secret: secret(rx),
        tx_secret: secret(tx),
        owes_key_update: false,
    };
    Session::new(&state).expect("a session")
}

#[test]
fn keys_of_tls_1_3_are_derived_as_for_user_space() {
    // RFC 8448 section 3: the server's application traffic secret, and its key and IV.
    let secret = [
        0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad, 0x47, 0x11, 0x6b, 0x45, 0xa9, 0x50,
        0x32, 0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a, 0x4b, 0x4f, 0x1f, 0x3f, 0xcb, 0x63,
        0x16, 0x43,
    ];
    let key = [
        0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef, 0xc2, 0x6b, 0xb9, 0xf2, 0xac, 0x92, 0xe3,
        0x56,
    ];
    let iv = [0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84];
    let session = session(Version::Tls13, 0x1301, &[1; 32], &secret);
    let sending = session.sending();
    assert_eq!((sending.version(), sending.suite()), (Version::Tls13, Suite::Aes128Gcm));
    assert_eq!((sending.key(), sending.iv(), sending.seq()), (&key[..], iv, 0x0304));
    assert_eq!(session.receiving().seq(), 0x0102);
    assert!(!format!("{sending:?} {:?}", session.secrets()).contains("159"));
}

#[test]
fn tls_1_2_takes_the_key_block_as_it_is() {
    let material: Vec<u8> = (0..36).collect();
    let gcm = session(Version::Tls12, 0xc030, &material, &material);
    let (rx, tx) = (gcm.receiving(), gcm.sending());
    assert_eq!((rx.key(), tx.key()), (&material[..32], &material[..32]));
    assert_eq!(tx.iv(), [32, 33, 34, 35, 0, 0, 0, 0, 0, 0, 3, 4], "salt, and the next number");
    assert!(gcm.secrets().is_none());

    let material: Vec<u8> = (0..44).collect();
    let chacha = session(Version::Tls12, 0xcca8, &material, &material);
    assert_eq!(chacha.sending().iv()[..], material[32..]);
}

#[test]
fn later_keys_are_those_that_a_session_in_user_space_goes_on_to() {
    let mut server = session(Version::Tls13, 0x1303, &[5; 32], &[6; 32]);
    let mut secrets = server.secrets().expect("TLS 1.3 has");
    let (tx, rx) = (secrets.next_sending(), secrets.next_receiving());
    let (tx, rx) = (tx.expect("a key"), rx.expect("a key"));
    assert_ne!(tx.key(), rx.key());

    // Each direction of it in the role of the other side: what one has sealed, the other opens.
    for (next, rx_secret, tx_secret) in [(tx, 5, 6), (rx, 6, 5)] {
        let owing = State {
            version: Version::Tls13,
            suite: 0x1303,
            rx_seq: 0,
            tx_seq: 9,
            rx_secret: Secret::new(&[rx_secret; 32]).expect("a secret"),
            tx_secret: Secret::new(&[tx_secret; 32]).expect("a secret"),
            owes_key_update: true,
        };
        server = Session::new(&owing).expect("a session");
        server.seal(&[], &mut Vec::new()).expect("fresh keys");
        let updated = server.sending();
        assert_eq!((updated.key(), updated.iv(), updated.seq()), (next.key(), next.iv(), 0));
        assert_eq!(next.seq(), 0);
    }
    let third = secrets.next_sending().expect("a key");
    assert_ne!(third.key(), server.sending().key(), "each is made of the one before");
}

#[test]
fn records_without_data_mean_what_they_mean_in_user_space() {
    use Control::{KeyUpdate, Nothing, Renegotiation};
    let closed = |description| Control::Closed(Closed::Alert(description));
    let notify = Control::Closed(Closed::Notify);
    let both = [Version::Tls12, Version::Tls13];
    for version in both {
        let read = |kind, plain: &[u8]| Control::read(version, kind, plain);
        assert_eq!(read(21, &[1, 0]), Ok(notify));
        assert_eq!(read(21, &[2, 0]), Ok(notify));
        assert_eq!(read(21, &[2, 20]), Ok(closed(20)));
        assert_eq!(read(21, &[1, 90]), Ok(Nothing), "user_canceled");
        assert_eq!(read(21, &[]), Err(Alert::UnexpectedMessage));
        for wrong in [&[1][..], &[1, 0, 1, 0]] {
            assert_eq!(read(21, wrong), Err(Alert::DecodeError), "{wrong:?}");
        }
        assert_eq!(read(20, &[1]), Err(Alert::UnexpectedMessage));
        assert_eq!(read(99, &[]), Err(Alert::UnexpectedMessage));
    }
    assert_eq!(Control::read(Version::Tls12, 21, &[1, 100]), Ok(Nothing), "a warning");
    assert_eq!(Control::read(Version::Tls13, 21, &[1, 100]), Ok(closed(100)));
    assert_eq!(Control::read(Version::Tls12, 22, &[1, 0, 0, 9]), Ok(Renegotiation));

    let read = |plain: &[u8]| Control::read(Version::Tls13, 22, plain);
    assert_eq!(read(&KEY_UPDATE_ANSWER), Ok(KeyUpdate { is_requested: false }));
    assert_eq!(read(&[24, 0, 0, 1, 1]), Ok(KeyUpdate { is_requested: true }));
    assert_eq!(read(&[24, 0, 0, 1, 2]), Err(Alert::IllegalParameter));
    assert_eq!(read(&[24, 0, 0, 2, 0, 0]), Err(Alert::DecodeError));
    for wrong in [&[][..], &[24], &[24, 0, 0, 1], &[24, 0, 0, 1, 0, 0], &[1, 0, 0, 1, 0]] {
        assert_eq!(read(wrong), Err(Alert::UnexpectedMessage), "{wrong:?}");
    }
}
