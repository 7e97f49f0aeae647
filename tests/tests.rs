//! End-to-end tests: the real nginx, the real module, the real backend, real sockets. Every test owns its
//! directory, ports and processes. One module per promise.

mod support;

// The opening handshake, every rule of it, is judged by nginx before a backend hears of it.
mod handshake;
// Pages of other sites are refused.
mod origin;
// Handed over: frames flow, and nginx has forgotten the client.
mod handoff;
// The same for backends that know nothing but to receive a descriptor.
mod bare;
// Bytes sent before nginx let go arrive once and in order.
mod early_data;
// The real backend's engine, from a client's first byte on: what it refuses, compresses, and forgets.
mod engine;
// Services in Rust that take handed-over clients beside their own: an axum app, and one on hyper and fastwebsockets.
mod examples;
// A backend's refusal reaches the client as it is.
mod refusal;
// What the backend sees of a request, and the ways to reach a location.
mod request;
// What nginx itself says in the request head.
mod set_header;
// Whom to hand over to may depend on the request.
mod variables;
// Before the offer: the next peer, else 502 or 504.
mod peers;
// Several backends behind one upstream.
mod several_backends;
// An upstream with `keepalive`: one connection to a backend carries one client after the other.
mod keepalive;
// A peer that cannot be handed over to is tunnelled to.
mod tunnel;
// A thousand times each: backends that fail before the offer, after it, and between offer and commit.
mod failure;
// Backends and workers that are killed while thousands of clients come.
mod faults;
// Descriptors run out: in nginx, in flight between the two, in the backend.
mod descriptors;
// Clients and backends that take their time, or never end.
mod slow;
// The client vanishes, at each step.
mod client_gone;
// The 101 has to wait for the client's send buffer; the received socket is as a new one.
mod send_buffer;
// What becomes of a handed-over client disturbs nobody, and 20,000 handovers leave nothing behind.
mod release;
// The examples in other languages keep to the protocol, where nginx is as expected and where it is not.
mod other_languages;
// nginx's event loop keeps no registration of a socket that lives on in a backend.
mod registration;
// Reload, stop, start, a killed worker: handed-over connections live on, old workers do not.
mod reload;
// wss, through the tunnel.
mod tls;
// wss, carried on by the real backend.
mod tls_commit;
mod tls_engine;
// The same by the kernel, and what becomes of that where the kernel cannot.
mod tls_kernel;
// wss, handed over with its TLS session.
mod tls_handoff;
// wss with records that the client has not sealed.
mod tls_forged;
// wss that has to stay with nginx.
mod tls_kept;
// Thousands of TLS clients leave nothing behind in nginx.
mod tls_release;
// wss with curl, and with clients in Go and Node that use their standard libraries' TLS.
mod tls_curl;
mod tls_languages;
// wss with rustls, and no OpenSSL on the client's side: every suite, certificates of all kinds, large and many messages.
mod tls_rustls;
// The OpenSSL that nginx runs with may be another, or not nginx's alone.
mod tls_library;
// wss whose session a backend is not trusted with.
mod tls_trust;
// wss with messages of TLS that come in pieces.
mod tls_pieces;
// Where the secrets of such a session are to be found, and where no longer.
mod tls_secrets;
// Everything that can become of a request is counted once, in memory that outlives reloads, and shown.
mod counters;
mod counters_attempts;
mod counters_lives;
mod status;
// The access log tells how a hand-over ended, and why it failed.
mod variables_log;
// Wrong configurations are refused at their line.
mod config;
// Event loops other than epoll: the same promises, and no busy waiting where readiness is reported for ever.
mod event_methods;
// Processes and accepting: workers, reuseport, thread pools, one process without a master, a daemon.
mod processes;
// Clients that come by IPv6, over a Unix socket, through a proxy that speaks the PROXY protocol.
mod listeners;
// What runs before the location, and beside it: limit_req, subrequests, mirrors, try_files, if.
mod phases;
// limit_conn and stub_status: who is a connection of nginx's, and until when.
mod limit_conn;
mod stub_status;
// What any access log can be told to write, of a client that is no longer nginx's.
mod access_log;
// Old workers that may not wait for long: whom worker_shutdown_timeout ends.
mod shutdown_timeout;
// A new nginx binary takes over while clients stay.
mod binary_upgrade;
// An upstream that proxy_pass uses as well: a handover may use a connection that pages have left.
mod shared_peers;
// What the documentation tells people to do, they can do.
mod docs;
// Each line that the module can write to the error log is explained.
mod messages;
// What newer versions of nginx add.
mod versions;
// A shared object for another nginx is refused when it is loaded.
mod load_module;
