//! Which origins a rule admits: those that it names, and no trick that looks like one.

use handoff_protocol::{OriginRule, OriginRuleError, RegexSource, SentOrigin};
use proptest::prelude::*;

type Rule<'a> = OriginRule<'a, RegexSource<'a>>;

/// Whether `rule` admits a request of this origin, for `host`. A "regular expression" matches what contains it.
fn admits_for(host: &str, rule: &str, origin: &[u8]) -> bool {
    let rule = Rule::parse(rule.as_bytes()).expect("a rule");
    rule.admits(SentOrigin::Once(origin), host.as_bytes(), |regex, text| {
        text.windows(regex.pattern.len()).any(|window| window == regex.pattern)
    })
}

fn admits(rule: &str, origin: &str) -> bool {
    admits_for("unrelated.example", rule, origin.as_bytes())
}

fn refused(rule: &str) -> OriginRuleError {
    Rule::parse(rule.as_bytes()).expect_err(rule)
}

/// Admitted by neither `https://example.org`, `example.org`, `*.example.org`, nor `https://*.example.org`.
const STRANGERS: &[&str] = &[
    "https://evil.example",
    "https://evilexample.org",
    "https://evil-example.org",
    "https://example.org.evil.example",
    "https://example.orgevil",
    "https://example.or",
    "https://example.com",
    "https://example.org@evil.example",
    "https://example.org:443@evil.example",
    "https://evil@example.org",
    "https://a@sub.example.org",
    "https://example.org.",
    "https://sub.example.org.",
    "https://.example.org",
    "https://..example.org",
    "https://a..example.org",
    "https://example.org:8443",
    "https://sub.example.org:8443",
    "https://example.org:",
    "https://example.org:0443",
    "https://example.org:+443",
    "https://example.org:443:443",
    "https://example.org:99999",
    "https://example.org/",
    "https://example.org/path",
    "https://example.org?",
    "https://example.org#",
    "https://evil.example/example.org",
    "https://evil.example?.example.org",
    "https://evil.example#.example.org",
    "https://evil.example\\.example.org",
    "https://evil.example\0.example.org",
    "https://evil.example .example.org",
    " https://example.org",
    "https://example.org ",
    "https://example.org https://evil.example",
    "https://evil.example https://example.org",
    "https://evil.example, https://sub.example.org",
    "https://[example.org]",
    "https://[::1].example.org",
    "https:/example.org",
    "https:example.org",
    "https//example.org",
    "//example.org",
    "://example.org",
    "example.org",
    "sub.example.org",
    "httpss://example.org",
    "ftp://example.org",
    "javascript://example.org",
    "null",
    "",
    "*",
    "https://*.example.org",
    "https://",
];

#[test]
fn strangers_are_not_admitted() {
    for rule in
        ["https://example.org", "example.org", "*.example.org", "https://*.example.org", "none"]
    {
        for stranger in STRANGERS {
            assert!(!admits(rule, stranger), "{stranger} by {rule}");
        }
    }
}

#[test]
fn exact_origins_in_any_case_and_with_the_schemes_own_port() {
    for rule in ["https://example.org", "HTTPS://Example.ORG", "https://example.org:443"] {
        for origin in ["https://example.org", "HTTPS://EXAMPLE.org", "https://example.org:443"] {
            assert!(admits(rule, origin), "{origin} by {rule}");
        }
        for origin in ["http://example.org", "http://example.org:443", "https://sub.example.org"] {
            assert!(!admits(rule, origin), "{origin} by {rule}");
        }
    }
    assert!(admits("https://example.org:8443", "https://example.org:8443"));
    assert!(!admits("https://example.org:8443", "https://example.org"));
    assert!(!admits("https://example.org:8443", "http://example.org:8443"));
    assert!(admits("http://example.org", "http://example.org:80"));
    assert!(!admits("http://example.org:80", "https://example.org:80"));
    assert!(admits("https://192.0.2.1", "https://192.0.2.1"));
    assert!(!admits("https://192.0.2.1", "https://192.0.2.10"));
}

#[test]
fn without_a_scheme_http_and_https_on_their_own_ports() {
    for origin in ["http://example.org", "https://example.org", "http://example.org:80"] {
        assert!(admits("example.org", origin), "{origin}");
    }
    for origin in ["http://example.org:443", "https://example.org:80", "app://example.org"] {
        assert!(!admits("example.org", origin), "{origin}");
    }
    for origin in ["http://example.org:8443", "https://example.org:8443"] {
        assert!(admits("example.org:8443", origin), "{origin}");
    }
    assert!(!admits("example.org:8443", "https://example.org"));
    // A port that is one scheme's own is meant under both.
    assert!(admits("example.org:443", "https://example.org"));
    assert!(admits("example.org:443", "http://example.org:443"));
    assert!(!admits("example.org:443", "http://example.org"));
}

