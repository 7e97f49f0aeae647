//! The books of one request: each attempt at a backend is counted once, the request once by its outcome, and the access
//! log can tell both.
//!
//! nginx tells its modules of no attempt that ends before a request has been sent. So attempts are settled afterwards: at
//! the next callback nginx's own record of them (`r->upstream_states`) is compared with how many were known, and what it
//! does not say of the last known one was marked here by the places in this module where that attempt went wrong.

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::NonNull;
use std::time::Instant;

use handoff_metrics::{Cause, Counters, Gauge, Outcome, Rejection, TlsRefusal};
use handoff_protocol::Way;
use nginx_sys::{
    NGX_HTTP_BAD_GATEWAY, NGX_HTTP_CLIENT_CLOSED_REQUEST, NGX_HTTP_GATEWAY_TIME_OUT,
    NGX_HTTP_REQUEST_TIME_OUT, ngx_http_upstream_state_t, ngx_int_t, ngx_msec_t, ngx_uint_t,
};

use crate::nginx::{Connection, OutOfMemory, Request, now};
use crate::zone::{self, MainConf};

/// The books of a request. Lives in its pool.
pub struct Ledger {
    client: Connection,
    /// Where its upstream is counted.
    counters: Cell<Option<&'static Counters>>,
    /// Whether only the request itself will tell which upstream that is.
    named_by_variable: Cell<bool>,
    /// Where it is counted while it has no outcome.
    in_progress: Cell<Option<&'static Gauge>>,
    /// How many records of nginx's are not of this visit to an upstream.
    foreign: Cell<usize>,
    /// How many attempts are known; [`Ledger::mark`] belongs to the last of them.
    known: Cell<usize>,
    mark: Cell<Mark>,
    /// When nginx began to send the request to the present backend.
    sent: Cell<Option<Instant>>,
    /// When nginx began to try backends.
    begun: Cell<Option<ngx_msec_t>>,
    elapsed: Cell<Option<ngx_msec_t>>,
    outcome: Cell<Option<Outcome>>,
    error: Cell<Option<&'static str>>,
}

/// What is known of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Only that nginx has begun it.
    Begun,
    /// The request is being sent to the backend.
    Asking,
    /// All of it was.
    Asked,
    /// It has answered.
    Answered,
    /// It has refused.
    Refused,
    /// It failed.
    Failed(Cause),
}

impl Ledger {
    /// Opens the books of a request whose handshake is right. [`Ledger::install`] must follow.
    pub fn open(r: Request) -> Self {
        let ledger = Self::blank(r);
        // SAFETY: null, or placed in the configuration's pool when the location was configured.
        match r.conf().and_then(|conf| unsafe { conf.tally.as_ref() }) {
            Some(tally) => ledger.counters.set(tally.counters()),
            None => {
                ledger.counters.set(zone::counters_at_run_time(r, None));
                ledger.named_by_variable.set(ledger.counters.get().is_some());
            }
        }
        ledger
    }

    /// Has the request's end close the books if nothing else did, and lets variables find them.
    ///
    /// # Safety
    ///
    /// The ledger lives in the request's pool.
    pub unsafe fn install(&self, r: Request) -> Result<(), OutOfMemory> {
        r.on_end(at_end, NonNull::from(self).as_ptr().cast())?;
        let in_progress = MainConf::of(r).and_then(MainConf::in_progress);
        if let Some(gauge) = in_progress {
            gauge.increment(zone::worker());
        }
        self.in_progress.set(in_progress);
        Ok(())
    }

    /// Counts a request that nginx refuses itself.
    pub fn reject(r: Request, rejection: Rejection) {
        let ledger = Self::blank(r);
        ledger.turn_away(r, rejection);
        // Without memory there is only nothing for the access log.
        // SAFETY: cells of plain data; nothing in it needs a drop or more than pointer alignment.
        if let Ok(ledger) = unsafe { r.pool().place(ledger) } {
            let _ = r.on_end(at_end, ledger.as_ptr().cast());
        }
    }

    /// As [`Ledger::reject`] where that is found out late.
    pub fn turn_away(&self, r: Request, rejection: Rejection) {
        if let Some(rejections) = MainConf::of(r).and_then(MainConf::rejections) {
            rejections.count(rejection);
        }
        self.error.set(Some(rejection.name()));
        self.settle(Outcome::Refused);
    }

