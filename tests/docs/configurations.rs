//! nginx's configurations: whatever is printed, `nginx -t` accepts. A fragment's directives tell where it belongs.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::markdown::{self, Document};
use super::{none, one};
use crate::support::{Nginx, net, paths};

#[test]
fn nginx_accepts_every_block() {
    let mut complaints = Vec::new();
    let mut tested = 0;
    for block in markdown::all().iter().flat_map(Document::blocks) {
        if block.language == "nginx" {
            tested += 1;
            complaints.extend(
                refusal(&block.text)
                    .map(|said| format!("{}: {said}", block.document.at(block.line))),
            );
        }
    }
    assert!(tested > 10, "only {tested} were found");
    none(&complaints);
}

#[test]
fn nginx_accepts_the_configuration_to_copy() {
    let path = paths::root().join("nginx/ws_handoff.conf.example");
    let said = refusal(&fs::read_to_string(path).expect("read"));
    none(&Vec::from_iter(said));
}

#[test]
fn wrong_ones_are_refused() {
    let complaints = |text| Vec::from_iter(refusal(text));
    one(&complaints("ws_handoff_origin;"), "invalid number of arguments");
    one(&complaints("location /a { ws_handof chat; }"), "unknown directive \"ws_handof\"");
    one(
        &complaints("events {}\nhttp { server { listen 80; ws_handoff chat; } }"),
        "not allowed here",
    );
    one(&complaints("upstream chat { server; }"), "invalid number of arguments");
    one(&complaints("proxy_pass http://$none;"), "unknown \"none\" variable");
    none(&complaints("# a comment; {\nws_handoff chat;\nws_handoff unix:/run/a.sock; # another\n"));
    none(&complaints(
        "map $uri $a { '~^/b{2}/' \"c;}\"; }\nlocation ~ '^/(?<r>[a-z]{2})$' { ws_handoff unix:/$r; }",
    ));
}

/// Directives of `server {}` that no location takes.
const SERVER: [&str; 6] =
    ["listen", "server_name", "ssl_certificate", "ssl_certificate_key", "location", "http2"];
/// Those of `http {}` and nowhere below.
const HTTP: [&str; 9] = [
    "upstream",
    "map",
    "geo",
    "server",
    "log_format",
    "split_clients",
    "limit_conn_zone",
    "limit_req_zone",
    "ws_handoff_zone",
];
/// Those outside of all blocks.
const MAIN: [&str; 5] =
    ["worker_processes", "worker_rlimit_nofile", "worker_shutdown_timeout", "error_log", "env"];
/// What the harness says itself.
const OWN: [&str; 4] = ["load_module", "user", "pid", "daemon"];

/// What nginx says against it.
fn refusal(text: &str) -> Option<String> {
    let mut builder = Nginx::builder();
    let mut site = Site::default();
    for statement in statements(text) {
        site.place(&statement);
    }
    let dir = builder.dir().to_owned();
    let http = site.complete(text);
    if http.contains("ssl_certificate") {
        make_certificate(&dir);
    }
    fs::create_dir_all(dir.join("logs")).expect("make a directory");
    builder = builder.main(&site.main).http(local(&http, &dir)).server(local(&site.server(), &dir));
    if !site.events.trim().is_empty() {
        builder = builder.events(&site.events);
    }
    let (accepted, said) = builder.check();
    (!accepted || said.contains("[warn]")).then_some(said)
}

/// What belongs where.
#[derive(Default)]
struct Site {
    main: String,
    events: String,
    http: String,
    server: String,
    locations: Vec<String>,
}

impl Site {
    fn place(&mut self, statement: &str) {
        let name = statement.split([' ', '\n', ';', '{']).next().expect("a word");
        let content =
            || statement.split_once('{').expect("a block").1.trim_end().trim_end_matches('}');
        match name {
            "http" => self.http.push_str(content()),
            "events" => self.events.push_str(content()),
            _ if OWN.contains(&name) => (),
            _ if MAIN.contains(&name) => self.main.push_str(&format!("{statement}\n")),
            _ if HTTP.contains(&name) => self.http.push_str(&format!("{statement}\n")),
            _ if SERVER.contains(&name) => self.server.push_str(&format!("{statement}\n")),
            // Alternatives stand below each other: each gets a location.
            _ => self.locations.push(statement.to_owned()),
        }
    }

