//! A compressed message inflates to what flate2 says, and what is compressed comes out again.

#![no_main]

use handoff_websocket::{Deflater, Message, negotiate};
use handoff_websocket_fuzz::{
    decode,
    reference::{self, Event},
};
use libfuzzer_sys::fuzz_target;

/// A server's frame as a client would send it: masked, with zeros.
fn masked(frame: &[u8]) -> Vec<u8> {
    let head_len = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let (head, payload) = frame.split_at(head_len);
    let mut masked = [head, &[0; 4], payload].concat();
    masked[1] |= 0x80;
    masked
}

fuzz_target!(|input: &[u8]| {
    let [limit, bits, times, input @ ..] = input else { return };
    let limit = usize::from(*limit) * 16;
    let mut frame = vec![0xc2, 126];
    if let Ok(len @ 126..) = u16::try_from(input.len()) {
        frame.extend(len.to_be_bytes());
    } else if input.len() < 126 {
        frame[1] = input.len() as u8;
    } else {
        return;
    }
    frame.extend(input);
    let frame = masked(&frame);
    assert_eq!(decode([frame.as_slice()], limit, true), reference::decode(&frame, limit, true));

    let offer = format!("permessage-deflate; server_max_window_bits={}", 9 + bits % 7);
    let agreement = negotiate([offer.as_bytes()].into_iter()).expect("acceptable");
    let payload = input.repeat(usize::from(times % 16));
    let (mut deflater, mut out) = (Deflater::default(), Vec::new());
    for _ in 0..2 {
        let start = out.len();
        deflater.encode(&mut out, Message::Binary(&payload), agreement);
        let frame = masked(&out[start..]);
        assert!(frame.len() <= 14 + payload.len(), "longer than before");
        let events = vec![Event::Binary(payload.clone())];
        assert_eq!(decode([frame.as_slice()], payload.len(), true), (events, None));
    }
});
