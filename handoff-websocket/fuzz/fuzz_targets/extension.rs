//! An offer is accepted if and only if every parameter is known, valid and given once; the first of them wins.

#![no_main]

use handoff_websocket::negotiate;
use libfuzzer_sys::fuzz_target;

/// The parts between separators outside of quotation marks, and whether the last mark is closed.
fn split(list: &str, separator: char) -> Vec<String> {
    let (mut parts, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for char in list.chars() {
        if char == separator && !quoted {
            parts.push(String::new());
            continue;
        }
        if char == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = char == '\\' && quoted && !escaped;
        parts.last_mut().expect("one").push(char);
    }
    parts
}

/// A token as it is, or quoted. Characters that no valid value has stand for whatever is wrong.
fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let (mut unquoted, mut chars) = (String::new(), inner.chars());
    loop {
        match chars.next() {
            Some('"') if chars.as_str().is_empty() => return unquoted,
            Some('\\') => unquoted.extend(chars.next()),
            Some('"') | None => return "?".to_owned(),
            Some(char) => unquoted.push(char),
        }
    }
}

/// The server's window bits, and whether they were asked for, if an offer is acceptable.
fn acceptable(offer: &str) -> Option<(u8, bool)> {
    let space = [' ', '\t'];
    let mut parts = split(offer, ';').into_iter();
    if parts.next()?.trim_matches(space) != "permessage-deflate" {
        return None;
    }
    let mut names = Vec::new();
    let mut bits = None;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(unquote(value.trim_matches(space)))),
            None => (part.as_str(), None),
        };
        let name = name.trim_matches(space).to_owned();
        let number = (8..=15u8).find(|bits| Some(bits.to_string()) == value);
        match (name.as_str(), &value, number) {
            ("server_no_context_takeover" | "client_no_context_takeover", None, _) => {}
            ("client_max_window_bits", None, _) | ("client_max_window_bits", _, Some(_)) => {}
            ("server_max_window_bits", _, Some(9..)) => bits = number,
            _ => return None,
        }
        if names.contains(&name) {
            return None;
        }
        names.push(name);
    }
    Some((bits.unwrap_or(15), bits.is_some()))
}

fuzz_target!(|input: &str| {
    let fields: Vec<&str> = input.split('\n').collect();
    let agreement = negotiate(fields.iter().map(|field| field.as_bytes()));
    let offers = fields.iter().flat_map(|field| split(field, ','));
    let expected = offers.map(|offer| acceptable(&offer)).find_map(|offer| offer);
    assert_eq!(agreement.map(|agreement| agreement.server_window_bits()), expected.map(|(b, _)| b));

    let Some((agreement, (bits, is_limited))) = agreement.zip(expected) else { return };
    let answer = agreement.to_field();
    let limit = format!("; server_max_window_bits={bits}");
    let always = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(answer, format!("{always}{}", if is_limited { &limit } else { "" }));
    assert_eq!(negotiate([answer.as_bytes()].into_iter()), Some(agreement));
});
