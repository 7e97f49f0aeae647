//! `ws_handoff_tls_trust`: which backends may have TLS sessions. The rules themselves are handoff-protocol's.
//!
//! Asked once a backend is connected to: the connection tells who listens, for each client, and the path how a socket gets
//! there, as of no more than a second ago (`recent`). Neither is enough. Under socket activation root listens for everybody, so that another service of root's in the
//! place of the backend's would do; and whoever changes the owner of a file does not change who listens at it.
//!
//! Nothing here waits for longer than connect(2) has, which has just walked along the same path.

use core::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use handoff_protocol::trust::{self, Doubt, Entry, Files, Kind, TrustedUsers, Walk};
use nginx_sys::{NGX_LOG_EMERG, NGX_LOG_INFO, NGX_LOG_WARN, ngx_command_t, ngx_conf_t};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::ngx_conf_log_error;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::recent;
use super::refusal::{Reason, Refusal};
use crate::conf::LocationConf;
use crate::nginx::{self, Request, Upstream, listener_uid};

/// `ws_handoff_tls_trust USER …`
pub unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the location's structure made by `create_loc_conf`, and nobody else refers to it now.
    let conf = unsafe { &mut *conf.cast::<LocationConf>() };
    // SAFETY: nginx's configuration context, for this and the call below.
    let [_, names @ ..] = (unsafe { nginx::arguments(cf) }) else { return NGX_CONF_ERROR };

    if !conf.tls_trust.is_unset() {
        return c"is duplicate".as_ptr().cast_mut();
    }
    for name in names {
        // SAFETY: the words of a directive end with a NUL.
        let Some(uid) = uid_of(unsafe { CStr::from_ptr(name.data.cast()) }) else {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "there is no user \"{}\" in \"ws_handoff_tls_trust\" directive",
                name
            );
            return NGX_CONF_ERROR;
        };
        // SAFETY: see above.
        if unsafe { conf.tls_trust.push(cf, uid) }.is_err() {
            return NGX_CONF_ERROR;
        }
    }
    NGX_CONF_OK
}

/// A user by name, or else by number, as chown(1) has it.
fn uid_of(name: &CStr) -> Option<u32> {
    // SAFETY: a string. nginx asks in the same way for its `user`, while nothing else runs.
    let known = unsafe { libc::getpwnam(name.as_ptr()).as_ref() };
    match known {
        Some(known) => Some(known.pw_uid),
        // -1 is no user: chown(2) takes it for "as it is".
        None => name.to_str().ok()?.parse().ok().filter(|uid| *uid != u32::MAX),
    }
}

/// Who is shown in the place of users that this user namespace does not know.
static AMBIGUOUS: OnceLock<Option<u32>> = OnceLock::new();

/// Finds out which users can be told apart; once, while the configuration is read.
pub fn prepare() {
    recent::forget();
    AMBIGUOUS.get_or_init(|| {
        let (mut map, mut overflow) = ([0; 256], [0; 16]);
        trust::ambiguous_uid(
            read(c"/proc/self/uid_map", &mut map),
            read(c"/proc/sys/kernel/overflowuid", &mut overflow),
        )
    });
}

/// The beginning of a file; nothing if it cannot be read.
fn read<'r>(path: &CStr, room: &'r mut [u8]) -> &'r [u8] {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let len = file.and_then(|file| rustix::io::read(file, &mut *room)).unwrap_or(0);
    room.get(..len).unwrap_or_default()
}

/// Whether the peer that has just been connected to may have the client's TLS session. If not, that has been logged.
pub fn is_trusted(r: Request, u: Upstream) -> bool {
    // `prepare` has run wherever sessions are handed over.
    let (Some(conf), Some(ambiguous)) = (r.conf(), AMBIGUOUS.get()) else { return false };
    let users = TrustedUsers {
        own: rustix::process::geteuid().as_raw(),
        named: conf.tls_trust.as_slice(),
        ambiguous: *ambiguous,
    };
    let path = u.peer_path();
    let now = nginx::now();
    if !recent::has(conf, path, now) {
        let mut room = [0; BASE];
        let base = if path.starts_with(b"/") { &[] } else { working_directory(&mut room) };
        let mut walk = Walk::new(base, path);
        if let Err(doubt) = walk.check(&Disk, |uid| users.trusts(uid)) {
            log_doubt(r, conf, walk.place(), doubt);
            return false;
        }
        recent::remember(conf, path, now);
    }
    let listener = u.connection().and_then(|connection| listener_uid(connection.fd()));
    if listener.is_some_and(|uid| users.trusts(uid)) {
        return true;
    }
    // getsockopt(2) does not fail on a connected Unix socket; if it did, nobody would be identified.
    log_doubt(r, conf, path, Doubt::Listener(listener.unwrap_or(u32::MAX)));
    false
}

fn log_doubt(r: Request, conf: &LocationConf, place: &[u8], doubt: Doubt<Errno>) {
    // Clients cause it at any rate, but whoever configured it has to hear of it.
    let level = if conf.is_distrust_known.replace(true) { NGX_LOG_INFO } else { NGX_LOG_WARN };
    let (reason, place) = (Reason(Refusal::Trust), place.escape_ascii());
    log_errno!(level, r.log(), 0, "the TLS session stays in nginx: {reason}, \"{place}\" {doubt}");
}

/// The longest path of a working directory, in bytes, for which there is room.
const BASE: usize = 512;

/// Where a relative path begins; empty if that is too long.
fn working_directory(room: &mut [u8; BASE]) -> &[u8] {
    // SAFETY: writes at most so many bytes, a NUL at their end; or returns null.
    if unsafe { libc::getcwd(room.as_mut_ptr().cast(), room.len()) }.is_null() {
        return &[];
    }
    room.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The file system as nginx's worker sees it.
struct Disk;

impl Files for Disk {
    type Error = Errno;

    fn look(&self, path: &CStr) -> Result<Entry, Errno> {
        let stat = rustix::fs::lstat(path)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::SymbolicLink,
            FileType::Socket => Kind::Socket,
            _ => Kind::Other,
        };
        Ok(Entry { kind, uid: stat.st_uid, mode: stat.st_mode & 0o7777 })
    }

    fn read_link(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::readlinkat_raw(rustix::fs::CWD, path, target)
    }
}
