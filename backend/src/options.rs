//! What a listener can be told: where its socket is, who may connect, and the bounds on each offer.

use std::path::PathBuf;
use std::time::Duration;

/// Where and how [`HandoffListener::bind`](crate::HandoffListener::bind) creates its socket.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Unix socket's path, at most 107 bytes.
    pub path: PathBuf,
    /// Permission bits. Connecting takes write permission: 0660 lets the owner and the group in.
    pub mode: u32,
    /// The socket's group; the process's own where `None`.
    pub group: Option<Group>,
    /// Connections that the kernel queues while [`OfferOptions::max_pending`] offers are in hand;
    /// `net.core.somaxconn` caps it. A full queue makes nginx's connect(2) fail with EAGAIN: it takes the next peer.
    pub backlog: u32,
    /// Bounds on each offer.
    pub offers: OfferOptions,
}

impl Options {
    /// A socket at `path` with mode 0660, the process's own group and a backlog of 1024.
    pub fn new(path: impl Into<PathBuf>) -> Options {
        Options {
            path: path.into(),
            mode: 0o660,
            group: None,
            backlog: 1024,
            offers: OfferOptions::default(),
        }
    }
}

/// A group by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// A gid.
    Id(u32),
    /// A group's name; where no group has it, the primary group of the user who does (`nobody` has no group of
    /// its name on Debian).
    Name(String),
}

/// Digits are a gid, anything else a name.
impl From<&str> for Group {
    fn from(text: &str) -> Group {
        text.parse().map(Group::Id).unwrap_or_else(|_| Group::Name(text.to_owned()))
    }
}

/// Bounds on what a peer can make this process hold.
#[derive(Debug, Clone)]
pub struct OfferOptions {
    /// Offers in hand at a time, from accept(2) until each is answered; each takes a descriptor. At the bound a
    /// connection without a complete head gives way to the next one (answered 503) once it is a quarter of a
    /// second old; if there is none, the kernel queues up to [`Options::backlog`] connections.
    pub max_pending: usize,
    /// Clients at a time who have been sent their 101 and whose commit has not come; each takes two descriptors. One
    /// who does not read its 101 stays until nginx's `send_timeout`: leave room for many of those. At the bound,
    /// [`Acceptance::send`](crate::Acceptance::send) answers 503.
    pub max_handovers: usize,
    /// Connections kept for nginx's next request when a client has come over them; those of a worker whose `upstream {}`
    /// has no `keepalive` close at once. 0: each is closed after one.
    pub max_idle: usize,
    /// Bytes of a request head.
    pub max_head: usize,
    /// From accept(2) to the end of the head.
    pub head_timeout: Duration,
    /// Writing the answer.
    pub answer_timeout: Duration,
    /// From the 101 to the descriptor, which nginx sends at once.
    pub offer_timeout: Duration,
    /// From the descriptor to the end of the commit. nginx commits only when the client has taken the 101, for which
    /// its `send_timeout` (60 s unless set) gives it time between two writes: be more patient than that.
    pub commit_timeout: Duration,
    /// Bytes that the client may have sent behind its request head: nginx has read them into its header buffers
    /// (`large_client_header_buffers`).
    pub early_data_limit: usize,
    /// Users whose processes may connect, as SO_PEERCRED names them; `None`: whoever the socket's mode lets in.
    ///
    /// TLS sessions are taken from these alone; where `None`, from root and this process's own user.
    ///
    /// In a user namespace that does not know all users, the kernel shows each unknown one as the overflow uid
    /// (65534, which is `nobody` too): there, that uid is refused even if it is listed.
    pub allow_uids: Option<Vec<u32>>,
}

impl Default for OfferOptions {
    fn default() -> OfferOptions {
        OfferOptions {
            max_pending: 256,
            max_handovers: 1024,
            max_idle: 256,
            max_head: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            offer_timeout: Duration::from_secs(10),
            commit_timeout: Duration::from_secs(90),
            early_data_limit: 1024 * 1024,
            allow_uids: None,
        }
    }
}
