//! The listening socket's file: created so that it appears at its path complete, for one process at a time, and removed
//! only by the process that created it.
//!
//! It never exists with a mode wider than the final one. umask(2) would do that too, but is shared by all threads
//! of the process. Instead the socket itself is given its mode before bind(2): Linux creates the file with
//! the socket inode's permission bits, less the umask (`unix_bind_bsd`).

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{self, FchmodatFlags, Mode};
use nix::unistd::{self, Gid};

use crate::error::{BindError, system};
use crate::options::{Group, Options};

/// A socket's file that this process serves: removed at drop, if it is still the one that was created.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Released last, when the file is gone: the next process then finds a free name. `None`: it may take over.
    lock: Option<Flock<File>>,
}

impl SocketFile {
    /// Creates a listening socket at `options.path`, in place of a socket that no process serves.
    pub(crate) fn create(options: &Options) -> Result<(UnixListener, SocketFile), BindError> {
        let path = &options.path;
        if path.as_os_str().len() > SUN_PATH_MAX {
            return Err(BindError::TooLong(path.clone()));
        }
        let gid = options.group.as_ref().map(|group| resolve(group, path)).transpose()?;

        let lock = lock(path, gid)?;
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindError::NotASocket(path.clone()));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BindError::System { call: "lstat", path: path.clone(), source: error });
            }
            _ => (),
        }

        let socket = socket::socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .map_err(|errno| system("socket", path, errno))?;
        stat::fchmod(&socket, Mode::from_bits_truncate(0o600))
            .map_err(|errno| system("fchmod", path, errno))?;
        let temporary = Temporary::bind(&socket, path)?;

        let created =
            temporary.0.symlink_metadata().map_err(|source| temporary.failed("lstat", source))?;
        let exposed = created.mode() & 0o177;
        if exposed != 0 {
            return Err(BindError::Exposed {
                path: temporary.0.clone(),
                mode: created.mode() & 0o7777,
            });
        }
        if let Some(gid) = gid {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            unistd::fchownat(AT_FDCWD, &temporary.0, None, Some(gid), flags)
                .map_err(|errno| temporary.failed("chown to the group asked for:", errno.into()))?;
        }
        chmod(&temporary.0, Mode::from_bits_truncate(options.mode & 0o777))
            .map_err(|errno| temporary.failed("chmod", errno.into()))?;
        let backlog = i32::try_from(options.backlog)
            .ok()
            .and_then(|backlog| Backlog::new(backlog).ok())
            .unwrap_or(Backlog::MAXCONN);
        socket::listen(&socket, backlog)
            .map_err(|errno| temporary.failed("listen", errno.into()))?;
        temporary.rename(path)?;

        let file = SocketFile {
            path: path.clone(),
            device: created.dev(),
            inode: created.ino(),
            lock: Some(lock),
        };
        Ok((UnixListener::from(socket), file))
    }

    /// Lets another process put its socket in this one's place, which stays until then.
    pub(crate) fn let_go(&mut self) {
        self.lock = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.lock.is_none() {
            // Another process may be about to replace it.
            self.lock = lock(&self.path, None).ok();
            if self.lock.is_none() {
                return;
            }
        }
        if let Ok(found) = self.path.symlink_metadata() {
            if (found.dev(), found.ino()) == (self.device, self.inode) {
                let _ = std::fs::remove_file(&self.path);
            }
        }
    }
}

/// chmod(2) that follows no symbolic link. The C libraries do it through /proc, older ones not at all.
fn chmod(path: &Path, mode: Mode) -> Result<(), Errno> {
    match stat::fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            stat::fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)
        }
        result => result,
    }
}

/// `sun_path` less its terminating NUL.
const SUN_PATH_MAX: usize = 107;

/// The lock file stays: removing it would let two processes lock two files of the same name. It is the socket's group's
/// as well: after a run as root, a user who may give a socket to that group can start the program.
fn lock(path: &Path, gid: Option<Gid>) -> Result<Flock<File>, BindError> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let lock = PathBuf::from(name);
    let failed = |call, source| BindError::System { call, path: lock.clone(), source };

    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock)
            .map_err(|source| failed("open", source))?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                let owner = owner.trim();
                let is_pid = !owner.is_empty()
                    && owner.len() < 11
                    && owner.bytes().all(|b| b.is_ascii_digit());
                return Err(BindError::Served { lock, owner: is_pid.then(|| owner.to_owned()) });
            }
            Err((_, errno)) => return Err(failed("flock", errno.into())),
        };
        // Somebody who cleans up the directory may have removed it between open and flock.
        let opened = held.metadata().map_err(|source| failed("fstat", source))?;
        match lock.symlink_metadata() {
            Ok(named) if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) => (),
            _ => continue,
        }
        if gid.is_some() && unistd::fchown(&*held, None, gid).is_ok() {
            let _ = stat::fchmod(&*held, Mode::from_bits_truncate(0o660));
        }
        let _ = held.set_len(0);
        let _ = held.rewind();
        let _ = writeln!(held, "{}", std::process::id());
        return Ok(held);
    }
}

fn resolve(group: &Group, path: &Path) -> Result<Gid, BindError> {
    let name = match group {
        Group::Id(gid) => return Ok(Gid::from_raw(*gid)),
        Group::Name(name) => name,
    };
    if let Some(group) = unistd::Group::from_name(name).map_err(|e| system("getgrnam", path, e))? {
        return Ok(group.gid);
    }
    match unistd::User::from_name(name).map_err(|e| system("getpwnam", path, e))? {
        Some(user) => Ok(user.gid),
        None => Err(BindError::UnknownGroup(name.clone())),
    }
}

/// The name that the socket has until it is complete; removed unless renamed.
struct Temporary(PathBuf);

impl Temporary {
    /// Binds to a free name in `path`'s directory: rename(2) replaces within one file system only.
    fn bind(socket: &OwnedFd, path: &Path) -> Result<Temporary, BindError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);

        if path.file_name().is_none() {
            return Err(BindError::NoFileName(path.to_owned()));
        }
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = path.with_file_name(format!(".{:x}.{number:x}", std::process::id()));
            let address = UnixAddr::new(&name).map_err(|_| BindError::TooLong(path.to_owned()))?;
            match socket::bind(socket.as_fd().as_raw_fd(), &address) {
                Ok(()) => return Ok(Temporary(name)),
                // Left behind by a process that had this pid and was killed here, or not a socket: another number.
                Err(Errno::EADDRINUSE) if number < u32::MAX => continue,
                Err(errno) => return Err(system("bind", &name, errno)),
            }
        }
    }

    fn rename(mut self, path: &Path) -> Result<(), BindError> {
        std::fs::rename(&self.0, path).map_err(|source| self.failed("rename", source))?;
        // Whoever has the old name from now on is somebody else.
        self.0 = PathBuf::new();
        Ok(())
    }

    fn failed(&self, call: &'static str, source: io::Error) -> BindError {
        BindError::System { call, path: self.0.clone(), source }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
