//! The one file that sends a descriptor.

use core::mem::MaybeUninit;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use handoff_protocol::OFFER;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Sends the offer over a Unix stream socket: one byte `F` with exactly one descriptor beside it.
///
/// Does not block: nginx's connections are non-blocking, and MSG_DONTWAIT says so once more. A single byte is sent whole
/// or not at all.
pub fn send_offer(backend: BorrowedFd<'_>, client: BorrowedFd<'_>) -> Result<(), Errno> {
    let descriptors = [client];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }

    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match sendmsg(backend, &[IoSlice::new(&[OFFER])], &mut ancillary, flags)? {
        1 => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// Whether a failed offer has its cause on this side: descriptors in flight (unix(7): counted per user against
/// RLIMIT_NOFILE), descriptor tables, memory. The peer is not to blame, and must not be marked as down for it.
pub fn is_local(errno: Errno) -> bool {
    matches!(errno, Errno::TOOMANYREFS | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
}
