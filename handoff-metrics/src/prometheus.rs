//! Prometheus's text format 0.0.4. Totals are Prometheus's to sum.

use core::fmt::{self, Write};

use crate::escape::{Label, Seconds};
use crate::kind::{Cause, Outcome};
use crate::report::{Report, Upstream};

pub fn render(report: &Report<'_>, out: &mut impl Write) -> fmt::Result {
    family(
        out,
        "requests_total",
        "counter",
        "Requests with a right handshake, by how they ended.",
    )?;
    for Upstream { name, counts } in report.upstreams {
        for outcome in Outcome::ALL {
            let (name, result, n) = (Label(name), outcome.name(), counts.results(outcome));
            writeln!(
                out,
                "nginx_ws_handoff_requests_total{{upstream=\"{name}\",result=\"{result}\"}} {n}"
            )?;
        }
    }

    family(out, "in_progress", "gauge", "Requests that have not ended yet.")?;
    writeln!(out, "nginx_ws_handoff_in_progress {}", report.in_progress)?;

    family(out, "offers_total", "counter", "Client sockets that backends were sent.")?;
    for Upstream { name, counts } in report.upstreams {
        let (name, n) = (Label(name), counts.offers);
        writeln!(out, "nginx_ws_handoff_offers_total{{upstream=\"{name}\"}} {n}")?;
    }

    family(out, "failures_total", "counter", "Attempts at a backend that failed, by cause.")?;
    for Upstream { name, counts } in report.upstreams {
        for cause in Cause::ALL {
            let (name, n) = (Label(name), counts.failures(cause));
            let cause = cause.name();
            writeln!(
                out,
                "nginx_ws_handoff_failures_total{{upstream=\"{name}\",cause=\"{cause}\"}} {n}"
            )?;
        }
    }

    family(out, "refusals_total", "counter", "Answers of backends that refuse, by status.")?;
    for Upstream { name, counts } in report.upstreams {
        for (status, n) in counts.refusals.iter() {
            let name = Label(name);
            write!(out, "nginx_ws_handoff_refusals_total{{upstream=\"{name}\",status=\"")?;
            match status {
                Some(status) => writeln!(out, "{status}\"}} {n}")?,
                None => writeln!(out, "other\"}} {n}")?,
            }
        }
    }

    family(out, "rejected_total", "counter", "Requests that nginx refused without a backend.")?;
    for (rejection, n) in report.rejected() {
        let (reason, status) = (rejection.name(), rejection.status());
        writeln!(
            out,
            "nginx_ws_handoff_rejected_total{{reason=\"{reason}\",status=\"{status}\"}} {n}"
        )?;
    }

    family(
        out,
        "tls_kept_total",
        "counter",
        "TLS clients that were not handed over, by what their session is not fit for it.",
    )?;
    for (refusal, n) in report.tls_refused() {
        writeln!(out, "nginx_ws_handoff_tls_kept_total{{reason=\"{}\"}} {n}", refusal.name())?;
    }

    family(
        out,
        "early_data_bytes_total",
        "counter",
        "Bytes that clients had sent before their socket was handed over.",
    )?;
    for Upstream { name, counts } in report.upstreams {
        let (name, n) = (Label(name), counts.early_data);
        writeln!(out, "nginx_ws_handoff_early_data_bytes_total{{upstream=\"{name}\"}} {n}")?;
    }

    family(out, "answer_seconds", "histogram", "Time from asking a backend to its answer.")?;
    for Upstream { name, counts } in report.upstreams {
        let name = Label(name);
        for (bound, n) in counts.answers.cumulative() {
            writeln!(
                out,
                "nginx_ws_handoff_answer_seconds_bucket{{upstream=\"{name}\",le=\"{bound}\"}} {n}"
            )?;
        }
        let (sum, n) = (Seconds(counts.answers.sum()), counts.answers.count());
        writeln!(out, "nginx_ws_handoff_answer_seconds_sum{{upstream=\"{name}\"}} {sum}")?;
        writeln!(out, "nginx_ws_handoff_answer_seconds_count{{upstream=\"{name}\"}} {n}")?;
    }
    Ok(())
}

fn family(out: &mut impl Write, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP nginx_ws_handoff_{name} {help}")?;
    writeln!(out, "# TYPE nginx_ws_handoff_{name} {kind}")
}
