//! Which sites' pages may open a WebSocket (RFC 6455 section 10.2).
//!
//! A browser lets any page open a WebSocket to anywhere, with the user's cookies for that place, and tells who asks
//! in `Origin`. A rule is parsed once, when the configuration is read, and borrows from it; to match allocates nothing.

use core::net::Ipv6Addr;
use core::str::FromStr;

/// One argument of `ws_handoff_origin`. `R` is what a regular expression is: its source first ([`RegexSource`]), and
/// whatever was compiled from it later ([`OriginRule::compile`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginRule<'a, R> {
    /// `any`: every request.
    Any,
    /// `none`: a request without `Origin`, which no browser sends.
    None,
    /// `null`: the origin of pages that have none (sandboxed, from a file).
    Null,
    /// `same-origin`: the host and port that the request itself is for.
    SameOrigin,
    /// `https://example.org:8443`, `*.example.org`: this origin, or these.
    Site(OriginPattern<'a>),
    /// `~…`, `~*…`: an origin whose text matches.
    Regex(R),
}

/// A regular expression as the configuration writes it, without its `~`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegexSource<'a> {
    /// The expression.
    pub pattern: &'a [u8],
    /// Whether case makes no difference (`~*`).
    pub caseless: bool,
}

/// Origins that a rule names by their parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginPattern<'a> {
    /// `None` stands for http and https.
    scheme: Option<&'a [u8]>,
    /// Whether the host's subdomains are meant, and not itself.
    subdomains: bool,
    host: Host<'a>,
    /// `None` stands for the scheme's own.
    port: Option<u16>,
}

/// What a request says of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentOrigin<'a> {
    /// Nothing.
    Absent,
    /// This, in one field.
    Once(&'a [u8]),
    /// Something, in several fields.
    Repeated,
}

impl<'a> OriginRule<'a, RegexSource<'a>> {
    /// Reads an argument of `ws_handoff_origin`.
    ///
    /// # Errors
    ///
    /// [`OriginRuleError`]
    pub fn parse(text: &'a [u8]) -> Result<Self, OriginRuleError> {
        match text {
            b"any" => Ok(Self::Any),
            b"none" => Ok(Self::None),
            b"null" => Ok(Self::Null),
            b"same-origin" => Ok(Self::SameOrigin),
            [b'~', b'*', pattern @ ..] => Self::regex(pattern, true),
            [b'~', pattern @ ..] => Self::regex(pattern, false),
            _ => OriginPattern::parse(text).map(Self::Site),
        }
    }

    fn regex(pattern: &'a [u8], caseless: bool) -> Result<Self, OriginRuleError> {
        if pattern.is_empty() {
            return Err(OriginRuleError::EmptyRegex);
        }
        Ok(Self::Regex(RegexSource { pattern, caseless }))
    }
}

impl<'a, R> OriginRule<'a, R> {
    /// The rule with its regular expression compiled.
    ///
    /// # Errors
    ///
    /// That of `compile`.
    pub fn compile<S, E>(
        self,
        compile: impl FnOnce(R) -> Result<S, E>,
    ) -> Result<OriginRule<'a, S>, E> {
        Ok(match self {
            Self::Any => OriginRule::Any,
            Self::None => OriginRule::None,
            Self::Null => OriginRule::Null,
            Self::SameOrigin => OriginRule::SameOrigin,
            Self::Site(pattern) => OriginRule::Site(pattern),
            Self::Regex(regex) => OriginRule::Regex(compile(regex)?),
        })
    }

    /// Whether the rule admits a request.
    ///
    /// `host` is what the request itself is for, as in its `Host`; `matches` runs a regular expression over the text of
    /// an origin. It is never shown a list of origins: an expression that looks for one would find it in the middle.
    pub fn admits(
        &self,
        sent: SentOrigin<'_>,
        host: &[u8],
        matches: impl FnOnce(&R, &[u8]) -> bool,
    ) -> bool {
        let text = match (self, sent) {
            (Self::Any, _) | (Self::None, SentOrigin::Absent) => return true,
            (_, SentOrigin::Absent | SentOrigin::Repeated) => return false,
            (_, SentOrigin::Once(text)) => text,
        };
        match self {
            Self::Any | Self::None => false,
            Self::Null => text == b"null",
            Self::SameOrigin => Origin::parse(text).is_some_and(|origin| origin.is_of(host)),
            Self::Site(pattern) => {
                Origin::parse(text).is_some_and(|origin| pattern.matches(&origin))
            }
            Self::Regex(regex) => is_one_origin(text) && matches(regex, text),
        }
    }
}

