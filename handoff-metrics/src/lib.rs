//! What the module counts of hand-overs, and how the counts are shown: as Prometheus text, JSON or a page.
//!
//! The counters live in memory that nginx's workers share; where that memory is, is the module's business. Here are
//! their layout ([`Counters`], [`Gauge`]), copies of them at one moment ([`Snapshot`], [`Report`]) and the renderers, which
//! write into any [`core::fmt::Write`]: once into [`Length`] to learn how much room is needed, then into that room
//! ([`Page`]).
//!
//! All of this is called from `extern "C"` callbacks of nginx, where a panic would take down every client of the
//! worker: nothing allocates, and nothing panics, whatever the names of the upstreams are.

#![forbid(unsafe_code)]

mod counters;
mod escape;
mod format;
mod histogram;
mod html;
mod json;
mod kind;
mod page;
mod prometheus;
mod report;

pub use counters::{Counters, Gauge, Refusals, Rejections, Snapshot, TlsRefusals, WORKERS};
pub use format::{Format, UnknownFormat};
pub use histogram::{BOUNDS, Distribution, Histogram};
pub use kind::{Cause, Outcome, Rejection, TlsRefusal};
pub use page::{Length, Page};
pub use report::{Report, Upstream};
