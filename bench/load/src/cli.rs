//! Command line.

use std::net::{Ipv4Addr, SocketAddrV4};

use clap::{Args, Parser, Subcommand};

use crate::tls::Trust;

/// Opens WebSockets at a server, exchanges messages whose contents it checks, and prints figures as JSON.
///
/// Exit status 1 if any connection failed, or any message came wrong, twice, out of order or not at all.
#[derive(Debug, Parser)]
#[command(name = "ws-handoff-load", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

/// Where the clients connect to, and from.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// Server
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) connect: SocketAddrV4,

    /// The request's target
    #[arg(long, value_name = "PATH", default_value = "/ws/echo")]
    pub(crate) path: String,

    /// Speak TLS with the server, whose certificate is in this file (PEM)
    #[arg(long, value_name = "FILE", value_parser = Trust::load)]
    pub(crate) tls: Option<Trust>,

    /// First address that clients connect from
    #[arg(long, value_name = "ADDR", default_value = "127.0.1.1")]
    pub(crate) source: Ipv4Addr,

    /// How many addresses, upwards of the first, take turns: each has some 28,000 ports
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) sources: u32,
}

/// What the clients do.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Each client sends messages and expects each of them back
    Echo(EchoOptions),
    /// One client sends to a room in which all are
    Fanout(FanoutOptions),
    /// Clients stay silent between commands
    ///
    /// Commands, each a line on standard input, answered by a line of JSON when done: `open N` (until there are N), `visit N`
    /// (as many more come, and each says goodbye at once), `echo SIZE` (every client sends a message and awaits it), `send SIZE` (the first client sends one to its room),
    /// `receive SIZE` (every client awaits the room's next). End of input closes all.
    Idle(IdleOptions),
}

/// Of `echo`.
#[derive(Debug, Args)]
pub(crate) struct EchoOptions {
    #[command(flatten)]
    pub(crate) traffic: Traffic,

    /// Threads that the clients are spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,

    /// Messages a second, of all clients in turn, instead of as many as come back: latency counts from when each was due
    #[arg(long, value_name = "N", conflicts_with = "messages", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,

    /// Ends after so many messages altogether, all of them measured, instead of --seconds
    #[arg(long, value_name = "N")]
    pub(crate) messages: Option<u64>,
}

/// Of `fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutOptions {
    #[command(flatten)]
    pub(crate) traffic: Traffic,
}

/// What is sent, and how long.
#[derive(Debug, Args)]
pub(crate) struct Traffic {
    /// Clients
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,

    /// Bytes of a message's payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub(crate) size: u32,

    /// Messages that each sender has in flight
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) depth: u32,

    /// Text messages; else binary
    #[arg(long)]
    pub(crate) text: bool,

    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,

    /// Traffic before what is measured
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = parse_seconds)]
    pub(crate) warm_up: f64,

    /// Processes (a list with commas) whose CPU time while measuring is printed too
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(crate) cpu_of: Vec<u32>,
}

/// Of `idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleOptions {
    /// Handshakes, and echoes, under way at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) concurrency: u32,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, such as 2.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
