//! The HTTP interface that the page uses, through nginx.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::time::sleep;

use crate::clients::{Clients, Open, Way};
use crate::listen::{Listener, Stream};
use crate::memory::{Memory, Nginx};
use crate::metrics;

/// What requests are about.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) clients: Arc<Clients>,
    pub(crate) nginx: Nginx,
}

/// Clients of one way that a page may ask for.
const MOST: usize = 500;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to every request that was understood.
#[derive(Debug, Serialize)]
struct State {
    nginx: Option<Memory>,
    clients: Open,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    error: &'a str,
}

/// Serves until dropped.
pub(crate) async fn serve(listener: &Listener, demo: Arc<Demo>) {
    loop {
        match listener.accept().await {
            Ok(stream) => drop(tokio::spawn(connection(stream, Arc::clone(&demo)))),
            Err(error) => {
                eprintln!("ws-handoff-demo: accept: {error}");
                // EMFILE would come again at once.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: Box<dyn Stream>, demo: Arc<Demo>) {
    let service = service_fn(|request| {
        let demo = Arc::clone(&demo);
        async move { Ok::<_, Infallible>(respond(&request, &demo).await) }
    });
    // Errors are nginx's, which gives up a request when its client does.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond<B>(request: &Request<B>, demo: &Demo) -> Response<Full<Bytes>> {
    let method = request.method();
    match request.uri().path() {
        "/demo/state" => match *method {
            Method::GET | Method::HEAD => demo.state(None),
            _ => not_allowed("GET, HEAD"),
        },
        "/demo/metrics" => match *method {
            Method::GET | Method::HEAD => demo.metrics(),
            _ => not_allowed("GET, HEAD"),
        },
        "/demo/healthz" => match *method {
            Method::GET | Method::HEAD => json(StatusCode::OK, &"ok"),
            _ => not_allowed("GET, HEAD"),
        },
        "/demo/clients" => match *method {
            Method::POST | Method::DELETE if !is_from_the_page(request.headers()) => {
                failure(StatusCode::FORBIDDEN, "POST and DELETE need the header X-Demo: 1")
            }
            Method::POST => match parse_query(request.uri().query().unwrap_or_default()) {
                Ok((way, count)) => {
                    demo.state(demo.clients.open_until(way, count).await.err().map(|error| {
                        let open = demo.clients.open();
                        format!(
                            "{error} (open: {} handed over, {} proxied)",
                            open.ws_handoff, open.proxy_pass
                        )
                    }))
                }
                Err(message) => failure(StatusCode::BAD_REQUEST, message),
            },
            Method::DELETE => {
                demo.clients.close_all().await;
                demo.state(None)
            }
            _ => not_allowed("POST, DELETE"),
        },
        _ => failure(
            StatusCode::NOT_FOUND,
            "/demo/state, /demo/clients, /demo/metrics or /demo/healthz",
        ),
    }
}

impl Demo {
    fn state(&self, error: Option<String>) -> Response<Full<Bytes>> {
        let status = if error.is_some() { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
        json(status, &State { nginx: self.nginx.memory(), clients: self.clients.open(), error })
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let text = metrics::text(self.nginx.memory(), self.clients.open());
        response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into())
    }
}

/// A page of another site cannot set this header: browsers ask first (CORS), and nobody here says yes.
fn is_from_the_page(headers: &HeaderMap) -> bool {
    headers.get("x-demo").is_some_and(|value| value == "1")
}

/// `way=…&count=…`, each once, in either order.
fn parse_query(query: &str) -> Result<(Way, usize), &'static str> {
    const EXPECTED: &str = "expected ?way=ws_handoff|proxy_pass&count=N with N from 1 to 500";
    let (mut way, mut count) = (None, None);
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("way", name)) if way.is_none() => way = Some(Way::from_name(name)),
            Some(("count", digits)) if count.is_none() => count = Some(digits.parse().ok()),
            _ => return Err(EXPECTED),
        }
    }
    match (way.flatten(), count.flatten()) {
        (Some(way), Some(count)) if (1..=MOST).contains(&count) => Ok((way, count)),
        _ => Err(EXPECTED),
    }
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, methods);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn failure(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    json(status, &Failure { error })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    // Numbers and strings: there is nothing in them that JSON lacks.
    let mut text = serde_json::to_vec(body).unwrap_or_default();
    text.push(b'\n');
    response(status, "application/json", text.into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_way_and_a_count() {
        assert_eq!(parse_query("way=ws_handoff&count=500"), Ok((Way::WsHandoff, 500)));
        assert_eq!(parse_query("count=1&way=proxy_pass"), Ok((Way::ProxyPass, 1)));
        for bad in [
            "",
            "way=ws_handoff",
            "count=1",
            "way=tunnel&count=1",
            "way=ws_handoff&count=0",
            "way=ws_handoff&count=501",
            "way=ws_handoff&count=-1",
            "way=ws_handoff&count=1&count=2",
            "way=ws_handoff&count=1&more",
        ] {
            assert!(parse_query(bad).is_err(), "{bad}");
        }
    }
}
