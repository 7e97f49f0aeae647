//! However the client's bytes come, what they say is the same.

use handoff_tls::{Closed, Session};
use proptest::prelude::*;

use crate::handshake::suites;
use crate::peer::Pair;

/// All data that comes out, given in parts that end at these places.
fn opened(session: &mut Session, wire: &[u8], ends: &[usize]) -> (Vec<u8>, Option<Closed>) {
    let (mut data, mut closed) = (Vec::new(), None);
    let mut waiting = Vec::new();
    let mut begin = 0;
    for end in ends.iter().copied().chain([wire.len()]) {
        let end = end.clamp(begin, wire.len());
        waiting.extend_from_slice(&wire[begin..end]);
        begin = end;
        let opened = session.open(&mut waiting);
        assert_eq!(opened.alert, None);
        assert!(opened.data <= opened.used);
        data.extend_from_slice(&waiting[..opened.data]);
        waiting.drain(..opened.used);
        closed = closed.or(opened.closed);
    }
    assert_eq!(waiting, []);
    (data, closed)
}

/// Some records with a KeyUpdate among them where there is one, and a close_notify.
fn conversation(pair: &mut Pair) -> (Vec<u8>, Vec<u8>) {
    let (mut data, mut wire) = (Vec::new(), Vec::new());
    for (n, len) in (0_u8..).zip([1, 50, 3, 700, 20]) {
        pair.send(&vec![n; len]);
        data.extend(vec![n; len]);
        wire.extend(pair.wire());
        if n % 2 == 1 && pair.client.refresh_traffic_keys().is_ok() {
            wire.extend(pair.wire());
        }
    }
    pair.client.send_close_notify();
    wire.extend(pair.wire());
    (data, wire)
}

#[test]
fn a_split_at_every_offset_makes_no_difference() {
    for suite in suites() {
        let mut pair = Pair::new(suite);
        let (data, wire) = conversation(&mut pair);
        for end in 0..=wire.len() {
            let mut session = pair.again();
            let expected = (data.clone(), Some(Closed::Notify));
            assert_eq!(opened(&mut session, &wire, &[end]), expected, "{suite:?}, {end}");
        }
        let every: Vec<usize> = (0..wire.len()).collect();
        assert_eq!(opened(&mut pair.again(), &wire, &every), (data, Some(Closed::Notify)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_splits_make_no_difference(mut ends in prop::collection::vec(0_usize..1200, 0..40)) {
        ends.sort_unstable();
        for suite in suites() {
            let mut pair = Pair::new(suite);
            let (data, wire) = conversation(&mut pair);
            prop_assert_eq!(opened(&mut pair.again(), &wire, &ends), (data, Some(Closed::Notify)));
        }
    }

    /// No bytes make it panic, and nothing comes out of what was not sealed.
    #[test]
    fn bytes_that_nobody_sealed_end_the_session(
        mut wire in prop::collection::vec(any::<u8>(), 0..600),
        header in any::<bool>(),
    ) {
        for suite in suites() {
            let mut session = Pair::new(suite).again();
            if header && wire.len() > 30 {
                let len = (wire.len() - 5) as u16;
                wire[..3].copy_from_slice(&[23, 3, 3]);
                wire[3..5].copy_from_slice(&len.to_be_bytes());
            }
            let mut input = wire.clone();
            let opened = session.open(&mut input);
            prop_assert_eq!(opened.data, 0);
            prop_assert!(opened.used <= wire.len());
            if header && wire.len() > 30 {
                prop_assert!(opened.alert.is_some());
            }
        }
    }
}
