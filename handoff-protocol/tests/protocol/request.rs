//! The request head: which of a client's fields a backend sees, and what it makes of them.

use handoff_protocol::{
    FieldName, Request, RequestHead, RequestHeadError, RequestParseError, Way, check_set_field,
    check_value, is_reserved_field, parse_request,
};

type Fields<'a> = &'a [(&'a str, &'a str)];

const SET: Fields<'static> = &[("X-Real-IP", "192.0.2.7"), ("X-Forwarded-User", "")];

/// The head for a client's fields, as text; nginx sets [`SET`].
fn head(client: Fields<'_>) -> String {
    encode(b"/", b"h", client, SET, Some(Way::Fd)).unwrap()
}

/// What of a client's fields gets into the head.
fn passed(client: Fields<'_>) -> String {
    let whole = head(client);
    let behind_set = whole.split_once("X-Real-IP: 192.0.2.7\r\n").unwrap().1;
    behind_set.strip_suffix("\r\n").unwrap().to_owned()
}

fn encode(
    target: &[u8],
    host: &[u8],
    client: Fields<'_>,
    set: Fields<'_>,
    offer: Option<Way>,
) -> Result<String, RequestHeadError> {
    let set: Vec<_> = set.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let client_fields = client.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let head = RequestHead { target, host, client_fields, set_fields: &set, offer };
    let len = head.encoded_len()?;
    let mut out = vec![0; len];
    assert_eq!(head.encode(&mut out), Ok(len));
    for short in 0..len {
        assert_eq!(head.encode(&mut out[..short]), Err(RequestHeadError::BufferTooSmall));
    }
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_offer_is_made_only_where_a_descriptor_can_follow() {
    let fixed = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    for (way, value) in [(Way::Fd, "fd; v=1"), (Way::FdTls, "fd-tls; v=1")] {
        let with = encode(b"/", b"h", &[], &[], Some(way)).unwrap();
        assert_eq!(with, format!("{fixed}Handoff: {value}\r\n\r\n"));
    }
    let without = encode(b"/", b"h", &[], &[], None).unwrap();
    assert_eq!(without, format!("{fixed}\r\n"));
}

#[test]
fn end_to_end_fields_pass_in_order() {
    let client: Fields<'_> = &[
        ("Sec-WebSocket-Key", "k"),
        ("Authorization", "Basic YTpi"),
        ("Cookie", "a=b"),
        ("Cookie", "c=d"),
        ("X-Empty", ""),
        ("Origin", "http://example.com"),
    ];
    assert_eq!(
        passed(client),
        "Sec-WebSocket-Key: k\r\nAuthorization: Basic YTpi\r\nCookie: a=b\r\nCookie: c=d\r\n\
         X-Empty: \r\nOrigin: http://example.com\r\n"
    );
}

#[test]
fn fields_for_one_hop_do_not_pass_in_any_spelling() {
    for name in [
        "Host",
        "Connection",
        "Upgrade",
        "Handoff",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Content-Length",
        "Expect",
        "HTTP2-Settings",
    ] {
        for spelling in [name.to_owned(), name.to_uppercase(), name.replace('-', "_")] {
            assert_eq!(passed(&[(&spelling, "x")]), "", "{spelling}");
        }
    }
}

#[test]
fn a_client_cannot_forge_what_nginx_sets() {
    for name in ["X-Real-IP", "x-real-ip", "X_Real_IP", "X-Real_IP", "x_forwarded-USER"] {
        assert_eq!(passed(&[(name, "203.0.113.9")]), "", "{name}");
    }
    assert_eq!(passed(&[("X-Real-IPs", "1")]), "X-Real-IPs: 1\r\n");
}

#[test]
fn a_nomination_removes_the_clients_field_only() {
    let client: Fields<'_> = &[
        ("connection", "Upgrade, X-Hop,, x-real-ip"),
        ("X-HOP", "1"),
        ("X_Hop", "2"),
        ("CONNECTION", "close ,X-Other"),
        ("x-other", "3"),
        ("X-Kept", "4"),
    ];
    assert_eq!(passed(client), "X_Hop: 2\r\nX-Kept: 4\r\n");
    assert!(head(client).contains("\r\nX-Real-IP: 192.0.2.7\r\n"));
    assert!(head(&[("Connection", "Handoff, Host, Upgrade")]).starts_with(
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHandoff: fd; v=1\r\n"
    ));
}

