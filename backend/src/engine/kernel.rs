//! Kernel TLS: what the kernel can, and giving a client's session to it.
//!
//! Once it has the session, the connection's socket takes and gives plaintext, and a record of nothing in user space: only
//! where the kernel can change keys are the secrets kept that later ones are made of. Reading is `kernel_read.rs`'s.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use handoff_tls::{Control, KEY_UPDATE_ANSWER, RecordKey, Secret, Secrets, Session, State};
use handoff_tls::{Suite, Version};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::connection::{Connection, Flags};
use super::handler::Traffic;
use super::kernel_socket as socket;

/// What the kernel can, as far as that could be found out.
#[derive(Debug)]
pub(crate) struct KernelTls {
    /// `None`: it can only be tried with each client.
    found: Option<Found>,
    has_complained: AtomicBool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Each version and suite that it has for both directions.
    protections: Vec<(Version, Suite)>,
    /// Whether it takes other keys later (Linux 6.14).
    changes_keys: bool,
}

/// What the connections of a thread keep in common.
#[derive(Debug, Default)]
pub(crate) struct KernelState {
    /// By the number of the socket: what later keys are made of. In boxes: the table leaves what it gives out, or moves as it
    /// grows, where it was, and only what is dropped is zeroed.
    pub(crate) secrets: HashMap<RawFd, Box<Secrets>>,
    /// Records that the kernel has sealed since the thread last looked at how many each connection has.
    pub(crate) sealed: u64,
}

/// A session, wherever it is now.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// What of it is left in user space.
    pub(crate) session: Option<Box<Session>>,
    pub(crate) flags: Flags,
    /// The beginning of it is out: comes before anything else.
    pub(crate) unsent: Vec<u8>,
}

impl KernelTls {
    /// Finds out, with connections of this process to itself, and says what is not to be had.
    pub(crate) fn probe() -> KernelTls {
        let found = match probe() {
            Ok(found) => Some(found),
            // No network in here, which takes nothing from clients' sockets: they are not this process's own.
            Err(error) => {
                tracing::info!(
                    "giving TLS sessions to the kernel, untried: no connection to itself: {error}"
                );
                None
            }
        };
        let kernel = KernelTls { found, has_complained: AtomicBool::new(false) };
        match &kernel.found {
            Some(found) if found.protections.is_empty() => kernel.complain(),
            Some(Found { protections, changes_keys }) => {
                let missing: Vec<_> = ALL
                    .into_iter()
                    .filter_map(|(version, number)| {
                        Some((version, Suite::from_number(version, number)?))
                    })
                    .filter(|protection| !protections.contains(protection))
                    .collect();
                tracing::info!(changes_keys, ?missing, "giving TLS sessions to the kernel");
            }
            None => (),
        }
        kernel
    }

    /// Once.
    fn complain(&self) {
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the kernel has no TLS, and sessions are carried in user space: load its module \"tls\" \
                 (as root: modprobe tls; for each start: echo tls >/etc/modules-load.d/tls.conf), \
                 then start this program again"
            );
        }
    }

    /// Gives a session to the kernel; where that fails it stays in user space, or what can of it, and why is counted.
    pub(crate) fn place(
        &self,
        client: impl AsFd,
        mut session: Box<Session>,
        state: &mut KernelState,
        traffic: &mut Traffic,
    ) -> Placed {
        let client = client.as_fd();
        let protection = (session.version(), session.suite());
        let found = self.found.as_ref();
        if found.is_some_and(|found| found.protections.is_empty()) {
            traffic.tls_fallbacks.unavailable += 1;
            return Placed::in_user_space(session, traffic);
        }
        if found.is_some_and(|found| !found.protections.contains(&protection)) {
            traffic.tls_fallbacks.suite += 1;
            return Placed::in_user_space(session, traffic);
        }
        // The answer that the client has asked for is the last record with the present keys, which the kernel is not told.
        match answer_key_update(client, &mut session) {
            Ok(unsent) if unsent.is_empty() => (),
            Ok(unsent) => {
                traffic.tls_fallbacks.key_update += 1;
                return Placed { unsent, ..Placed::in_user_space(session, traffic) };
            }
            // Whoever reads from it next is told the same.
            Err(_) => return Placed::in_user_space(session, traffic),
        }
        // The receiving side first: without it the socket is as it was, attached or not.
        let attached = socket::attach(client);
        if let Err(error) =
            attached.and_then(|()| socket::set_receiving(client, &session.receiving()))
        {
            // No such module, or a kernel without it. A suite that is missing says the same, but with what is attached.
            match (attached, error) {
                (Err(_), Errno::NOENT | Errno::NOPROTOOPT) => {
                    traffic.tls_fallbacks.unavailable += 1;
                    self.complain();
                }
                (Ok(()), Errno::NOENT | Errno::INVAL) => traffic.tls_fallbacks.suite += 1,
                _ => traffic.tls_fallbacks.socket += 1,
            }
            tracing::debug!(?protection, "the kernel does not take a TLS session: {error}");
            return Placed::in_user_space(session, traffic);
        }
        let mut flags = Flags::default();
        flags.set(Flags::RECEIVES, true);
        flags.set(Flags::TLS_1_3, session.version() == Version::Tls13);
        if let Err(error) = socket::set_sending(client, &session.sending()) {
            // Each direction can be where it likes.
            traffic.tls_fallbacks.sending += 1;
            tracing::debug!(?protection, "the kernel takes half a TLS session: {error}");
            return Placed { flags, ..Placed::in_user_space(session, traffic) };
        }
        flags.set(Flags::SENDS, true);
        // Where it is not known whether other keys are taken, the same ones tell: before Linux 6.14 a second time is one too many.
        let changes_keys = || match found {
            Some(found) => found.changes_keys,
            None => socket::set_sending(client, &session.sending()).is_ok(),
        };
        if let Some(secrets) = session.secrets().filter(|_| changes_keys()) {
            state.secrets.insert(client.as_raw_fd(), Box::new(secrets));
        }
        traffic.tls_kernel += 1;
        Placed { session: None, flags, unsent: Vec::new() }
    }
}

