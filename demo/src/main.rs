//! The program `ws-handoff-demo`: what the demo page needs from the machine that nginx runs on.
//!
//! A browser holds 255 WebSockets at most, so [`clients`] opens the page's hundreds here; [`memory`] reads what nginx
//! occupies from /proc. [`api`] offers both over HTTP, on the socket of [`listen`], to nginx.

mod api;
mod cli;
mod clients;
mod listen;
mod memory;
mod metrics;
#[cfg(test)]
mod tests;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Arguments;
use crate::clients::Clients;
use crate::listen::{ListenError, Listener};
use crate::memory::Nginx;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before there is a second thread: the socket is never more open than 0660, not even for a moment.
    umask(Mode::from_bits_truncate(0o117));
    raise_descriptors();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ws-handoff-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What keeps the program from starting.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("starting the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("handling signals: {0}")]
    Signals(#[source] io::Error),
}

fn run(arguments: Arguments) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
        let listener = Listener::bind(&arguments.listen)?;
        let state = Arc::new(api::Demo {
            clients: Arc::new(Clients::new(arguments.target)),
            nginx: Nginx::new(arguments.nginx_pid_file),
        });
        eprintln!("ws-handoff-demo: listening on {}", arguments.listen);
        tokio::select! {
            () = api::serve(&listener, state) => (),
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        Ok(())
    })
}

/// Each client is a descriptor, and a soft limit of 1024 is common. Where raising it fails, opening clients will tell.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < hard {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}
