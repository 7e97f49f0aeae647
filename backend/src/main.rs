//! The program `ws-handoff-backend`: see [`ws_handoff_backend::server`].

use std::process::ExitCode;

use ws_handoff_backend::server::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::from_process();
    server::init_logging(&arguments);
    match server::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
