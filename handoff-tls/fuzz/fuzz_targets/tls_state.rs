//! Bytes are a session's state in one way or not at all, and whatever state it is, a session carries it on.

#![no_main]

use handoff_tls::{Session, State, StateError};
use handoff_tls_fuzz::{open, pieces};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [len, input @ ..] = input else { return };
    let (encoded, wire) = input.split_at(input.len().min(usize::from(*len)));
    let state = match State::decode(encoded) {
        Ok(state) => state,
        Err(error) => {
            // More of it would do only where it is too short.
            let is_short = error == StateError::Length;
            let longer = [encoded, &[0]].concat();
            assert!(is_short || State::decode(&longer) == Err(error));
            return;
        }
    };
    let mut out = [0; State::MAX_LEN];
    let len = state.encode(&mut out);
    assert_eq!(out[..len], *encoded);
    assert!(state.rx_seq < State::MAX_SEQ && state.tx_seq < State::MAX_SEQ);

    let session = || Session::new(&state).expect("what was decoded makes sense");
    let whole = open(&mut session(), [wire]);
    assert_eq!(whole.data, b"", "nobody has sealed it");
    assert_eq!(whole, open(&mut session(), pieces(wire, &[1])));
    let mut server = session();
    assert_eq!(server.wants_to_send(), state.owes_key_update && state.version.number() == 0x0304);
    let _ = server.is_wearing_out();
    let mut sealed = Vec::new();
    if server.seal(wire, &mut sealed).is_ok() {
        assert!(sealed.len() >= wire.len());
        assert!(!server.wants_to_send());
    } else {
        assert_eq!(sealed, b"");
    }
});
