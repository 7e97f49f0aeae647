//! What `nginx -t` says of configurations: a wrong one is refused at its line, in words that tell what to
//! change.

use crate::support::Nginx;

#[test]
fn right_ones_are_accepted() {
    for server in [
        "location /ws { ws_handoff unix:/run/ws.sock; }",
        "location /ws { ws_handoff 127.0.0.1:8080; }",
        "location /ws { ws_handoff backends; }",
        "location /ws { ws_handoff $arg_backend; }",
        "location /ws { ws_handoff unix:/run/$arg_room.sock; }",
        "location ~ ^/(?<room>[a-z]+)$ { ws_handoff unix:/run/$room.sock; if ($arg_a) { set $b 1; } }",
        "location /ws { ws_handoff backends; ws_handoff_set_header Host $host; \
         ws_handoff_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
         ws_handoff_set_header Cookie ''; }",
        "ws_handoff_origin any; location /ws { ws_handoff backends; ws_handoff_origin none null \
             same-origin https://example.org http://[::1]:8080 *.example.org ~^https://a '~*b{2}'; }",
        "ws_handoff_tls on; ws_handoff_tls_trust root 101 4294967294; \
         location /ws { ws_handoff backends; ws_handoff_tls_trust daemon; }",
        "location /ws { if ($arg_a) { ws_handoff unix:/a; } ws_handoff unix:/b; }",
        "location /ws { limit_except POST { ws_handoff unix:/a; } }",
        "ws_handoff_connect_timeout 1s; ws_handoff_send_timeout 2s; ws_handoff_read_timeout 3s; \
         ws_handoff_buffer_size 8k; ws_handoff_next_upstream error http_403 http_503; \
         ws_handoff_next_upstream_tries 2; ws_handoff_next_upstream_timeout 5s; \
         ws_handoff_intercept_errors on; ws_handoff_hide_header X-A; ws_handoff_hide_header X-B; \
         ws_handoff_pass_header Server; ws_handoff_fallback off; ws_handoff_protocol bare; \
         location /ws { ws_handoff backends; ws_handoff_hide_header X-C; \
             ws_handoff_next_upstream off; ws_handoff_fallback tunnel; ws_handoff_protocol http; }",
    ] {
        let upstream = "upstream backends { server unix:/a; server 127.0.0.1:1 backup; }";
        let (accepted, messages) = Nginx::builder().http(upstream).server(server).check();
        assert!(accepted, "{server}\n{messages}");
        assert!(!messages.contains("[warn]"), "{messages}");
    }
}

#[test]
fn number_of_arguments() {
    let complaint = "invalid number of arguments in \"ws_handoff\" directive";
    refused("ws_handoff;", complaint);
    refused("ws_handoff unix:/a unix:/b;", complaint);
}

#[test]
fn duplicate() {
    refused_at(
        "location /ws {\nws_handoff unix:/a;\nws_handoff unix:/b;\n}",
        "ws_handoff unix:/b;",
        "\"ws_handoff\" directive is duplicate",
    );
    refused_at(
        "location /ws {\nws_handoff $arg_a;\nws_handoff unix:/b;\n}",
        "ws_handoff unix:/b;",
        "\"ws_handoff\" directive is duplicate",
    );
}

#[test]
fn outside_a_location() {
    refused_at(
        "\nws_handoff unix:/a;\n",
        "ws_handoff unix:/a;",
        "\"ws_handoff\" directive is not allowed here",
    );
}

#[test]
fn addresses() {
    refused("ws_handoff unix:;", "no path in the unix domain socket in upstream \"unix:\"");
    let path = format!("unix:/{}", "a".repeat(108));
    refused(
        &format!("ws_handoff {path};"),
        &format!("too long path in the unix domain socket in upstream \"{path}\""),
    );
    refused(
        "ws_handoff unix:/run/ws.sock:/chat;",
        "a URI is not allowed after the path of the socket in \"ws_handoff unix:/run/ws.sock:/chat\"",
    );
    refused(
        "ws_handoff http://unix:/run/ws.sock;",
        "a \"unix:\" path or the name of an upstream is expected, without a scheme, in \
         \"ws_handoff http://unix:/run/ws.sock\"",
    );
    refused("ws_handoff unix:/run/$;", "invalid variable name");
    refused(
        "ws_handoff unix:/run/$arg_room:/chat;",
        "a URI is not allowed after the path of the socket in \"ws_handoff unix:/run/$arg_room:/chat\"",
    );
    refused(
        "ws_handoff http://$arg_room;",
        "a \"unix:\" path or the name of an upstream is expected, without a scheme, in \
         \"ws_handoff http://$arg_room\"",
    );
    refused("ws_handoff 127.0.0.1:0;", "invalid port in upstream \"127.0.0.1:0\"");
}

#[test]
fn unknown_upstream() {
    refused("ws_handoff backends;", "no port in upstream \"backends\"");
    // An empty label is no host name: getaddrinfo(3) says so without asking a name server.
    refused("ws_handoff no..host:80;", "host not found in upstream \"no..host\"");
}

