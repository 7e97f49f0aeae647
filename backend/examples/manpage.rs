//! Writes the man page ws-handoff-backend(1), made of what `--help` says, to standard output.
//!
//! ```sh
//! cargo run --release --package ws-handoff-backend --example manpage >ws-handoff-backend.1
//! ```

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use ws_handoff_backend::server::Arguments;

fn main() -> io::Result<()> {
    let command = Arguments::command();
    // The part behind the options is shown as it is by --help, and as sections here.
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.after_help("")).section("1");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis().to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    sections(&after).to_writer(&mut page)?;
    rest().to_writer(&mut page)?;
    io::stdout().write_all(&page)
}

fn synopsis() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("ws-handoff-backend"), roman(" [OPTIONS]")]);
    roff
}

/// `Signals:` begins a section; a line in it is an entry: what is meant, two spaces, what it does.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_suffix(':').filter(|title| !title.starts_with(' ')) {
            Some(title) => {
                roff.control("SH", [title.to_uppercase().as_str()]);
            }
            // Several entries may share a line.
            None => {
                for entry in line.trim().split("   ") {
                    let (what, does) =
                        entry.split_once("  ").or(entry.split_once(' ')).unwrap_or((entry, ""));
                    roff.control("TP", []);
                    roff.text([bold(what.trim())]);
                    roff.text([roman(does.trim())]);
                }
            }
        }
    }
    roff
}

fn rest() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman("Each option is an environment variable as well, named with it above; one that is empty counts as not set. ")]);
    for (name, what) in [
        (
            "LISTEN_PID, LISTEN_FDS",
            "Listening sockets that were passed, by the convention of sd_listen_fds(3).",
        ),
        (
            "NOTIFY_SOCKET, WATCHDOG_USEC",
            "Who is told that the program is ready, how many clients it serves, that it drains, \
          and, as long as all of its threads respond, that it lives: sd_notify(3).",
        ),
    ] {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("nginx"), roman("(8), "), bold("systemd.socket"), roman("(5)")]);
    roff
}
