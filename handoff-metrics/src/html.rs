//! A page for people: tables, no script, nothing from elsewhere.

use core::fmt::{self, Display, Formatter, Write};

use crate::counters::Snapshot;
use crate::escape::Html;
use crate::kind::{Cause, Outcome};
use crate::report::{Report, Upstream};

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>ws_handoff status</title>
<style>
:root { color-scheme: light dark; --line: #8884; --head: #8881; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
thead th { background: var(--head); font-weight: 600; }
tbody th { font-weight: 400; }
tfoot th, tfoot td { font-weight: 600; }
.bad { color: var(--bad); }
</style>
</head>
<body>
<h1>WebSockets handed over</h1>
";

pub fn render<W: Write>(report: &Report<'_>, out: &mut W) -> fmt::Result {
    out.write_str(HEAD)?;
    writeln!(out, "<p>In progress: {}</p>", report.in_progress)?;

    out.write_str("<h2>Requests</h2>\n")?;
    let titles = [
        "Upstream",
        "Handed over",
        "With TLS",
        "Tunnelled",
        "Refused",
        "Failed",
        "Offers",
        "Early data",
        "Answers",
        "Mean time",
    ];
    let requests = |counts: &Snapshot, out: &mut W| {
        for outcome in Outcome::ALL {
            cell(counts.results(outcome), outcome == Outcome::Failed, out)?;
        }
        cell(counts.offers, false, out)?;
        write!(out, "<td>{} B</td>", counts.early_data)?;
        cell(counts.answers.count(), false, out)?;
        write!(out, "<td>{}</td>", Mean(counts))
    };
    table(report, &titles, requests, out)?;

    out.write_str("<h2>Failed attempts by cause</h2>\n")?;
    let mut titles = ["Upstream"; 1 + Cause::ALL.len()];
    for (title, cause) in titles.iter_mut().skip(1).zip(Cause::ALL) {
        *title = cause.name();
    }
    let failures = |counts: &Snapshot, out: &mut W| {
        Cause::ALL.into_iter().try_for_each(|cause| cell(counts.failures(cause), true, out))
    };
    table(report, &titles, failures, out)?;

    out.write_str("<h2>Refusals of backends by status</h2>\n")?;
    let refusals = |counts: &Snapshot, out: &mut W| {
        out.write_str("<td>")?;
        if counts.refusals.iter().next().is_none() {
            out.write_str("0")?;
        }
        for (at, (status, n)) in counts.refusals.iter().enumerate() {
            out.write_str(if at == 0 { "" } else { ", " })?;
            match status {
                Some(status) => write!(out, "{status}: {n}")?,
                None => write!(out, "other: {n}")?,
            }
        }
        out.write_str("</td>")
    };
    table(report, &["Upstream", "Status: count"], refusals, out)?;

    out.write_str("<h2>Refused by nginx itself</h2>\n<div><table>\n<thead><tr>")?;
    out.write_str("<th>Reason</th><th>Status</th><th>Count</th></tr></thead>\n<tbody>\n")?;
    for (rejection, n) in report.rejected() {
        let (reason, status) = (rejection.name(), rejection.status());
        writeln!(out, "<tr><th>{reason}</th><td>{status}</td><td>{n}</td></tr>")?;
    }
    out.write_str("</tbody>\n</table></div>\n")?;

    out.write_str("<h2>TLS clients not handed over</h2>\n<div><table>\n<thead><tr>")?;
    out.write_str("<th>Reason</th><th>Count</th></tr></thead>\n<tbody>\n")?;
    for (refusal, n) in report.tls_refused() {
        writeln!(out, "<tr><th>{}</th><td>{n}</td></tr>", refusal.name())?;
    }
    out.write_str("</tbody>\n</table></div>\n</body>\n</html>\n")
}

/// A row for each upstream, and the total below them.
fn table<W: Write>(
    report: &Report<'_>,
    titles: &[&str],
    cells: impl Fn(&Snapshot, &mut W) -> fmt::Result,
    out: &mut W,
) -> fmt::Result {
    out.write_str("<div><table>\n<thead><tr>")?;
    for title in titles {
        write!(out, "<th>{title}</th>")?;
    }
    out.write_str("</tr></thead>\n<tbody>\n")?;
    for Upstream { name, counts } in report.upstreams {
        write!(out, "<tr><th>{}</th>", Html(name))?;
        cells(counts, out)?;
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody>\n<tfoot><tr><th>All</th>")?;
    cells(&report.total(), out)?;
    out.write_str("</tr></tfoot>\n</table></div>\n")
}

fn cell(n: u64, bad: bool, out: &mut impl Write) -> fmt::Result {
    if bad && n > 0 {
        write!(out, "<td class=\"bad\">{n}</td>")
    } else {
        write!(out, "<td>{n}</td>")
    }
}

/// The mean time to answer in milliseconds.
struct Mean<'a>(&'a Snapshot);

impl Display for Mean<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.answers.mean() {
            Some(mean) => {
                let micros = mean.as_micros();
                write!(f, "{}.{:03} ms", micros / 1000, micros % 1000)
            }
            None => f.write_str("–"),
        }
    }
}
