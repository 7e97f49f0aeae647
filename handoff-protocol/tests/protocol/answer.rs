//! The answer: what a backend can say, and what nginx takes it for.

use handoff_protocol::{AnswerError, AnswerKind, Way, encode_answer, parse_answer};

/// Status, kind, length and number of fields.
fn parse(bytes: &[u8]) -> Result<Option<(u16, AnswerKind, usize, usize)>, AnswerError> {
    let mut headers = [httparse::EMPTY_HEADER; 4];
    let answer = parse_answer(bytes, &mut headers)?;
    Ok(answer.map(|head| (head.status, head.kind, head.len, head.fields.len())))
}

fn kind(head: &str) -> Result<AnswerKind, AnswerError> {
    parse(head.as_bytes()).map(|answer| answer.expect("a complete head").1)
}

#[test]
fn handoff_in_any_case_with_any_parameters() {
    let ways = [
        (Way::Fd, ["fd", "FD", " fd ", "fd; v=1", "fd;v=1;x=y", "fd; x", "fd;"]),
        (
            Way::FdTls,
            [
                "fd-tls",
                "FD-TLS",
                " fd-tls ",
                "fd-tls; v=1",
                "fd-tls;v=1;x=y",
                "fd-tls; x",
                "fd-tls;",
            ],
        ),
    ];
    for (way, values) in ways {
        for value in values {
            let head = format!("HTTP/1.1 101 Switching Protocols\r\nhandOFF: {value}\r\n\r\n");
            assert_eq!(kind(&head), Ok(AnswerKind::Handoff(way)), "{value:?}");
        }
    }
}

#[test]
fn keepalive_belongs_to_a_handoff() {
    let keepalive = |head: &str| {
        let mut headers = [httparse::EMPTY_HEADER; 4];
        parse_answer(head.as_bytes(), &mut headers).unwrap().unwrap().keepalive
    };
    assert!(keepalive("HTTP/1.1 101 X\r\nHandoff: fd; keepalive\r\n\r\n"));
    assert!(keepalive("HTTP/1.1 101 X\r\nhandoff: FD;v=1 ; KeepAlive\r\n\r\n"));
    for without in
        ["101 X\r\nHandoff: fd\r\n", "101 X\r\nA: b\r\n", "403 X\r\nHandoff: fd; keepalive\r\n"]
    {
        assert!(!keepalive(&format!("HTTP/1.1 {without}\r\n")), "{without}");
    }
}

#[test]
fn a_101_with_another_handoff_is_an_error() {
    for value in [
        "",
        "no",
        "fds",
        "fd; v=2",
        "fd-tls; v=2",
        "fd, fd-tls",
        "fd, fd",
        "fd; v=1, tunnel",
        "fd v=1",
    ] {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nHandoff: {value}\r\n\r\n");
        assert_eq!(kind(&head), Err(AnswerError::Handoff), "{value:?}");
    }
    let twice = "HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\nHandoff: fd\r\n\r\n";
    assert_eq!(kind(twice), Err(AnswerError::Handoff));
}

#[test]
fn a_101_without_handoff_is_a_tunnel() {
    assert_eq!(kind("HTTP/1.1 101\r\nUpgrade: websocket\r\n\r\n"), Ok(AnswerKind::Tunnel));
    assert_eq!(kind("HTTP/1.1 101 X\r\nHand_off: fd\r\n\r\n"), Ok(AnswerKind::Tunnel));
}

#[test]
fn everything_else_is_a_refusal_and_handoff_means_nothing_there() {
    for status in [200, 204, 302, 403, 503, 999] {
        let head = format!("HTTP/1.1 {status} Reason\r\nHandoff: garbage\r\n\r\nbody");
        let expected = (status, AnswerKind::Refusal, head.len() - 4, 1);
        assert_eq!(parse(head.as_bytes()), Ok(Some(expected)));
    }
    assert_eq!(kind("HTTP/1.0 404 Not Found\r\n\r\n"), Ok(AnswerKind::Refusal));
}

