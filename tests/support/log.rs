//! nginx's logs: the access log as facts, and which lines of the error log are complaints.

/// Tab-separated `name=value`, as `log_format` of the tests.
pub const FORMAT: &str = "status=$status\tbytes=$bytes_sent\tbody_bytes=$body_bytes_sent\t\
    upstream=$upstream_addr\tupstream_status=$upstream_status\tconnect=$upstream_connect_time\t\
    header=$upstream_header_time\tresponse=$upstream_response_time\ttime=$request_time\t\
    client=$remote_addr\tprotocol=$server_protocol\tupgrade=$sent_http_upgrade\t\
    result=$ws_handoff_result\terror=$ws_handoff_error\thandoff_time=$ws_handoff_time\trequest=$request";

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct LogLine(Vec<(String, String)>);

impl LogLine {
    pub fn parse(line: &str) -> LogLine {
        let facts = line.split('\t').map(|fact| {
            let (name, value) = fact.split_once('=').expect("name=value");
            (name.to_owned(), value.to_owned())
        });
        LogLine(facts.collect())
    }

    pub fn get(&self, name: &str) -> &str {
        let fact = self.0.iter().find(|(candidate, _)| candidate == name);
        &fact.unwrap_or_else(|| panic!("no {name} in {self:?}")).1
    }

    /// A time in seconds; panics where nginx logged none.
    pub fn seconds(&self, name: &str) -> f64 {
        let value = self.get(name);
        value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
    }
}

/// Lines of the error log that no test may cause unless it said so: `alert`, `crit` and `emerg`
/// always; if `quiet`, also every line about a connection (`*N`) above `info`, and `warn` upwards.
pub fn complaints(log: &str, quiet: bool, tolerated: &[&str]) -> Vec<String> {
    let unexpected = |line: &&str| {
        let Some(level) = level(line) else { return false };
        let bad = match level {
            "emerg" | "alert" | "crit" => true,
            "error" | "warn" => quiet,
            "notice" => quiet && line.contains(": *"),
            _ => false,
        };
        bad && !tolerated.iter().any(|text| line.contains(text))
    };
    log.lines().filter(unexpected).map(str::to_owned).collect()
}

/// The level of `2026/01/31 12:00:00 [level] pid#tid: ...`.
fn level(line: &str) -> Option<&str> {
    let rest = line.get(19..)?.strip_prefix(" [")?;
    Some(rest.split_once(']')?.0)
}
