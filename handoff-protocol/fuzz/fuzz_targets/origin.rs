//! A rule admits no origin but those that it names, and always the one that it is.

#![no_main]

use std::net::Ipv6Addr;

use handoff_protocol::{OriginRule, RegexSource, SentOrigin};
use handoff_protocol_fuzz::parts;
use libfuzzer_sys::fuzz_target;

/// An origin, or a rule that names some, in lower case.
#[derive(Debug, PartialEq)]
struct Parts {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Parts {
    /// Takes apart what has one scheme, one host, one port and nothing else.
    fn of(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.to_lowercase();
        let mut sides = text.split("://");
        let (scheme, authority) = match (sides.next()?, sides.next(), sides.next()) {
            (authority, None, None) => (None, authority),
            (scheme, Some(authority), None) => (Some(scheme.to_owned()), authority),
            _ => return None,
        };
        if authority.chars().any(|char| "/?#@\\, ".contains(char) || char.is_control()) {
            return None;
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match literal {
            Some(literal) => literal.parse::<Ipv6Addr>().ok()?.to_string(),
            None if host.contains(':') => return None,
            None => host.to_owned(),
        };
        Some(Self { scheme, host, port })
    }

    fn port(&self, scheme: &str) -> Option<u16> {
        self.port.or(match scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        })
    }
}

/// Whether `origin` is one that `rule` names.
fn names(rule: &Parts, origin: &Parts) -> bool {
    let Some(scheme) = origin.scheme.as_deref() else { return false };
    let scheme_is_right = match rule.scheme.as_deref() {
        Some(named) => named == scheme,
        None => ["http", "https"].contains(&scheme),
    };
    let host_is_right = match rule.host.strip_prefix("*.") {
        Some(parent) => {
            let labels: Vec<&str> = origin.host.split('.').collect();
            (1..labels.len()).any(|from| labels[from..].join(".") == parent)
        }
        None => origin.host == rule.host,
    };
    scheme_is_right && host_is_right && rule.port(scheme) == origin.port(scheme)
}

fuzz_target!(|input: &[u8]| {
    let mut input = parts(input);
    let [text, origin, host] = std::array::from_fn(|_| input.next().unwrap_or_default());
    let Ok(rule) = OriginRule::<RegexSource<'_>>::parse(text) else { return };
    let admits = |sent: SentOrigin<'_>| {
        rule.admits(sent, host, |_, shown| {
            let is_list = |byte: &u8| b", \t\r\n".contains(byte);
            assert!(shown == origin && !shown.iter().any(is_list) && shown != b"null");
            true
        })
    };
    assert_eq!(admits(SentOrigin::Absent), matches!(rule, OriginRule::Any | OriginRule::None));
    assert_eq!(admits(SentOrigin::Repeated), matches!(rule, OriginRule::Any));

    let admitted = admits(SentOrigin::Once(origin));
    let named = |rule: Option<Parts>| {
        rule.zip(Parts::of(origin)).is_some_and(|(rule, origin)| names(&rule, &origin))
    };
    match rule {
        OriginRule::Any => assert!(admitted),
        OriginRule::None => assert!(!admitted),
        OriginRule::Null => assert_eq!(admitted, origin == b"null"),
        OriginRule::SameOrigin => {
            assert!(!admitted || named(Parts::of(host)), "not the same");
        }
        OriginRule::Site(_) => {
            let rule = Parts::of(text);
            let is_origin = rule.as_ref().is_some_and(|rule| rule.scheme.is_some());
            if is_origin && !text.contains(&b'*') {
                assert!(admits(SentOrigin::Once(text)), "not even itself");
            }
            assert!(!admitted || named(rule), "not named");
        }
        OriginRule::Regex(_) => {}
    }
});
