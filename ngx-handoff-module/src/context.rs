//! What this module remembers of a request: how far the hand-over has come, and whom to call back.

use core::cell::Cell;
use core::ffi::c_void;
use core::ops::Deref;
use core::ptr::{self, NonNull};

use handoff_protocol::{ChunkedDecoder, Way};
use nginx_sys::{ngx_chain_t, ngx_http_request_t};

use zeroize::Zeroize;

use crate::conf::TLS_ON;
use crate::ledger::Ledger;
use crate::nginx::{Connection, OutOfMemory, Request};
use crate::set_header::SetFields;
use crate::tls;

/// How far a request has come. Who owns the client's socket follows from it: nginx up to and including
/// [`Phase::Committing`], the backend from [`Phase::Released`] on, and never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A backend is being asked, or has answered something that is served like any upstream response.
    Asking,
    /// Bare mode: the 101 is on its way, and no backend has the socket yet.
    Promised,
    /// The backend has been sent a duplicate of the socket, which it may not touch yet; the 101 is on its way.
    Offered,
    /// The 101 has left, and the commit is being written.
    Committing,
    /// The commit has been written: the socket is the backend's, and nginx holds a dummy in its place.
    Released,
    /// The hand-over failed after the offer, and the client has been hung up on.
    Aborted,
}

impl Phase {
    /// Whether nothing goes on before the client has its 101.
    pub fn awaits_101(self) -> bool {
        matches!(self, Self::Promised | Self::Offered)
    }
}

/// Whose fault it is that a hand-over failed, where nginx's own verdict does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing to add to nginx's verdict.
    Unknown,
    /// The client has gone.
    Client,
    /// The backend broke the protocol, died or fell silent.
    Backend,
}

/// A handler as nginx stores it in a request.
pub type Handler = Option<unsafe extern "C" fn(*mut ngx_http_request_t)>;

/// Handle of a request's context. By value, not by reference, wherever nginx's handlers are called: these may destroy the
/// pool that it lives in.
#[derive(Clone, Copy)]
pub struct Context(NonNull<State>);

/// The context itself. Its fields are cells since callbacks of nginx nest: finalization, which this module starts, runs
/// this module's own callbacks.
pub struct State {
    /// The client's connection, for the cleanup, at which the request is half gone.
    pub client: Connection,
    /// `Sec-WebSocket-Accept` for the client's key.
    pub accept: [u8; 28],
    /// How the client's connection can be handed over, if it can.
    pub way: Cell<Option<Way>>,
    /// What nginx itself sets in a head, whichever peer it is for.
    pub set_fields: Cell<SetFields>,
    /// The head for a peer that can take the socket if the client's connection can be handed over; a chain of one buffer.
    pub head: Cell<*mut ngx_chain_t>,
    /// How [`Self::head`] offers the socket, if it does.
    pub head_way: Cell<Option<Way>>,
    /// How the head that the present peer was sent offers the socket, if it does.
    pub offered: Cell<Option<Way>>,
    /// How far the records to a TLS client were when its socket was offered.
    pub before_the_101: Cell<tls::Sent>,
    /// Whether the present peer could take the client's TLS session, but is not trusted with it.
    pub is_distrusted: Cell<bool>,
    /// Whether the present peer takes another request once it has the socket.
    pub keepalive: Cell<bool>,
    /// See [`Phase`].
    pub phase: Cell<Phase>,
    /// See [`Fault`].
    pub fault: Cell<Fault>,
    /// nginx's handler of client reads, in whose place this module's stands.
    pub nginx_read: Cell<Handler>,
    /// nginx's handler of client writes, in whose place this module's stands from the takeover on.
    pub nginx_write: Cell<Handler>,
    /// What remains to be written of the commit; lives in the request's pool.
    pub commit: Cell<&'static [u8]>,
    /// All of a commit that holds secrets, until they are zeroed.
    secret: Cell<Option<NonNull<[u8]>>>,
    /// Decoder of a chunked refusal.
    pub chunked: Cell<ChunkedDecoder>,
    /// What is counted and logged of the request.
    pub ledger: Ledger,
    /// Whether the cleanup has been installed.
    pub cleanup_installed: Cell<bool>,
}

impl Deref for Context {
    type Target = State;

    fn deref(&self) -> &State {
        // SAFETY: made by `create`, in the pool of a request that is live while the handle is used.
        unsafe { self.0.as_ref() }
    }
}

impl Context {
    /// Creates the context of a request whose handshake is valid.
    pub fn create(r: Request, accept: [u8; 28]) -> Result<Self, OutOfMemory> {
        let client = r.connection();
        let takes_tls = r.conf().is_some_and(|conf| conf.tls == TLS_ON);
        let way = if client.is_tls() { takes_tls.then_some(Way::FdTls) } else { Some(Way::Fd) };
        let state = State {
            client,
            accept,
            way: Cell::new(way),
            set_fields: Cell::new(SetFields { host: None, others: &[] }),
            head: Cell::new(ptr::null_mut()),
            head_way: Cell::new(None),
            offered: Cell::new(None),
            before_the_101: Cell::new(tls::Sent::default()),
            is_distrusted: Cell::new(false),
            keepalive: Cell::new(false),
            phase: Cell::new(Phase::Asking),
            fault: Cell::new(Fault::Unknown),
            nginx_read: Cell::new(None),
            nginx_write: Cell::new(None),
            commit: Cell::new(&[]),
            secret: Cell::new(None),
            chunked: Cell::new(ChunkedDecoder::default()),
            ledger: Ledger::open(r),
            cleanup_installed: Cell::new(false),
        };
        // SAFETY: cells of plain data; nothing in it needs a drop or more than pointer alignment.
        let place = unsafe { r.pool().place(state) }?;
        let context = Self(place);
        // SAFETY: just placed in the request's pool.
        unsafe { context.ledger.install(r) }?;
        r.set_context(context.as_data());
        Ok(context)
    }

    /// The context of a request that has one.
    pub fn of(r: Request) -> Option<Self> {
        // Only `create` sets this module's context.
        NonNull::new(r.context().cast()).map(Self)
    }

    /// For a cleanup of the request's pool, which gets the pointer that [`Self::as_data`] gave.
    ///
    /// # Safety
    ///
    /// `data` comes from `as_data`, and the request's pool still exists.
    pub unsafe fn from_data(data: *mut c_void) -> Option<Self> {
        NonNull::new(data.cast()).map(Self)
    }

    /// The context as nginx's callbacks carry it.
    pub fn as_data(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// What is to be written to the backend. If it holds secrets, [`Self::forget_commit`] zeroes them.
    pub fn set_commit(self, bytes: &'static mut [u8], is_secret: bool) {
        let bytes = NonNull::from(bytes);
        self.secret.set(is_secret.then_some(bytes));
        // SAFETY: valid for as long as the request's pool, and written to only by `forget_commit`, which takes this away first.
        self.commit.set(unsafe { bytes.as_ref() });
    }

    /// Nothing more is written to the backend.
    pub fn forget_commit(self) {
        self.commit.set(&[]);
        if let Some(mut bytes) = self.secret.take() {
            // SAFETY: in the request's pool, and nobody else refers to it any more.
            unsafe { bytes.as_mut() }.zeroize();
        }
    }

    /// Calls the handler of client writes that nginx had installed. The request, and this with it, may be gone afterwards.
    pub fn resume_nginx(self, r: Request) {
        let handler = self.nginx_write.get();
        if let Some(handler) = handler {
            // SAFETY: nginx's own handler for this request, called from the event it is meant for.
            unsafe { handler(r.raw()) };
        }
    }
}
