//! A request, and the client's side of it.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_FLUSH, ngx_buf_t, ngx_http_core_loc_conf_t, ngx_http_output_filter,
    ngx_http_request_t, ngx_http_send_special, ngx_list_part_t, ngx_list_push, ngx_log_t,
    ngx_pfree, ngx_pool_cleanup_add, ngx_table_elt_t, ngx_uint_t,
};
use ngx::http::{HttpModuleLocationConf, NgxHttpCoreModule};

use super::request_flags as flags;
use super::{Connection, ERROR, OK, OutOfMemory, Pool, Upstream, str_bytes, str_of};
use crate::HandoffModule;
use crate::conf::LocationConf;

/// The callback type of `r->read_event_handler` and `r->write_event_handler`.
pub type EventHandler = Option<unsafe extern "C" fn(*mut ngx_http_request_t)>;

/// A live request.
#[derive(Clone, Copy)]
pub struct Request(NonNull<ngx_http_request_t>);

impl Request {
    /// # Safety
    ///
    /// `r` is the request that nginx passed to the running callback, and the handle does not outlive that callback.
    pub unsafe fn from_raw(r: *mut ngx_http_request_t) -> Option<Self> {
        NonNull::new(r).map(Self)
    }

    /// The request itself, for nginx's functions.
    pub fn raw(self) -> *mut ngx_http_request_t {
        self.0.as_ptr()
    }

    /// The client's connection.
    pub fn connection(self) -> Connection {
        // SAFETY: a live request has a live connection, whose pointer is never null.
        unsafe { Connection::new(NonNull::new_unchecked((*self.raw()).connection)) }
    }

    /// The connection's log, which carries the request's context.
    pub fn log(self) -> *mut ngx_log_t {
        self.connection().log()
    }

    /// The request's pool.
    pub fn pool(self) -> Pool {
        // SAFETY: a live request has a pool; what is allocated from it dies with the request.
        unsafe { Pool::new(NonNull::new_unchecked((*self.raw()).pool)) }
    }

    /// The upstream, once it was created.
    pub fn upstream(self) -> Option<Upstream> {
        // SAFETY: valid by the contract of `from_raw`; an upstream lives in the request's pool.
        unsafe { NonNull::new((*self.raw()).upstream).map(|u| Upstream::new(u)) }
    }

