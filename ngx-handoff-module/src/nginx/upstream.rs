//! The upstream of a request: the backend's side of it.

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;

use nginx_sys::{
    NGX_HTTP_BAD_GATEWAY, NGX_PEER_FAILED, NGX_PEER_NEXT, ngx_buf_t, ngx_hash_find,
    ngx_hash_strlow, ngx_http_request_t, ngx_http_upstream_header_t, ngx_http_upstream_resolved_t,
    ngx_http_upstream_t, ngx_list_push, ngx_parse_url, ngx_str_t, ngx_table_elt_t, ngx_uint_t,
    ngx_url_t,
};
use ngx::http::{HttpModuleMainConf, NgxHttpUpstreamModule};

use super::{Connection, INVALID_HEADER, OK, OutOfMemory, Request, str_of};

/// The callback type of `u->write_event_handler`.
pub type UpstreamHandler =
    Option<unsafe extern "C" fn(*mut ngx_http_request_t, *mut ngx_http_upstream_t)>;

/// Why a field of the answer could not be taken over.
#[derive(Clone, Copy, Debug)]
pub enum FieldError {
    /// An allocation failed.
    OutOfMemory,
    /// nginx rejects the field, and has logged why (say, two Content-Length).
    Invalid,
}

impl From<OutOfMemory> for FieldError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Why an address names nobody.
#[derive(Clone, Copy, Debug)]
pub enum AddressFault {
    /// An allocation failed.
    OutOfMemory,
    /// What nginx's parser says.
    Invalid(&'static CStr),
}

impl From<OutOfMemory> for AddressFault {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// The upstream of a live request.
#[derive(Clone, Copy)]
pub struct Upstream(NonNull<ngx_http_upstream_t>);

impl Upstream {
    /// # Safety
    ///
    /// The upstream belongs to the request of the running callback.
    pub unsafe fn new(u: NonNull<ngx_http_upstream_t>) -> Self {
        Self(u)
    }

    /// The upstream itself, for nginx's functions and the fields that this module sets as every upstream module does.
    pub fn raw(self) -> *mut ngx_http_upstream_t {
        self.0.as_ptr()
    }

    /// The connection to the backend, if there is one.
    pub fn connection(self) -> Option<Connection> {
        // SAFETY: valid by the contract of `new`; nginx nulls the pointer when it closes the connection.
        unsafe { NonNull::new((*self.raw()).peer.connection).map(|c| Connection::new(c)) }
    }

    /// Names whom to ask, as `ngx_http_proxy_eval()` does: the path of a Unix socket, an `upstream {}`, or a host for
    /// nginx's resolver. `address` lives as long as the request.
    pub fn resolve(self, r: Request, address: &[u8]) -> Result<(), AddressFault> {
        // SAFETY: integers and nullable pointers, for which zero is valid; as nginx does with ngx_memzero().
        let mut url: ngx_url_t = unsafe { MaybeUninit::zeroed().assume_init() };
        url.url = str_of(address);
        url.set_no_resolve(1);
        // SAFETY: the request's pool and a structure that lives through the call.
        if unsafe { ngx_parse_url(r.pool().as_ptr(), &mut url) } != OK {
            // SAFETY: null, or a literal of nginx's.
            let fault = unsafe { url.err.as_ref().map(|err| CStr::from_ptr(err)) };
            return Err(fault.map_or(AddressFault::OutOfMemory, AddressFault::Invalid));
        }

        // SAFETY: integers and nullable pointers, valid as zeros; fields that only newer versions have stay zero.
        let mut resolved = unsafe { r.pool().zeroed::<ngx_http_upstream_resolved_t>() }?;
        // SAFETY: freshly allocated, nobody else refers to it.
        let target = unsafe { resolved.as_mut() };
        // SAFETY: null, or the addresses that the parser found, in the request's pool.
        if let Some(first) = unsafe { url.addrs.as_ref() } {
            target.sockaddr = first.sockaddr;
            target.socklen = first.socklen;
            target.name = first.name;
            target.naddrs = 1;
        }
        target.host = url.host;
        target.port = url.port;
        target.no_port = url.no_port() as ngx_uint_t;
        // SAFETY: valid by the contract of `new`; nginx has not started the upstream.
        unsafe { (*self.raw()).resolved = resolved.as_ptr() };
        Ok(())
    }