impl<'a> SentOrigin<'a> {
    /// Finds what a request's fields, names and values, say of its origin.
    pub fn find(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut found = Self::Absent;
        for (_, value) in fields.filter(|(name, _)| name.eq_ignore_ascii_case(b"Origin")) {
            found = match found {
                Self::Absent => Self::Once(value),
                Self::Once(_) | Self::Repeated => Self::Repeated,
            };
        }
        found
    }
}

impl<'a> OriginPattern<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, OriginRuleError> {
        let (scheme, authority) = match split_scheme(text) {
            Some((scheme, _)) if !is_scheme(scheme) => return Err(OriginRuleError::Scheme),
            Some((scheme, authority)) => (Some(scheme), authority),
            None => (None, text),
        };
        if authority.iter().any(|byte| b"/?#".contains(byte)) {
            return Err(OriginRuleError::Path);
        }
        if authority.contains(&b'@') {
            return Err(OriginRuleError::UserInfo);
        }
        let (subdomains, authority) = match authority.strip_prefix(b"*.") {
            Some(parent) => (true, parent),
            None => (false, authority),
        };
        let (host, port) = split_port(authority);
        if host.contains(&b'*') {
            return Err(OriginRuleError::Wildcard);
        }
        let host = Host::parse(host).ok_or(OriginRuleError::Host)?;
        if subdomains && matches!(host, Host::Ipv6(_)) {
            return Err(OriginRuleError::Wildcard);
        }
        let port = match port {
            Some(digits) => Some(parse_port(digits).ok_or(OriginRuleError::Port)?),
            None => None,
        };
        Ok(Self { scheme, subdomains, host, port })
    }

    fn matches(&self, origin: &Origin<'_>) -> bool {
        let scheme_matches = match self.scheme {
            Some(scheme) => scheme.eq_ignore_ascii_case(origin.scheme),
            None => is_web(origin.scheme),
        };
        let default = default_port(origin.scheme);
        let host_matches = match (self.subdomains, self.host, origin.host) {
            (true, Host::Name(parent), Host::Name(name)) => is_subdomain(name, parent),
            (true, ..) => false,
            (false, own, sent) => own.is(sent),
        };
        scheme_matches && host_matches && self.port.or(default) == origin.port.or(default)
    }
}

/// Why an argument of `ws_handoff_origin` is none. Its `Display` is written for a configuration's `[emerg]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginRuleError {
    /// Something other than a scheme before `://`.
    #[error("invalid scheme")]
    Scheme,
    /// An origin ends with its port.
    #[error("a path is not part of an origin")]
    Path,
    /// `user@host`
    #[error("a user is not part of an origin")]
    UserInfo,
    /// No host, or one with a character or an empty label that no host has.
    #[error("invalid host")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("invalid port")]
    Port,
    /// A `*` elsewhere than in place of the first labels.
    #[error("a wildcard can only stand for the first labels of a name, as in \"*.example.org\"")]
    Wildcard,
    /// `~` and nothing else.
    #[error("empty regular expression")]
    EmptyRegex,
}

