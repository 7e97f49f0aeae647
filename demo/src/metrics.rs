//! What nginx cannot tell Prometheus of itself, as text: its memory.

use std::fmt::Write;

use crate::clients::Open;
use crate::memory::Memory;

/// Prometheus's text format, version 0.0.4. Without an nginx there is nothing to say of its memory.
pub(crate) fn text(nginx: Option<Memory>, clients: Open) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, samples: &[(&str, u64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    if let Some(Memory { memory_bytes, processes }) = nginx {
        gauge(
            "ws_handoff_demo_nginx_memory_bytes",
            "Anonymous memory of nginx's processes: heap and stacks.",
            &[("", memory_bytes)],
        );
        let processes = processes as u64;
        let help = "Processes of nginx: the master and its children.";
        gauge("ws_handoff_demo_nginx_processes", help, &[("", processes)]);
    }
    gauge(
        "ws_handoff_demo_clients",
        "WebSockets that the demo holds open itself.",
        &[
            ("{way=\"ws_handoff\"}", clients.ws_handoff as u64),
            ("{way=\"proxy_pass\"}", clients.proxy_pass as u64),
        ],
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: Open = Open { ws_handoff: 2, proxy_pass: 3 };

    #[test]
    fn nginx_and_clients_are_told() {
        let nginx = Some(Memory { memory_bytes: 4096, processes: 3 });
        let text = text(nginx, CLIENTS);
        for line in [
            "# TYPE ws_handoff_demo_nginx_memory_bytes gauge\n",
            "\nws_handoff_demo_nginx_memory_bytes 4096\n",
            "\nws_handoff_demo_nginx_processes 3\n",
            "\nws_handoff_demo_clients{way=\"ws_handoff\"} 2\n",
            "\nws_handoff_demo_clients{way=\"proxy_pass\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn without_an_nginx_it_has_no_memory() {
        assert!(!text(None, CLIENTS).contains("nginx"));
    }
}
