//! Field names and values: how they are compared, split into list elements and checked.
//!
//! Also the value of the one field this protocol defines, `Handoff`.

use core::fmt;

/// Whether `a` and `b` name the same field to *some* backend: ASCII case is ignored and `_` equals `-`.
///
/// CGI and its descendants (WSGI, Rack, PHP) turn both characters into `_`, so that there a client's
/// `X_Real_IP` would pass for nginx's `X-Real-IP`. Use this to drop fields, never to find one.
#[must_use]
pub fn same_field_name(a: &[u8], b: &[u8]) -> bool {
    fn fold(byte: u8) -> u8 {
        if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    }
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| fold(a) == fold(b))
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1): trimmed, empty ones skipped.
///
/// Quoted strings are not recognised: none of the lists read here (`Connection`, `Upgrade`, `Handoff`)
/// may contain a comma in one.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Whether the comma-separated list `value` contains `token`, in any case.
#[must_use]
pub fn has_token(value: &[u8], token: &[u8]) -> bool {
    tokens(value).any(|element| element.eq_ignore_ascii_case(token))
}

/// A field's name as an error remembers it: a copy, so that the error outlives the request, cut at
/// 48 bytes, so that it needs no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FieldName {
    bytes: [u8; 48],
    len: usize,
}

impl FieldName {
    pub(crate) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; 48];
        let mut len = 0;
        for (slot, &byte) in bytes.iter_mut().zip(name) {
            *slot = byte;
            len += 1;
        }
        Self { bytes, len }
    }

    /// The name's first 48 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The field that offers (in a request) and asks for (in an answer) the client's descriptor.
pub(crate) const HANDOFF: &str = "Handoff";

/// A way to hand a client over: what `Handoff` offers and asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `fd`: the client's descriptor.
    Fd,
    /// `fd-tls`: the same of a client that speaks TLS, with the state of its session in the commit.
    FdTls,
}

impl Way {
    const ALL: [Self; 2] = [Self::Fd, Self::FdTls];

    /// Its name in a `Handoff` field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fd => "fd",
            Self::FdTls => "fd-tls",
        }
    }

    /// What this implementation writes into the request's `Handoff` field.
    pub(crate) const fn offer(self) -> &'static [u8] {
        match self {
            Self::Fd => b"fd; v=1",
            Self::FdTls => b"fd-tls; v=1",
        }
    }
}

/// The way that one element of a `Handoff` field names, by version 1 of the protocol; `None` if it is none of these.
///
/// Version 1 is also what is meant where no `v` is given. Parameters with other names are ignored.
pub(crate) fn way_v1(element: &[u8]) -> Option<Way> {
    let mut parts = element.split(|&byte| byte == b';').map(trim);
    let kind = parts.next().unwrap_or_default();
    let way = Way::ALL.into_iter().find(|way| kind.eq_ignore_ascii_case(way.name().as_bytes()))?;
    parts
        .all(|parameter| {
            let mut sides = parameter.splitn(2, |&byte| byte == b'=');
            let is_version = sides.next().is_some_and(|name| name.eq_ignore_ascii_case(b"v"));
            !is_version || sides.next() == Some(b"1".as_slice())
        })
        .then_some(way)
}

/// Whether one element of a `Handoff` field has the parameter `keepalive`, whatever its value.
pub(crate) fn has_keepalive(element: &[u8]) -> bool {
    let mut parameters = element.split(|&byte| byte == b';').skip(1);
    parameters.any(|parameter| {
        let name = parameter.split(|&byte| byte == b'=').next().unwrap_or_default();
        trim(name).eq_ignore_ascii_case(b"keepalive")
    })
}

/// Whether `name` is a token (RFC 9110 section 5.6.2), as a field's name must be.
pub(crate) fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Whether `value` can stand in a field (RFC 9110 section 5.5): no control byte but the tab.
///
/// CR, LF and NUL would split or end the head. The other control bytes are refused by strict parsers,
/// httparse among them: a client could make a backend fail, and nginx mark it down, by sending one.
pub(crate) fn is_valid_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control())
}

/// `value` without the spaces and tabs around it (OWS, RFC 9110 section 5.6.3).
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_gateway_would_merge_are_the_same() {
        assert!(same_field_name(b"X-Real-IP", b"x_real_ip"));
        assert!(same_field_name(b"X_Real-Ip", b"X-Real_IP"));
        assert!(same_field_name(b"", b""));
        assert!(!same_field_name(b"X-Real-IP", b"X-Real-IPs"));
        assert!(!same_field_name(b"X-Real-IP", b"XRealIP"));
        assert!(!same_field_name(b"a@", b"a`"), "only letters have a case");
    }

    #[test]
    fn list_elements_are_trimmed_and_empty_ones_skipped() {
        let list: Vec<&[u8]> = tokens(b" keep-alive ,,\tUpgrade\t, ").collect();
        assert_eq!(list, [b"keep-alive".as_slice(), b"Upgrade"]);
        assert_eq!(tokens(b"").count(), 0);
        assert_eq!(tokens(b" , ,").count(), 0);
        assert_eq!(tokens(b"a b").collect::<Vec<_>>(), [b"a b"]);
    }

    #[test]
    fn a_token_is_found_in_any_case_but_only_whole() {
        assert!(has_token(b"keep-alive, UPGRADE", b"upgrade"));
        assert!(!has_token(b"upgrade-insecure, no upgrade", b"upgrade"));
        assert!(!has_token(b"", b"upgrade"));
    }

    #[test]
    fn handoff_elements() {
        for yes in ["fd", "FD", "fd;v=1", "fd ; V=1", "fd; v=1; hint=x", "fd; x", "fd;"] {
            assert!(way_v1(yes.as_bytes()) == Some(Way::Fd), "{yes}");
        }
        for no in ["", "f", "fds", "v=1", "fd v=1", "fd; v=2", "fd; v=1; v=2", "fd; v", "fd; v=11"]
        {
            assert!(way_v1(no.as_bytes()).is_none(), "{no}");
        }
    }

    #[test]
    fn handoff_with_keepalive() {
        for yes in ["fd; keepalive", "fd;v=1;KeepAlive", "fd; keepalive = 60 ; x"] {
            assert!(has_keepalive(yes.as_bytes()), "{yes}");
        }
        for no in ["", "fd", "keepalive", "fd; keep-alive", "fd; x=keepalive", "fd; keepalives"] {
            assert!(!has_keepalive(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn an_error_keeps_the_start_of_a_name_and_escapes_it() {
        let name = FieldName::new(b"X-\r\n");
        assert_eq!(name.to_string(), "X-\\r\\n");
        assert_eq!(FieldName::new(&[b'a'; 100]).as_bytes().len(), 48);
        assert_eq!(FieldName::new(b"").to_string(), "");
    }

    #[test]
    fn validity_of_names_and_values() {
        assert!(is_valid_name(b"X-Real_IP.1~"));
        for bad in [b"".as_slice(), b"a b", b"a:", b"a\r", b"\xc3\xa4", b"(a)", b"a\0"] {
            assert!(!is_valid_name(bad), "{}", bad.escape_ascii());
        }
        assert!(is_valid_value(b""));
        assert!(is_valid_value(b"a\tb \xc3\xa4\xff"));
        for bad in [b"\r".as_slice(), b"\n", b"\0", b"a\x01", b"\x7f"] {
            assert!(!is_valid_value(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn trimming_leaves_the_inside_alone() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b"\ra"), b"\ra");
    }
}