/// An origin as browsers write it (RFC 6454 section 6.1), in parts.
struct Origin<'a> {
    scheme: &'a [u8],
    host: Host<'a>,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// `None` for everything that is not exactly one: a list, `null`, a URL with a path or a user.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (scheme, authority) = split_scheme(text)?;
        let (host, port) = split_port(authority);
        let port = match port {
            Some(digits) => Some(parse_port(digits)?),
            None => None,
        };
        is_scheme(scheme).then_some(())?;
        Some(Self { scheme, host: Host::parse(host)?, port })
    }

    /// Whether this is the origin of the pages of `host`, whatever their scheme: nginx may stand behind
    /// something that ends TLS. A port that is not written is the scheme's own on both sides.
    fn is_of(&self, host: &[u8]) -> bool {
        let default = default_port(self.scheme);
        let (name, port) = split_port(host);
        let port = match port.map(parse_port) {
            Some(None) => return false,
            Some(port) => port,
            None => default,
        };
        is_web(self.scheme)
            && Host::parse(name).is_some_and(|host| host.is(self.host))
            && self.port.or(default) == port
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host<'a> {
    /// A name or an IPv4 address.
    Name(&'a [u8]),
    /// An IPv6 literal, whichever way it was written.
    Ipv6(Ipv6Addr),
}

impl<'a> Host<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        if let [b'[', literal @ .., b']'] = text {
            let literal = core::str::from_utf8(literal).ok()?;
            return Ipv6Addr::from_str(literal).ok().map(Self::Ipv6);
        }
        // An empty label, so that "example.org." is not "example.org" to browsers either: nobody means it.
        let is_label = |label: &[u8]| {
            !label.is_empty()
                && label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_~%".contains(byte))
        };
        text.split(|&byte| byte == b'.').all(is_label).then_some(Self::Name(text))
    }

    fn is(self, other: Host<'_>) -> bool {
        match (self, other) {
            (Self::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Self::Ipv6(a), Host::Ipv6(b)) => a == b,
            _ => false,
        }
    }
}

/// Whether `name` ends with a dot and `parent`, with a label before them. Neither has empty labels.
fn is_subdomain(name: &[u8], parent: &[u8]) -> bool {
    let Some(dot) = name.len().checked_sub(parent.len() + 1) else { return false };
    let (prefix, suffix) = (name.get(..dot), name.get(dot..));
    prefix.is_some_and(|prefix| !prefix.is_empty())
        && suffix
            .and_then(|suffix| suffix.strip_prefix(b"."))
            .is_some_and(|end| end.eq_ignore_ascii_case(parent))
}

fn split_scheme(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.windows(3).position(|window| window == b"://")?;
    Some((text.get(..at)?, text.get(at + 3..)?))
}

/// RFC 3986 section 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

fn is_web(scheme: &[u8]) -> bool {
    default_port(scheme).is_some()
}

fn default_port(scheme: &[u8]) -> Option<u16> {
    if scheme.eq_ignore_ascii_case(b"https") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case(b"http") {
        Some(80)
    } else {
        None
    }
}

/// The host, and what follows its colon. The colons of an IPv6 literal are inside of its brackets.
fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let name_end = authority.iter().position(|&byte| byte == b']').map_or(0, |at| at + 1);
    let rest = authority.get(name_end..).unwrap_or_default();
    match rest.iter().position(|&byte| byte == b':') {
        Some(colon) => {
            let (host, port) = authority.split_at_checked(name_end + colon).unwrap_or_default();
            (host, port.get(1..))
        }
        None => (authority, None),
    }
}

/// As browsers write one: no sign, no leading zero.
fn parse_port(digits: &[u8]) -> Option<u16> {
    if digits.first().is_none_or(|&byte| byte == b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether the text could be one origin, of whatever scheme: not empty, not `null`, not a list.
fn is_one_origin(text: &[u8]) -> bool {
    let is_separator = |byte: &u8| *byte == b',' || *byte <= b' ' || *byte == 0x7f;
    !text.is_empty() && text != b"null" && !text.iter().any(is_separator)
}
