//! A connection of nginx's, the client's or the backend's, and its two events.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::os::fd::{BorrowedFd, RawFd};

use nginx_sys::{
    NGX_USE_LEVEL_EVENT, ngx_add_timer, ngx_connection_local_sockaddr, ngx_connection_t,
    ngx_connection_tcp_nopush_e_NGX_TCP_NOPUSH_SET as NOPUSH_SET,
    ngx_connection_tcp_nopush_e_NGX_TCP_NOPUSH_UNSET as NOPUSH_UNSET, ngx_del_timer,
    ngx_event_actions, ngx_event_flags, ngx_event_t, ngx_handle_read_event, ngx_handle_write_event,
    ngx_io, ngx_log_t, ngx_msec_t, ngx_post_event, ngx_posted_events, ngx_recv_pt, ngx_tcp_nodelay,
    ngx_use_epoll_rdhup,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, sockopt};

use super::{OK, str_bytes, tls};

/// `NGX_READ_EVENT` and `NGX_WRITE_EVENT` of an nginx built with epoll, which every Linux build is; bindgen cannot evaluate
/// the macros. EPOLLIN | EPOLLRDHUP and EPOLLOUT of epoll_ctl(2).
const READ_EVENT: isize = 0x1 | 0x2000;
const WRITE_EVENT: isize = 0x4;

/// A live connection.
#[derive(Clone, Copy)]
pub struct Connection(NonNull<ngx_connection_t>);

impl Connection {
    /// # Safety
    ///
    /// The connection is open, with its events, log and pool set, and stays so while the handle is used.
    pub unsafe fn new(c: NonNull<ngx_connection_t>) -> Self {
        Self(c)
    }

    fn raw(self) -> *mut ngx_connection_t {
        self.0.as_ptr()
    }

