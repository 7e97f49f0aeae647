//! What is known of each TLS connection: its present secrets, and how many records they have protected. OpenSSL tells
//! nobody afterwards, so that callbacks on every server's context keep books from the handshake on.
//!
//! A keylog callback costs each handshake a line in hexadecimal for each of five secrets, of which two are wanted. So it is
//! there only while one of these is due: from a Finished or a KeyUpdate, which the message callback is told of, to the secret.

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use handoff_protocol::tls::{MAX_SECRET, Version};

use super::openssl::{self, Keylog, OpenSsl, Ssl, SslCtx};

/// `CRYPTO_EX_INDEX_SSL`
const CLASS_SSL: c_int = 0;
/// `CRYPTO_EX_INDEX_SSL_CTX`
const CLASS_CTX: c_int = 1;
/// `TLS1_3_VERSION`
const TLS13: c_int = 0x0304;
/// `SSL3_RT_HEADER`: not a record's type, but what the callback is told of each record's header.
const RECORD_HEADER: c_int = 0x100;
/// `SSL3_RT_INNER_CONTENT_TYPE`: of each record of TLS 1.3 that has been opened, the type that was sealed in it.
const INNER_TYPE: c_int = 0x101;
/// `SSL3_RT_HANDSHAKE`
const HANDSHAKE: c_int = 22;
/// The same as a record's type.
const HANDSHAKE_TYPE: u8 = 22;
/// `SSL3_RT_CHANGE_CIPHER_SPEC`
const CHANGE_CIPHER_SPEC: u8 = 20;
/// `SSL3_MT_FINISHED`
const FINISHED: u8 = 20;
/// `SSL3_MT_KEY_UPDATE`
const KEY_UPDATE: u8 = 24;

/// One direction of a connection. All zeros is one of which nothing is known.
#[repr(C)]
pub struct Direction {
    secret: [u8; MAX_SECRET],
    secret_len: u8,
    /// Records under the present keys.
    pub seq: u64,
    /// TLS 1.2: how often keys were changed.
    pub changes: u32,
    /// TLS 1.3: KeyUpdates that went by, and how many led to a new secret: both have to be the same.
    updates: u32,
    updated: u32,
}

/// What is known of a connection.
#[repr(C)]
pub struct Observed {
    /// From the client.
    pub rx: Direction,
    /// To the client.
    pub tx: Direction,
    /// TLS 1.3: a new secret is due, and counted in [`DUE`].
    is_due: bool,
    /// A record of the client's held a part of a handshake message, whose end has not come: OpenSSL keeps that part, and says
    /// nothing of it before it has four bytes.
    pub is_in_message: bool,
}

impl Observed {
    /// Whether the callbacks still tell of the client's records: its request was in one. If not, another module has taken them
    /// away; the numbers would stand still, and a nonce be used twice.
    pub fn is_counting(&self, version: Version) -> bool {
        match version {
            Version::Tls13 => self.rx.seq > 0 || self.rx.updated > 0,
            // The first was Finished.
            Version::Tls12 => self.rx.seq > 1,
        }
    }

    /// How far the records to the client are.
    pub fn sent(&self) -> Sent {
        Sent { seq: self.tx.seq, updated: self.tx.updated }
    }
}

/// How far the records to a client are: each one changes it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    seq: u64,
    updated: u32,
}

impl Direction {
    /// TLS 1.3: the present traffic secret, if it is known.
    pub fn secret(&self) -> Option<&[u8]> {
        let known = self.secret_len > 0 && self.updates == self.updated;
        self.secret.get(..self.secret_len.into()).filter(|_| known)
    }

    fn new_secret(&mut self, hex: &[u8]) {
        self.seq = 0;
        self.secret_len = 0;
        for (at, pair) in hex.chunks(2).enumerate() {
            let (Some(byte), Some(place)) = (byte_of(pair), self.secret.get_mut(at)) else {
                return;
            };
            *place = byte;
        }
        // No longer than the array, since `get_mut` would have failed.
        self.secret_len = (hex.len() / 2) as u8;
    }
}

/// Where OpenSSL keeps what belongs to this module.
struct Indexes {
    /// Of a connection: [`Observed`].
    ssl: c_int,
    /// Of a context: the keylog callback that it had before, or [`NOBODY`].
    ctx: c_int,
}