    /// This module's configuration of the request's location.
    pub fn conf(self) -> Option<&'static LocationConf> {
        // SAFETY: valid by the contract of `from_raw`; configurations outlive requests.
        HandoffModule::location_conf(unsafe { self.0.as_ref() })
    }

    /// The core module's configuration of the request's location.
    pub fn core_conf(self) -> Option<&'static ngx_http_core_loc_conf_t> {
        // SAFETY: as in `conf`.
        NgxHttpCoreModule::location_conf(unsafe { self.0.as_ref() })
    }

    /// Whether a client sent it: not a subrequest, not a `post_action`.
    pub fn is_main(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { (*self.raw()).main == self.raw() && flags::post_action::get(self.raw()) == 0 }
    }

    /// The status that an `error_page` has promised the client already, or 0.
    pub fn error_status(self) -> ngx_uint_t {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { (*self.raw()).err_status }
    }

    /// The method's name.
    pub fn method<'a>(self) -> &'a [u8] {
        // SAFETY: valid by the contract of `from_raw`; lives in the request's buffers.
        unsafe { str_bytes((*self.raw()).method_name) }
    }

    /// HTTP version, major and minor.
    pub fn http_version(self) -> (u16, u16) {
        // SAFETY: valid by the contract of `from_raw`. nginx encodes it as 1000 × major + minor.
        let version = unsafe { (*self.raw()).http_version };
        ((version / 1000) as u16, (version % 1000) as u16)
    }

    /// Whether the client announced a body.
    pub fn has_body(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`.
        let headers = unsafe { &(*self.raw()).headers_in };
        headers.content_length_n > 0
            || headers.chunked() != 0
            || !headers.transfer_encoding.is_null()
    }

    /// The client's header fields in their order, as (name, value).
    pub fn fields<'a>(self) -> Fields<'a> {
        // SAFETY: valid by the contract of `from_raw`; the list lives in the request's pool.
        unsafe { Fields::new(&(*self.raw()).headers_in.headers.part) }
    }

    /// The value of the client's Host field, empty if there is none.
    pub fn host_field<'a>(self) -> &'a [u8] {
        // SAFETY: valid by the contract of `from_raw`; elements live in the request's pool.
        unsafe { (*self.raw()).headers_in.host.as_ref().map_or(&[], |h| str_bytes(h.value)) }
    }

    /// The host that nginx chose the server by: validated, in lower case, without port.
    pub fn server_name<'a>(self) -> &'a [u8] {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { str_bytes((*self.raw()).headers_in.server) }
    }

    /// For a request target in absolute form, what follows the host in the request line (`:8080/path HTTP/1.1`).
    pub fn after_absolute_host<'a>(self) -> Option<&'a [u8]> {
        // SAFETY: valid by the contract of `from_raw`.
        let (line, end) = unsafe {
            let r = self.0.as_ref();
            if r.host_start.is_null() {
                return None;
            }
            (str_bytes(r.request_line), r.host_end)
        };
        let offset = (end as usize).checked_sub(line.as_ptr() as usize)?;
        line.get(offset..)
    }

    /// The parts of the target: normalized path, query, and the target as the client wrote it if that still stands.
    pub fn target_parts<'a>(self) -> (&'a [u8], &'a [u8], Option<&'a [u8]>) {
        // SAFETY: valid by the contract of `from_raw`; all three live in the request's buffers or pool.
        unsafe {
            let r = self.0.as_ref();
            let unparsed = (flags::valid_unparsed_uri::get(self.raw()) != 0)
                .then(|| str_bytes(r.unparsed_uri));
            (str_bytes(r.uri), str_bytes(r.args), unparsed)
        }
    }

    /// Whether the normalized path has to be escaped before it is sent on.
    pub fn needs_escaping(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { flags::quoted_uri::get(self.raw()) != 0 || flags::internal::get(self.raw()) != 0 }
    }

    /// What the client sent after the request head, as far as nginx has read it.
    pub fn early_data<'a>(self) -> &'a [u8] {
        // SAFETY: a live request has a header buffer, in which pos <= last.
        unsafe {
            let b: &ngx_buf_t = &*(*self.raw()).header_in;
            let len = (b.last as usize).saturating_sub(b.pos as usize);
            core::slice::from_raw_parts(b.pos, len)
        }
    }

    /// Forgets the early data, which somebody else has now.
    pub fn drop_early_data(self) {
        // SAFETY: as in `early_data`.
        unsafe {
            let b = (*self.raw()).header_in;
            (*b).pos = (*b).last;
        }
    }

    /// Gives the early data a buffer of its own, in which a tunnel goes on with `room` bytes.
    ///
    /// A tunnel (`ngx_http_upstream_process_upgraded()`) reads on into the header buffer once it has passed the early data on, from
    /// the buffer's start: the request line is there, which the access log has yet to write. It takes the early data's end for
    /// the buffer's, so that this is where the early data stands: with a byte of it, it would be read byte by byte.
    pub fn part_early_data_from_head(self, room: usize) -> Result<(), OutOfMemory> {
        let early = self.early_data();
        // SAFETY: a live request has a header buffer.
        let is_ours = unsafe { (*(*self.raw()).header_in).tag == tag() };
        let len = match (early.is_empty(), is_ours) {
            (true, false) => return Ok(()),
            (true, true) => 0,
            (false, _) => room.max(early.len()),
        };
        let memory = self.pool().bytes(len)?;
        let before = memory.len().saturating_sub(early.len());
        for (to, from) in memory.iter_mut().skip(before).zip(early) {
            *to = *from;
        }
        let chain = self.pool().chain(memory)?;
        // SAFETY: a fresh buffer, of which `before` bytes are none of the early data. It lives as long as the request; a
        // connection that is tunnelled ends with it. What `early_room` has allocated nobody else refers to.
        unsafe {
            let old = (*self.raw()).header_in;
            let b = (*chain.as_ptr()).buf;
            (*b).pos = (*b).pos.add(before);
            (*self.raw()).header_in = b;
            if is_ours {
                ngx_pfree(self.pool().as_ptr(), (*old).start.cast());
            }
        }
        Ok(())
    }

    /// Room behind the early data, of which there may be `most` bytes altogether. It begins with a move to a buffer of that
    /// size: the one that nginx reads heads into is as small as the head allows.
    pub fn early_room(self, most: usize) -> Result<(*mut u8, usize), OutOfMemory> {
        // SAFETY: a live request has a header buffer, with start <= pos <= last <= end.
        let capacity = unsafe {
            let b: &ngx_buf_t = &*(*self.raw()).header_in;
            (b.end as usize).saturating_sub(b.pos as usize)
        };
        let early = self.early_data();
        if early.len() > most {
            return Err(OutOfMemory);
        }
        if capacity < most {
            let memory = self.pool().bytes(most)?;
            for (to, from) in memory.iter_mut().zip(early) {
                *to = *from;
            }
            let chain = self.pool().chain(memory)?;
            // SAFETY: a fresh buffer. nginx itself reads heads into one or another; from the content phase on it only looks
            // at what `header_in` still holds, and only for this request: TLS connections end with it.
            unsafe {
                let b = (*chain.as_ptr()).buf;
                (*b).last = (*b).pos.add(early.len());
                (*b).tag = tag();
                (*self.raw()).header_in = b;
                flags::keepalive::set(self.raw(), 0);
            }
        }
        // SAFETY: as above.
        let last = unsafe { (*(*self.raw()).header_in).last };
        Ok((last, most.saturating_sub(self.early_data().len())))
    }

    /// `len` bytes of [`Self::early_room`] have been filled.
    pub fn add_early_data(self, len: usize) {
        // SAFETY: as in `early_room`; not beyond the buffer's end.
        unsafe {
            let b = (*self.raw()).header_in;
            let room = ((*b).end as usize).saturating_sub((*b).last as usize);
            (*b).last = (*b).last.add(len.min(room));
        }
    }

    /// Whether the client has sent anything after its request head, read or not.
    pub fn has_bytes_after_head(self) -> bool {
        !self.early_data().is_empty() || self.connection().has_unread_bytes()
    }

    /// Ends the connection with this response if the client has sent anything behind its handshake: frames must not be
    /// parsed as a request. What TLS holds back cannot be seen, so that such connections always end.
    pub fn disable_keepalive_after_frames(self) {
        if self.connection().is_tls() || self.has_bytes_after_head() {
            // SAFETY: valid by the contract of `from_raw`.
            unsafe { flags::keepalive::set(self.raw(), 0) };
        }
    }

    /// Whether a response head has been sent.
    pub fn head_sent(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { flags::header_sent::get(self.raw()) != 0 }
    }

    /// Has the next error answered with nginx's own page, not by `error_page`.
    pub fn end_error_pages(self) {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { flags::error_page::set(self.raw(), 1) };
    }

    /// As a hand-over needs it: no keep-alive, no lingering close.
    pub fn prepare_takeover(self) {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe {
            flags::keepalive::set(self.raw(), 0);
            flags::lingering_close::set(self.raw(), 0);
        }
    }

    /// Lifts `limit_rate` from the response, and ends a delay that an earlier one on this connection left behind: neither
    /// nginx's unbuffered path nor its tunnel survives a delayed head, as both delete the timer that would end the delay.
    pub fn lift_rate_limit(self) {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe {
            (*self.raw()).limit_rate = 0;
            flags::limit_rate_set::set(self.raw(), 1);
        }
        self.connection().write().clear_delay();
    }

    /// Whether filters or the connection still hold output.
    pub fn output_pending(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { flags::buffered::get(self.raw()) != 0 || self.connection().buffered() }
    }

    /// Pushes pending output towards the client; false if the connection is broken.
    pub fn flush(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`; a null chain means "what is pending".
        unsafe { ngx_http_output_filter(self.raw(), core::ptr::null_mut()) != ERROR }
    }

    /// Sends what has been postponed until there is more of it (`postpone_output`), as far as the client takes it.
    pub fn send_postponed(self) {
        // SAFETY: valid by the contract of `from_raw`. A failure shows on the connection.
        unsafe { ngx_http_send_special(self.raw(), NGX_HTTP_FLUSH as usize) };
    }

    /// Whether the response consists of its head.
    pub fn is_header_only(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { flags::header_only::get(self.raw()) != 0 }
    }

    /// The response consists of its head: finalization sends no last chunk.
    pub fn set_header_only(self) {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { flags::header_only::set(self.raw(), 1) };
    }

    /// Adds a field to the response head.
    pub fn add_response_field(
        self,
        name: &'static str,
        value: &'static str,
    ) -> Result<(), OutOfMemory> {
        // SAFETY: the list belongs to the live request.
        let element = unsafe { ngx_list_push(&mut (*self.raw()).headers_out.headers) };
        let element = NonNull::new(element.cast::<ngx_table_elt_t>()).ok_or(OutOfMemory)?;
        // SAFETY: a fresh element, for which zeros are valid (`next` exists since 1.23).
        unsafe {
            element.write_bytes(0, 1);
            let element = &mut *element.as_ptr();
            element.hash = 1;
            element.key = str_of(name.as_bytes());
            element.value = str_of(value.as_bytes());
        }
        Ok(())
    }

    /// Swaps `r->read_event_handler`, returning the former one.
    pub fn replace_read_handler(self, handler: EventHandler) -> EventHandler {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { core::mem::replace(&mut (*self.raw()).read_event_handler, handler) }
    }

    /// Swaps `r->write_event_handler`, returning the former one.
    pub fn replace_write_handler(self, handler: EventHandler) -> EventHandler {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { core::mem::replace(&mut (*self.raw()).write_event_handler, handler) }
    }

    /// Has `handler` run with `data` when the request ends, before nginx closes the connection.
    pub fn on_end(
        self,
        handler: unsafe extern "C" fn(*mut c_void),
        data: *mut c_void,
    ) -> Result<(), OutOfMemory> {
        // SAFETY: valid by the contract of `from_raw`.
        let cleanup = unsafe { ngx_pool_cleanup_add(self.pool().as_ptr(), 0) };
        let mut cleanup = NonNull::new(cleanup).ok_or(OutOfMemory)?;
        // SAFETY: a fresh cleanup entry of the request's pool.
        let cleanup = unsafe { cleanup.as_mut() };
        cleanup.handler = Some(handler);
        cleanup.data = data;
        Ok(())
    }

    /// Holds the request for the upstream code, which releases it again when it finalizes.
    pub fn hold(self) {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe {
            let main = (*self.raw()).main;
            flags::count::set(main, flags::count::get(main) + 1);
        }
    }

    /// This module's context.
    pub fn context(self) -> *mut c_void {
        // SAFETY: `ctx` has a place for every module, at the index that nginx gave it.
        unsafe { *(*self.raw()).ctx.add(module_index()) }
    }

    /// Sets this module's context.
    pub fn set_context(self, context: *mut c_void) {
        // SAFETY: as in `context`.
        unsafe { *(*self.raw()).ctx.add(module_index()) = context };
    }

    /// Creates the upstream; false if memory ran out.
    pub fn create_upstream(self) -> bool {
        // SAFETY: valid by the contract of `from_raw`.
        unsafe { nginx_sys::ngx_http_upstream_create(self.raw()) == OK }
    }
}