impl Placed {
    /// Where it was.
    pub(crate) fn in_user_space(session: Box<Session>, traffic: &mut Traffic) -> Placed {
        traffic.tls_user += 1;
        Placed { session: Some(session), ..Placed::default() }
    }
}

/// Sends the KeyUpdate that is owed, if one is; what there was no room for.
fn answer_key_update(client: impl AsFd, session: &mut Session) -> Result<Vec<u8>, Errno> {
    let mut record = Vec::new();
    if session.wants_to_send() && session.seal(&[], &mut record).is_ok() {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send(client, &record, flags) {
            Ok(sent) => drop(record.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(record)
}

/// Sends the KeyUpdate that the client has asked for, or that is due, and seals with the next keys; false: there is no room, or
/// a record came that is wrong, which the next receive finds out.
pub(crate) fn update_sending<S>(
    connection: &mut Connection<S>,
    state: &mut KernelState,
) -> Result<bool, Errno> {
    let client = &connection.socket;
    let has_parted = connection.flags.has(Flags::HAS_PARTED);
    let secrets = state.secrets.get_mut(&client.as_raw_fd()).filter(|_| !has_parted);
    let Some(secrets) = secrets else {
        connection.flags.set(Flags::OWES_KEY_UPDATE, false);
        return Ok(true);
    };
    match socket::send_record(client, Control::HANDSHAKE, &KEY_UPDATE_ANSWER) {
        Ok(true) => (),
        Ok(false) => return Ok(false),
        Err(error) if socket::alert_of(error).is_some() => return Ok(false),
        Err(error) => return Err(error),
    }
    connection.flags.set(Flags::OWES_KEY_UPDATE, false);
    let changed = secrets.next_sending().ok_or(Errno::INVAL);
    let changed = changed.and_then(|next| socket::set_sending(client, &next));
    if changed.is_err() {
        // The client opens nothing more with the present ones.
        connection.flags.set(Flags::HAS_PARTED, true);
    }
    changed.map(|()| true)
}

const ALL: [(Version, u16); 6] = [
    (Version::Tls13, 0x1301),
    (Version::Tls13, 0x1302),
    (Version::Tls13, 0x1303),
    (Version::Tls12, 0xc02f),
    (Version::Tls12, 0xc030),
    (Version::Tls12, 0xcca8),
];

/// Fails where there can be no connections.
fn probe() -> io::Result<Found> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut found = Found::default();
    for (version, number) in ALL {
        let client = TcpStream::connect(listener.local_addr()?)?;
        // Its other end.
        let _accepted = listener.accept()?;
        let Some(session) = example(version, number) else { continue };
        match socket::attach(&client) {
            Ok(()) => (),
            Err(error) => {
                tracing::debug!("TCP_ULP: {error}");
                return Ok(found);
            }
        }
        let taken = socket::set_receiving(&client, &session.receiving())
            .and_then(|()| socket::set_sending(&client, &session.sending()));
        match taken {
            Ok(()) => found.protections.push((version, session.suite())),
            Err(error) => tracing::debug!(?session, "TLS_RX, TLS_TX: {error}"),
        }
        if version == Version::Tls13 && taken.is_ok() && !found.changes_keys {
            let mut next = session.secrets();
            let next: Option<RecordKey> = next.as_mut().and_then(Secrets::next_sending);
            found.changes_keys =
                next.is_some_and(|next| socket::set_sending(&client, &next).is_ok());
        }
    }
    Ok(found)
}

/// A session that nobody has.
fn example(version: Version, suite: u16) -> Option<Session> {
    Session::new(&example_state(version, suite)?).ok()
}

fn example_state(version: Version, suite: u16) -> Option<State> {
    let len = Suite::from_number(version, suite)?.secret_len(version);
    let secret = Secret::new([0x5a; 48].get(..len)?)?;
    Some(State {
        version,
        suite,
        rx_seq: 0,
        tx_seq: 0,
        rx_secret: secret.clone(),
        tx_secret: secret,
        owes_key_update: false,
    })
}

#[cfg(test)]
mod tests;
