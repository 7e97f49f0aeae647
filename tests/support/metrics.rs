//! What nginx's `ws_handoff_status` reports, in short.

use super::nginx::Nginx;
use super::{Client, wait_for};

/// Goes into `http {}`.
pub const ZONE: &str = "ws_handoff_zone counters:64k;";

/// Goes into the `server {}`.
pub const LOCATION: &str = "location = /metrics { access_log off; ws_handoff_status; }";

/// All samples that are not 0, sorted, each as `family label… value` without what they have in common:
/// `requests ws fd 1`. Of the histogram only its count.
pub fn nonzero(nginx: &Nginx) -> Vec<String> {
    let mut samples: Vec<String> =
        text(nginx).lines().filter_map(sample).filter(|short| !short.ends_with(" 0")).collect();
    samples.sort();
    samples
}

/// Waits until exactly these are not 0; see [`nonzero`].
pub fn expect(nginx: &Nginx, expected: &[&str]) {
    let mut expected: Vec<&str> = expected.to_vec();
    expected.sort_unstable();
    let mut seen = Vec::new();
    let mut attempts = 0;
    wait_for(&format!("the counters are {expected:#?}"), || {
        seen = nonzero(nginx);
        attempts += 1;
        assert!(attempts < 400, "expected {expected:#?} but counted {seen:#?}");
        (seen == expected).then_some(())
    });
}

/// A single sample; 0 if there is none.
pub fn value(nginx: &Nginx, sample: &str) -> u64 {
    let found = nonzero(nginx)
        .into_iter()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or(0)
}

/// All counters at one time.
#[derive(Debug)]
pub struct Snapshot(Vec<String>);

impl Snapshot {
    /// When nothing is in progress any more, so that the counts belong together.
    pub fn at_rest(nginx: &Nginx) -> Snapshot {
        wait_for("nothing is in progress", || {
            let samples = nonzero(nginx);
            let busy = samples.iter().any(|sample| sample.starts_with("in_progress"));
            (!busy).then_some(Snapshot(samples))
        })
    }

    /// The sum over all upstreams of `family` with that label: `sum("requests", "fd")`.
    pub fn sum(&self, family: &str, label: &str) -> usize {
        let counts = self.0.iter().filter_map(|sample| {
            let mut words = sample.split(' ');
            let (first, last) = (words.next()?, words.next_back()?);
            let found = first == family && words.next_back()? == label;
            found.then(|| last.parse::<usize>().expect("a count"))
        });
        counts.sum()
    }

    /// Requests that have ended.
    pub fn ended(&self) -> usize {
        ["fd", "tls", "tunnel", "refused", "failed"]
            .iter()
            .map(|result| self.sum("requests", result))
            .sum()
    }
}

/// The text as Prometheus gets it.
pub fn text(nginx: &Nginx) -> String {
    let mut client = Client::connect(nginx.address());
    client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let head = client.read_head();
    assert_eq!(head.status(), 200, "{head:?}");
    let body = client.read_body(&head);
    client.read_to_end();
    String::from_utf8(body).expect("UTF-8")
}

fn sample(line: &str) -> Option<String> {
    let (name, value) = line.strip_prefix("nginx_ws_handoff_")?.rsplit_once(' ')?;
    let (family, labels) = name.split_once('{').unwrap_or((name, ""));
    let family = match family {
        "answer_seconds_count" => "answers",
        "early_data_bytes_total" => "early_data",
        family if family.starts_with("answer_seconds_") => return None,
        family => family.strip_suffix("_total").unwrap_or(family),
    };
    // Every second part between quotes is a value.
    let values = labels.split('"').skip(1).step_by(2);
    let words: Vec<&str> = std::iter::once(family).chain(values).chain([value]).collect();
    Some(words.join(" "))
}
