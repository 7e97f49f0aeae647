//! The request as the backend sees it: what nginx routed by and nothing that the client smuggled; and the
//! ways in which a location is reached, each of which must end in a handover or visibly in none.

use crate::support::frame::{Frame, TEXT};
use crate::support::{Client, FakeBackend, Handshake, Head, Nginx, net};

#[test]
fn backend_sees_the_request_and_what_nginx_adds() {
    let (backend, nginx) = site("location /ws { ws_handoff BACKEND; }");
    let mut client = Client::connect_from(net::source(9), nginx.address());
    client.send(
        &Handshake::new("/ws/a%20b%2Fc?x=%41&y=;z")
            .set("Host", "chat.example:8080")
            .with("Origin", "https://chat.example")
            .with("Cookie", "session=1")
            .with("X-Forwarded-For", "192.0.2.1")
            .bytes(),
    );
    client.expect_101();
    let head = backend.only_head();
    // Not decoded, not encoded once more.
    assert_eq!(head.line, "GET /ws/a%20b%2Fc?x=%41&y=;z HTTP/1.1");
    assert_eq!(head.field("Host"), Some("chat.example:8080"));
    assert_eq!(head.field("Upgrade"), Some("websocket"));
    assert_eq!(head.field("Connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(head.field("Handoff"), Some("fd; v=1"));
    assert_eq!(head.field("Sec-WebSocket-Version"), Some("13"));
    assert_eq!(head.field("Sec-WebSocket-Key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(head.field("Origin"), Some("https://chat.example"));
    assert_eq!(head.field("Cookie"), Some("session=1"));
    let source = net::source(9).to_string();
    assert_eq!(head.field("X-Real-IP"), Some(source.as_str()));
    // Not appended to what the client claims: nothing here says that it may be believed.
    assert_eq!(head.field("X-Forwarded-For"), Some(source.as_str()));
    assert_eq!(head.field("X-Forwarded-Proto"), Some("http"));
}

#[test]
fn upgrade_field_of_the_client_is_not_repeated() {
    let head = seen(
        "",
        &Handshake::new("/ws").set("Upgrade", "h2c, websocket").set("Connection", "x, upgrade"),
    );
    assert_eq!(head.field("Upgrade"), Some("websocket"));
    assert_eq!(head.field("Connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
}

#[test]
fn hop_by_hop_fields_do_not_pass() {
    let request = Handshake::new("/ws")
        .set("Connection", "Upgrade, X-Nominated, close, keep-alive")
        .with("X-Nominated", "1")
        .with("Keep-Alive", "timeout=5")
        .with("TE", "trailers")
        .with("Expect", "100-continue")
        .with("Proxy-Connection", "keep-alive")
        .with("Content-Length", "0")
        .with("X-Stays", "1");
    let head = seen("", &request);
    for name in ["X-Nominated", "Keep-Alive", "TE", "Expect", "Proxy-Connection", "Content-Length"]
    {
        assert_eq!(head.all(name), [""; 0], "{name}");
    }
    assert_eq!(head.field("X-Stays"), Some("1"));
}

#[test]
fn handoff_of_the_client_changes_nothing() {
    for name in ["Handoff", "handoff", "HANDOFF"] {
        let head = seen("", &Handshake::new("/ws").with(name, "fd; v=9"));
        assert_eq!(head.field("Handoff"), Some("fd; v=1"));
    }
}

#[test]
fn real_ip_of_the_client_changes_nothing() {
    let smuggled = Handshake::new("/ws")
        .with("X-Real-IP", "192.0.2.1")
        .with("x-real-ip", "192.0.2.2")
        .with("X-Forwarded-Proto", "https");
    let head = seen("", &smuggled);
    assert_eq!(head.field("X-Real-IP"), Some("127.0.0.1"));
    assert_eq!(head.field("X-Forwarded-Proto"), Some("http"));
}

#[test]
fn underscores_smuggle_nothing() {
    let smuggled = Handshake::new("/ws")
        .with("X_Real_IP", "192.0.2.1")
        .with("X_Forwarded_For", "192.0.2.1")
        .with("X-Forwarded_Proto", "https")
        .with("Sec_WebSocket_Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    let head = seen("underscores_in_headers on;", &smuggled);
    // `field` compares with `_` as `-` and fails on a second one.
    assert_eq!(head.field("X-Real-IP"), Some("127.0.0.1"));
    assert_eq!(head.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(head.field("X-Forwarded-Proto"), Some("http"));
    let handoff = seen("underscores_in_headers on;", &Handshake::new("/ws").with("Hand_off", "x"));
    assert_eq!(handoff.field("Handoff"), Some("fd; v=1"));
}

#[test]
fn connection_cannot_nominate_what_nginx_sets() {
    let request = Handshake::new("/ws")
        .set("Connection", "upgrade, X-Real-IP, X-Forwarded-For, Handoff, Host, Upgrade")
        .with("X-Real-IP", "192.0.2.1");
    let head = seen("", &request);
    assert_eq!(head.field("X-Real-IP"), Some("127.0.0.1"));
    assert_eq!(head.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(head.field("Handoff"), Some("fd; v=1"));
    assert_eq!(head.field("Host"), Some("localhost"));
    assert_eq!(head.field("Upgrade"), Some("websocket"));
}

#[test]
fn connection_cannot_nominate_the_handshakes_own_fields_away() {
    let request = Handshake::new("/ws")
        .set("Connection", "upgrade, Sec-WebSocket-Key, Sec-WebSocket-Version");
    let (backend, nginx) = site("location /ws { ws_handoff BACKEND; }");
    let mut client = Client::connect(nginx.address());
    client.send(&request.bytes());
    let head = client.read_head();
    // Either is sound: refused, or accepted by a backend that could tell what was asked. Never is a
    // client promised a WebSocket by a backend that did not see its handshake.
    if head.status() == 101 {
        assert_eq!(backend.only_head().field("Sec-WebSocket-Version"), Some("13"));
    } else {
        assert_eq!((head.status(), backend.descriptors()), (400, 0));
    }
}

#[test]
fn absolute_uri_is_routed_and_told_by_its_own_host() {
    let (backend, nginx) = site("location /ws { ws_handoff BACKEND; }");
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("http://real.example/ws?a=1").set("Host", "evil.example").bytes());
    client.expect_101();
    let head = backend.only_head();
    assert_eq!(head.line, "GET /ws?a=1 HTTP/1.1");
    assert_eq!(head.field("Host"), Some("real.example"));
}

#[test]
fn rewritten_uri_is_escaped_again_with_its_arguments() {
    let (backend, nginx) =
        site("location /chat/ { rewrite ^/chat/(.*)$ /rooms/$1?r=1 break; ws_handoff BACKEND; }");
    Client::connect(nginx.address()).upgrade("/chat/a%20b%25?x=%20y");
    assert_eq!(backend.only_head().target(), "/rooms/a%20b%25?r=1&x=%20y");
}

#[test]
fn rewrite_to_another_location() {
    let (backend, nginx) =
        site("rewrite ^/old$ /new/room last; location /new/ { ws_handoff BACKEND; }");
    let mut client = Client::connect(nginx.address());
    client.upgrade("/old?k=v");
    client.echo("moved");
    assert_eq!(backend.only_head().target(), "/new/room?k=v");
}

#[test]
fn named_location() {
    let (backend, nginx) =
        site("location / { try_files /nothing @ws; } location @ws { ws_handoff BACKEND; }");
    let mut client = Client::connect(nginx.address());
    client.upgrade("/any/thing?k=v");
    client.echo("named");
    assert_eq!(backend.only_head().target(), "/any/thing?k=v");
}

#[test]
fn error_page_does_not_hand_over() {
    let (backend, nginx) =
        site("location /missing { error_page 404 /ws; } location /ws { ws_handoff BACKEND; }");
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/missing"));
    assert_eq!(head.status(), 404);
    assert_eq!(head.field("Upgrade"), None);
    assert_eq!(head.field("Sec-WebSocket-Accept"), None);
    client.read_body(&head);
    drop((client, nginx));
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn subrequest_does_not_hand_over() {
    let (backend, nginx) = site(
        "location /page { auth_request /ws; return 200 page; } \
         location /mirrored { mirror /ws; return 200 page; } \
         location /ws { ws_handoff BACKEND; }",
    );
    for target in ["/page", "/mirrored"] {
        let mut client = Client::connect(nginx.address());
        let head = client.ask(&Handshake::new(target));
        assert_ne!(head.status(), 101, "{target}");
        client.read_body(&head);
    }
    drop(nginx);
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn post_action_does_not_hand_over() {
    let (backend, nginx) = site(
        "location /page { post_action /ws; return 200 page; } \
         location /ws { ws_handoff BACKEND; }",
    );
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/page"));
    assert_eq!((head.status(), client.read_body(&head)), (200, b"page".to_vec()));
    drop((client, nginx));
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn handed_over_request_may_have_a_post_action() {
    let (backend, nginx) = site(
        "location /ws { post_action /after; ws_handoff BACKEND; } \
         location /after { proxy_set_header X-Token good; proxy_pass http://127.0.0.1:APP; }",
    );
    let mut client = Client::connect(nginx.address());
    client.upgrade("/ws");
    client.echo("one");
    nginx.logged("GET /after");
    nginx.logged("GET /ws");
    client.echo("two");
    nginx.wait_inactive();
    assert_eq!(backend.descriptors(), 1);
}

#[test]
fn mirrored_request_is_handed_over() {
    let (backend, nginx) = site(
        "location /ws { mirror /copy; ws_handoff BACKEND; } \
         location /copy { internal; proxy_pass http://127.0.0.1:APP; }",
    );
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    client.expect_101();
    client.expect_frame(TEXT, b"early");
    client.echo("mirrored");
    nginx.logged("GET /copy");
    nginx.wait_inactive();
    assert_eq!(backend.descriptors(), 1);
}

#[test]
fn auth_request_decides() {
    let (backend, nginx) = site(
        "location /ws { auth_request /auth; auth_request_set $user $upstream_http_x_user; \
             add_header X-User $user always; ws_handoff BACKEND; } \
         location = /auth { internal; proxy_pass http://127.0.0.1:APP; \
             proxy_pass_request_body off; proxy_set_header Content-Length ''; }",
    );
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), backend.accepted()), (403, 0));

    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").with("X-Token", "good").bytes());
    client.expect_101();
    client.echo("authorized");
    assert_eq!(backend.descriptors(), 1);
}

#[test]
fn app_behind_proxy_pass_decides_by_x_accel_redirect() {
    let (backend, nginx) = site(
        "location /app { proxy_pass http://127.0.0.1:APP; } \
         location /handoff/ { internal; ws_handoff BACKEND; }",
    );
    let refused = Client::connect(nginx.address()).ask(&Handshake::new("/app"));
    assert_eq!(refused.status(), 403);
    // Not from outside.
    let outside = Client::connect(nginx.address()).ask(&Handshake::new("/handoff/room%207"));
    assert_eq!((outside.status(), backend.accepted()), (404, 0));

    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/app").with("X-Token", "good").bytes());
    client.expect_101();
    client.echo("redirected");
    let head = backend.only_head();
    assert_eq!(head.line, "GET /handoff/room%207?user=1 HTTP/1.1");
    assert_eq!(head.field("Handoff"), Some("fd; v=1"));
    assert_eq!(nginx.logged("GET /app").get("status"), "403");
    nginx.wait_inactive();
}

#[test]
fn realip_is_what_the_backend_sees() {
    let (backend, nginx) = site(
        "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For; \
         location /ws { ws_handoff BACKEND; }",
    );
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").with("X-Forwarded-For", "198.51.100.7").bytes());
    client.expect_101();
    assert_eq!(backend.only_head().field("X-Real-IP"), Some("198.51.100.7"));
    assert_eq!(nginx.logged("GET /ws").get("client"), "198.51.100.7");
}

#[test]
fn limit_except_and_if_keep_the_location() {
    let (backend, nginx) = site(
        "location /ws { limit_except GET { deny all; } if ($arg_x) { set $y 1; } \
             ws_handoff BACKEND; }",
    );
    Client::connect(nginx.address()).upgrade("/ws?x=1");
    Client::connect(nginx.address()).upgrade("/ws");
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws").method("POST"));
    assert_eq!((head.status(), backend.heads().len()), (403, 2));
}

#[test]
fn location_with_a_slash_redirects_the_name_without_it() {
    let (_backend, nginx) = site("location /ws/ { ws_handoff BACKEND; }");
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!(head.status(), 301);
}

/// An echoing backend and an nginx with these server directives, where BACKEND stands for the backend's
/// address and APP for the port of an application: it asks for `X-Token: good`, and redirects /app.
fn site(server: &str) -> (FakeBackend, Nginx) {
    let backend = FakeBackend::echo();
    let app = net::free_port();
    let server = server.replace("BACKEND", &backend.address()).replace("APP", &app.to_string());
    let nginx = Nginx::builder()
        .http(format!(
            "server {{ listen 127.0.0.1:{app}; \
             if ($http_x_token != good) {{ return 403; }} \
             location /app {{ add_header X-Accel-Redirect '/handoff/room%207?user=1'; \
                 return 200 'never seen'; }} \
             location / {{ add_header X-User alice; return 200 fine; }} }}"
        ))
        .server(server)
        .start();
    (backend, nginx)
}

/// The head that a backend sees of `request`, which is accepted.
fn seen(server: &str, request: &Handshake) -> Head {
    let (backend, nginx) = site(&format!("{server} location /ws {{ ws_handoff BACKEND; }}"));
    let mut client = Client::connect(nginx.address());
    client.send(&request.bytes());
    client.expect_101();
    backend.only_head()
}