    /// `http {}` with what the fragment takes for granted.
    fn complete(&self, text: &str) -> String {
        let mut http = self.http.clone();
        if text.contains("ws_handoff_status") && !text.contains("ws_handoff_zone") {
            http.push_str("ws_handoff_zone documentation:64k;\n");
        }
        for behind in
            ["ws_handoff ", "proxy_pass http://"].iter().flat_map(|name| text.split(name).skip(1))
        {
            let group = behind.split([';', '/', ' ']).next().expect("a word");
            let is_name = group.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let defined = http.contains(&format!("upstream {group} "));
            if is_name && !group.is_empty() && !defined {
                http.push_str(&format!("upstream {group} {{ server unix:/run/some.sock; }}\n"));
            }
        }
        http
    }

    fn server(&self) -> String {
        let locations = self.locations.iter().enumerate();
        let locations =
            locations.map(|(n, text)| format!("location /alternative-{n} {{ {text} }}\n"));
        self.server.clone() + &locations.collect::<String>()
    }
}

/// With ports and files that any user may take: nginx opens them to test a configuration.
fn local(text: &str, dir: &Path) -> String {
    let mut result = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.trim().trim_end_matches(';').split_whitespace().collect();
        match words[..] {
            ["listen", address, ref parameters @ ..] if !address.starts_with("unix:") => {
                let parameters = parameters.join(" ");
                result.push_str(&format!("listen 127.0.0.1:{} {parameters};", net::free_port()));
            }
            ["ssl_certificate", _] => result.push_str("ssl_certificate cert.pem;"),
            ["ssl_certificate_key", _] => result.push_str("ssl_certificate_key key.pem;"),
            _ => result
                .push_str(&line.replace("/var/log/nginx", &dir.join("logs").display().to_string())),
        }
        result.push('\n');
    }
    // One that shares its line with others.
    for port in ["listen 80;", "listen 443 ssl;"] {
        let parameters = if port.contains("ssl") { "ssl" } else { "" };
        result =
            result.replace(port, &format!("listen 127.0.0.1:{} {parameters};", net::free_port()));
    }
    result
}

fn make_certificate(dir: &Path) {
    let made = Command::new("openssl")
        .current_dir(dir)
        .args(
            "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=a"
                .split(' '),
        )
        .output()
        .expect("run openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Directives and blocks at the top, without comments. Braces and semicolons in quotes end nothing, nor do those of `${a}`.
fn statements(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let (mut depth, mut quote, mut comment, mut before) = (0, None, false, ' ');
    for c in text.chars() {
        let current = statements.last_mut().expect("one");
        let first_of_word = before.is_whitespace() || before == ';';
        before = c;
        if comment {
            comment = c != '\n';
            continue;
        }
        if let Some(end) = quote {
            quote = (c != end).then_some(end);
            current.push(c);
            continue;
        }
        match c {
            '#' if first_of_word => {
                comment = true;
                continue;
            }
            '"' | '\'' if first_of_word => quote = Some(c),
            '{' if current.ends_with('$') => quote = Some('}'),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => (),
        }
        current.push(c);
        if (c == ';' || c == '}') && depth == 0 && quote.is_none() {
            statements.push(String::new());
        }
    }
    let rest = statements.pop().expect("one");
    assert!(rest.trim().is_empty(), "not a whole statement: {rest}");
    statements.iter().map(|statement| statement.trim().to_owned()).collect()
}

#[test]
fn statements_are_told_apart() {
    let text = "a b; # c;\nd { e '};'; f \"~^/g{2}\" h; }\ni \"j;\" ${k};\n";
    assert_eq!(statements(text), ["a b;", "d { e '};'; f \"~^/g{2}\" h; }", "i \"j;\" ${k};"]);
}
