//! A client's bytes come to what the reference says, however they are cut, and no later than it says.

#![no_main]

use handoff_websocket_fuzz::{decode, pieces, reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [flags, limit, begun, count, input @ ..] = input else { return };
    let (deflate, limit) = (flags & 1 == 1, usize::from(*limit) * 8);
    let (lengths, bytes) = input.split_at(input.len().min(usize::from(count % 8)));
    let outcome = reference::decode(bytes, limit, deflate);
    assert_eq!(outcome, decode([bytes], limit, deflate));
    assert_eq!(outcome, decode(pieces(bytes, lengths), limit, deflate));
    assert_eq!(outcome, decode(bytes.chunks(1), limit, deflate));

    let begun = &bytes[..bytes.len().min(usize::from(*begun))];
    assert_eq!(reference::decode(begun, limit, deflate), decode([begun], limit, deflate));
});
