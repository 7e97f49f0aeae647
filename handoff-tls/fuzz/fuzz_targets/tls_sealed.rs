//! What one side seals the other opens, and whatever somebody in between does to it, a beginning of it comes out and nothing else.

#![no_main]

use handoff_tls::{Alert, Closed, Session};
use handoff_tls_fuzz::{open, pieces, state};
use libfuzzer_sys::fuzz_target;

/// Where records begin, and the end.
fn boundaries(wire: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    while let Some([_, _, _, l1, l0]) = wire.get(at..at + 5) {
        at += 5 + usize::from(u16::from_be_bytes([*l1, *l0]));
        ends.push(at);
    }
    assert_eq!(at, wire.len());
    ends
}

/// What somebody does who has no keys; false: nothing.
fn tamper(wire: &mut Vec<u8>, kind: u8, at: usize, with: u8) -> bool {
    let ends = boundaries(wire);
    let records = ends.len() - 1;
    let before = wire.clone();
    let record = |n: usize| before[ends[n % records]..ends[n % records + 1]].to_vec();
    let place = ends[at % records];
    match kind % 6 {
        0 => {
            let place = at % wire.len();
            wire[place] ^= with;
        }
        1 => wire.truncate(at % wire.len()),
        2 => drop(wire.splice(place..place, record(usize::from(with)))),
        3 => drop(wire.splice(place..place + record(at).len(), [])),
        4 => {
            let (a, b) = (at % records, usize::from(with) % records);
            let mut order: Vec<usize> = (0..records).collect();
            order.swap(a, b);
            *wire = order.into_iter().flat_map(record).collect();
        }
        _ => wire.insert(at % wire.len(), with),
    }
    *wire != before
}

fuzz_target!(|input: &[u8]| {
    let [choice, seq, kind, a1, a0, with, count, input @ ..] = input else { return };
    let (lengths, plain) = input.split_at(input.len().min(usize::from(count % 8)));
    let mut state = state(*choice, u64::from(*seq) << 4);
    // A KeyUpdate comes first.
    state.owes_key_update = seq & 1 == 1;
    let mut client = Session::new(&state).expect("a session");
    state.owes_key_update = false;
    let server = || Session::new(&state).expect("a session");

    let mut wire = Vec::new();
    for part in pieces(plain, lengths) {
        client.seal(part, &mut wire).expect("fresh keys");
    }
    client.seal_alert(Alert::CloseNotify, &mut wire);
    let good = open(&mut server(), [&wire[..]]);
    assert_eq!(good.data, plain);
    assert_eq!((good.closed, good.alert), (Some(Closed::Notify), None));
    assert_eq!(good, open(&mut server(), pieces(&wire, lengths)));

    let at = usize::from(u16::from_be_bytes([*a1, *a0]));
    let mut wrong = wire.clone();
    if !tamper(&mut wrong, *kind, at, *with) {
        return;
    }
    let outcome = open(&mut server(), [&wrong[..]]);
    assert!(plain.starts_with(&outcome.data), "what was not sealed, or not as the next");
    assert_eq!(outcome, open(&mut server(), pieces(&wrong, lengths)));
    assert_eq!(outcome.refused, 0);
    // The end is the last record: it comes out only if all before it has. Nobody else can say it.
    if outcome.closed.is_some() {
        assert_eq!((outcome.closed, outcome.data), (Some(Closed::Notify), plain.to_vec()));
        // So all that was done came behind it.
        assert!(wrong.starts_with(&wire));
    }
});
