//! The log: tracing, to standard error, as text or JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::cli::{Arguments, LogFormat};

/// Starts logging as the arguments say. Only the first call in a process has an effect.
pub fn init_logging(arguments: &Arguments) {
    let filter =
        EnvFilter::try_new(&arguments.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match arguments.log_format {
        LogFormat::Text => {
            builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