#[test]
fn wildcards_stand_for_subdomains() {
    for origin in ["https://a.example.org", "https://a.b.example.org", "https://A.EXAMPLE.ORG"] {
        for rule in ["*.example.org", "https://*.example.org", "https://*.Example.Org:443"] {
            assert!(admits(rule, origin), "{origin} by {rule}");
        }
    }
    assert!(!admits("https://*.example.org", "https://example.org"));
    assert!(!admits("https://*.example.org", "http://a.example.org"));
    assert!(admits("*.example.org", "http://a.example.org"));
    assert!(admits("*.example.org:8080", "http://a.example.org:8080"));
    assert!(!admits("*.example.org:8080", "http://a.example.org"));
    assert!(!admits("*.1", "https://[::1]"));
}

#[test]
fn ipv6_literals_are_compared_by_value() {
    for rule in ["https://[2001:db8::1]", "https://[2001:DB8:0:0::1]:443", "[2001:db8::1]"] {
        for origin in ["https://[2001:db8::1]", "https://[2001:DB8::1]:443"] {
            assert!(admits(rule, origin), "{origin} by {rule}");
        }
        for origin in ["https://[2001:db8::1]:8443", "https://[2001:db8::2]", "https://2001:db8::1"]
        {
            assert!(!admits(rule, origin), "{origin} by {rule}");
        }
    }
    assert!(admits("[::1]:8080", "http://[::1]:8080"));
    assert!(!admits("[::1]", "http://[::1"));
    assert!(!admits("[::1]", "http://[::1]x"));
    assert!(!admits("[::1]", "http://x[::1]"));
}

#[test]
fn other_schemes_can_be_named() {
    let extension = "chrome-extension://abcdefghijklmnop";
    assert!(admits(extension, extension));
    assert!(!admits(extension, "chrome-extension://abcdefghijklmnoq"));
    assert!(!admits("abcdefghijklmnop", extension));
    assert!(admits("capacitor://localhost", "capacitor://localhost"));
    assert!(!admits("capacitor://localhost", "capacitor://localhost:80"));
}

#[test]
fn none_and_null_are_admitted_by_name_only() {
    let none = |rule: &str| {
        let rule = Rule::parse(rule.as_bytes()).expect("a rule");
        rule.admits(SentOrigin::Absent, b"example.org", |_, _| true)
    };
    assert!(none("any") && none("none"));
    for rule in ["null", "same-origin", "example.org", "*.org", "~.", "~^$"] {
        assert!(!none(rule), "{rule}");
    }
    assert!(admits("null", "null") && admits("any", "null"));
    for rule in ["none", "same-origin", "example.org", "~null", "~*null"] {
        assert!(!admits(rule, "null"), "{rule}");
    }
    assert!(!admits("null", "NULL") && !admits("null", "") && !admits("none", ""));
}

#[test]
fn several_fields_are_admitted_by_any_only() {
    let fields = |names: &'static [(&str, &str)]| {
        SentOrigin::find(names.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    };
    assert_eq!(fields(&[("Host", "a"), ("X-Origin", "b"), ("Origins", "c")]), SentOrigin::Absent);
    assert_eq!(fields(&[("Host", "a"), ("ORIGIN", "b")]), SentOrigin::Once(b"b"));
    assert_eq!(fields(&[("origin", "")]), SentOrigin::Once(b""));
    let twice = fields(&[("Origin", "https://example.org"), ("origin", "https://example.org")]);
    assert_eq!(twice, SentOrigin::Repeated);
    for (rule, admitted) in
        [("any", true), ("none", false), ("null", false), ("example.org", false), ("~.", false)]
    {
        let rule = Rule::parse(rule.as_bytes()).expect("a rule");
        assert_eq!(rule.admits(twice, b"example.org", |_, _| true), admitted, "{rule:?}");
    }
}

#[test]
fn same_origin_is_the_requests_own_host() {
    for (host, origin) in [
        ("example.org", "https://example.org"),
        ("example.org", "http://example.org"),
        ("example.org", "https://EXAMPLE.org:443"),
        ("example.org:443", "https://example.org"),
        ("example.org:8080", "http://example.org:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[0:0::1]", "https://[::1]"),
    ] {
        assert!(admits_for(host, "same-origin", origin.as_bytes()), "{origin} at {host}");
    }
    for (host, origin) in [
        ("example.org", "https://sub.example.org"),
        ("example.org", "https://example.org:8443"),
        ("example.org:8080", "http://example.org"),
        ("example.org:443", "http://example.org"),
        ("example.org:", "https://example.org"),
        ("example.org:x", "https://example.org"),
        ("example.org", "app://example.org"),
        ("example.org", "https://a@example.org"),
        ("example.org", "null"),
        ("null", "null"),
        ("", "https://"),
        ("", ""),
    ] {
        assert!(!admits_for(host, "same-origin", origin.as_bytes()), "{origin} at {host}");
    }
}