    /// Counts a request that failed for a lack of memory before it had books.
    pub fn lost(r: Request) {
        Self::open(r).fail_request(Cause::Local);
    }

    /// The latest books of a request, for variables.
    pub fn find<'a>(r: Request) -> Option<&'a Ledger> {
        // SAFETY: this module's cleanup has a ledger as its data, which lives in the same pool as the cleanup.
        r.cleanup_data(at_end).map(|data| unsafe { data.cast().as_ref() })
    }

    /// nginx begins to try backends.
    pub fn begin(&self, r: Request) {
        self.begun.set(Some(now()));
        // ngx_http_upstream_init_request() is going to add an empty record to those of an earlier visit.
        self.foreign.set(r.attempts().map_or(0, |earlier| earlier.len() + 1));
    }

    /// A backend is being sent the request.
    pub fn asking(&self, r: Request) {
        self.catch_up(r);
        self.mark.set(Mark::Asking);
        self.sent.set(Some(Instant::now()));
    }

    /// The request has been written.
    pub fn asked(&self) {
        if self.mark.get() == Mark::Asking {
            self.mark.set(Mark::Asked);
        }
    }

    /// The present backend has answered.
    pub fn answered(&self) {
        self.mark.set(Mark::Answered);
        if let (Some(counters), Some(sent)) = (self.counters.get(), self.sent.get()) {
            counters.answered(sent.elapsed());
        }
    }

    /// Its answer is a refusal, which nginx serves or leaves for the next backend.
    pub fn refused(&self, status: u16) {
        self.mark.set(Mark::Refused);
        if let Some(counters) = self.counters.get() {
            counters.refused(status);
        }
    }

    /// The present backend was sent the client's socket.
    pub fn offered(&self) {
        if let Some(counters) = self.counters.get() {
            counters.offered();
        }
    }

    /// The present attempt fails of this; nginx will try another backend, or end the request. The first cause counts.
    pub fn fail_attempt(&self, cause: Cause) {
        if !matches!(self.mark.get(), Mark::Failed(_)) {
            self.mark.set(Mark::Failed(cause));
        }
    }

    /// The socket is the backend's now, with so many bytes of early data.
    pub fn handed_over(&self, early_data: usize, way: Option<Way>) {
        if let Some(counters) = self.counters.get() {
            counters.early_data(early_data);
        }
        self.end(if way == Some(Way::FdTls) { Outcome::Tls } else { Outcome::Fd });
    }

    /// The client's TLS session is not fit to be handed over.
    pub fn keeps_tls(&self, r: Request, refusal: TlsRefusal) {
        if let Some(refusals) = MainConf::of(r).and_then(MainConf::tls_refusals) {
            refusals.count(refusal);
        }
        self.error.set(Some(refusal.name()));
    }

    /// A tunnel begins.
    pub fn tunnelled(&self) {
        self.end(Outcome::Tunnel);
    }

    /// The head of a refusal has been sent on to the client.
    pub fn refusal_sent(&self) {
        self.end(Outcome::Refused);
    }

    /// nginx is done with the upstream, for the reason `rc`; `cause` if this module knows better. What has not been
    /// settled is settled now.
    pub fn close(&self, r: Request, rc: ngx_int_t, cause: Option<Cause>) {
        self.catch_up(r);
        if self.outcome.get().is_some() {
            return;
        }
        let cause = match (self.mark.get(), cause) {
            (Mark::Failed(cause), _) | (_, Some(cause)) => cause,
            (Mark::Refused, None) => return self.end(Outcome::Refused),
            (mark, None) => self.verdict(rc, mark),
        };
        self.fail_request(cause);
    }

    /// The request fails of this, where nginx makes no attempt or no further one.
    pub fn fail_request(&self, cause: Cause) {
        if self.outcome.get().is_none() {
            if let Some(counters) = self.counters.get() {
                counters.failed(cause);
            }
            self.error.set(Some(cause.name()));
            self.end(Outcome::Failed);
        }
    }