static INDEXES: OnceLock<Indexes> = OnceLock::new();

/// Its address stands for a context that had no keylog callback: there, this module's comes and goes.
static NOBODY: u8 = 0;

/// Connections of this process with a secret that is due. Nearly always none or one: OpenSSL comes from the message to the secret
/// without a return to nginx, unless the message's flight does not fit into the socket.
static DUE: AtomicUsize = AtomicUsize::new(0);

/// What is known of a connection.
pub fn of<'a>(openssl: &OpenSsl, ssl: *const Ssl) -> Option<&'a Observed> {
    // SAFETY: null, or what `mutable` has stored there, which lives as long as the connection.
    unsafe { get(openssl, ssl).as_ref() }
}

/// Has each connection of `ctx` observed; false if OpenSSL lacks memory.
///
/// # Safety
///
/// `ctx` is a context of nginx's that has not served a connection yet.
pub unsafe fn observe(openssl: &OpenSsl, ctx: *mut SslCtx) -> bool {
    let Some(indexes) = indexes(openssl) else { return false };
    // SAFETY: by the contract; function pointers and data pointers have the same size wherever nginx runs.
    unsafe {
        if !(openssl.SSL_CTX_get_ex_data)(ctx, indexes.ctx).is_null() {
            return true;
        }
        let earlier = (openssl.SSL_CTX_get_keylog_callback)(ctx);
        let data = earlier.map_or(nobody(), |earlier| earlier as *mut c_void);
        if (openssl.SSL_CTX_set_ex_data)(ctx, indexes.ctx, data) != 1 {
            return false;
        }
        if earlier.is_some() {
            // That one wants every line.
            (openssl.SSL_CTX_set_keylog_callback)(ctx, Some(keylog));
        }
        (openssl.SSL_CTX_set_msg_callback)(ctx, Some(message));
    }
    true
}

fn indexes(openssl: &OpenSsl) -> Option<&'static Indexes> {
    if INDEXES.get().is_none() {
        let new = |class, free| {
            // SAFETY: no function but `free`, which stays loaded (`install::pin`).
            unsafe {
                (openssl.CRYPTO_get_ex_new_index)(
                    class,
                    0,
                    ptr::null_mut(),
                    ptr::null(),
                    ptr::null(),
                    free,
                )
            }
        };
        let indexes = Indexes { ssl: new(CLASS_SSL, Some(forget)), ctx: new(CLASS_CTX, None) };
        if indexes.ssl < 0 || indexes.ctx < 0 {
            return None;
        }
        let _ = INDEXES.set(indexes);
    }
    INDEXES.get()
}

fn get(openssl: &OpenSsl, ssl: *const Ssl) -> *mut Observed {
    match INDEXES.get() {
        // SAFETY: a live connection, and an index of its class.
        Some(indexes) => unsafe { (openssl.SSL_get_ex_data)(ssl, indexes.ssl) }.cast(),
        None => ptr::null_mut(),
    }
}

/// What is known of a connection, in a callback: nobody else has a reference to it.
fn mutable<'a>(openssl: &OpenSsl, ssl: *mut Ssl) -> Option<&'a mut Observed> {
    let known = get(openssl, ssl);
    // SAFETY: null, or stored below.
    if let Some(known) = unsafe { known.as_mut() } {
        return Some(known);
    }
    let indexes = INDEXES.get()?;
    // SAFETY: zeros are valid; OpenSSL aligns as malloc does.
    unsafe {
        let memory = (openssl.CRYPTO_zalloc)(size_of::<Observed>(), ptr::null(), 0);
        if memory.is_null() {
            return None;
        }
        if (openssl.SSL_set_ex_data)(ssl, indexes.ssl, memory) != 1 {
            (openssl.CRYPTO_clear_free)(memory, size_of::<Observed>(), ptr::null(), 0);
            return None;
        }
        memory.cast::<Observed>().as_mut()
    }
}

fn nobody() -> *mut c_void {
    ptr::from_ref(&NOBODY).cast_mut().cast()
}

