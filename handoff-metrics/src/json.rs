//! JSON, with totals. Objects hold all names always, except for the statuses of refusals.

use core::fmt::{self, Write};

use crate::counters::Snapshot;
use crate::escape::{Json, Seconds};
use crate::kind::{Cause, Outcome};
use crate::report::{Report, Upstream};

pub fn render(report: &Report<'_>, out: &mut impl Write) -> fmt::Result {
    write!(out, "{{\"in_progress\":{},\"rejected\":[", report.in_progress)?;
    let mut list = Separator::default();
    for (rejection, n) in report.rejected() {
        list.next(out)?;
        let (reason, status) = (rejection.name(), rejection.status());
        write!(out, "{{\"reason\":\"{reason}\",\"status\":{status},\"count\":{n}}}")?;
    }
    out.write_str("],\"tls_kept\":{")?;
    let mut list = Separator::default();
    for (refusal, n) in report.tls_refused() {
        list.next(out)?;
        write!(out, "\"{}\":{n}", refusal.name())?;
    }
    out.write_str("},\"total\":")?;
    counts(&report.total(), out)?;
    out.write_str(",\"upstreams\":{")?;
    let mut list = Separator::default();
    for Upstream { name, counts: upstream } in report.upstreams {
        list.next(out)?;
        write!(out, "\"{}\":", Json(name))?;
        counts(upstream, out)?;
    }
    out.write_str("}}\n")
}

fn counts(counts: &Snapshot, out: &mut impl Write) -> fmt::Result {
    out.write_str("{\"requests\":{")?;
    let mut list = Separator::default();
    for outcome in Outcome::ALL {
        list.next(out)?;
        write!(out, "\"{}\":{}", outcome.name(), counts.results(outcome))?;
    }
    write!(out, "}},\"offers\":{},\"failures\":{{", counts.offers)?;
    let mut list = Separator::default();
    for cause in Cause::ALL {
        list.next(out)?;
        write!(out, "\"{}\":{}", cause.name(), counts.failures(cause))?;
    }
    out.write_str("},\"refusals\":{")?;
    let mut list = Separator::default();
    for (status, n) in counts.refusals.iter() {
        list.next(out)?;
        match status {
            Some(status) => write!(out, "\"{status}\":{n}")?,
            None => write!(out, "\"other\":{n}")?,
        }
    }
    write!(
        out,
        "}},\"early_data_bytes\":{},\"answer_seconds\":{{\"buckets\":{{",
        counts.early_data
    )?;
    let mut list = Separator::default();
    for (bound, n) in counts.answers.cumulative() {
        list.next(out)?;
        write!(out, "\"{bound}\":{n}")?;
    }
    let (sum, n) = (Seconds(counts.answers.sum()), counts.answers.count());
    write!(out, "}},\"sum\":{sum},\"count\":{n}}}}}")
}

/// Commas between the elements of a list.
#[derive(Default)]
struct Separator {
    begun: bool,
}

impl Separator {
    fn next(&mut self, out: &mut impl Write) -> fmt::Result {
        if core::mem::replace(&mut self.begun, true) { out.write_char(',') } else { Ok(()) }
    }
}