    /// How the request ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.get()
    }

    /// Why it failed, was refused by nginx, or is tunnelled though it could have been handed over.
    pub fn error(&self) -> Option<&'static str> {
        self.error.get()
    }

    /// How long it took from asking the first backend to the outcome, in milliseconds.
    pub fn elapsed(&self) -> Option<ngx_msec_t> {
        self.elapsed.get()
    }

    fn blank(r: Request) -> Self {
        Self {
            client: r.connection(),
            counters: Cell::new(None),
            named_by_variable: Cell::new(false),
            in_progress: Cell::new(None),
            foreign: Cell::new(0),
            known: Cell::new(0),
            mark: Cell::new(Mark::Begun),
            sent: Cell::new(None),
            begun: Cell::new(None),
            elapsed: Cell::new(None),
            outcome: Cell::new(None),
            error: Cell::new(None),
        }
    }

    /// Settles all attempts but the last one that nginx has begun, to which the mark belongs from now on.
    fn catch_up(&self, r: Request) {
        self.learn_upstream(r);
        let attempts = r.attempts().unwrap_or_default();
        let attempts = attempts.get(self.foreign.get()..).unwrap_or_default();
        let known = self.known.get();
        if attempts.len() <= known {
            return;
        }
        let (begun, last) = (known.saturating_sub(1), attempts.len() - 1);
        for (at, attempt) in attempts.iter().enumerate().take(last).skip(begun) {
            let mark = if at + 1 == known { self.mark.get() } else { Mark::Begun };
            if let (Some(cause), Some(counters)) = (failure(attempt, mark), self.counters.get()) {
                counters.failed(cause);
            }
        }
        self.known.set(attempts.len());
        self.mark.set(Mark::Begun);
    }

    /// What `rc` says of the last attempt, which nginx has just ended.
    fn verdict(&self, rc: ngx_int_t, mark: Mark) -> Cause {
        const CLIENT: [u32; 2] = [NGX_HTTP_CLIENT_CLOSED_REQUEST, NGX_HTTP_REQUEST_TIME_OUT];
        let rc = u32::try_from(rc).unwrap_or(0);
        match rc {
            _ if CLIENT.contains(&rc) => Cause::Client,
            NGX_HTTP_GATEWAY_TIME_OUT => Cause::Timeout,
            NGX_HTTP_BAD_GATEWAY => without_answer(mark),
            _ if self.client.error() => Cause::Client,
            _ => Cause::Local,
        }
    }

    fn end(&self, outcome: Outcome) {
        if self.outcome.get().is_none() {
            if let Some(counters) = self.counters.get() {
                counters.ended(outcome);
            }
            self.settle(outcome);
        }
    }

    fn settle(&self, outcome: Outcome) {
        if let Some(gauge) = self.in_progress.take() {
            gauge.decrement(zone::worker());
        }
        self.elapsed.set(self.begun.get().map(|begun| now().wrapping_sub(begun)));
        self.outcome.set(Some(outcome));
    }

    /// Where a variable names the upstream, nginx finds out whether it knows that before its first attempt.
    fn learn_upstream(&self, r: Request) {
        if self.named_by_variable.take() {
            self.counters.set(zone::counters_at_run_time(r, r.upstream()));
        }
    }
}

/// Why an attempt failed behind which nginx has begun another one; `None` if it did not.
fn failure(attempt: &ngx_http_upstream_state_t, mark: Mark) -> Option<Cause> {
    match mark {
        Mark::Failed(cause) => Some(cause),
        // nginx went on because of its status.
        Mark::Refused => None,
        Mark::Answered => Some(Cause::Answer),
        _ if attempt.status == NGX_HTTP_GATEWAY_TIME_OUT as ngx_uint_t => Some(Cause::Timeout),
        mark => Some(without_answer(mark)),
    }
}

fn without_answer(mark: Mark) -> Cause {
    match mark {
        Mark::Begun => Cause::Connect,
        Mark::Asking => Cause::Send,
        _ => Cause::Answer,
    }
}

/// Runs when the request's pool is destroyed: a request that nginx gave up without a word ends here.
unsafe extern "C" fn at_end(data: *mut c_void) {
    // SAFETY: `Ledger::install` gave nginx a ledger that lives in the pool which is being destroyed.
    let Some(ledger) = (unsafe { data.cast::<Ledger>().as_ref() }) else { return };
    if ledger.outcome.get().is_some() {
        // The connection of an HTTP/2 stream may be gone by now.
        return;
    }
    let cause = if ledger.client.error() { Cause::Client } else { Cause::Local };
    ledger.fail_request(cause);
}
