//! permessage-deflate within records: the compressor knows nothing of them, nor they of it.

use crate::engine_compression::{OFFER, RSV1, deflated, inflated};
use crate::fake::client::{FIN, TEXT, frame};
use crate::fake::program::{Program, is_strict};
use crate::fake::tls::{Way, suites};

#[test]
fn messages_go_compressed_both_ways() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--compression"]);
    for suite in suites() {
        let way = Way { fields: OFFER, ..Way::default() };
        let mut client = way.bring(&program.socket(), "/", suite);
        for len in [0, 1, 63, 64, 1000, 65_536, 1 << 20] {
            let message: Vec<u8> =
                b"the best of times, ".iter().copied().cycle().take(len).collect();
            client.raw(&frame(FIN | RSV1 | TEXT, &deflated(&message)));
            let (first, payload) = client.receive();
            let is_compressed = first & RSV1 != 0;
            assert_eq!(is_compressed, len >= 64, "{len} bytes");
            let answer = if is_compressed { inflated(&payload) } else { payload };
            assert!(answer == message, "{len} bytes, {suite:?}");
        }
        client.close();
    }
}