fn module_index() -> usize {
    use ngx::http::HttpModule;
    HandoffModule::module().ctx_index
}

/// Iterator over a list of header fields; see [`Request::fields`].
#[derive(Clone)]
pub struct Fields<'a> {
    part: Option<&'a ngx_list_part_t>,
    index: usize,
}

impl<'a> Fields<'a> {
    /// # Safety
    ///
    /// The part begins a list of `ngx_table_elt_t` that lives unchanged for `'a`.
    unsafe fn new(part: &'a ngx_list_part_t) -> Self {
        Self { part: Some(part), index: 0 }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let part = self.part?;
            if self.index >= part.nelts {
                // SAFETY: parts are linked by valid pointers, the last one by null.
                self.part = unsafe { part.next.as_ref() };
                self.index = 0;
                continue;
            }
            // SAFETY: a part holds `nelts` initialized elements, of the type that the contract of `new` names.
            let element = unsafe { &*part.elts.cast::<ngx_table_elt_t>().add(self.index) };
            self.index += 1;
            // Modules that remove a field of the request set its hash to 0.
            if element.hash != 0 {
                // SAFETY: strings of the element, which lives for 'a.
                return Some(unsafe { (str_bytes(element.key), str_bytes(element.value)) });
            }
        }
    }
}

/// Of a buffer that this module has put in the place of nginx's.
fn tag() -> *mut c_void {
    ptr::addr_of!(crate::ngx_http_ws_handoff_module).cast_mut().cast()
}
