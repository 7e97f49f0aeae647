//! The socket on which nginx reaches this program.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::cli::ListenAddress;

/// A TCP socket, or a Unix socket whose file is removed with it.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("listen on {address}: {source}")]
    System { address: String, source: io::Error },
    #[error("{}: another process listens there; stop it, or give another --listen", .0.display())]
    InUse(PathBuf),
    #[error("{}: exists and is no socket; remove it, or give another --listen", .0.display())]
    NotASocket(PathBuf),
}

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    /// Must be called within the runtime. The mode of a Unix socket is what the umask leaves of 0777.
    pub(crate) fn bind(address: &ListenAddress) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::System { address: address.to_string(), source };
        match address {
            ListenAddress::Tcp(tcp) => {
                let socket = if tcp.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
                let listen = |socket: TcpSocket| {
                    // Connections of an earlier run may still be in TIME_WAIT.
                    socket.set_reuseaddr(true)?;
                    socket.bind(*tcp)?;
                    socket.listen(BACKLOG)
                };
                socket.and_then(listen).map(Listener::Tcp).map_err(failed)
            }
            ListenAddress::Unix(path) => {
                remove_stale(path, failed)?;
                let listener = StdUnixListener::bind(path).map_err(failed)?;
                let file = SocketFile::of(path).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = UnixListener::from_std(listener).map_err(failed)?;
                Ok(Listener::Unix { listener, _file: file })
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
            Listener::Unix { listener, .. } => Box::new(listener.accept().await?.0),
        })
    }
}

const BACKLOG: u32 = 128;

/// Removes the socket that a process left behind when it was killed; nobody answers there any more.
fn remove_stale(path: &Path, failed: impl Fn(io::Error) -> ListenError) -> Result<(), ListenError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => (),
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
    }
}

/// Removes a socket's file when dropped, unless the name is another one's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        let made = path.symlink_metadata()?;
        Ok(SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(found) = self.path.symlink_metadata() {
            if (found.dev(), found.ino()) == (self.device, self.inode) {
                let _ = std::fs::remove_file(&self.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("demo.sock");
        let address = ListenAddress::Unix(path.clone());

        drop(StdUnixListener::bind(&path).expect("binds"));
        assert!(path.exists(), "closing a socket leaves its file");
        let listener = Listener::bind(&address).expect("replaces it");
        assert!(matches!(Listener::bind(&address), Err(ListenError::InUse(_))));
        drop(listener);
        assert!(!path.exists(), "it removes its own");

        std::fs::write(&path, "precious").expect("writes");
        assert!(matches!(Listener::bind(&address), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("reads"), b"precious");
    }
}