#[test]
fn the_websockets_own_fields_cannot_be_nominated() {
    let client: Fields<'_> =
        &[("Connection", "sec-websocket-key, Sec-WebSocket-Version"), ("Sec-WebSocket-Key", "k")];
    assert_eq!(passed(client), "Sec-WebSocket-Key: k\r\n");
}

#[test]
fn too_many_nominations_are_an_error() {
    let many = vec!["a"; 33].join(",");
    assert_eq!(passed(&[("Connection", &many[2..])]), "");
    let error = encode(b"/", b"h", &[("Connection", &many)], &[], Some(Way::Fd)).unwrap_err();
    assert_eq!(error, RequestHeadError::TooManyConnectionOptions { limit: 32 });
    assert_eq!(error.status(), 400);
}

#[test]
fn a_clients_field_that_would_break_the_head_is_dropped() {
    for (name, value) in [
        ("X-A", "1\r\nX-Real-IP: 2"),
        ("X-A", "1\n"),
        ("X-A", "\0"),
        ("X-A", "\u{1}"),
        ("X A", "1"),
        ("X-A:", "1"),
        ("X-A\r\nX-B", "1"),
        ("", "1"),
        ("X-Real-IP ", "1"),
    ] {
        assert_eq!(passed(&[(name, value)]), "", "{name:?}: {value:?}");
    }
}

#[test]
fn values_that_would_break_the_head_are_errors_that_name_the_field() {
    for control in ["\r", "\n", "\0", "\u{1}", "\u{7f}"] {
        let value = format!("a{control}b");
        let error = encode(b"/", value.as_bytes(), &[], &[], Some(Way::Fd)).unwrap_err();
        assert!(matches!(error, RequestHeadError::Value(name) if name.as_bytes() == b"Host"));

        let error = encode(b"/", b"h", &[], &[("X-User", &value)], Some(Way::Fd)).unwrap_err();
        assert_eq!(error.to_string(), "the value of \"X-User\" contains a control character");
        assert_eq!(error.status(), 400);

        let error = encode(value.as_bytes(), b"h", &[], &[], Some(Way::Fd)).unwrap_err();
        assert_eq!((error, error.status()), (RequestHeadError::Target, 400));
    }
    for target in ["", " ", "/a b"] {
        let error = encode(target.as_bytes(), b"h", &[], &[], Some(Way::Fd)).unwrap_err();
        assert_eq!(error, RequestHeadError::Target, "{target:?}");
    }
    assert!(encode(b"/", b"", &[], &[("X-A", "tab\tand \u{e4}")], Some(Way::Fd)).is_ok());
}

#[test]
fn odd_and_reserved_names_cannot_be_set() {
    let error = encode(b"/", b"h", &[], &[("X A", "1")], Some(Way::Fd)).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.status()),
        ("\"X A\" is not a valid field name", 500)
    );
    for name in ["host", "Connection", "UPGRADE", "Handoff", "content_length", "Transfer-Encoding"]
    {
        assert!(is_reserved_field(name.as_bytes()));
        let error = encode(b"/", b"h", &[], &[(name, "1")], Some(Way::Fd)).unwrap_err();
        assert!(matches!(error, RequestHeadError::Reserved(_)), "{name}");
        assert!(encode(b"/", b"h", &[], &[(name, "")], Some(Way::Fd)).is_ok(), "{name}");
    }
    assert!(!is_reserved_field(b"X-Real-IP"));
}

#[test]
fn a_configuration_can_be_checked_early() {
    assert_eq!(check_set_field(b"X-A", b"b\tc"), Ok(()));
    // Reserved ones cannot even be removed.
    assert!(matches!(check_set_field(b"handoff", b""), Err(RequestHeadError::Reserved(_))));
    assert!(matches!(check_set_field(b"content_length", b""), Err(RequestHeadError::Reserved(_))));
    assert!(matches!(check_set_field(b"", b"b"), Err(RequestHeadError::Name(_))));
    assert!(matches!(check_set_field(b"a b", b"b"), Err(RequestHeadError::Name(_))));
    assert!(matches!(check_set_field(b"X-A", b"b\r\nc: d"), Err(RequestHeadError::Value(_))));
    assert_eq!(check_value(b"Host", b"example.org:8080"), Ok(()));
    assert!(matches!(check_value(b"Host", b"a\0"), Err(RequestHeadError::Value(_))));
}

