//! Whatever a client sends, the backend reads one head, with nginx's fields as nginx set them.

#![no_main]

use handoff_protocol::{
    RequestHead, Way, check_set_field, is_reserved_field, parse_request, same_field_name,
};
use handoff_protocol_fuzz::{field, parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [flags, set, input @ ..] = input else { return };
    let mut input = parts(input);
    let target = input.next().unwrap_or_default();
    let host = input.next().unwrap_or_default();
    let set: Vec<(&[u8], &[u8])> = input.by_ref().take(usize::from(set % 4)).map(field).collect();
    let client: Vec<(&[u8], &[u8])> = input.map(field).collect();
    let head = RequestHead {
        target,
        host,
        client_fields: client.iter().copied(),
        set_fields: &set,
        offer: [None, Some(Way::Fd), None, Some(Way::FdTls)][usize::from(flags & 3)],
    };

    let len = match head.encoded_len() {
        Ok(len) => len,
        Err(error) => {
            assert_eq!(head.encode(&mut [0; 4096]).map_err(|_| ()), Err(()));
            assert!(matches!(error.status(), 400 | 500));
            assert!(!error.to_string().bytes().any(|byte| byte.is_ascii_control()));
            return;
        }
    };
    let mut out = vec![0; len + 1];
    assert_eq!(head.encode(&mut out), Ok(len));
    assert!(head.encode(&mut out.clone()[..len - 1]).is_err());
    out.truncate(len);

    // One head and nothing behind it: no value has ended a line.
    let mut headers = vec![httparse::EMPTY_HEADER; client.len() + set.len() + 4];
    let request = parse_request(&out, &mut headers).expect("valid").expect("complete");
    assert_eq!((request.len, request.method), (len, "GET"));
    assert_eq!(request.offers_descriptor, head.offer == Some(Way::Fd));
    assert_eq!(request.offers_tls, head.offer == Some(Way::FdTls));
    assert_eq!(request.fields.len() + 2, out.windows(2).filter(|pair| pair == b"\r\n").count());
    assert!(request.target.is_ascii());

    let values = |name: &[u8]| -> Vec<&[u8]> {
        let same = request.fields.iter().filter(|f| same_field_name(f.name.as_bytes(), name));
        same.map(|f| f.value).collect()
    };
    assert_eq!(values(b"Host").len(), 1);
    assert_eq!(values(b"Upgrade"), [b"websocket"]);
    assert_eq!(values(b"Connection"), [b"Upgrade"]);
    assert_eq!(values(b"Handoff").len(), usize::from(head.offer.is_some()));
    for name in ["Content-Length", "Transfer-Encoding", "Keep-Alive", "TE", "Expect"] {
        let by_nginx = set.iter().any(|(set, _)| same_field_name(set, name.as_bytes()));
        assert!(by_nginx || values(name.as_bytes()).is_empty(), "{name}");
    }
    for (name, value) in &set {
        let same =
            set.iter().filter(|(other, value)| same_field_name(name, other) && !value.is_empty());
        if value.is_empty() && is_reserved_field(name) {
            continue;
        }
        assert_eq!(values(name).len(), same.count(), "only what nginx set");
        assert!(value.is_empty() || check_set_field(name, value).is_ok());
    }
    // The handshake that nginx has judged is the one that the backend sees.
    for (name, value) in &client {
        let is_plain = value.iter().all(u8::is_ascii_graphic);
        if name.eq_ignore_ascii_case(b"Sec-WebSocket-Key") && is_plain {
            let by_nginx = set.iter().any(|(set, _)| same_field_name(set, name));
            assert!(by_nginx || values(name).contains(value));
        }
    }
});
