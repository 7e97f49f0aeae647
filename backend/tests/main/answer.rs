//! Every offer is answered: nginx takes a connection that is just closed for a failure of the backend.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::StatusCode;
use tempfile::TempDir;
use ws_handoff_backend::{
    AnswerError, HandoffError, HandoffListener, Offer, OfferOptions, Options, Source,
};

use crate::fake::nginx::{Nginx, tcp_pair};
use crate::fake::{field, is_at_end, status};

fn bind(offers: OfferOptions) -> (HandoffListener, PathBuf, TempDir) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let options = Options { offers, ..Options::new(&path) };
    (HandoffListener::bind(options).expect("bind"), path, directory)
}

/// Has an offer answered by `answer`: its result, and the head that nginx got, and nothing behind it.
async fn answered<F, T>(answer: impl FnOnce(Offer) -> F) -> (T, String)
where
    F: Future<Output = T>,
{
    let (mut listener, path, _directory) = bind(OfferOptions::default());
    let mut nginx = Nginx::offering(&path, "/", "");
    let result = answer(listener.accept().await.expect("an offer")).await;
    let head = nginx.head();
    assert_eq!(field(&head, "Content-Length"), Some("0"), "{head}");
    assert!(is_at_end(&mut nginx.stream));
    (result, head)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_101_that_cannot_be_made_is_a_500() {
    for name in ["Sec-WebSocket-Accept", "Handoff", "connection", "Sec-WebSocket-Extensions"] {
        let (result, head) =
            answered(|offer| async { offer.accept().header(name, "x").send().await }).await;
        let error = result.expect_err("reserved");
        assert!(matches!(error, HandoffError::Answer(AnswerError::ReservedField(_))), "{error}");
        assert_eq!(status(&head), 500);
    }
    let (result, head) =
        answered(|offer| async { offer.accept().header("x", "a\r\nb: c").send().await }).await;
    let error = result.expect_err("invalid");
    assert!(matches!(error, HandoffError::Answer(AnswerError::InvalidField(_))), "{error}");
    assert_eq!(status(&head), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_cannot_be_made_is_a_500() {
    let (result, head) = answered(|offer| async {
        offer.refuse(StatusCode::FORBIDDEN).header("content-length", "5").await
    })
    .await;
    assert!(matches!(result, Err(AnswerError::ReservedField(_))), "{result:?}");
    assert_eq!(status(&head), 500);

    let (result, head) = answered(|offer| async {
        offer.refuse(StatusCode::FORBIDDEN).header("x", "a\r\nb: c").await
    })
    .await;
    assert!(matches!(result, Err(AnswerError::InvalidField(_))), "{result:?}");
    assert_eq!(status(&head), 500);

    let (result, head) =
        answered(|offer| async { offer.refuse(StatusCode::SWITCHING_PROTOCOLS).await }).await;
    assert!(matches!(result, Err(AnswerError::NotARefusal(_))), "{result:?}");
    assert_eq!(status(&head), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_is_dropped_is_a_500() {
    let ((), head) = answered(|offer| async { drop(offer) }).await;
    assert_eq!(status(&head), 500);
    let ((), head) = answered(|offer| async { drop(offer.accept()) }).await;
    assert_eq!(status(&head), 500);
    let (result, head) = answered(|offer| {
        tokio::spawn(async move { panic!("with {offer:?} in hand, as this test wants it") })
    })
    .await;
    let _: () = result.expect_err("panicked").is_panic().then_some(()).expect("a panic");
    assert_eq!(status(&head), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subprotocol_that_the_client_did_not_offer_is_passed_over() {
    let (mut listener, path, _directory) = bind(OfferOptions::default());
    let mut nginx = Nginx::offering(&path, "/", "Sec-WebSocket-Protocol: soap\r\n");
    let offer = listener.accept().await.expect("an offer");
    let sent = tokio::spawn(offer.accept().protocol("chat").send());
    let head = nginx.head();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "Sec-WebSocket-Protocol"), None);
    let (_theirs, held) = tcp_pair();
    nginx.offer(&held);
    nginx.commit(b"");
    let client = sent.await.expect("no panic").expect("a client");
    assert_eq!(client.protocol(), None);
}

/// Whoever gets a `Client` gets no compressed messages, which fastwebsockets could not read.
#[tokio::test(flavor = "multi_thread")]
async fn compression_is_agreed_to_for_an_engine_only() {
    const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (mut listener, path, _directory) = bind(OfferOptions::default());
    for is_detached in [true, false] {
        let mut nginx = Nginx::offering(&path, "/", DEFLATE);
        let acceptance = listener.accept().await.expect("an offer").accept().compress();
        let sent = tokio::spawn(async move {
            if is_detached {
                let client = acceptance.send_detached().await.expect("a client");
                client.request().compression
            } else {
                acceptance.send().await.expect("a client").request().compression
            }
        });
        let head = nginx.head();
        assert_eq!(field(&head, "Sec-WebSocket-Extensions").is_some(), is_detached, "{head}");
        let (_theirs, held) = tcp_pair();
        nginx.offer(&held);
        nginx.commit(b"");
        assert_eq!(sent.await.expect("no panic").is_some(), is_detached);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_who_do_not_take_their_101_hold_up_nobody() {
    let (mut listener, path, _directory) =
        bind(OfferOptions { max_pending: 1, max_handovers: 2, ..OfferOptions::default() });
    let serving = tokio::spawn(async move {
        let mut sent = Vec::new();
        for _ in 0..4 {
            let offer = listener.accept().await.expect("an offer");
            sent.push(tokio::spawn(offer.accept().send()));
        }
        (sent, listener)
    });
    let (_theirs, held) = tcp_pair();
    let mut stuck: Vec<_> = (0..2).map(|_| Nginx::accepted(&path)).collect();
    stuck[0].offer(&held);
    let mut full = Nginx::offering(&path, "/", "");
    assert_eq!(status(&full.head()), 503);
    // A tunnel waits for nothing.
    let mut tunnelled = Nginx::connect(&path);
    tunnelled.send(crate::fake::nginx::request("/", "").as_bytes());
    assert_eq!(status(&tunnelled.head()), 101);

    stuck[0].commit(b"");
    let (mut sent, mut listener) = serving.await.expect("no panic");
    let first = sent.remove(0).await.expect("no panic").expect("a client");
    assert_eq!(first.source(), Source::Handoff);
    let error = sent.remove(1).await.expect("no panic").expect_err("full");
    assert!(matches!(error, HandoffError::Full), "{error}");
    // There is room again.
    let serving =
        tokio::spawn(
            async move { listener.accept().await.expect("an offer").accept().send().await },
        );
    let mut next = Nginx::accepted(&path);
    let (_theirs, held) = tcp_pair();
    next.offer(&held);
    next.commit(b"");
    serving.await.expect("no panic").expect("a client");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_who_may_not_connect_take_no_room() {
    let uid = nix::unistd::getuid().as_raw() + 1;
    let options =
        OfferOptions { max_pending: 1, allow_uids: Some(vec![uid]), ..OfferOptions::default() };
    let (mut listener, path, _directory) = bind(options);
    let begin = Instant::now();
    // They say nothing, and so are not turned away at once.
    let _silent: Vec<_> = (0..40).map(|_| Nginx::connect(&path)).collect();
    for _ in 0..20 {
        let error = listener.accept().await.expect_err("none is an offer");
        assert_eq!(error.cause(), "forbidden");
    }
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
}
