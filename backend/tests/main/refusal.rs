//! Refusals arrive whole.

use http::StatusCode;
use ws_handoff_backend::{HandoffListener, Offer, Options};

use crate::fake::nginx::Nginx;
use crate::fake::{field, status};

/// Has an offer answered by `answer`: its result, and the bytes that nginx got.
async fn answered<F, T>(answer: impl FnOnce(Offer) -> F) -> (T, Vec<u8>)
where
    F: Future<Output = T>,
{
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let mut listener = HandoffListener::bind(Options::new(&path)).expect("bind");
    let mut nginx = Nginx::offering(&path, "/", "");
    let result = answer(listener.accept().await.expect("an offer")).await;
    (result, nginx.rest())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_fields_and_body_arrive() {
    let (result, bytes) = answered(|offer| async {
        offer
            .refuse(StatusCode::FORBIDDEN)
            .header("content-type", "text/plain")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .body("not you\n")
            .await
    })
    .await;
    result.expect("sent");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    assert_eq!(field(head, "Content-Length"), Some("8"));
    assert_eq!(field(head, "Connection"), Some("close"));
    assert_eq!(head.matches("set-cookie: ").count(), 2);
    assert_eq!(body, "not you\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_arrives_too() {
    let body = vec![b'x'; 1 << 20];
    let expected = body.clone();
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let mut listener = HandoffListener::bind(Options::new(&path)).expect("bind");
    let sent = tokio::spawn(async move {
        let offer = listener.accept().await.expect("an offer");
        offer.refuse(StatusCode::NOT_FOUND).body(body).await
    });
    let mut nginx = Nginx::offering(&path, "/", "");
    assert_eq!(status(&nginx.head()), 404);
    assert!(nginx.rest() == expected);
    sent.await.expect("no panic").expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_body_where_there_is_none() {
    let (result, bytes) =
        answered(|offer| async { offer.refuse(StatusCode::NO_CONTENT).body("ignored").await })
            .await;
    result.expect("sent");
    let head = String::from_utf8(bytes).expect("text");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(field(&head, "Content-Length"), None);
}