#[test]
fn regular_expressions_see_one_origin_or_nothing() {
    assert_eq!(
        Rule::parse(b"~*^https://"),
        Ok(OriginRule::Regex(RegexSource { pattern: b"^https://", caseless: true }))
    );
    assert_eq!(
        Rule::parse(b"~example"),
        Ok(OriginRule::Regex(RegexSource { pattern: b"example", caseless: false }))
    );
    assert!(admits("~example", "https://example.org:8443"));
    assert!(admits("~file", "file://"));
    assert!(!admits("~example", "https://elsewhere.org"));
    for list in [
        "https://evil.org https://example.org",
        "https://evil.org,https://example.org",
        "https://example.org\t",
        "https://example.org\n",
    ] {
        assert!(!admits("~example", list), "{list:?}");
    }
    assert_eq!(refused("~"), OriginRuleError::EmptyRegex);
    assert_eq!(refused("~*"), OriginRuleError::EmptyRegex);
}

#[test]
fn what_is_no_rule_is_told_why() {
    use OriginRuleError::{Host, Path, Port, Scheme, UserInfo, Wildcard};
    for (rule, error) in [
        ("", Host),
        ("https://", Host),
        ("a b", Host),
        (".example.org", Host),
        ("example.org.", Host),
        ("[::g]", Host),
        ("[::1", Host),
        ("ex\u{e4}mple.org", Host),
        ("example.org,other.org", Host),
        ("1https://example.org", Scheme),
        ("://example.org", Scheme),
        ("*://example.org", Scheme),
        ("https://example.org/", Path),
        ("example.org/chat", Path),
        ("example.org?a", Path),
        ("https://user@example.org", UserInfo),
        ("example.org:", Port),
        ("example.org:0", Port),
        ("example.org:080", Port),
        ("example.org:65536", Port),
        ("example.org:http", Port),
        ("example.org:*", Port),
        ("*", Wildcard),
        ("example.*", Wildcard),
        ("*example.org", Wildcard),
        ("*.*.org", Wildcard),
        ("https://a.*.org", Wildcard),
        ("*.[::1]", Wildcard),
    ] {
        assert_eq!(refused(rule), error, "{rule:?}");
        assert!(!refused(rule).to_string().is_empty());
    }
    assert!(Rule::parse(b"*.org").is_ok());
}

fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]([a-zA-Z0-9-]{0,6}[a-zA-Z0-9])?"
}

proptest! {
    /// A wildcard admits what ends with a dot and its parent, and nothing that merely ends with the parent.
    #[test]
    fn a_wildcard_wants_the_dot(parent in label(), sub in label(), scheme in "https?") {
        let rule = format!("*.{parent}.org");
        let dotted = format!("{scheme}://{sub}.{parent}.ORG");
        let glued = format!("{scheme}://{sub}{parent}.org");
        prop_assert!(admits(&rule, &dotted));
        prop_assert!(!admits(&rule, &glued));
        let apex = format!("{parent}.org");
        prop_assert!(!admits(&apex, &dotted));
        prop_assert!(!admits(&apex, &glued));
    }

    /// A name admits itself, and nothing with something before or behind it.
    #[test]
    fn an_exact_origin_admits_itself_only(
        host in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,3}",
        port in proptest::option::of(1..=65535u16),
        before in "[ -~]{0,3}",
        behind in "[ -~]{0,3}",
    ) {
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let origin = format!("https://{host}{port}");
        prop_assert!(admits(&origin, &origin));
        let any_scheme = format!("{host}{port}");
        prop_assert!(admits(&any_scheme, &origin));
        let other = format!("https://{before}{host}{port}{behind}");
        let same = other.eq_ignore_ascii_case(&origin)
            || other == format!("{origin}:443")
            || format!("{other}:443") == origin;
        prop_assert_eq!(admits(&origin, &other), same, "{} by {}", other, origin);
    }

    /// No rule and no origin panics, and only `any` admits what is no origin at all.
    #[test]
    fn garbage(
        rule in proptest::collection::vec(proptest::sample::select(&b"ahtps:/.*@[]~0915 \0\xff"[..]), 0..20),
        origin in proptest::collection::vec(any::<u8>(), 0..30),
        host in proptest::collection::vec(proptest::sample::select(&b"ahtps:.[]0915"[..]), 0..12),
    ) {
        if let Ok(rule) = Rule::parse(&rule) {
            let admitted = rule.admits(SentOrigin::Once(&origin), &host, |_, _| false);
            let has_scheme = origin.windows(3).any(|window| window == b"://");
            prop_assert!(!admitted || has_scheme || origin == b"null" || rule == OriginRule::Any);
        }
        let _ = OriginRule::<()>::SameOrigin.admits(SentOrigin::Once(&origin), &host, |(), _| false);
    }
}