#[test]
fn the_head_is_given_back_whole() {
    let bytes = b"HTTP/1.1 403 No entry \r\nA: \xe4 \r\nB:\r\n\r\nrest";
    let mut headers = [httparse::EMPTY_HEADER; 4];
    let answer = parse_answer(bytes, &mut headers).unwrap().unwrap();
    assert_eq!(answer.reason, b"No entry ");
    assert_eq!(answer.fields.iter().map(|f| f.name).collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(
        answer.fields.iter().map(|f| f.value).collect::<Vec<_>>(),
        [b"\xe4".as_slice(), b""]
    );
    assert_eq!(&bytes[answer.len..], b"rest");

    let mut headers = [httparse::EMPTY_HEADER; 4];
    let bytes = b"HTTP/1.1 200 Gr\xfc\xdfe\r\n\r\n";
    assert_eq!(parse_answer(bytes, &mut headers).unwrap().unwrap().reason, b"");
}

#[test]
fn interim_responses_are_skipped_one_by_one() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nHandoff: x\r\nA: b\r\n\r\n";
    let last = "HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\n";
    let whole = format!("{interim}{last}");
    let expected = (101, AnswerKind::Handoff(Way::Fd), whole.len(), 1);
    assert_eq!(parse(format!("{whole}HTTP").as_bytes()), Ok(Some(expected)));
    for partial in 0..whole.len() {
        assert_eq!(parse(&whole.as_bytes()[..partial]), Ok(None), "{partial}");
    }
    assert_eq!(parse(format!("{interim}\u{1}").as_bytes()), syntax_error(httparse::Error::Version));
}

fn syntax_error<T>(error: httparse::Error) -> Result<T, AnswerError> {
    Err(AnswerError::Syntax(error))
}

#[test]
fn garbage_is_an_error_as_soon_as_it_is_seen() {
    for bytes in [
        "GET / HTTP/1.1\r\n",
        "HTTP/2 200\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 1000 OK\r\n",
        "HTTP/1.1 200 OK\r\nA b: c\r\n",
        "HTTP/1.1 200 OK\r\nA : c\r\n",
        "HTTP/1.1 200 OK\r\n: c\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\n",
        "\u{1}",
    ] {
        assert!(matches!(parse(bytes.as_bytes()), Err(AnswerError::Syntax(_))), "{bytes:?}");
    }
    for status in [0, 1, 99] {
        let head = format!("HTTP/1.1 {status:03} X\r\n\r\n");
        assert_eq!(kind(&head), Err(AnswerError::Status(status)));
    }
}

#[test]
fn too_many_fields_are_an_error_that_names_the_limit() {
    let fits = "HTTP/1.1 200 OK\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n";
    assert_eq!(parse(fits.as_bytes()).unwrap().unwrap().3, 4);
    let error = kind("HTTP/1.1 200 OK\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\n\r\n").unwrap_err();
    assert_eq!(error, AnswerError::TooManyFields { limit: 4 });
    assert_eq!(error.to_string(), "the answer has more than 4 fields");
    assert!(parse_answer(b"HTTP/1.1 200 OK\r\n\r\n", &mut []).unwrap().is_some());
}

#[test]
fn answers_are_written_whole_or_not_at_all() {
    let mut out = b"before".to_vec();
    for (status, reason, name, value) in [
        (99, "", "A", "b"),
        (1000, "", "A", "b"),
        (200, "a\r\nb", "A", "b"),
        (200, "OK", "A b", "b"),
        (200, "OK", "", "b"),
        (200, "OK", "A", "b\r\nC: d"),
    ] {
        let fields = [("Good", b"1".as_slice()), (name, value.as_bytes())];
        assert!(encode_answer(&mut out, status, reason, fields.into_iter()).is_err());
        assert_eq!(out, b"before");
    }
    encode_answer(&mut out, 503, "", [("Retry-After", b"1".as_slice())].into_iter()).unwrap();
    assert_eq!(out, b"beforeHTTP/1.1 503 \r\nRetry-After: 1\r\n\r\n");
}
