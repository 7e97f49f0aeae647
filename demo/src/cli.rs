//! Command line and environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Opens WebSockets for the demo page, hundreds at a time, and tells how much memory nginx occupies.
///
/// nginx passes /demo/ on to it. A browser cannot hold as many WebSockets itself.
#[derive(Debug, Parser)]
#[command(
    name = "ws-handoff-demo",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = "HTTP:\n  \
    GET    /demo/state    nginx's memory, and the clients that are open, by way\n  \
    POST   /demo/clients?way=ws_handoff|proxy_pass&count=N    opens clients until N (at most 500) are open that way\n  \
    DELETE /demo/clients  closes all\n  \
    GET    /demo/metrics  the same as /demo/state, for Prometheus\n  \
    GET    /demo/healthz  200\n\n\
POST and DELETE need the header `X-Demo: 1`, which pages of other sites cannot send."
)]
pub(crate) struct Arguments {
    /// Where to take the page's requests, which nginx passes on: unix:PATH (created with mode 0660) or ADDR:PORT
    #[arg(long, env = "WS_HANDOFF_DEMO_LISTEN", value_name = "ADDRESS", value_parser = parse_listen)]
    pub(crate) listen: ListenAddress,

    /// nginx, to open clients at: /ws/echo (handed over) and /proxy/echo (proxied)
    #[arg(long, env = "WS_HANDOFF_DEMO_TARGET", value_name = "HOST:PORT", value_parser = parse_target)]
    pub(crate) target: String,

    /// nginx's pid file: the memory of this process and of its children is shown
    #[arg(long, env = "WS_HANDOFF_DEMO_NGINX_PID_FILE", value_name = "PATH")]
    pub(crate) nginx_pid_file: PathBuf,
}

/// Where the program listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn parse_listen(text: &str) -> Result<ListenAddress, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("expected a path after unix:".to_owned()),
        Some(path) => Ok(ListenAddress::Unix(path.into())),
        None => text.parse().map(ListenAddress::Tcp).map_err(|_| {
            "expected an address with a port, such as 127.0.0.1:8081, or unix:PATH".to_owned()
        }),
    }
}

/// The text becomes the `Host` of the handshakes as it is.
fn parse_target(text: &str) -> Result<String, String> {
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[:]".contains(&byte);
    match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty()
                && host.bytes().all(is_host)
                && port.parse().is_ok_and(|port: u16| port > 0) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("expected a host and a port, such as 127.0.0.1:8080".to_owned()),
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

    #[test]
    fn it_listens_on_tcp_or_unix() {
        let unix = parse_listen("unix:demo.sock").expect("a path");
        assert_eq!(unix, ListenAddress::Unix("demo.sock".into()));
        assert_eq!(unix.to_string(), "unix:demo.sock");
        assert!(matches!(parse_listen("127.0.0.1:8081"), Ok(ListenAddress::Tcp(_))));
        assert!(parse_listen("unix:").is_err());
        assert!(parse_listen("8081").is_err());
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for good in ["127.0.0.1:8080", "[::1]:80", "nginx:8080"] {
            assert_eq!(parse_target(good), Ok(good.to_owned()));
        }
        for bad in
            ["", "nginx", ":80", "nginx:", "nginx:0", "nginx:99999", "http://nginx:80", "a b:1"]
        {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