/// The context of a connection, if the keylog callback comes and goes there.
fn switched(openssl: &OpenSsl, ssl: *const Ssl) -> Option<*mut SslCtx> {
    let indexes = INDEXES.get()?;
    // SAFETY: a live connection has a context, and `observe` has stored something there or nobody has.
    unsafe {
        let ctx = (openssl.SSL_get_SSL_CTX)(ssl);
        ((openssl.SSL_CTX_get_ex_data)(ctx, indexes.ctx) == nobody()).then_some(ctx)
    }
}

/// TLS 1.3: OpenSSL is about to put a new secret to use.
fn expect_secret(openssl: &OpenSsl, ssl: *mut Ssl) {
    let Some(ctx) = switched(openssl, ssl) else { return };
    let Some(known) = mutable(openssl, ssl) else { return };
    if !known.is_due {
        known.is_due = true;
        DUE.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: a context of nginx's, and nginx does TLS in one thread. A callback that somebody else has set since stays: then the
    // secret remains unknown.
    unsafe {
        if (openssl.SSL_CTX_get_keylog_callback)(ctx).is_none() {
            (openssl.SSL_CTX_set_keylog_callback)(ctx, Some(keylog));
        }
    }
}

/// The secret that was due is known, or will never be.
fn no_longer_due(known: &mut Observed) {
    if known.is_due {
        known.is_due = false;
        DUE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A secret came: takes the callback away if no connection waits for another one.
fn rest(openssl: &OpenSsl, ssl: *const Ssl) {
    if DUE.load(Ordering::Relaxed) > 0 {
        return;
    }
    let Some(ctx) = switched(openssl, ssl) else { return };
    // SAFETY: a context of nginx's, as above; OpenSSL does not look at the callback again before this call has returned.
    unsafe {
        let present = (openssl.SSL_CTX_get_keylog_callback)(ctx);
        if present.is_some_and(|present| present as usize == keylog as *const () as usize) {
            (openssl.SSL_CTX_set_keylog_callback)(ctx, None);
        }
    }
}

/// OpenSSL frees a connection. Cleanses what was known of it.
unsafe extern "C" fn forget(
    _parent: *mut c_void,
    data: *mut c_void,
    _ad: *mut c_void,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if let (false, Some(openssl)) = (data.is_null(), openssl::get()) {
        // SAFETY: what `mutable` has allocated, and nobody has a reference to any more.
        unsafe {
            no_longer_due(&mut *data.cast::<Observed>());
            (openssl.CRYPTO_clear_free)(data, size_of::<Observed>(), ptr::null(), 0);
        }
    }
}

/// A new secret is in use from the next record on (`tls13_change_cipher_state()`, `tls13_update_key()`). Nothing is ever
/// written anywhere but to memory that is cleansed.
unsafe extern "C" fn keylog(ssl: *const Ssl, line: *const c_char) {
    let Some(openssl) = openssl::get() else { return };
    // SAFETY: OpenSSL passes a connection and a string.
    let text = unsafe { CStr::from_ptr(line) }.to_bytes();
    let mut words = text.split(|byte| *byte == b' ');
    if let (Some(label), Some(_random), Some(secret)) = (words.next(), words.next(), words.next()) {
        note_secret(openssl, ssl.cast_mut(), label, secret);
    }

    let Some(indexes) = INDEXES.get() else { return };
    if switched(openssl, ssl).is_some() {
        return;
    }
    // SAFETY: null, or the function that `observe` has stored there; called as OpenSSL would have.
    unsafe {
        let ctx = (openssl.SSL_get_SSL_CTX)(ssl);
        let data = (openssl.SSL_CTX_get_ex_data)(ctx, indexes.ctx);
        if let Some(earlier) = core::mem::transmute::<*mut c_void, Keylog>(data) {
            earlier(ssl, line);
        }
    }
}

fn note_secret(openssl: &OpenSsl, ssl: *mut Ssl, label: &[u8], secret: &[u8]) {
    let (is_rx, generation) = if let Some(rest) = label.strip_prefix(b"CLIENT_TRAFFIC_SECRET_") {
        (true, rest)
    } else if let Some(rest) = label.strip_prefix(b"SERVER_TRAFFIC_SECRET_") {
        (false, rest)
    } else {
        return;
    };
    let Some(known) = mutable(openssl, ssl) else { return };
    let direction = if is_rx { &mut known.rx } else { &mut known.tx };
    // After a KeyUpdate it is called "N", not by a number.
    if generation != b"0" {
        direction.updated = direction.updated.wrapping_add(1);
    }
    direction.new_secret(secret);
    no_longer_due(known);
    rest(openssl, ssl);
}

/// OpenSSL has opened a record of the client's, or begun to. Nothing else may come between the parts of a message (RFC 8446
/// section 5.1): behind a renegotiation that OpenSSL has refused, which it does not report as a message, the client's data tell.
fn opens(openssl: &OpenSsl, ssl: *mut Ssl, kind: u8) {
    // SAFETY: null, or what `mutable` has stored; no other reference exists during a callback.
    if let Some(known) = unsafe { get(openssl, ssl).as_mut() } {
        known.is_in_message = kind == HANDSHAKE_TYPE;
    }
}

/// A whole message of the client's.
fn message_received(openssl: &OpenSsl, ssl: *mut Ssl, kind: u8) {
    // SAFETY: as above.
    if let Some(known) = unsafe { get(openssl, ssl).as_mut() } {
        known.is_in_message = false;
    }
    if kind == KEY_UPDATE {
        // From 3.2 on the next keys have a buffer of their own, which takes over what is left in this one as soon as it is read
        // from; and nothing tells how much that is. Reading ahead, it takes all of it at once.
        // SAFETY: a live connection, whose next keys OpenSSL has not begun with.
        unsafe { (openssl.SSL_set_read_ahead)(ssl, 1) };
    }
}

/// A record's header, the type within, or a message, went by.
unsafe extern "C" fn message(
    written: c_int,
    _version: c_int,
    kind: c_int,
    bytes: *const c_void,
    len: usize,
    ssl: *mut Ssl,
    _arg: *mut c_void,
) {
    if !matches!(kind, RECORD_HEADER | INNER_TYPE | HANDSHAKE) || len == 0 || bytes.is_null() {
        return;
    }
    let Some(openssl) = openssl::get() else { return };
    // SAFETY: OpenSSL passes so many bytes.
    let first = unsafe { *bytes.cast::<u8>() };
    if kind == INNER_TYPE {
        if written == 0 {
            opens(openssl, ssl, first);
        }
        return;
    }
    if kind == HANDSHAKE {
        if written == 0 {
            message_received(openssl, ssl, first);
        }
        // SAFETY: a live connection.
        let is_tls13 = || unsafe { (openssl.SSL_version)(ssl) } == TLS13;
        if (first == FINISHED || first == KEY_UPDATE) && is_tls13() {
            expect_secret(openssl, ssl);
        }
        if first == KEY_UPDATE && len == 5 {
            if let Some(direction) = known(openssl, ssl, written) {
                direction.updates = direction.updates.wrapping_add(1);
            }
        }
        return;
    }
    if written == 0 {
        opens(openssl, ssl, first);
    }
    if first != CHANGE_CIPHER_SPEC {
        if let Some(direction) = known(openssl, ssl, written) {
            direction.seq = direction.seq.wrapping_add(1);
        }
        return;
    }
    // TLS 1.3 has them for middleboxes only (RFC 8446 appendix D.4).
    // SAFETY: a live connection.
    if unsafe { (openssl.SSL_version)(ssl) } != TLS13 {
        if let Some(known) = mutable(openssl, ssl) {
            let direction = if written != 0 { &mut known.tx } else { &mut known.rx };
            direction.changes = direction.changes.wrapping_add(1);
            direction.seq = 0;
        }
    }
}

/// A direction of a connection that something is known of already.
fn known<'a>(openssl: &OpenSsl, ssl: *mut Ssl, written: c_int) -> Option<&'a mut Direction> {
    // SAFETY: null, or what `mutable` has stored; no other reference exists during a callback.
    let known = unsafe { get(openssl, ssl).as_mut() }?;
    Some(if written != 0 { &mut known.tx } else { &mut known.rx })
}

fn byte_of(pair: &[u8]) -> Option<u8> {
    let [high, low] = *pair else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}
