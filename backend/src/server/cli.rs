//! Command line and environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

/// Serves WebSocket clients whose sockets nginx hands over (directive `ws_handoff`).
///
/// Clients come over the Unix socket (--socket) as their own sockets, or through it where nginx can only tunnel, and over
/// TCP (--listen) like those of any WebSocket server. Under socket activation (LISTEN_FDS) the sockets that were passed
/// are served as well.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "ws-handoff-backend",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = "Signals:\n  \
    SIGTERM, SIGINT  Drain: offers are refused with 503 and the listening sockets go away, so that nginx takes the \
    next peer; clients are closed with 1001, 100 a second or faster, within 4/5 of --drain-timeout. Ends when the last one \
    has gone, or at the timeout. A second signal ends at once.\n\n\
Refusals:\n  \
    503  over --max-connections, too many clients who have not taken their 101 yet, or while draining (nginx tries its \
    next peer)\n  \
    429  over --max-connections-per-ip\n  \
    404  no such path in --app demo\n  \
    403  not among --allow-uid\n\n\
Close codes:\n  \
    1001 draining, or idle for --idle-timeout   1002 protocol error   1007 text that is not UTF-8\n  \
    1008 too slow a receiver, or over --max-message-rate   1009 message over --max-message-size"
)]
pub struct Arguments {
    /// Unix socket to take offers from nginx on; a process that already serves it is an error
    #[arg(long, env = "WS_HANDOFF_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Permission bits of the socket, octal: connecting takes write permission
    #[arg(long, env = "WS_HANDOFF_SOCKET_MODE", value_name = "MODE", default_value = "0660",
          value_parser = parse_mode)]
    pub socket_mode: u32,

    /// Group of the socket: a name, a number, or a user whose primary group it is (`nobody`)
    #[arg(long, env = "WS_HANDOFF_SOCKET_GROUP", value_name = "GROUP")]
    pub socket_group: Option<String>,

    /// Only processes of this user may connect to the socket (repeatable, or a list with commas); default: whoever the
    /// socket's mode and group let in. Then TLS sessions (wss) are taken from root and this program's own user alone: name
    /// nginx's
    #[arg(long, env = "WS_HANDOFF_ALLOW_UID", value_name = "UID", value_delimiter = ',')]
    pub allow_uid: Vec<u32>,

    /// TCP address to serve the same application on natively. X-Real-IP counts there only from this host, where it is
    /// believed of any process that can connect over loopback, a proxy that passes on its clients' own X-Real-IP
    /// included
    #[arg(long, env = "WS_HANDOFF_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,

    /// Address for /metrics (Prometheus), /healthz and /readyz (503 while draining): ADDR:PORT or unix:PATH
    #[arg(long, env = "WS_HANDOFF_ADMIN", value_name = "ADDRESS", value_parser = parse_admin)]
    pub admin: Option<AdminAddress>,

    /// What to do with the clients
    #[arg(long, env = "WS_HANDOFF_APP", value_enum, default_value_t = AppKind::Echo)]
    pub app: AppKind,

    /// How clients are served
    #[arg(long, env = "WS_HANDOFF_ENGINE", value_enum, default_value_t = EngineKind::Parked)]
    pub engine: EngineKind,

    /// Who carries on the TLS sessions that nginx hands over (`ws_handoff_tls on`); with --engine tasks nginx keeps them
    #[arg(long, env = "WS_HANDOFF_TLS", value_name = "WHERE", value_enum, default_value_t = TlsKind::User)]
    pub tls: TlsKind,

    /// Compress messages for clients that offer permessage-deflate (RFC 7692), without context takeover
    /// (--engine parked)
    #[arg(long, env = "WS_HANDOFF_COMPRESSION")]
    pub compression: bool,

    /// Subprotocol to speak (repeatable, or a list with commas), most wanted first: the first that a client offers
    /// is chosen; one that offers none of them is accepted without. Empty: none
    #[arg(long, env = "WS_HANDOFF_SUBPROTOCOL", value_name = "NAME", value_delimiter = ',',
          default_values_t = ["chat".to_owned(), "echo".to_owned()], value_parser = parse_token)]
    pub subprotocol: Vec<String>,

    /// Threads that serve clients; default: one per core
    #[arg(long, env = "WS_HANDOFF_WORKERS", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// Clients at a time; more are refused with 503. Default, and at most: what RLIMIT_NOFILE, raised to its hard limit,
    /// leaves after some headroom
    #[arg(long, env = "WS_HANDOFF_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,

    /// Clients at a time from one address (nginx's X-Real-IP); more are refused with 429. 0: no limit
    #[arg(long, env = "WS_HANDOFF_MAX_CONNECTIONS_PER_IP", value_name = "N", default_value_t = 0)]
    pub max_connections_per_ip: u32,

    /// Longest message that a client may send, all its fragments together; k, m: KiB, MiB
    #[arg(long, env = "WS_HANDOFF_MAX_MESSAGE_SIZE", value_name = "BYTES", default_value = "1m",
          value_parser = parse_size)]
    pub max_message_size: usize,

    /// Messages that a client may send in a second, and in a burst; more close with 1008. 0: no limit
    /// (--engine parked)
    #[arg(long, env = "WS_HANDOFF_MAX_MESSAGE_RATE", value_name = "N", default_value_t = 0)]
    pub max_message_rate: u32,

    /// Bytes that may wait for one client that takes none; one message may exceed it. k, m: KiB, MiB (--engine parked)
    #[arg(long, env = "WS_HANDOFF_MAX_QUEUE", value_name = "BYTES", default_value = "1m", value_parser = parse_size)]
    pub max_queue: usize,

    /// What becomes of a client for which more would wait than --max-queue: closed with that code, or, in a room,
    /// it misses messages (--engine parked)
    #[arg(long, env = "WS_HANDOFF_SLOW_RECEIVER", value_name = "WHAT", value_enum,
          default_value_t = SlowReceiverKind::Close1008)]
    pub slow_receiver: SlowReceiverKind,

    /// Ping a client from which nothing came for this many seconds. 0: never
    #[arg(long, env = "WS_HANDOFF_PING_INTERVAL", value_name = "S", default_value_t = 30)]
    pub ping_interval: u32,

    /// Close a client from which nothing came, not even a pong, for this many seconds. 0: never
    #[arg(long, env = "WS_HANDOFF_IDLE_TIMEOUT", value_name = "S", default_value_t = 120)]
    pub idle_timeout: u32,

    /// Hang up on a client that takes no byte of a message for this many seconds
    #[arg(long, env = "WS_HANDOFF_SEND_TIMEOUT", value_name = "S", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub send_timeout: u32,

    /// How long to take over ending, in seconds, after SIGTERM or SIGINT
    #[arg(long, env = "WS_HANDOFF_DRAIN_TIMEOUT", value_name = "S", default_value_t = 30)]
    pub drain_timeout: u32,

    /// Format of the log, which goes to standard error
    #[arg(long, env = "WS_HANDOFF_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// error, warn, info, debug or trace, or a filter such as `info,ws_handoff_backend::server=debug`
    #[arg(long, env = "WS_HANDOFF_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
          value_parser = parse_filter)]
    pub log_level: String,
}

