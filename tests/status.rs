//! `ws_handoff_status`: the counters as Prometheus text, JSON and a page, read by parsers of others.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::metrics::{self, LOCATION, ZONE};
use crate::support::{
    Backend, Client, FakeBackend, Handshake, Head, Nginx, paths, process, python,
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

#[test]
fn prometheus_accepts_it() {
    let (nginx, _backends) = busy();
    let (head, text) = get(&nginx, "/metrics", "");
    assert_eq!(head.status(), 200);
    assert_eq!(head.field("Content-Type"), Some(PROMETHEUS));
    assert_eq!(head.field("Cache-Control"), Some("no-store"));

    let path = nginx.dir().join("metrics.txt");
    fs::write(&path, &text).expect("write a file");
    let mut promtool = Command::new(paths::promtool());
    promtool.args(["check", "metrics"]).stdin(Stdio::from(fs::File::open(&path).expect("open it")));
    let output = process::output(&mut promtool).expect("run promtool");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{text}");

    let read = python::run("status.py", &["prometheus", &path.display().to_string()]);
    for line in [
        "counter nginx_ws_handoff_requests",
        "gauge nginx_ws_handoff_in_progress",
        "histogram nginx_ws_handoff_answer_seconds",
        "nginx_ws_handoff_requests_total {\"result\": \"fd\", \"upstream\": \"a\\\"b\\\\c\"} 2",
        "nginx_ws_handoff_refusals_total {\"status\": \"403\", \"upstream\": \"moody\"} 1",
        "nginx_ws_handoff_rejected_total {\"reason\": \"handshake\", \"status\": \"426\"} 1",
        "nginx_ws_handoff_answer_seconds_count {\"upstream\": \"moody\"} 1",
    ] {
        assert!(read.lines().any(|candidate| candidate == line), "no {line} in\n{read}");
    }
}

#[test]
fn json() {
    let (nginx, _backends) = busy();
    let (head, text) = get(&nginx, "/metrics?format=json", "");
    assert_eq!(head.field("Content-Type"), Some(JSON));
    assert_eq!(head.field("Cache-Control"), Some("no-store"));
    let path = nginx.dir().join("status.json");
    fs::write(&path, &text).expect("write a file");
    let read = python::run("status.py", &["json", &path.display().to_string()]);
    assert!(
        read.contains(
            "\"requests\": {\"failed\": 0, \"fd\": 2, \"refused\": 1, \"tls\": 0, \"tunnel\": 0}"
        ),
        "{read}"
    );
    assert!(read.contains("\"a\\\"b\\\\c\": {"), "{read}");
}

#[test]
fn html() {
    let (nginx, _backends) = busy();
    let (head, text) = get(&nginx, "/metrics?format=html", "");
    assert_eq!(head.field("Content-Type"), Some(HTML));
    let path = nginx.dir().join("status.html");
    fs::write(&path, &text).expect("write a file");
    python::run("status.py", &["html", &path.display().to_string()]);
    assert!(text.contains("<th>a&quot;b\\c</th><td>2</td>"), "{text}");
}

#[test]
fn format_by_argument_then_by_accept() {
    let nginx = empty();
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    for (target, fields, expected) in [
        ("/metrics", "", PROMETHEUS),
        ("/metrics", "Accept: */*\r\n", PROMETHEUS),
        ("/metrics", browser, HTML),
        ("/metrics", "Accept: application/json\r\n", JSON),
        ("/metrics", "Accept: image/png\r\nAccept: application/json;q=0.1\r\n", JSON),
        ("/metrics?format=prometheus", browser, PROMETHEUS),
        ("/metrics?a=b&format=json", browser, JSON),
        ("/json", browser, JSON),
        ("/json?format=html", "", JSON),
        ("/html", "", HTML),
        ("/prometheus", browser, PROMETHEUS),
        ("/if?x=1", "", JSON),
    ] {
        let (head, text) = get(&nginx, target, fields);
        assert_eq!(
            (head.status(), head.field("Content-Type")),
            (200, Some(expected)),
            "{target} {fields}"
        );
        assert!(!text.is_empty());
    }
    let (head, _) = get(&nginx, "/metrics?format=xml", "");
    assert_eq!(head.status(), 400);
}

#[test]
fn methods() {
    let nginx = empty();
    let mut client = Client::connect(nginx.address());
    let (head, text) = client.get("/metrics");
    client.send(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let only_head = client.read_head();
    assert_eq!(only_head.field("Content-Length"), head.field("Content-Length"));
    assert_eq!(only_head.field("Content-Type"), Some(PROMETHEUS));
    // No body came with it: the next response follows.
    client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.read_head().status(), 200);
    client.read_bytes(text.len());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        client.send(format!("{method} /metrics HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = client.read_head();
        assert_eq!(head.status(), 405, "{method}");
        client.read_body(&head);
    }
}

#[test]
fn filters_of_nginx_apply() {
    let nginx = Nginx::builder()
        .http(ZONE)
        .server(
            "location /metrics { gzip on; gzip_types text/plain; gzip_min_length 1; \
             add_header X-Test yes; charset koi8-r; ws_handoff_status; }",
        )
        .start();
    let (head, _) = get(&nginx, "/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!(head.field("Content-Encoding"), Some("gzip"));
    assert_eq!(head.field("X-Test"), Some("yes"));
    assert_eq!(head.field("Content-Type"), Some(PROMETHEUS));
}

#[test]
fn many_upstreams_are_all_shown() {
    let upstreams: String =
        (0..200).map(|n| format!("upstream u{n} {{ server unix:/{n}; }}\n")).collect();
    let locations: String =
        (0..200).map(|n| format!("location /{n}/ {{ ws_handoff u{n}; }}\n")).collect();
    let nginx = Nginx::builder()
        .http("ws_handoff_zone counters:1m;")
        .http(upstreams)
        .server(LOCATION)
        .server(locations)
        .start();
    let text = metrics::text(&nginx);
    let shown: Vec<&str> =
        text.lines().filter(|line| line.starts_with("nginx_ws_handoff_offers_total")).collect();
    assert_eq!(shown.len(), 200);
}

#[test]
fn configurations_that_are_refused() {
    for (http, server, line, complaint) in [
        (
            "",
            "location /s {\nws_handoff_status;\n}",
            "ws_handoff_status;",
            "\"ws_handoff_status\" has nothing to show: add \"ws_handoff_zone NAME:SIZE\" to http",
        ),
        (
            "ws_handoff_zone a:64k;",
            "location /s {\nws_handoff_status xml;\n}",
            "ws_handoff_status xml;",
            "invalid format \"xml\", it must be \"prometheus\", \"json\" or \"html\"",
        ),
        (
            "ws_handoff_zone a:64k;",
            "location /s {\nws_handoff_status;\nws_handoff_status json;\n}",
            "ws_handoff_status json;",
            "\"ws_handoff_status\" directive is duplicate",
        ),
        (
            "ws_handoff_zone a:64k;",
            "location /s {\nws_handoff_status json html;\n}",
            "ws_handoff_status json html;",
            "invalid number of arguments in \"ws_handoff_status\" directive",
        ),
        (
            "ws_handoff_zone a:64k;",
            "\nws_handoff_status;\n",
            "ws_handoff_status;",
            "\"ws_handoff_status\" directive is not allowed here",
        ),
        ("\nws_handoff_zone a;\n", "", "ws_handoff_zone a;", "invalid zone size \"a\""),
        ("\nws_handoff_zone a:;\n", "", "ws_handoff_zone a:;", "invalid zone size \"a:\""),
        ("\nws_handoff_zone a:big;\n", "", "ws_handoff_zone a:big;", "invalid zone size \"a:big\""),
        ("\nws_handoff_zone :64k;\n", "", "ws_handoff_zone :64k;", "invalid zone name \":64k\""),
        (
            "\nws_handoff_zone a:31k;\n",
            "",
            "ws_handoff_zone a:31k;",
            "zone \"a:31k\" is too small, at least 32k is needed",
        ),
        (
            "ws_handoff_zone a:64k;\nws_handoff_zone b:64k;\n",
            "",
            "ws_handoff_zone b:64k;",
            "\"ws_handoff_zone\" directive is duplicate",
        ),
        (
            "limit_conn_zone $arg_a zone=a:64k;\nws_handoff_zone a:64k;\n",
            "",
            "ws_handoff_zone a:64k;",
            "the shared memory zone \"a\" is already declared for a different use",
        ),
        (
            "",
            "\nws_handoff_zone a:64k;\n",
            "ws_handoff_zone a:64k;",
            "\"ws_handoff_zone\" directive is not allowed here",
        ),
    ] {
        let builder = Nginx::builder().http(http).server(server);
        let (accepted, messages) = builder.check();
        assert!(!accepted, "accepted: {http} {server}");
        let path = builder.dir().join("nginx.conf");
        let config = fs::read_to_string(&path).expect("read nginx.conf");
        let number =
            1 + config.lines().position(|candidate| candidate.trim() == line).expect("the line");
        let expected = format!("nginx: [emerg] {complaint} in {}:{number}\n", path.display());
        assert!(messages.contains(&expected), "expected {expected}but got {messages}");
    }
}

#[test]
fn zone_that_is_too_small_is_told_the_size_that_does() {
    let count = 40;
    let upstreams: String =
        (0..count).map(|n| format!("upstream u{n} {{ server unix:/{n}; }}\n")).collect();
    let locations: String =
        (0..count).map(|n| format!("location /{n}/ {{ ws_handoff u{n}; }}\n")).collect();
    let check = |size: usize| {
        let zone = format!("ws_handoff_zone small:{size}k;\n");
        Nginx::builder().http(zone).http(&upstreams).server(&locations).check()
    };
    let (accepted, messages) = check(64);
    assert!(!accepted);
    let start = "[emerg] \"ws_handoff_zone\" \"small\" is too small for its upstreams, at least ";
    let (_, rest) = messages.split_once(start).unwrap_or_else(|| panic!("{messages}"));
    let (size, _) = rest.split_once("k is needed").expect("a size");
    let size: usize = size.parse().expect("a number");
    // nginx's own words would only puzzle.
    assert!(!messages.contains("no memory"), "{messages}");
    assert!(check(size).0, "{size}k does not do");
    assert!(!check(size - 16).0, "{size}k is too much");
}

#[test]
fn least_zone_holds_what_the_documentation_says() {
    let check = |count: usize| {
        let locations: String =
            (0..count).map(|n| format!("location /{n}/ {{ ws_handoff unix:/{n}; }}\n")).collect();
        Nginx::builder().http("ws_handoff_zone small:32k;").server(locations).check().0
    };
    assert!(check(3));
    assert!(!check(8));
}

#[test]
fn documented_alerts_are_valid_and_of_metrics_that_exist() {
    let nginx = empty();
    let documentation = include_str!("../docs/status.md");
    let rules = documentation.split("```yaml\n").nth(2).expect("the second block of YAML");
    let rules = rules.split("```").next().expect("its end");
    let path = nginx.dir().join("rules.yml");
    fs::write(&path, rules).expect("write a file");
    let mut promtool = Command::new(paths::promtool());
    let output =
        process::output(promtool.args(["check", "rules"]).arg(&path)).expect("run promtool");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let text = metrics::text(&nginx);
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for family in families {
        let name = family.strip_prefix("nginx_ws_handoff_").expect("the prefix");
        assert!(documentation.contains(&format!("| `{name}")), "{name} is not documented");
    }
    for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if let Some(name) = word.strip_prefix("nginx_ws_handoff_") {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(text.contains(&format!("# TYPE nginx_ws_handoff_{name} ")), "no {name}");
        }
    }
}

#[test]
fn right_configurations() {
    for server in [
        "location /s { ws_handoff_status; }",
        "location /s { ws_handoff_status prometheus; }",
        "location /s { ws_handoff_status json; } location /t { ws_handoff_status html; }",
    ] {
        // Wherever the zone stands.
        let after = format!("server {{ {server} }} ws_handoff_zone a:64k;");
        let (accepted, messages) = Nginx::builder().http(after).check();
        assert!(accepted, "{messages}");
        assert!(!messages.contains("[warn]"), "{messages}");
    }
}

/// nginx whose counters are not all 0, with an upstream of a name that each format has to escape.
fn busy() -> (Nginx, (Backend, FakeBackend)) {
    let echo = Backend::echo();
    let moody = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    });
    let nginx = Nginx::builder()
        .http(ZONE)
        .http(format!(
            "upstream 'a\"b\\\\c' {{ server {}; }} upstream moody {{ server {}; }}",
            echo.address(),
            moody.address()
        ))
        .server(LOCATION)
        .server("location /echo { ws_handoff 'a\"b\\\\c'; } location /moody { ws_handoff moody; }")
        .start();
    for _ in 0..2 {
        Client::upgraded(nginx.address(), "/echo").echo("hello");
    }
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/moody")).status(), 403);
    let wrong = Handshake::new("/moody").without("Upgrade");
    assert_eq!(Client::connect(nginx.address()).ask(&wrong).status(), 426);
    (nginx, (echo, moody))
}

fn empty() -> Nginx {
    Nginx::builder()
        .http(ZONE)
        .server(LOCATION)
        .server(
            "location /json { ws_handoff_status json; } location /html { ws_handoff_status html; } \
             location /prometheus { ws_handoff_status prometheus; } \
             location /if { ws_handoff_status json; if ($arg_x) { add_header X-If yes; } }",
        )
        .start()
}

fn get(nginx: &Nginx, target: &str, fields: &str) -> (Head, String) {
    let mut client = Client::connect(nginx.address());
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    let head = client.read_head();
    let body = client.read_body(&head);
    (head, String::from_utf8_lossy(&body).into_owned())
}