#[test]
fn values_of_the_companions() {
    refused("ws_handoff_read_timeout soon;", "\"ws_handoff_read_timeout\" directive invalid value");
    refused("ws_handoff_buffer_size big;", "\"ws_handoff_buffer_size\" directive invalid value");
    refused("ws_handoff_next_upstream sometimes;", "invalid value \"sometimes\"");
    refused("ws_handoff_fallback maybe;", "invalid value \"maybe\"");
    refused("ws_handoff_protocol fcgi;", "invalid value \"fcgi\"");
    refused("ws_handoff_tls maybe;", "invalid value \"maybe\"");
    refused(
        "ws_handoff_intercept_errors yes;",
        "invalid value \"yes\" in \"ws_handoff_intercept_errors\" directive, it must be \"on\" or \
         \"off\"",
    );
    refused(
        "ws_handoff_connect_timeout 1s; ws_handoff_connect_timeout 1s;",
        "\"ws_handoff_connect_timeout\" directive is duplicate",
    );
    refused("ws_handoff_conect_timeout 1s;", "unknown directive \"ws_handoff_conect_timeout\"");
}

#[test]
fn set_header() {
    let complaint = |what: &str| format!("{what} in \"ws_handoff_set_header\" directive");
    for name in ["Upgrade", "connection", "Handoff", "Content-Length", "transfer_encoding"] {
        for value in ["x", "''"] {
            refused(
                &format!("ws_handoff_set_header {name} {value};"),
                &complaint(&format!(
                    "\"{name}\" is written by the handoff itself and cannot be set"
                )),
            );
        }
    }
    for (name, shown) in [("X:Y", "X:Y"), ("'X Y'", "X Y"), ("''", ""), ("Xä", "X\\xc3\\xa4")] {
        refused(
            &format!("ws_handoff_set_header {name} x;"),
            &complaint(&format!("\"{shown}\" is not a valid field name")),
        );
    }
    for name in ["X-A", "Host"] {
        refused(
            &format!("ws_handoff_set_header {name} 'a\\r\\nX-B: c';"),
            &complaint(&format!("the value of \"{name}\" contains a control character")),
        );
    }
    refused("ws_handoff_set_header X-A $;", "invalid variable name");
    refused(
        "ws_handoff_set_header X-A;",
        "invalid number of arguments in \"ws_handoff_set_header\" directive",
    );
    refused_at(
        "ws_handoff_set_header Host a;\nws_handoff_set_header host b;\n",
        "ws_handoff_set_header host b;",
        &complaint("\"Host\" is set twice"),
    );
}

#[test]
fn users_trusted_with_tls_sessions() {
    for user in ["no-such-user", "-1", "4294967295", "4294967296", "''"] {
        let shown = user.trim_matches('\'');
        refused(
            &format!("ws_handoff_tls_trust root {user};"),
            &format!("there is no user \"{shown}\" in \"ws_handoff_tls_trust\" directive"),
        );
    }
    refused(
        "ws_handoff_tls_trust;",
        "invalid number of arguments in \"ws_handoff_tls_trust\" directive",
    );
    refused_at(
        "ws_handoff_tls_trust 1;\nws_handoff_tls_trust 2;\n",
        "ws_handoff_tls_trust 2;",
        "\"ws_handoff_tls_trust\" directive is duplicate",
    );
}

#[test]
fn origins() {
    for (origin, problem) in [
        ("https://example.org/", "a path is not part of an origin"),
        ("https://a@example.org", "a user is not part of an origin"),
        ("example.org.", "invalid host"),
        ("ht!tp://example.org", "invalid scheme"),
        ("example.org:99999", "invalid port"),
        (
            "*example.org",
            "a wildcard can only stand for the first labels of a name, as in \"*.example.org\"",
        ),
        ("~", "empty regular expression"),
    ] {
        refused(
            &format!("ws_handoff_origin none {origin};"),
            &format!("invalid value \"{origin}\" in \"ws_handoff_origin\" directive, {problem}"),
        );
    }
    refused(
        "ws_handoff_origin '~(';",
        "pcre2_compile() failed: missing closing parenthesis in \"(\" in \"ws_handoff_origin\" \
         directive",
    );
    refused(
        "ws_handoff_origin any none;",
        "\"any\" must be the only parameter of \"ws_handoff_origin\" directive",
    );
    refused("ws_handoff_origin;", "invalid number of arguments in \"ws_handoff_origin\" directive");
    refused_at(
        "ws_handoff_origin none;\nws_handoff_origin null;\n",
        "ws_handoff_origin null;",
        "\"ws_handoff_origin\" directive is duplicate",
    );
}

/// `directive` in a location of its own line is refused at that line with exactly this complaint.
fn refused(directive: &str, complaint: &str) {
    refused_at(&format!("location /ws {{\n{directive}\n}}"), directive, complaint);
}

fn refused_at(server: &str, line: &str, complaint: &str) {
    let builder = Nginx::builder().server(server);
    let (accepted, messages) = builder.check();
    assert!(!accepted, "accepted: {server}");
    let path = builder.dir().join("nginx.conf");
    let config = std::fs::read_to_string(&path).expect("read nginx.conf");
    let number = 1 + config.lines().position(|candidate| candidate == line).expect("the line");
    let expected = format!("nginx: [emerg] {complaint} in {}:{number}\n", path.display());
    assert!(messages.contains(&expected), "expected {expected}but got {messages}");
}
