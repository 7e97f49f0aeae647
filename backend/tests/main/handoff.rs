//! From the 101 to the client, and every way in which it can go wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use ws_handoff_backend::{Client, HandoffError, HandoffListener, OfferOptions, Options, Source};

use crate::fake::client::{self, FIN, TEXT};
use crate::fake::nginx::{ACCEPT, Nginx, commit, request, tcp_pair};
use crate::fake::{PATIENCE, field, is_at_end, read_head};

struct Backend {
    path: PathBuf,
    result: JoinHandle<Result<Client, HandoffError>>,
    _directory: TempDir,
}

impl Backend {
    /// Accepts one offer.
    fn start() -> Backend {
        Backend::with(OfferOptions::default())
    }

    fn with(offers: OfferOptions) -> Backend {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("socket");
        let options = Options { offers, ..Options::new(&path) };
        let mut listener = HandoffListener::bind(options).expect("bind");
        let result = tokio::spawn(async move {
            let offer = listener.accept().await.expect("an offer");
            offer.accept().send().await
        });
        Backend { path, result, _directory: directory }
    }

    async fn client(self) -> Client {
        self.result.await.expect("no panic").expect("a client")
    }

    async fn error(self) -> HandoffError {
        self.result.await.expect("no panic").expect_err("no client")
    }
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin), len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await;
    read.expect("in time").expect("bytes");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_handed_over() {
    let backend = Backend::start();
    let (mut theirs, held) = tcp_pair();
    let mut nginx = Nginx::offering(&backend.path, "/chat?room=1", "X-Real-IP: 192.0.2.1\r\n");
    let head = nginx.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert_eq!(field(&head, "Handoff"), Some("fd; keepalive"));
    assert_eq!(field(&head, "Sec-WebSocket-Accept"), None, "nginx writes its own");
    nginx.offer(&held);
    nginx.commit(b"");
    let client = backend.client().await;
    drop((nginx, held));
    assert_eq!(client.source(), Source::Handoff);
    assert_eq!(client.uri(), "/chat?room=1");
    assert_eq!(client.client_addr(), Some([192, 0, 2, 1].into()));
    let mut stream = client.into_stream();
    theirs.write_all(b"ping").expect("write");
    assert_eq!(read(&mut stream, 4).await, b"ping");
    stream.write_all(b"pong").await.expect("write");
    let mut answer = [0; 4];
    theirs.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_data_comes_first_and_once() {
    for early in [&b"e"[..], b"early", &[7; 100_000]] {
        let backend = Backend::start();
        let (mut theirs, held) = tcp_pair();
        let mut nginx = Nginx::accepted(&backend.path);
        nginx.offer(&held);
        theirs.write_all(b"later").expect("write");
        nginx.commit(early);
        let mut stream = backend.client().await.into_stream();
        assert_eq!(read(&mut stream, early.len()).await, early);
        assert_eq!(read(&mut stream, 5).await, b"later");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_starts_with_early_frames() {
    let backend = Backend::start();
    let (mut theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    let first = client::frame(FIN | TEXT, b"one");
    let second = client::frame(FIN | TEXT, b"two");
    // Split within the first frame.
    nginx.commit(&first[..5]);
    theirs.write_all(&first[5..]).expect("write");
    theirs.write_all(&second).expect("write");
    let mut websocket = backend.client().await.into_websocket();
    for expected in [&b"one"[..], b"two"] {
        let frame = websocket.read_frame().await.expect("a frame");
        assert_eq!(&frame.payload[..], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commit_may_come_in_any_pieces() {
    let backend = Backend::start();
    let (_theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    for byte in commit(b"early") {
        nginx.send(&[byte]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut stream = backend.client().await.into_stream();
    assert_eq!(read(&mut stream, 5).await, b"early");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commit_may_come_with_the_offer() {
    let backend = Backend::start();
    let (_theirs, held) = tcp_pair();
    let nginx = Nginx::accepted(&backend.path);
    let mut bytes = b"F".to_vec();
    bytes.extend(commit(b"early"));
    nginx.pass(&bytes, &[held.as_raw_fd()]);
    let mut stream = backend.client().await.into_stream();
    assert_eq!(read(&mut stream, 5).await, b"early");
}

#[tokio::test(flavor = "multi_thread")]
async fn sections_of_unknown_type_are_skipped() {
    let backend = Backend::start();
    let (_theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    nginx.send(b"C\x03\0\0\0\x03new\x63\0\0\0\x01?\x01\0\0\0\x02ok\0\0\0\0\0");
    let mut stream = backend.client().await.into_stream();
    assert_eq!(read(&mut stream, 2).await, b"ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_commit_the_client_is_left_alone() {
    let backend = Backend::start();
    let (mut theirs, held) = tcp_pair();
    held.set_nodelay(false).expect("delay");
    held.set_nonblocking(false).expect("blocking");
    let flags = || OFlag::from_bits_retain(fcntl(&held, FcntlArg::F_GETFL).expect("flags"));
    let before = flags();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    theirs.write_all(b"x").expect("write");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(flags(), before);
    assert!(!held.nodelay().expect("option"));
    let mut byte = [0];
    assert_eq!(held.peek(&mut byte).expect("peek"), 1, "nothing was read");
    nginx.commit(b"");
    let _client = backend.client().await;
    assert!(flags().contains(OFlag::O_NONBLOCK), "tokio needs it");
    assert!(held.nodelay().expect("option"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_client_hangs_up_though_nginx_still_holds_it() {
    let backend = Backend::start();
    let (mut theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    nginx.commit(b"");
    drop(backend.client().await);
    assert!(is_at_end(&mut theirs));
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_be_on_a_unix_socket() {
    let backend = Backend::start();
    let (mut theirs, held) = UnixStream::pair().expect("pair");
    held.set_nonblocking(true).expect("nonblocking");
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    nginx.commit(b"");
    let mut stream = backend.client().await.into_stream();
    theirs.write_all(b"hi").expect("write");
    assert_eq!(read(&mut stream, 2).await, b"hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_carries_one_descriptor() {
    for count in [0, 2, 5] {
        let backend = Backend::start();
        let (mut theirs, held) = tcp_pair();
        let nginx = Nginx::accepted(&backend.path);
        nginx.pass(b"F", &vec![held.as_raw_fd(); count]);
        let error = backend.error().await;
        assert!(matches!(error, HandoffError::DescriptorCount(n) if n == count), "{error}");
        drop(held);
        assert!(is_at_end(&mut theirs), "none is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_descriptors_are_an_error_and_the_others_are_closed() {
    let backend = Backend::start();
    let (mut theirs, held) = tcp_pair();
    let nginx = Nginx::accepted(&backend.path);
    nginx.pass(b"F", &[held.as_raw_fd(); 40]);
    let error = backend.error().await;
    assert!(matches!(error, HandoffError::Truncated), "{error}");
    drop(held);
    assert!(is_at_end(&mut theirs), "none is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_behind_the_offer_are_closed() {
    let backend = Backend::start();
    let (_theirs, held) = tcp_pair();
    let (mut other, extra) = tcp_pair();
    let nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    nginx.pass(&commit(b"ok"), &[extra.as_raw_fd()]);
    let mut stream = backend.client().await.into_stream();
    assert_eq!(read(&mut stream, 2).await, b"ok");
    drop(extra);
    assert!(is_at_end(&mut other));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_connected_stream_socket_is_a_client() {
    let directory = tempfile::tempdir().expect("directory");
    let (pipe, _writer) = nix::unistd::pipe().expect("pipe");
    let datagram = UnixDatagram::unbound().expect("socket");
    let listening = UnixListener::bind(directory.path().join("x")).expect("bind");
    let tcp_listening = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let file = tempfile::tempfile().expect("file");
    let cases = [
        ("not a socket", pipe.as_raw_fd()),
        ("not a socket", file.as_raw_fd()),
        ("a socket of another type", datagram.as_raw_fd()),
        ("a listening socket", listening.as_raw_fd()),
        ("a listening socket", tcp_listening.as_raw_fd()),
    ];
    for (what, descriptor) in cases {
        let backend = Backend::start();
        let mut nginx = Nginx::accepted(&backend.path);
        nginx.pass(b"F", &[descriptor]);
        let error = backend.error().await;
        assert!(matches!(error, HandoffError::NotAClient(found) if found == what), "{error}");
        assert!(is_at_end(&mut nginx.stream), "and nginx is told at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_are_no_offer_and_no_commit() {
    let backend = Backend::start();
    let (_theirs, held) = tcp_pair();
    let nginx = Nginx::accepted(&backend.path);
    nginx.pass(b"G", &[held.as_raw_fd()]);
    let error = backend.error().await;
    assert!(matches!(error, HandoffError::NotAnOffer(b'G')), "{error}");

    for bad in [&b"D"[..], b"C\0\0\0\0\x01", b"C\x01\xff\xff\xff\xff"] {
        let backend = Backend::start();
        let (mut theirs, held) = tcp_pair();
        let mut nginx = Nginx::accepted(&backend.path);
        nginx.offer(&held);
        nginx.send(bad);
        let error = backend.error().await;
        assert!(matches!(error, HandoffError::Commit(_)), "{error}");
        assert!(is_at_end(&mut nginx.stream), "nginx hangs up when it sees this");
        assert!(is_at_end(&mut theirs), "though nginx still holds it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_instead_of_a_step_is_a_departure() {
    let backend = Backend::start();
    drop(Nginx::accepted(&backend.path));
    let error = backend.error().await;
    assert!(matches!(error, HandoffError::ClosedBeforeOffer), "{error}");
    assert!(error.is_departure());

    for partial in [&b""[..], b"C", b"C\x01\0\0\0\x05earl"] {
        let backend = Backend::start();
        let (mut theirs, held) = tcp_pair();
        let mut nginx = Nginx::accepted(&backend.path);
        nginx.offer(&held);
        nginx.send(partial);
        drop(nginx);
        let error = backend.error().await;
        assert!(matches!(error, HandoffError::ClosedBeforeCommit), "{error}");
        assert!(error.is_departure());
        theirs.set_nonblocking(true).expect("nonblocking");
        let still = theirs.read(&mut [0]).expect_err("nothing is done to it");
        assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock);
        theirs.set_nonblocking(false).expect("blocking");
        drop(held);
        assert!(is_at_end(&mut theirs), "and no reference is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_waited_for_without_end() {
    let short = Duration::from_millis(100);
    let options = OfferOptions { offer_timeout: short, ..OfferOptions::default() };
    let backend = Backend::with(options);
    let mut nginx = Nginx::accepted(&backend.path);
    let error = backend.error().await;
    assert!(matches!(error, HandoffError::OfferTimeout(_)), "{error}");
    assert!(is_at_end(&mut nginx.stream));

    let options = OfferOptions { commit_timeout: short, ..OfferOptions::default() };
    let backend = Backend::with(options);
    let (mut theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    let error = backend.error().await;
    assert!(matches!(error, HandoffError::CommitTimeout(_)), "{error}");
    assert!(is_at_end(&mut nginx.stream));
    drop(held);
    assert!(is_at_end(&mut theirs));
}

#[tokio::test(flavor = "multi_thread")]
async fn early_data_is_bounded() {
    let options = OfferOptions { early_data_limit: 10, ..OfferOptions::default() };
    let backend = Backend::with(options);
    let (mut theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    nginx.commit(b"eleven byte");
    assert!(matches!(backend.error().await, HandoffError::Commit(_)));
    assert!(is_at_end(&mut theirs), "though nginx still holds it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_reset_is_gone() {
    let backend = Backend::start();
    let (theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&theirs, sockopt::Linger, &reset).expect("linger");
    drop(theirs);
    let begin = Instant::now();
    while getsockopt(&held, sockopt::SocketError).expect("option") == 0 {
        assert!(begin.elapsed() < PATIENCE);
    }
    nginx.commit(b"");
    let error = backend.error().await;
    assert!(matches!(error, HandoffError::ClientGone), "{error}");
    assert!(error.is_departure());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sent_before_it_closed_is_not_lost() {
    let backend = Backend::start();
    let (mut theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    theirs.write_all(b"last words").expect("write");
    drop(theirs);
    nginx.offer(&held);
    nginx.commit(b"first words, ");
    let mut stream = backend.client().await.into_stream();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("to the end");
    assert_eq!(all, b"first words, last words");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_closes_everything() {
    let backend = Backend::start();
    let (mut theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&backend.path);
    nginx.offer(&held);
    nginx.send(b"C\x01\0\0");
    tokio::time::sleep(Duration::from_millis(50)).await;
    backend.result.abort();
    assert!(is_at_end(&mut nginx.stream));
    drop(held);
    assert!(is_at_end(&mut theirs));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_offer_of_a_descriptor_it_is_an_ordinary_websocket_server() {
    let backend = Backend::start();
    let mut nginx = Nginx::connect(&backend.path);
    let mut bytes = request("/", "").into_bytes();
    bytes.extend_from_slice(b"early");
    nginx.send(&bytes);
    let head = nginx.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(field(&head, "Handoff"), None);
    assert_eq!(field(&head, "Upgrade"), Some("websocket"));
    assert_eq!(field(&head, "Connection"), Some("Upgrade"));
    assert_eq!(field(&head, "Sec-WebSocket-Accept"), Some(ACCEPT));
    nginx.send(b", later");
    let client = backend.client().await;
    assert_eq!(client.source(), Source::Tunnel);
    let mut stream = client.into_stream();
    assert_eq!(read(&mut stream, 12).await, b"early, later");
    drop(stream);
    assert!(is_at_end(&mut nginx.stream));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let mut listener = HandoffListener::from_tcp(listener, OfferOptions::default()).expect("tcp");
    let result = tokio::spawn(async move {
        let offer = listener.accept().await.expect("an offer");
        assert!(offer.peer().is_none());
        offer.accept().send().await
    });
    let mut theirs = TcpStream::connect(address).expect("connect");
    theirs.set_read_timeout(Some(PATIENCE)).expect("timeout");
    // No descriptor can follow over TCP, whatever the client says.
    theirs.write_all(request("/", "Handoff: fd; v=1\r\n").as_bytes()).expect("write");
    let head = read_head(&mut theirs);
    assert_eq!(field(&head, "Sec-WebSocket-Accept"), Some(ACCEPT));
    assert_eq!(field(&head, "Handoff"), None);
    let client = result.await.expect("no panic").expect("a client");
    assert_eq!(client.source(), Source::Direct);
    assert_eq!(client.client_addr(), Some([127, 0, 0, 1].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_101_carries_what_the_application_adds() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let mut listener = HandoffListener::bind(Options::new(&path)).expect("bind");
    let mut nginx = Nginx::offering(
        &path,
        "/",
        "Sec-WebSocket-Protocol: soap, chat\r\nSec-WebSocket-Protocol: x\r\n",
    );
    let offer = listener.accept().await.expect("an offer");
    assert_eq!(offer.subprotocols().collect::<Vec<_>>(), ["soap", "chat", "x"]);
    let sent = tokio::spawn(
        offer
            .accept()
            .protocol("chat")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .send(),
    );
    let head = nginx.head();
    assert_eq!(field(&head, "Sec-WebSocket-Protocol"), Some("chat"));
    assert_eq!(head.matches("set-cookie: ").count(), 2);
    let (_theirs, held) = tcp_pair();
    nginx.offer(&held);
    nginx.commit(b"");
    let client = sent.await.expect("no panic").expect("a client");
    assert_eq!(client.protocol(), Some("chat"));
}
