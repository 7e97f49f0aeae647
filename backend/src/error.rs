//! What can go wrong, one enum per operation: binding, waiting for an offer, answering it, receiving its descriptor.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use handoff_protocol::{CommitError, HandshakeError, RequestParseError};
use nix::errno::Errno;

/// Why a listener could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process holds the lock beside the socket.
    #[error("another process{} serves this socket: {} is locked", owner_suffix(owner), lock.display())]
    Served {
        /// The lock file.
        lock: PathBuf,
        /// What the lock file says about its holder: a process id.
        owner: Option<String>,
    },
    /// Something that is not a socket has the name; it is never replaced.
    #[error("{} exists and is not a socket: not replacing it", .0.display())]
    NotASocket(PathBuf),
    /// `sockaddr_un` holds 107 bytes of path, and the temporary name in the same directory must fit too.
    #[error("{} is too long for a Unix socket address (107 bytes)", .0.display())]
    TooLong(PathBuf),
    /// A path without a file name, such as `/` or `..`.
    #[error("{} does not name a file", .0.display())]
    NoFileName(PathBuf),
    /// Neither a group nor a user has this name.
    #[error("no group or user is called {0:?}")]
    UnknownGroup(String),
    /// The file came out accessible to others before its group was set, so it was removed again.
    #[error("{} was created with mode {mode:04o} instead of 0600: this kernel ignores fchmod on a socket", path.display())]
    Exposed {
        /// The temporary name.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A system call failed.
    #[error("{call} {}: {source}", path.display())]
    System {
        /// The system call.
        call: &'static str,
        /// What it was called for.
        path: PathBuf,
        /// Its errno.
        source: io::Error,
    },
    /// `LISTEN_FDS` names a descriptor that is not a listening stream socket.
    #[error("descriptor {0} of LISTEN_FDS is not a listening Unix or TCP stream socket")]
    NotListening(i32),
}

