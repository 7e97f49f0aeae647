//! Request heads: what is no offer gets an answer, and holds up nobody.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use ws_handoff_backend::{AcceptError, HandoffListener, OfferOptions, Options};

use crate::fake::nginx::{Nginx, request};
use crate::fake::{PATIENCE, field, is_at_end, status};

fn bind(offers: OfferOptions) -> (HandoffListener, PathBuf, TempDir) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let options = Options { offers, ..Options::new(&path) };
    (HandoffListener::bind(options).expect("bind"), path, directory)
}

/// Sends bytes where an offer is due: the error, and the answer's head.
async fn reject(bytes: &[u8], offers: OfferOptions) -> (AcceptError, String) {
    let (mut listener, path, _directory) = bind(offers);
    let accepted = tokio::spawn(async move { listener.accept().await });
    let mut nginx = Nginx::connect(&path);
    nginx.send(bytes);
    let head = nginx.head();
    assert_eq!(field(&head, "Connection"), Some("close"));
    assert_eq!(field(&head, "Content-Length"), Some("0"));
    assert!(is_at_end(&mut nginx.stream));
    (accepted.await.expect("no panic").expect_err("no offer"), head)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_400() {
    let inputs: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"F",
    ];
    for input in inputs {
        let mut options = OfferOptions::default();
        if input == b"F" {
            options.head_timeout = Duration::from_millis(300);
        }
        let (error, head) = reject(input, options).await;
        match input {
            // A method could still become of it.
            b"F" => assert_eq!((status(&head), error.cause()), (408, "slow_head")),
            _ => assert_eq!((status(&head), error.cause()), (400, "bad_head"), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_told_so() {
    let good = request("/", "");
    for (from, to, expected) in [
        ("GET / ", "POST / ", 405),
        ("HTTP/1.1", "HTTP/1.0", 505),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade", "Connection: close", 426),
        ("Version: 13", "Version: 8", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("Host: example.org", "Content-Length: 3", 400),
    ] {
        let (error, head) =
            reject(good.replace(from, to).as_bytes(), OfferOptions::default()).await;
        assert_eq!(status(&head), expected, "{to}: {error}");
        match to {
            "Version: 8" => assert_eq!(field(&head, "Sec-WebSocket-Version"), Some("13")),
            "POST / " => assert_eq!(field(&head, "Allow"), Some("GET")),
            "Upgrade: h2c" => assert_eq!(field(&head, "Upgrade"), Some("websocket")),
            _ => (),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_head_is_answered_431() {
    let options = OfferOptions { max_head: 2000, ..OfferOptions::default() };
    let long = request("/", &format!("X: {}\r\n", "x".repeat(4000)));
    let (error, head) = reject(&long.as_bytes()[..2000], options).await;
    assert!(matches!(error, AcceptError::TooLarge(2000)), "{error}");
    assert_eq!(status(&head), 431);

    let many = request("/", &"X: y\r\n".repeat(200));
    let (error, head) = reject(many.as_bytes(), OfferOptions::default()).await;
    assert_eq!(status(&head), 431, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_answered_408_and_holds_up_nobody() {
    let options = OfferOptions { head_timeout: Duration::from_secs(2), ..OfferOptions::default() };
    let (mut listener, path, _directory) = bind(options);
    let mut slow = Nginx::connect(&path);
    slow.send(b"GET / HTTP/1.1\r\n");
    let _quick = Nginx::offering(&path, "/quick", "");
    let offer = listener.accept().await.expect("the quick one");
    assert_eq!(offer.uri(), "/quick");
    let error = listener.accept().await.expect_err("the slow one");
    assert!(matches!(error, AcceptError::Slow(_)), "{error}");
    assert_eq!(status(&slow.head()), 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_come_byte_by_byte() {
    let (mut listener, path, _directory) = bind(OfferOptions::default());
    let accepted = tokio::spawn(async move { listener.accept().await });
    let mut nginx = Nginx::connect(&path);
    for byte in
        request("/a%20b?c=d", "X-Real-IP: 192.0.2.7\r\nX-Twice: 1\r\nX-Twice: 2\r\n").bytes()
    {
        nginx.send(&[byte]);
    }
    let offer = accepted.await.expect("no panic").expect("an offer");
    assert_eq!(offer.uri().path(), "/a%20b");
    assert_eq!(offer.uri().query(), Some("c=d"));
    assert_eq!(offer.client_addr(), Some([192, 0, 2, 7].into()));
    assert_eq!(offer.headers().get_all("x-twice").iter().count(), 2);
    assert!(!offer.offers_descriptor());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_early_is_noticed() {
    for sent in ["", "GET / HT"] {
        let (mut listener, path, _directory) = bind(OfferOptions::default());
        let mut nginx = Nginx::connect(&path);
        nginx.send(sent.as_bytes());
        drop(nginx);
        let error = listener.accept().await.expect_err("nothing came");
        assert!(matches!(error, AcceptError::Left(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_may_come_between_an_offering_head_and_its_answer() {
    let head = request("/", "Handoff: fd; v=1\r\n");
    let (error, answer) = reject(format!("{head}F").as_bytes(), OfferOptions::default()).await;
    assert!(matches!(error, AcceptError::Invalid(_)), "{error}");
    assert_eq!(status(&answer), 400);

    let (mut listener, path, _directory) = bind(OfferOptions::default());
    let mut nginx = Nginx::connect(&path);
    nginx.pass(head.as_bytes(), &[0]);
    let error = listener.accept().await.expect_err("a descriptor");
    assert!(matches!(error, AcceptError::Invalid(_)), "{error}");
    assert_eq!(status(&nginx.head()), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_in_hand_are_bounded() {
    let options = OfferOptions { max_pending: 1, ..OfferOptions::default() };
    let (mut listener, path, _directory) = bind(options);
    let _first = Nginx::offering(&path, "/first", "");
    let _second = Nginx::offering(&path, "/second", "");
    let offer = listener.accept().await.expect("the first");
    let waited = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(waited.is_err(), "the second is not heard yet");
    drop(offer);
    let offer = listener.accept().await.expect("the second");
    assert_eq!(offer.uri(), "/second");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_silent_give_way_to_others() {
    let options = OfferOptions { max_pending: 2, ..OfferOptions::default() };
    let (mut listener, path, _directory) = bind(options);
    let mut silent: Vec<_> = (0..3).map(|_| Nginx::connect(&path)).collect();
    let _nginx = Nginx::offering(&path, "/", "");
    let mut displaced = 0;
    let offer = loop {
        match listener.accept().await {
            Ok(offer) => break offer,
            Err(AcceptError::Displaced) => displaced += 1,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(offer.uri(), "/");
    // The second who gave way may be told of after the one who got the room.
    while displaced < 2 {
        let next = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time");
        assert!(matches!(next, Err(AcceptError::Displaced)), "{next:?}");
        displaced += 1;
    }
    assert_eq!(status(&silent[0].head()), 503, "an answer all the same");
    silent[0].rest();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_way_while_there_is_room() {
    let (mut listener, path, _directory) = bind(OfferOptions::default());
    // A worker that is kept from its processor for a while, on a machine with too much to do.
    let mut slow = Nginx::connect(&path);
    let waited = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
    assert!(waited.is_err(), "no head yet");
    for n in 0..50 {
        let _nginx = Nginx::offering(&path, &format!("/{n}"), "");
        let offer = listener.accept().await.expect("an offer");
        assert_eq!(offer.uri(), &*format!("/{n}"));
    }
    slow.send(request("/slow", "").as_bytes());
    assert_eq!(listener.accept().await.expect("an offer").uri(), "/slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepting_can_be_cancelled_without_loss() {
    let (mut listener, path, _directory) = bind(OfferOptions::default());
    let nginxes: Vec<_> = (0..20).map(|n| Nginx::offering(&path, &format!("/{n}"), "")).collect();
    let mut seen = 0;
    while seen < nginxes.len() {
        let accepted = tokio::time::timeout(Duration::from_micros(50), listener.accept()).await;
        if let Ok(offer) = accepted {
            offer.expect("an offer");
            seen += 1;
        }
    }
}