    /// The log, which carries the context of the request.
    pub fn log(self) -> *mut ngx_log_t {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).log }
    }

    /// The descriptor's number.
    pub fn raw_fd(self) -> RawFd {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).fd }
    }

    /// The descriptor, for system calls.
    pub fn fd<'a>(self) -> BorrowedFd<'a> {
        // SAFETY: an open connection's descriptor is open; views do not outlive the callback (module comment).
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }

    /// The client's address as text; for a Unix socket `unix:`.
    pub fn addr_text<'a>(self) -> &'a [u8] {
        // SAFETY: valid by the contract of `new`; lives in the connection's pool.
        unsafe { str_bytes((*self.raw()).addr_text) }
    }

    /// Whether the connection speaks TLS.
    #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
    pub fn is_tls(self) -> bool {
        // SAFETY: valid by the contract of `new`.
        unsafe { !(*self.raw()).ssl.is_null() }
    }

    /// No connection does in an nginx configured without TLS, whose structure has no such field.
    #[cfg(not(any(ngx_feature = "ssl", ngx_feature = "compat")))]
    pub fn is_tls(self) -> bool {
        false
    }

    /// OpenSSL's side of the connection, an `SSL`, if it speaks TLS.
    pub fn tls(self) -> Option<NonNull<c_void>> {
        // SAFETY: valid by the contract of `new`.
        NonNull::new(unsafe { tls::connection(self.raw()) })
    }

    /// Has nginx say nothing to the client when it frees a TLS session, nor wait for anything.
    pub fn keep_tls_quiet(self) {
        // SAFETY: valid by the contract of `new`.
        unsafe { tls::keep_quiet(self.raw()) };
    }

    /// Whether an error was seen on the connection.
    pub fn error(self) -> bool {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).error() != 0 }
    }

    /// Marks the connection as broken: nginx closes it without another attempt to write.
    pub fn set_error(self) {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).set_error(1) };
    }

    /// Marks the peer as one that timed out.
    pub fn set_timed_out(self) {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).set_timedout(1) };
    }

    /// Whether output waits in nginx's buffers.
    pub fn buffered(self) -> bool {
        // SAFETY: valid by the contract of `new`.
        unsafe { (*self.raw()).buffered() != 0 }
    }

    /// The read event.
    pub fn read(self) -> Event {
        // SAFETY: every connection has its events for as long as it lives.
        unsafe { Event::new((*self.raw()).read) }
    }

    /// The write event.
    pub fn write(self) -> Event {
        // SAFETY: every connection has its events for as long as it lives.
        unsafe { Event::new((*self.raw()).write) }
    }

    /// Writes through `c->send`: the bytes taken, `NGX_AGAIN` or `NGX_ERROR`.
    pub fn send(self, bytes: &[u8]) -> isize {
        // SAFETY: valid by the contract of `new`.
        let Some(send) = (unsafe { (*self.raw()).send }) else { return super::ERROR };
        // SAFETY: nginx's send functions only read from the buffer.
        unsafe { send(self.raw(), bytes.as_ptr().cast_mut(), bytes.len()) }
    }

    /// Puts `recv` in the place of what reads from the connection, and has nginx call it: as if something had arrived.
    pub fn replace_recv(self, recv: ngx_recv_pt) {
        // SAFETY: valid by the contract of `new`; events live as long as the connection.
        unsafe {
            (*self.raw()).recv = recv;
            (*self.read().raw()).set_ready(1);
        }
    }

    /// Undoes [`Self::replace_recv`], for a connection without TLS.
    pub fn restore_recv(self) {
        // SAFETY: valid by the contract of `new`; nginx sets the global when the event module starts.
        unsafe { (*self.raw()).recv = ngx_io.recv };
    }

    /// Whether the client has sent bytes that nobody has read yet. Does not read them.
    pub fn has_unread_bytes(self) -> bool {
        !self.peek(&mut [0u8]).is_empty()
    }

    /// The first of the bytes that nobody has read yet, as far as `room` goes. Does not read them.
    pub fn peek(self, room: &mut [u8]) -> &[u8] {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let len = rustix::net::recv(self.fd(), &mut *room, flags).map_or(0, |(_, len)| len);
        room.get(..len).unwrap_or_default()
    }

    /// Whether the peer has reset the connection, rather than closed its side.
    pub fn was_reset(self) -> bool {
        !matches!(sockopt::socket_error(self.fd()), Ok(Ok(())))
    }

    /// Whether the kernel's send buffer takes a response head at once: poll(2) reports a TCP socket as writable only when a
    /// third of the buffer is free. An error counts as room: the write will tell.
    pub fn has_room(self) -> bool {
        let fd = self.fd();
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
    }

    /// Whether the peer is known to have closed its side. Costs no system call where epoll reports it.
    pub fn may_be_closed(self) -> bool {
        // SAFETY: a global that is set once, when the event module starts.
        let reported = unsafe { ngx_use_epoll_rdhup } != 0;
        !reported || self.read().pending_eof()
    }

    /// Takes the socket out of the state that a response sent with `tcp_nopush` before this one may have left it in,
    /// and turns Nagle's algorithm off: the socket's options go with it.
    pub fn prepare_for_small_writes(self) -> Result<(), Errno> {
        let c = self.raw();
        // SAFETY: valid by the contract of `new`.
        if unsafe { (*c).tcp_nopush() } == NOPUSH_SET {
            sockopt::set_tcp_cork(self.fd(), false)?;
            // SAFETY: as above.
            unsafe { (*c).set_tcp_nopush(NOPUSH_UNSET) };
        }
        // SAFETY: valid by the contract of `new`. Free where nginx has set it before, or cannot (a Unix socket).
        if unsafe { ngx_tcp_nodelay(c) } != OK {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    /// Hangs up on the peer whoever else holds the socket. close(2) alone would not: the open file description lives
    /// on in the process that it was offered to.
    pub fn hang_up(self) {
        // A peer that has reset the connection already makes this fail with ENOTCONN, which is as good.
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Both);
    }

    /// Takes the descriptor out of the event loop's kernel state. Unlike nginx's own close path, which leaves that to
    /// close(2), this is a real removal: the open file description outlives the descriptor here.
    pub fn stop_watching(self) {
        let c = self.raw();
        let (read, write) = (self.read(), self.write());
        // SAFETY: nginx's global, set when the event module starts.
        let actions = unsafe { ngx_event_actions };

        if let Some(del_conn) = actions.del_conn {
            // epoll has one registration for both events, and refuses to delete it twice.
            if read.active() || write.active() {
                // SAFETY: a live connection. Flags are 0, since NGX_CLOSE_EVENT would skip epoll_ctl().
                unsafe { del_conn(c, 0) };
            }
        } else if let Some(del) = actions.del {
            for (event, filter) in [(read, READ_EVENT), (write, WRITE_EVENT)] {
                if event.active() {
                    // SAFETY: an active event of a live connection.
                    unsafe { del(event.raw(), filter, 0) };
                }
            }
        }
    }

    /// Has nginx find out its own address of this connection if it has not yet: where it listens on any address, only the
    /// socket knows which one the client came to.
    pub fn learn_local_address(self) {
        // SAFETY: valid by the contract of `new`; without a buffer nothing is written but the connection's own fields. A
        // failure leaves them as they were.
        unsafe { ngx_connection_local_sockaddr(self.raw(), ptr::null_mut(), 0) };
    }

    /// Makes nginx close the connection as if the client had: no keep-alive, no lingering, no wait for more.
    pub fn pretend_eof(self) {
        self.read().unready();
        self.write().unready();
        // SAFETY: events live as long as the connection.
        unsafe { (*self.read().raw()).set_eof(1) };
    }
}

