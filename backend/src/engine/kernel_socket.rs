//! The system calls of kernel TLS (Linux: Documentation/networking/tls.rst): the one file of the engine that makes them.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use handoff_tls::{Alert, RecordKey, Suite, Version};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use zeroize::Zeroizing;

/// Attaches the kernel's TLS to a connected TCP socket, which goes on as before until it is given keys.
pub(crate) fn attach(socket: impl AsFd) -> Result<(), Errno> {
    match set(socket.as_fd(), libc::SOL_TCP, libc::TCP_ULP, b"tls") {
        // It is there: an OpenSSL with kernel TLS (Ubuntu 22.04's) attaches it to each socket, and uses it for none unless it is
        // told to. Another one than TLS refuses keys.
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// From here on the kernel opens what comes: what is in the socket's queue as well.
pub(crate) fn set_receiving(socket: impl AsFd, key: &RecordKey) -> Result<(), Errno> {
    set(socket.as_fd(), libc::SOL_TLS, libc::TLS_RX, CryptoInfo::new(key).as_bytes())
}

/// From here on the kernel seals what is sent.
pub(crate) fn set_sending(socket: impl AsFd, key: &RecordKey) -> Result<(), Errno> {
    set(socket.as_fd(), libc::SOL_TLS, libc::TLS_TX, CryptoInfo::new(key).as_bytes())
}

/// What a receive gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) len: usize,
    /// The content type of the records that it is from: several of data, or one of another type. `None`: the end of file.
    pub(crate) kind: Option<u8>,
}

/// Receives data, or one record of another type (which has its place in 16 KiB), without waiting.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut control = Control { bytes: [0; CONTROL_LEN] };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data for which all zeros means "nothing".
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = ptr::from_mut(&mut part);
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(&mut control).cast();
    message.msg_controllen = CONTROL_LEN as _; // u32 with musl
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `message` points to `part`, which describes `buffer`, and to `control`; all three outlive the call.
    let received = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(received).map_err(|_| last_error())?;
    // SAFETY: the kernel has just filled in `message`, whose control buffer is still there; the header that it returns is null,
    // or whole and aligned within that buffer, with the byte of this type behind it.
    let kind = unsafe {
        libc::CMSG_FIRSTHDR(&message).as_ref().and_then(|header| {
            let is_type =
                header.cmsg_level == libc::SOL_TLS && header.cmsg_type == libc::TLS_GET_RECORD_TYPE;
            is_type.then(|| *libc::CMSG_DATA(header))
        })
    };
    // Data without its type: a kernel that tells it only with the first of several receives would do that.
    let kind = kind.or((len > 0).then_some(handoff_tls::Control::DATA));
    Ok(Received { len, kind })
}

/// Sends a record of a type that is not data's, whole; false: there is no room.
pub(crate) fn send_record(socket: impl AsFd, kind: u8, content: &[u8]) -> Result<bool, Errno> {
    let mut control = Control { bytes: [0; CONTROL_LEN] };
    let mut part =
        libc::iovec { iov_base: content.as_ptr().cast_mut().cast(), iov_len: content.len() };
    // SAFETY: as in `receive`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = ptr::from_mut(&mut part);
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(&mut control).cast();
    message.msg_controllen = CONTROL_LEN as _;
    // SAFETY: there is room for one header and a byte, so that the first header is there, and the byte behind it.
    unsafe {
        if let Some(header) = libc::CMSG_FIRSTHDR(&message).as_mut() {
            header.cmsg_level = libc::SOL_TLS;
            header.cmsg_type = libc::TLS_SET_RECORD_TYPE;
            header.cmsg_len = libc::CMSG_LEN(1) as _;
            *libc::CMSG_DATA(header) = kind;
        }
    }
    let fd = socket.as_fd().as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: `message` points to `part`, which describes `content` that the kernel only reads, and to `control`.
        let sent = unsafe { libc::sendmsg(fd, &message, flags) };
        match (usize::try_from(sent), last_error()) {
            (Ok(_), _) => return Ok(true),
            (Err(_), Errno::INTR) => (),
            (Err(_), Errno::AGAIN) => return Ok(false),
            (Err(_), error) => return Err(error),
        }
    }
}

/// The alert for a record that came, if that is what is wrong: a send fails with the same error as a receive.
pub(crate) fn alert_of(error: Errno) -> Option<Alert> {
    match error {
        Errno::BADMSG => Some(Alert::BadRecordMac),
        Errno::MSGSIZE => Some(Alert::RecordOverflow),
        Errno::INVAL => Some(Alert::ProtocolVersion),
        _ => None,
    }
}

/// Takes back the error that a bad record has left with the socket: each send would fail with it (tls_err_abort() in net/tls),
/// and is none the worse for it. Of a bad header it is all there is: the kernel parses no further, and says nothing more
/// (tls_strp_abort_strp()). So whoever takes it back ends the session.
pub(crate) fn clear_error(socket: impl AsFd) {
    let _ = socket_error(socket);
}