    /// Whether the chosen peer is a Unix socket, the only kind that carries descriptors: over TCP the kernel would
    /// drop them without a word.
    pub fn peer_is_unix(self) -> bool {
        // SAFETY: valid by the contract of `new`; the peer's address lives in the configuration.
        unsafe {
            (*self.raw())
                .peer
                .sockaddr
                .as_ref()
                .is_some_and(|sa| i32::from(sa.sa_family) == libc_af_unix())
        }
    }

    /// Gives the peer back without charging it with a failure: the cause was on this side.
    pub fn excuse_peer(self) {
        self.free_peer(NGX_PEER_NEXT);
    }

    /// Gives the peer back as failed, and says so in `$upstream_status`: after the offer nginx takes whatever happens for
    /// the end of a good response.
    pub fn blame_peer(self) {
        self.free_peer(NGX_PEER_FAILED);
        // SAFETY: valid by the contract of `new`; the state exists once a peer was chosen.
        if let Some(state) = unsafe { (*self.raw()).state.as_mut() } {
            state.status = NGX_HTTP_BAD_GATEWAY as ngx_uint_t;
        }
    }

    /// nginx does nothing more to a peer whose address is null.
    fn free_peer(self, state: u32) {
        // SAFETY: valid by the contract of `new`; `free` is the balancer's, called at most once per peer.
        unsafe {
            let peer = &mut (*self.raw()).peer;
            if let (Some(free), false) = (peer.free, peer.sockaddr.is_null()) {
                let data = peer.data;
                free(peer, data, state as ngx_uint_t);
                (*self.raw()).peer.sockaddr = core::ptr::null_mut();
            }
        }
    }

    /// What has been read of the answer and not been used yet.
    pub fn unparsed<'a>(self) -> &'a [u8] {
        // SAFETY: while a callback runs on the answer, its buffer has pos <= last.
        unsafe {
            let b: &ngx_buf_t = &(*self.raw()).buffer;
            slice::from_raw_parts(b.pos, (b.last as usize).saturating_sub(b.pos as usize))
        }
    }

    /// Marks `len` bytes of the answer as used.
    pub fn consume(self, len: usize) {
        let len = len.min(self.unparsed().len());
        // SAFETY: not beyond `last`.
        unsafe { (*self.raw()).buffer.pos = (*self.raw()).buffer.pos.add(len) };
    }

    /// Takes back what `$upstream_bytes_received` counts.
    pub fn forget_received(self) {
        // SAFETY: valid by the contract of `new`; the state exists once a peer was chosen.
        if let Some(state) = unsafe { (*self.raw()).state.as_mut() } {
            state.bytes_received = 0;
        }
    }

    /// Sets the status of the answer and its line.
    pub fn set_status(self, status: u16, line: ngx_str_t) {
        // SAFETY: valid by the contract of `new`; the state exists once a peer was chosen.
        unsafe {
            let u = self.raw();
            (*u).headers_in.status_n = status.into();
            (*u).headers_in.status_line = line;
            if let Some(state) = (*u).state.as_mut() {
                state.status = status.into();
            }
        }
    }