/// The read or the write event of a live connection.
#[derive(Clone, Copy)]
pub struct Event(*mut ngx_event_t);

impl Event {
    /// # Safety
    ///
    /// The event belongs to a connection that stays open while the handle is used.
    unsafe fn new(event: *mut ngx_event_t) -> Self {
        Self(event)
    }

    fn raw(self) -> *mut ngx_event_t {
        self.0
    }

    /// Registered with the event loop.
    pub fn active(self) -> bool {
        // SAFETY: valid by the contract of `new`; so in all methods below.
        unsafe { (*self.0).active() != 0 }
    }

    /// Its timer ran out.
    pub fn timed_out(self) -> bool {
        // SAFETY: see `active`.
        unsafe { (*self.0).timedout() != 0 }
    }

    /// The event loop has reported that the peer closed its side (EPOLLRDHUP).
    pub fn pending_eof(self) -> bool {
        // SAFETY: see `active`.
        unsafe { (*self.0).pending_eof() != 0 }
    }

    /// Forgets that the descriptor was ready, so that the event loop is asked.
    pub fn unready(self) {
        // SAFETY: see `active`.
        unsafe { (*self.0).set_ready(0) };
    }

    /// Ends a delay that an earlier, rate-limited response on this connection left behind.
    pub fn clear_delay(self) {
        // SAFETY: see `active`.
        if unsafe { (*self.0).delayed() } != 0 {
            // SAFETY: see `active`.
            unsafe { (*self.0).set_delayed(0) };
            self.cancel_timer();
        }
    }

    /// Its timer's end has been dealt with.
    pub fn clear_timed_out(self) {
        // SAFETY: see `active`.
        unsafe { (*self.0).set_timedout(0) };
    }

    /// Has the descriptor taken for ready, since somebody else than the kernel holds bytes.
    pub fn make_ready(self) {
        // SAFETY: see `active`.
        unsafe { (*self.0).set_ready(1) };
    }

    /// The timer runs.
    pub fn timer_set(self) -> bool {
        // SAFETY: see `active`.
        unsafe { (*self.0).timer_set() != 0 }
    }

    /// Waits for the descriptor to become readable; false if it could not be registered.
    pub fn wait_readable(self) -> bool {
        self.unready();
        // SAFETY: see `active`; only called on read events.
        unsafe { ngx_handle_read_event(self.0, 0) == OK }
    }

    /// (Re)starts the timer, in milliseconds.
    pub fn start_timer(self, timeout: ngx_msec_t) {
        // SAFETY: see `active`.
        unsafe { ngx_add_timer(self.0, timeout) };
    }

    /// Stops the timer if it runs.
    pub fn cancel_timer(self) {
        // SAFETY: see `active`; deleted only if set.
        unsafe {
            if (*self.0).timer_set() != 0 {
                ngx_del_timer(self.0);
            }
        }
    }

    /// Has the event's handler called once the present callback has returned.
    pub fn post(self) {
        // SAFETY: see `active`; the queue is a global of the event loop.
        unsafe { ngx_post_event(self.0, ptr::addr_of_mut!(ngx_posted_events)) };
    }

    /// Waits for the descriptor to become writable; false if it could not be registered.
    pub fn wait_writable(self, low_water: usize) -> bool {
        // SAFETY: see `active`; only called on write events.
        unsafe { ngx_handle_write_event(self.0, low_water) == OK }
    }

    /// Under a level-triggered event loop, stops a read event that nobody is going to satisfy from firing for ever.
    pub fn quiet_read(self) {
        // SAFETY: nginx's globals, set when the event module starts.
        let (flags, del) = unsafe { (ngx_event_flags, ngx_event_actions.del) };
        if flags & NGX_USE_LEVEL_EVENT as usize == 0 || !self.active() {
            return;
        }
        if let Some(del) = del {
            // SAFETY: an active event of a live connection.
            unsafe { del(self.0, READ_EVENT, 0) };
        }
    }
}
