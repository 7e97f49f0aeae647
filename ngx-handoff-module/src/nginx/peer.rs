//! Who the chosen peer of an upstream is, if it is a Unix socket.

use core::ffi::c_int;
use core::mem::{MaybeUninit, offset_of};
use core::slice;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Upstream;

impl Upstream {
    /// The path of a peer that is a Unix socket; empty for another peer, and for an abstract or a nameless one.
    pub fn peer_path<'a>(self) -> &'a [u8] {
        if !self.peer_is_unix() {
            return &[];
        }
        // SAFETY: the peer's address, of so many bytes, lives in the configuration or in the request's pool.
        let address = unsafe {
            let peer = &(*self.raw()).peer;
            let len = usize::try_from(peer.socklen).unwrap_or(0);
            slice::from_raw_parts(peer.sockaddr.cast::<u8>(), len)
        };
        let path = address.get(offset_of!(libc::sockaddr_un, sun_path)..).unwrap_or_default();
        path.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// The user who has called listen(2) on the other end of a Unix connection (SO_PEERCRED of unix(7)).
pub fn listener_uid(fd: BorrowedFd<'_>) -> Option<u32> {
    // Not by rustix, whose `Pid` is never 0: that of a peer in another PID namespace is.
    let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: an open descriptor, and room for as many bytes as `len` says.
    let rc: c_int = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr().cast(),
            &mut len,
        )
    };
    // SAFETY: integers, for which zeros are valid.
    (rc == 0).then(|| unsafe { credentials.assume_init() }.uid)
}