impl Arguments {
    /// What this process was started with. An environment variable that is empty counts as one that is not set, as
    /// `${X:-}` in a compose file gives it. Ends the process where clap does: at `--help`, and at an error.
    pub fn from_process() -> Arguments {
        let command = Arguments::command().mut_args(|argument| {
            let is_empty =
                argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if is_empty { argument.env(None::<&'static str>) } else { argument }
        });
        Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

/// How clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// A task and a fastwebsockets::WebSocket each: kilobytes of memory
    Tasks,
    /// An epoll for each core: tens of bytes of memory each
    Parked,
}

/// Who carries TLS sessions on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsKind {
    /// This program
    User,
    /// Linux (module `tls`) where it can, this program where not (--engine parked)
    Kernel,
    /// nginx, which tunnels
    Off,
}

/// What becomes of a client that takes too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SlowReceiverKind {
    /// Policy violation
    #[value(name = "1008")]
    Close1008,
    /// Try again later
    #[value(name = "1013")]
    Close1013,
    /// Messages to its room are dropped; one of its own closes it with 1008
    Drop,
}

/// The applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AppKind {
    /// Sends each message back
    Echo,
    /// Logs each text, and sends one every five seconds
    Hello,
    /// Sends each message to everyone in the room named by the URI's path, the sender included
    Broadcast,
    /// By the path's end: .../echo, .../hello, .../rooms/NAME (broadcast); else 404
    Demo,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

/// Where the admin endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket's path, created with mode 0660.
    Unix(PathBuf),
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected permission bits in octal, 0 to 0777".to_owned()),
    }
}

fn parse_admin(text: &str) -> Result<AdminAddress, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("expected a path after unix:".to_owned()),
        Some(path) => Ok(AdminAddress::Unix(path.into())),
        None => text.parse().map(AdminAddress::Tcp).map_err(|_| {
            "expected an address with a port, such as 127.0.0.1:9090, or unix:PATH".to_owned()
        }),
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    // A frame's length must stay clear of overflow where headers are added to it.
    const MOST: usize = 1 << 30;
    digits
        .parse()
        .ok()
        .and_then(|number: usize| number.checked_mul(unit))
        .filter(|size| (1..=MOST).contains(size))
        .ok_or_else(|| "expected 1 to 1073741824 bytes, such as 65536, 64k or 1m".to_owned())
}

fn parse_token(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.bytes().all(is_token) {
        Ok(text.to_owned())
    } else {
        Err("expected a token: letters, digits and !#$%&'*+-.^_`|~".to_owned())
    }
}

fn parse_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn modes_and_sizes_are_read_as_written() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert!(parse_mode("0999").is_err());
        assert!(parse_mode("1777").is_err());
        assert_eq!(parse_size("65536"), Ok(65536));
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("2M"), Ok(2 << 20));
        assert!(parse_size("0").is_err());
        assert!(parse_size("99999999999999999999m").is_err());
        assert!(parse_size("").is_err());
    }

    #[test]
    fn an_admin_address_is_tcp_or_unix() {
        assert_eq!(parse_admin("unix:/run/a"), Ok(AdminAddress::Unix("/run/a".into())));
        assert!(matches!(parse_admin("[::1]:9090"), Ok(AdminAddress::Tcp(_))));
        assert!(parse_admin("9090").is_err());
        assert!(parse_admin("unix:").is_err());
    }
}
