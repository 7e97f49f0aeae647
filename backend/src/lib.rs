//! WebSocket clients whose sockets nginx hands over.
//!
//! nginx validates an opening handshake and offers the client over a Unix socket; a backend that accepts gets the client's
//! own socket (SCM_RIGHTS), with whatever the client had sent early, and nginx forgets the connection. Where the
//! socket cannot move (TLS), the same Unix connection becomes a tunnel, and the code here cannot tell.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use http::StatusCode;
//! use ws_handoff_backend::{HandoffListener, Options};
//!
//! let options = Options { group: Some("www-data".into()), ..Options::new("/run/app/ws.sock") };
//! let mut listener = HandoffListener::bind(options)?;
//! loop {
//!     let offer = match listener.accept().await {
//!         Ok(offer) => offer,
//!         Err(error) => {
//!             eprintln!("{error}");
//!             continue;
//!         }
//!     };
//!     tokio::spawn(async move {
//!         if offer.uri().path() != "/chat" {
//!             let _ = offer.refuse(StatusCode::NOT_FOUND).body("no such room\n").await;
//!             return;
//!         }
//!         // The 101, then the client's socket, then nginx's word that it is ours.
//!         if let Ok(client) = offer.accept().header("x-served-by", "chat").send().await {
//!             let mut websocket = client.into_websocket();
//!             while let Ok(frame) = websocket.read_frame().await {
//!                 println!("{:?}: {} bytes", frame.opcode, frame.payload.len());
//!             }
//!         }
//!     });
//! }
//! # }
//! ```
//!
//! The feature `axum` adds the module `axum`: a `Router` that serves handed-over clients beside its own.
//!
//! The program `ws-handoff-backend` is [`server`].

mod activation;
#[cfg(feature = "axum")]
pub mod axum;
pub mod engine;
mod error;
mod head;
mod listener;
mod offer;
mod options;
mod peer;
mod receive;
mod reuse;
pub mod server;
mod slots;
mod socket_file;
mod stream;
mod websocket;

pub use error::{AcceptError, AnswerError, BindError, HandoffError};
pub use listener::HandoffListener;
pub use offer::{Acceptance, Offer, Refusal};
pub use options::{Group, OfferOptions, Options};
pub use peer::PeerCredentials;
pub use stream::{ClientStream, ReadHalf, WriteHalf};
pub use websocket::{Client, DetachedClient, Source};

// The code in the documents compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/backend.md")]
mod backend_md {}
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../docs/rust-services.md")]
mod rust_services_md {}
