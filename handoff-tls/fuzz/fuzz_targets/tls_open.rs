//! What a client seals comes to what the rules say, however it is cut; and what it does not seal comes to nothing.

#![no_main]

use handoff_tls::{MAX_PLAINTEXT, Session};
use handoff_tls_fuzz::model::Model;
use handoff_tls_fuzz::{Outcome, open, pieces, state};
use libfuzzer_sys::fuzz_target;

/// Contents' types: those that there are, most often the one that is at home here.
const KINDS: [u8; 8] = [23, 23, 23, 22, 22, 21, 20, 0];

/// Bytes and what they mean, as long as there are any.
fn converse(model: &mut Model, mut script: &[u8]) {
    let mut has_long = false;
    while let [what, len, rest @ ..] = script {
        let (bytes, behind) = rest.split_at(rest.len().min(usize::from(*len % 64)));
        script = behind;
        let kind = KINDS[usize::from(what % 8)];
        let padding = usize::from(what >> 6) * usize::from(what >> 3 & 7);
        match (what >> 3 & 7, has_long) {
            // Nothing that follows could be told from it.
            (7, _) => return model.garbage(bytes),
            (6, false) => {
                has_long = true;
                let len = MAX_PLAINTEXT - 3 + usize::from(*len % 8);
                model.record(kind, &vec![1; len], padding);
            }
            // Runs of what brings nothing.
            (5, _) => {
                for _ in 0..len % 40 {
                    model.record(kind, &bytes[..bytes.len().min(5)], padding);
                }
            }
            _ => model.record(kind, bytes, padding),
        }
    }
}

/// In a call that ends with an alert there is no telling that there was one before that ended nothing.
fn told(mut outcome: Outcome) -> Outcome {
    if outcome.alert.is_some() {
        outcome.refused = 0;
    }
    outcome
}

fuzz_target!(|input: &[u8]| {
    let [choice, seq, count, input @ ..] = input else { return };
    let (lengths, script) = input.split_at(input.len().min(usize::from(count % 8)));
    let state = state(*choice, u64::from(*seq) << (count >> 3));
    let session = || Session::new(&state).expect("a session");
    let mut model = Model::new(&state);
    converse(&mut model, script);

    let mut server = session();
    let outcome = told(open(&mut server, [&model.wire[..]]));
    assert_eq!(outcome.data, model.outcome.data);
    assert_eq!(outcome.closed, model.outcome.closed);
    if model.outcome.is_over() {
        assert_eq!(outcome, told(model.outcome));
    } else if !outcome.is_over() {
        assert_eq!(outcome.refused, model.outcome.refused);
        // A client whose keys are old is asked for new ones, too.
        assert!(server.wants_to_send() || !model.asked);
    }
    assert_eq!(outcome, told(open(&mut session(), pieces(&model.wire, lengths))));
    if model.wire.len() < 2048 {
        assert_eq!(outcome, told(open(&mut session(), model.wire.chunks(1))));
    }
});
