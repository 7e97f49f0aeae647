//! The three formats, byte for byte. After a change that is meant, `BLESS=1 cargo test` writes the files anew.

use std::time::Duration;
use std::{env, fs};

use handoff_metrics::{
    Cause, Counters, Format, Length, Outcome, Page, Rejection, Rejections, Report, Snapshot,
    TlsRefusal, TlsRefusals, Upstream,
};

#[test]
fn prometheus() {
    golden(Format::Prometheus, "some.prom");
}

#[test]
fn json() {
    golden(Format::Json, "some.json");
}

#[test]
fn html() {
    golden(Format::Html, "some.html");
}

#[test]
fn nothing_counted_yet() {
    let report = Report {
        in_progress: 0,
        rejected: [0; 5],
        tls_refused: [0; TlsRefusal::ALL.len()],
        upstreams: &[],
    };
    for format in [Format::Prometheus, Format::Json, Format::Html] {
        assert!(rendered(format, &report).ends_with('\n'));
    }
}

#[test]
fn room_that_is_too_small_is_an_error() {
    let report = Report {
        in_progress: 0,
        rejected: [0; 5],
        tls_refused: [0; TlsRefusal::ALL.len()],
        upstreams: &[],
    };
    assert!(Format::Json.render(&report, &mut Page::new(&mut [0; 100])).is_err());
}

fn golden(format: Format, file: &str) {
    let chat = Counters::default();
    for (times, outcome) in
        [(3, Outcome::Fd), (1, Outcome::Tls), (2, Outcome::Tunnel), (1, Outcome::Failed)]
    {
        (0..times).for_each(|_| chat.ended(outcome));
    }
    (0..4).for_each(|_| chat.offered());
    chat.failed(Cause::Connect);
    chat.failed(Cause::Backend);
    chat.early_data(123_456_789);
    for micros in [400, 750, 12_345, 99_000_000] {
        chat.answered(Duration::from_micros(micros));
    }

    let odd = Counters::default();
    odd.ended(Outcome::Refused);
    for status in [403, 503, 503, 777] {
        odd.refused(status);
    }

    let rejections = Rejections::default();
    rejections.count(Rejection::Malformed);
    rejections.count(Rejection::Origin);

    let upstreams = [
        Upstream { name: b"chat", counts: copy(&chat) },
        Upstream { name: b"unix:/run/\"a\\b\"\n<\xff>&", counts: copy(&odd) },
    ];
    let refusals = TlsRefusals::default();
    (0..2).for_each(|_| refusals.count(TlsRefusal::Suite));
    let report = Report {
        in_progress: 5,
        rejected: rejections.snapshot(),
        tls_refused: refusals.snapshot(),
        upstreams: &upstreams,
    };
    let text = rendered(format, &report);

    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if env::var_os("BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(text == expected, "{file} differs from what is rendered:\n{text}");
}

/// Measured, then written: the two agree.
fn rendered(format: Format, report: &Report<'_>) -> String {
    let mut length = Length::default();
    format.render(report, &mut length).unwrap();
    let mut room = vec![0; length.get()];
    let mut page = Page::new(&mut room);
    format.render(report, &mut page).unwrap();
    assert_eq!(page.len(), length.get());
    String::from_utf8(room).unwrap()
}

fn copy(counters: &Counters) -> Snapshot {
    let mut snapshot = Snapshot::default();
    counters.snapshot(&mut snapshot);
    snapshot
}
