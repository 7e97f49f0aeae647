//! The program `ws-handoff-load`: many WebSocket clients in one process, for the measurements in bench/.
//!
//! It shares its machine with the servers that it measures, so what it spends on a message has to be little beside what
//! they spend: plain sockets and an epoll, contents that are compared where they were read. Everything that comes is
//! checked byte for byte; a figure with errors is printed too, and makes the exit status 1.

#![forbid(unsafe_code)]

mod cli;
mod connection;
mod contents;
mod cpu;
mod echo;
mod failures;
mod fanout;
mod histogram;
mod idle;
mod open;
mod pace;
mod poller;
mod receiver;
mod tls;
mod transport;
mod window;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cli::{Arguments, Mode};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    raise_descriptors();
    let outcome = match &arguments.mode {
        Mode::Echo(options) => echo::run(&arguments.target, options),
        Mode::Fanout(options) => fanout::run(&arguments.target, options),
        Mode::Idle(options) => idle::run(&arguments.target, options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ws-handoff-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Each client is a descriptor. Where raising the limit fails, opening clients will tell.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < hard {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}