fn owner_suffix(owner: &Option<String>) -> String {
    owner.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Why [`HandoffListener::accept`](crate::HandoffListener::accept) has no offer to give. All but
/// [`Closed`](AcceptError::Closed) concern one connection, which has been answered and closed: call it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The listener was retired and has nothing left to give.
    #[error("the listener is closed")]
    Closed,
    /// accept(2) failed; where descriptors or memory ran out, the next call waits a little first.
    #[error("accept: {0}")]
    Accept(#[source] io::Error),
    /// The peer's user is not among [`OfferOptions::allow_uids`](crate::OfferOptions::allow_uids): answered 403.
    #[error("uid {uid} may not offer connections")]
    Forbidden {
        /// The peer's user, as SO_PEERCRED tells it.
        uid: u32,
    },
    /// The user cannot be told from others: SO_PEERCRED shows every user unknown to this user namespace as this one.
    #[error("uid {uid} stands for every user outside of this user namespace")]
    Unidentified {
        /// The overflow uid.
        uid: u32,
    },
    /// End of file or an error before the head was complete.
    #[error("the peer left before its request head was complete{}", error_suffix(.0))]
    Left(Option<io::Error>),
    /// The head took too long: answered 408.
    #[error("no complete request head within {0:?}")]
    Slow(Duration),
    /// The head exceeds [`OfferOptions::max_head`](crate::OfferOptions::max_head): answered 431.
    #[error("the request head exceeds {0} bytes")]
    TooLarge(usize),
    /// The head is not HTTP/1.x: answered 400.
    #[error("bad request head: {0}")]
    Malformed(#[from] RequestParseError),
    /// The target is no URI, or bytes or a descriptor came before the answer: answered 400.
    #[error("bad request: {0}")]
    Invalid(&'static str),
    /// Not a WebSocket opening handshake: answered 400, 405 or 426.
    #[error("not a WebSocket opening handshake: {0}")]
    Handshake(HandshakeError),
    /// Silent while others waited for room to be heard: answered 503.
    #[error("gave way to others before its request head was complete")]
    Displaced,
    /// The task that read the head ended abnormally.
    #[error("the task that read the request head failed")]
    Internal,
}

fn error_suffix(error: &Option<io::Error>) -> String {
    error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

impl AcceptError {
    /// A short fixed word for metrics.
    pub fn cause(&self) -> &'static str {
        match self {
            AcceptError::Closed => "closed",
            AcceptError::Accept(_) => "accept",
            AcceptError::Forbidden { .. } | AcceptError::Unidentified { .. } => "forbidden",
            AcceptError::Left(_) => "left",
            AcceptError::Slow(_) => "slow_head",
            AcceptError::TooLarge(_) => "large_head",
            AcceptError::Malformed(_) | AcceptError::Invalid(_) => "bad_head",
            AcceptError::Handshake(_) => "handshake",
            AcceptError::Displaced => "displaced",
            AcceptError::Internal => "internal",
        }
    }
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Not a field name or value, or one that would split the head.
    #[error("invalid header field {0:?}")]
    InvalidField(String),
    /// A field that this crate writes itself.
    #[error("header field {0} cannot be set")]
    ReservedField(http::HeaderName),
    /// A refusal must be a final status other than success by upgrade: 200 to 599.
    #[error("{0} cannot be a refusal")]
    NotARefusal(http::StatusCode),
    /// The head could not be written down.
    #[error("answer head: {0}")]
    Encode(#[from] handoff_protocol::AnswerError),
    /// The peer does not take the answer.
    #[error("writing the answer: {0}")]
    Write(#[from] io::Error),
    /// The peer did not take the answer in time.
    #[error("the peer did not read the answer within {0:?}")]
    Slow(Duration),
}

/// Why an accepted offer did not become a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// The 101 was not delivered.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// [`OfferOptions::max_handovers`](crate::OfferOptions::max_handovers) are under way: answered 503.
    #[error("too many clients have not taken their 101 yet")]
    Full,
    /// nginx closed instead of sending the offer: the client had gone, or nginx could not pass the descriptor.
    #[error("the peer closed before it sent the descriptor")]
    ClosedBeforeOffer,
    /// nginx closed instead of committing: the client had gone, or nginx gave up on it.
    #[error("the peer closed between offer and commit")]
    ClosedBeforeCommit,
    /// recvmsg(2) failed.
    #[error("recvmsg: {0}")]
    Receive(#[source] io::Error),
    /// Nothing came within [`OfferOptions::offer_timeout`](crate::OfferOptions::offer_timeout).
    #[error("no descriptor within {0:?}")]
    OfferTimeout(Duration),
    /// The commit was not complete within [`OfferOptions::commit_timeout`](crate::OfferOptions::commit_timeout).
    #[error("no commit within {0:?}")]
    CommitTimeout(Duration),
    /// Not the offer byte.
    #[error("byte {0:#04x} instead of an offer")]
    NotAnOffer(u8),
    /// An offer carries exactly one descriptor.
    #[error("{0} descriptors came with the offer instead of one")]
    DescriptorCount(usize),
    /// MSG_CTRUNC: too many were sent, or this process may not open another.
    #[error(
        "descriptors were lost (MSG_CTRUNC): too many were sent, or this process is at its descriptor limit"
    )]
    Truncated,
    /// The descriptor is not a client.
    #[error("the descriptor is {0}, not a connected stream socket")]
    NotAClient(&'static str),
    /// The commit does not follow the protocol.
    #[error("bad commit: {0}")]
    Commit(#[from] CommitError),
    /// The client had disconnected by the time the commit came.
    #[error("the client has gone")]
    ClientGone,
    /// The client's socket could not be used.
    #[error("{call} on the client's socket: {source}")]
    Client {
        /// The system call.
        call: &'static str,
        /// Its errno.
        source: io::Error,
    },
}

impl HandoffError {
    /// A short fixed word for metrics.
    pub fn cause(&self) -> &'static str {
        match self {
            HandoffError::Answer(_) => "answer",
            HandoffError::Full => "full",
            HandoffError::ClosedBeforeOffer => "closed_before_offer",
            HandoffError::ClosedBeforeCommit => "closed_before_commit",
            HandoffError::Receive(_) => "recvmsg",
            HandoffError::OfferTimeout(_) => "offer_timeout",
            HandoffError::CommitTimeout(_) => "commit_timeout",
            HandoffError::NotAnOffer(_) => "not_an_offer",
            HandoffError::DescriptorCount(_) => "descriptor_count",
            HandoffError::Truncated => "truncated",
            HandoffError::NotAClient(_) => "not_a_client",
            HandoffError::Commit(_) => "bad_commit",
            HandoffError::ClientGone => "client_gone",
            HandoffError::Client { .. } => "client_socket",
        }
    }

    /// Whether it only says that the client or nginx left: part of normal life, worth no warning.
    pub fn is_departure(&self) -> bool {
        match self {
            HandoffError::ClosedBeforeOffer
            | HandoffError::ClosedBeforeCommit
            | HandoffError::ClientGone => true,
            HandoffError::Receive(error) | HandoffError::Answer(AnswerError::Write(error)) => {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            }
            _ => false,
        }
    }
}

/// A nix errno with the call it came from, as [`BindError::System`].
pub(crate) fn system(call: &'static str, path: &std::path::Path, errno: Errno) -> BindError {
    BindError::System { call, path: path.to_owned(), source: errno.into() }
}