#[test]
fn a_target_is_written_in_ascii() {
    let head = encode("/\u{e4}/%20?\u{20ac}=\"".as_bytes(), b"h", &[], &[], Some(Way::Fd)).unwrap();
    assert!(head.starts_with("GET /%C3%A4/%20?%E2%82%AC=\" HTTP/1.1\r\n"), "{head}");
}

fn with_parsed<T>(bytes: &[u8], check: impl FnOnce(Request<'_, '_>) -> T) -> T {
    let mut headers = [httparse::EMPTY_HEADER; 4];
    check(parse_request(bytes, &mut headers).unwrap().unwrap())
}

fn parse_error(bytes: &[u8]) -> RequestParseError {
    let mut headers = [httparse::EMPTY_HEADER; 4];
    parse_request(bytes, &mut headers).unwrap_err()
}

#[test]
fn a_backend_reads_the_head_and_leaves_the_rest() {
    let bytes = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\n\r\nF";
    with_parsed(bytes, |request| {
        assert_eq!(request.len, bytes.len() - 1);
        assert_eq!((request.method, request.target), ("GET", "/a?b"));
        assert_eq!(request.fields[1].value, b"1");
        assert!(!request.offers_descriptor);
    });
    for partial in 0..bytes.len() - 1 {
        let mut headers = [httparse::EMPTY_HEADER; 4];
        assert!(parse_request(&bytes[..partial], &mut headers).unwrap().is_none(), "{partial}");
    }
}

#[test]
fn a_backend_recognises_the_offer_by_its_version() {
    let offers = |lines: &str| {
        with_parsed(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes(), |r| r.offers_descriptor)
    };
    for yes in [
        "Handoff: fd; v=1\r\n",
        "HANDOFF: FD;V=1\r\n",
        "Handoff: fd\r\n",
        "Handoff: fd; v=1; new=thing\r\n",
        "Handoff: fd; v=2, fd; v=1\r\n",
        "Handoff: fd; v=2\r\nHandoff: fd; v=1\r\n",
    ] {
        assert!(offers(yes), "{yes:?}");
    }
    for no in ["", "Handoff:\r\n", "Handoff: fd; v=2\r\n", "Handoff: pipe\r\n", "Hand_off: fd\r\n"]
    {
        assert!(!offers(no), "{no:?}");
    }
}

#[test]
fn a_tls_session_is_offered_by_a_name_of_its_own() {
    let offers = |value: &str| {
        with_parsed(format!("GET / HTTP/1.1\r\nHandoff: {value}\r\n\r\n").as_bytes(), |r| {
            (r.offers_descriptor, r.offers_tls)
        })
    };
    assert_eq!(offers("fd-tls; v=1"), (false, true));
    assert_eq!(offers("FD-TLS"), (false, true));
    assert_eq!(offers("fd, fd-tls"), (true, true));
    assert_eq!(offers("fd-tls; v=2, fd"), (true, false));
    assert_eq!(offers("fd-tls-x"), (false, false));
}

#[test]
fn a_backend_answers_what_is_no_request_of_this_protocol() {
    for (bytes, status) in [
        ("POST / HTTP/1.1\r\n\r\n", 405),
        ("HEAD / HTTP/1.1\r\n\r\n", 405),
        ("GET / HTTP/1.0\r\n\r\n", 505),
        ("GET / HTTP/2.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 400),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        ("\u{1}F", 400),
        ("GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\n\r\n", 431),
    ] {
        let error = parse_error(bytes.as_bytes());
        assert_eq!(error.status(), status, "{bytes:?}: {error}");
    }
    assert_eq!(
        parse_error(b"GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\n\r\n").to_string(),
        "the request has more than 4 fields"
    );
    let empty_body = b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    assert!(with_parsed(empty_body, |request| request.fields.len() == 1));
}

#[test]
fn an_error_remembers_the_field() {
    let error = encode(b"/", b"h", &[], &[("X-Long", "\0")], None).unwrap_err();
    let RequestHeadError::Value(name) = error else { panic!("{error}") };
    let name: FieldName = name;
    assert_eq!(name.as_bytes(), b"X-Long");
}

#[test]
fn another_spelling_of_a_validated_field_is_dropped() {
    let client: Fields<'_> = &[
        ("Sec-WebSocket-Key", "k"),
        ("Sec_WebSocket_Key", "evil"),
        ("sec-websocket_protocol", "evil"),
        ("X_Custom", "kept"),
    ];
    assert_eq!(passed(client), "Sec-WebSocket-Key: k\r\nX_Custom: kept\r\n");
}