    /// Adds a field to the answer's head, as nginx's own upstream modules do: copied, hashed, and shown to the handler
    /// that nginx has for its name.
    pub fn add_field(self, r: Request, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        let pool = r.pool();
        let (key, value) = (pool.copy(name)?, pool.copy(value)?);
        let lowcase = pool.copy(name)?;

        // SAFETY: the list was initialized before the answer was read.
        let element = unsafe { ngx_list_push(&mut (*self.raw()).headers_in.headers) };
        let element = NonNull::new(element.cast::<ngx_table_elt_t>()).ok_or(OutOfMemory)?;
        // SAFETY: a fresh element, for which zeros are valid; its `next` field does not exist before 1.23, so that it
        // is not named here.
        let hash = unsafe {
            element.write_bytes(0, 1);
            let e = &mut *element.as_ptr();
            e.key = key;
            e.value = value;
            e.lowcase_key = lowcase.data;
            e.hash = ngx_hash_strlow(lowcase.data, key.data, key.len);
            e.hash
        };

        // SAFETY: valid by the contract of `Request::from_raw`.
        let Some(main) = NgxHttpUpstreamModule::main_conf(unsafe { &*r.raw() }) else {
            return Ok(());
        };
        let hash_table = (&raw const main.headers_in_hash).cast_mut();
        // SAFETY: nginx builds this hash at start-up and only reads it here.
        let known = unsafe { ngx_hash_find(hash_table, hash, lowcase.data, key.len) };
        // SAFETY: the hash's values are entries of nginx's static table.
        let Some(known) = (unsafe { known.cast::<ngx_http_upstream_header_t>().as_ref() }) else {
            return Ok(());
        };
        let Some(handler) = known.handler else { return Ok(()) };
        // SAFETY: as nginx's modules call it: with an element of this upstream's list and the entry's own offset.
        match unsafe { handler(r.raw(), element.as_ptr(), known.offset) } {
            OK => Ok(()),
            INVALID_HEADER => Err(FieldError::Invalid),
            _ => Err(FieldError::OutOfMemory),
        }
    }

    /// Whether the whole request has been written.
    pub fn request_sent(self) -> bool {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).request_body_sent() != 0 }
    }

    /// The status of the answer.
    pub fn status(self) -> usize {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).headers_in.status_n }
    }

    /// What is still expected of the body; see [`Self::set_remaining`].
    pub fn remaining(self) -> i64 {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).length }
    }

    /// Whether the answer's body is chunked.
    pub fn is_chunked(self) -> bool {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).headers_in.chunked() != 0 }
    }

    /// The Content-Length of the answer, -1 without one.
    pub fn content_length(self) -> i64 {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).headers_in.content_length_n }
    }

    /// Has the client told no length.
    pub fn forget_content_length(self) {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).headers_in.content_length_n = -1 };
    }

    /// Sets what is still expected of the body: a length, 0 for "complete", -1 for "to end of file".
    pub fn set_remaining(self, length: i64) {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).length = length };
    }

    /// Lets the balancer keep the connection to the peer when it gets the peer back (`keepalive` in `upstream {}`).
    pub fn keep_connection(self) {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).set_keepalive(1) };
    }

    /// Makes nginx fail the request at its next look.
    pub fn set_error(self) {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).set_error(1) };
    }

    /// Sets what runs when the backend's connection becomes writable.
    pub fn set_write_handler(self, handler: UpstreamHandler) {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).write_event_handler = handler };
    }

    /// The timeout for writes to the backend, in milliseconds.
    pub fn send_timeout(self) -> usize {
        // SAFETY: valid by the contract of `new`; the configuration outlives the request.
        unsafe { (*(*self.raw()).conf).send_timeout }
    }

    /// Turns the exchange into a tunnel of bytes, as `proxy_pass` does after a 101. `idle` is how long the backend may
    /// be silent, in milliseconds.
    pub fn tunnel(self, r: Request, idle: usize) -> Result<(), OutOfMemory> {
        // SAFETY: valid by the contract of `new`; the configuration outlives the request.
        let mut conf = unsafe { *(*self.raw()).conf };
        r.part_early_data_from_head(conf.buffer_size)?;
        conf.read_timeout = idle;
        // SAFETY: plain data without drop; nginx allocates the same type from pools.
        let conf = unsafe { r.pool().place(conf) }?;
        // SAFETY: valid by the contract of `new`; the copy lives as long as the request.
        unsafe {
            (*self.raw()).conf = conf.as_ptr();
            (*self.raw()).set_upgrade(1);
        }
        Ok(())
    }

    /// What nginx's error log calls the request's target at the backend.
    pub fn set_log_uri(self, uri: &[u8]) {
        // SAFETY: valid by the contract of `new`; the bytes live in the request's pool or buffers.
        unsafe { (*self.raw()).uri = str_of(uri) };
    }
}

fn libc_af_unix() -> i32 {
    i32::from(rustix::net::AddressFamily::UNIX.as_raw())
}