/// How many records the kernel has sealed with the present key of AES-GCM. ChaCha20-Poly1305 has no limit that could be reached.
pub(crate) fn sealed_records(socket: impl AsFd) -> Option<u64> {
    let mut info = CryptoInfo(Zeroizing::new([0; CryptoInfo::LONGEST]), CryptoInfo::LONGEST);
    // It wants the length of the cipher's own, and tells the cipher if it is given that of the head.
    get(socket.as_fd(), libc::SOL_TLS, libc::TLS_TX, info.0.get_mut(..4)?)?;
    let [_, _, c0, c1, ..] = *info.0;
    info.1 = match u16::from_ne_bytes([c0, c1]) {
        libc::TLS_CIPHER_AES_GCM_128 => 4 + 8 + 16 + 4 + 8,
        libc::TLS_CIPHER_AES_GCM_256 => CryptoInfo::LONGEST,
        _ => return None,
    };
    get(socket.as_fd(), libc::SOL_TLS, libc::TLS_TX, info.0.get_mut(..info.1)?)?;
    Some(u64::from_be_bytes(*info.as_bytes().last_chunk()?))
}

/// Whether the kernel may hold records that it has sealed and that TCP has had no room for: shutdown(2) and close(2) drop those
/// (tls_sw_release_resources_tx() in net/tls). They are there only while TCP's queue is as long as it may be.
pub(crate) fn is_backed_up(socket: impl AsFd) -> bool {
    // As getsockopt(2) fills it in; longer in newer kernels, which then fill in what there is room for.
    let mut memory = [0_u8; 4 * (libc::SK_MEMINFO_WMEM_QUEUED as usize + 1)];
    if get(socket.as_fd(), libc::SOL_SOCKET, SO_MEMINFO, &mut memory).is_none() {
        return false;
    }
    let value = |index: libc::c_int| {
        let bytes =
            memory.chunks_exact(4).nth(index as usize).and_then(|four| four.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    // At a half the queue has been shorter than the two thirds at which the kernel goes on with them (sk_stream_write_space()).
    value(libc::SK_MEMINFO_WMEM_QUEUED) > value(libc::SK_MEMINFO_SNDBUF) / 2
}

/// include/uapi/asm-generic/socket.h.
const SO_MEMINFO: libc::c_int = 55;

/// `struct tls12_crypto_info_*` of linux/tls.h, which TLS 1.3 uses as well: version, cipher, IV, key, salt, record number. No
/// padding, and its length.
struct CryptoInfo(Zeroizing<[u8; CryptoInfo::LONGEST]>, usize);

impl CryptoInfo {
    const LONGEST: usize = 4 + 8 + 32 + 4 + 8;

    fn new(key: &RecordKey) -> CryptoInfo {
        let version = match key.version() {
            Version::Tls12 => libc::TLS_1_2_VERSION,
            Version::Tls13 => libc::TLS_1_3_VERSION,
        };
        let (cipher, salt_len) = match key.suite() {
            Suite::Aes128Gcm => (libc::TLS_CIPHER_AES_GCM_128, 4),
            Suite::Aes256Gcm => (libc::TLS_CIPHER_AES_GCM_256, 4),
            Suite::ChaCha20Poly1305 => (libc::TLS_CIPHER_CHACHA20_POLY1305, 0),
        };
        let iv = Zeroizing::new(key.iv());
        let (salt, iv) = iv.split_at(salt_len);
        let mut info = CryptoInfo(Zeroizing::new([0; CryptoInfo::LONGEST]), 0);
        let parts: [&[u8]; 6] = [
            &version.to_ne_bytes(),
            &cipher.to_ne_bytes(),
            iv,
            key.key(),
            salt,
            &key.seq().to_be_bytes(),
        ];
        for part in parts {
            let end = info.1 + part.len();
            if let Some(room) = info.0.get_mut(info.1..end) {
                room.copy_from_slice(part);
            }
            info.1 = end;
        }
        info
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

// SAFETY: CMSG_SPACE is pure arithmetic.
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE(1) } as usize;

/// A control buffer for one byte, aligned as `cmsghdr` has to be.
#[repr(C)]
union Control {
    _align: libc::cmsghdr,
    bytes: [u8; CONTROL_LEN],
}

fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: an open descriptor, and `len` bytes that the kernel only reads.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if rc == 0 { Ok(()) } else { Err(last_error()) }
}

fn get(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> Option<()> {
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: an open descriptor, and room for `len` bytes, more than which the kernel does not write.
    let rc = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    (rc == 0).then_some(())
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;

    use handoff_tls::{Control, Secret, Session, State};

    use super::*;

    /// Two ends of a connection, and what each sends with; `None` where the kernel has no TLS.
    fn ends() -> Option<(TcpStream, TcpStream, Session)> {
        if !Path::new("/proc/net/tls_stat").exists() {
            eprintln!("NOT TESTED: make test-ktls does, under a kernel that has TLS");
            return None;
        }
        let secret = Secret::new(&[7; 32]).expect("a secret");
        let state = State {
            version: Version::Tls13,
            suite: 0x1301,
            rx_seq: 40,
            tx_seq: 40,
            rx_secret: secret.clone(),
            tx_secret: secret,
            owes_key_update: false,
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        let (other, _) = listener.accept().expect("accept");
        let session = Session::new(&state).expect("a session");
        for end in [&one, &other] {
            attach(end).expect("TLS");
            end.set_nonblocking(true).expect("nonblocking");
        }
        set_sending(&one, &session.sending()).expect("a key");
        set_receiving(&other, &session.receiving()).expect("a key");
        Some((one, other, session))
    }

    /// What comes next, with its type.
    fn next(end: &TcpStream, buffer: &mut [u8]) -> Result<Received, Errno> {
        for _ in 0..1000 {
            match receive(end, buffer) {
                Err(Errno::AGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
                received => return received,
            }
        }
        Err(Errno::TIMEDOUT)
    }

    #[test]
    fn records_keep_their_types_and_are_counted() {
        let Some((mut one, other, _)) = ends() else { return };
        let mut buffer = [0; 1 << 15];
        assert_eq!(sealed_records(&one), Some(40));
        one.write_all(b"some").expect("sent");
        assert_eq!(send_record(&one, Control::HANDSHAKE, b"hello"), Ok(true));
        one.write_all(&[1; 20_000]).expect("sent");
        assert_eq!(send_record(&one, Control::ALERT, &[1, 0]), Ok(true));
        assert_eq!(sealed_records(&one), Some(45));
        let data = |len| Ok(Received { len, kind: Some(Control::DATA) });
        assert_eq!(next(&other, &mut buffer), data(4));
        let handshake = Received { len: 5, kind: Some(Control::HANDSHAKE) };
        assert_eq!(next(&other, &mut buffer), Ok(handshake));
        assert_eq!(buffer[..5], *b"hello");
        assert_eq!(next(&other, &mut buffer), data(20_000));
        let alert = Received { len: 2, kind: Some(Control::ALERT) };
        assert_eq!(next(&other, &mut buffer), Ok(alert));
        drop(one);
        assert_eq!(next(&other, &mut buffer), Ok(Received { len: 0, kind: None }), "the end");
    }

    #[test]
    fn record_that_cannot_be_opened_does_not_keep_an_alert_from_leaving() {
        let Some((one, mut other, session)) = ends() else { return };
        set_sending(&other, &session.sending()).expect("a key");
        set_receiving(&one, &session.receiving()).expect("a key");
        other.write_all(b"before").expect("sent");
        // The same number again.
        let mut buffer = [0; 100];
        assert_eq!(next(&one, &mut buffer).map(|received| received.len), Ok(6));
        let mut record = Vec::new();
        let mut same = session;
        same.seal(b"again", &mut record).expect("sealed");
        let (raw, peer) = {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
            let raw = TcpStream::connect(listener.local_addr().expect("an address"));
            (raw.expect("connect"), listener.accept().expect("accept").0)
        };
        attach(&peer).expect("TLS");
        peer.set_nonblocking(true).expect("nonblocking");
        set_receiving(&peer, &same.receiving()).expect("a key");
        set_sending(&peer, &same.receiving()).expect("a key");
        (&raw).write_all(&record).expect("sent");
        (&raw).write_all(&record).expect("sent");
        assert_eq!(next(&peer, &mut buffer).map(|received| received.len), Ok(5));
        assert_eq!(next(&peer, &mut buffer), Err(Errno::BADMSG));
        assert_eq!(send_record(&peer, Control::ALERT, &[2, 20]), Err(Errno::BADMSG));
        clear_error(&peer);
        assert_eq!(send_record(&peer, Control::ALERT, &[2, 20]), Ok(true));
        let mut sealed = [0; 100];
        assert_eq!((&raw).read(&mut sealed).expect("an alert"), 5 + 2 + 1 + 16);
    }

    #[test]
    fn full_socket_is_told_from_one_with_room() {
        let Some((one, mut other, _)) = ends() else { return };
        assert!(!is_backed_up(&one));
        while (&one).write(&[0; 1 << 16]).is_ok() {}
        assert!(is_backed_up(&one));
        assert_eq!(send_record(&one, Control::ALERT, &[1, 0]), Ok(false));
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..1000 {
            while other.read(&mut buffer).is_ok_and(|len| len > 0) {}
            std::thread::sleep(std::time::Duration::from_millis(1));
            if !is_backed_up(&one) {
                return assert_eq!(send_record(&one, Control::ALERT, &[1, 0]), Ok(true));
            }
        }
        panic!("it stays full");
    }
}
