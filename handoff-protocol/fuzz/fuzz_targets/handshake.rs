//! A handshake is accepted if and only if it keeps every rule, and a refusal can be sent.

#![no_main]

use std::collections::HashMap;

use handoff_protocol::{RequestLine, accept_key, validate};
use handoff_protocol_fuzz::{field, parts};
use libfuzzer_sys::fuzz_target;

fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &&u8| b" \t".contains(byte);
    let start = value.iter().take_while(is_space).count();
    let end = value[start..].iter().rev().take_while(is_space).count();
    &value[start..value.len() - end]
}

/// Rule by rule, as RFC 6455 section 4.2.1 lists them.
fn is_acceptable(line: &RequestLine<'_>, fields: &[(&[u8], &[u8])]) -> bool {
    let mut values: HashMap<Vec<u8>, Vec<&[u8]>> = HashMap::new();
    for (name, value) in fields {
        values.entry(name.to_ascii_lowercase()).or_default().push(value);
    }
    let lists = |name: &[u8], token: &[u8]| {
        values.get(name).is_some_and(|values| {
            let list = values.join(&b',').to_ascii_lowercase();
            list.split(|&byte| byte == b',').any(|element| trim(element) == token)
        })
    };
    let once = |name: &[u8]| match values.get(name).map(Vec::as_slice) {
        Some([value]) => Some(trim(value)),
        _ => None,
    };
    line.method == b"GET"
        && line.version.0 == 1
        && line.version.1 >= 1
        && !line.has_body
        && lists(b"upgrade", b"websocket")
        && lists(b"connection", b"upgrade")
        && once(b"sec-websocket-version") == Some(b"13")
        && once(b"sec-websocket-key").is_some_and(|key| {
            let digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
            key.len() == 24 && key[..22].iter().all(digit) && &key[22..] == b"=="
        })
}

fuzz_target!(|input: &[u8]| {
    let [major, minor, flags, input @ ..] = input else { return };
    let mut input = parts(input);
    let line = RequestLine {
        method: input.next().unwrap_or_default(),
        version: (u16::from(major % 4), u16::from(minor % 4)),
        has_body: flags & 1 == 1,
    };
    let fields: Vec<(&[u8], &[u8])> = input.map(field).collect();
    let result = validate(&line, fields.iter().copied());
    assert_eq!(result.is_ok(), is_acceptable(&line, &fields));
    match result {
        Ok(handshake) => {
            let is_key = |name: &[u8]| name.eq_ignore_ascii_case(b"sec-websocket-key");
            let (_, key) = fields.iter().find(|(name, _)| is_key(name)).expect("a key");
            assert_eq!(handshake.accept, accept_key(trim(key)));
            assert!(handshake.accept.is_ascii() && handshake.accept[27] == b'=');
        }
        Err(error) => {
            assert!((400..500).contains(&error.status()));
            assert!(!error.to_string().bytes().any(|byte| byte.is_ascii_control()));
        }
    }
});
