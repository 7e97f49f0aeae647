//! For services made with [axum](::axum): a `Router` serves handed-over clients beside those that connect to it
//! (feature `axum`).
//!
//! [`serve`] turns each offer into a request, which goes through the whole router: middleware, state, extractors. The
//! handler's response decides. One that [`HandoffUpgrade::on_upgrade`] made accepts the client; every other one is the
//! refusal that the client gets. [`HandoffUpgrade`] extracts from a direct client's request what axum's own
//! [`WebSocketUpgrade`](::axum::extract::WebSocketUpgrade) does, with the same rejections, so that one handler serves
//! both.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, response::Response, routing::any};
//! use tokio::net::TcpListener;
//! use ws_handoff_backend::axum::{HandoffUpgrade, WebSocket};
//! use ws_handoff_backend::{HandoffListener, Options};
//!
//! async fn upgrade(upgrade: HandoffUpgrade) -> Response {
//!     upgrade.protocols(["chat"]).on_upgrade(echo)
//! }
//!
//! async fn echo(mut socket: WebSocket) {
//!     while let Some(Ok(message)) = socket.recv().await {
//!         if socket.send(message).await.is_err() {
//!             break;
//!         }
//!     }
//! }
//!
//! let app = Router::new().route("/ws", any(upgrade));
//! let direct = TcpListener::bind("127.0.0.1:3000").await?;
//! let options = Options { group: Some("www-data".into()), ..Options::new("/run/app/ws.sock") };
//! let handed_over = HandoffListener::bind(options)?;
//! tokio::try_join!(
//!     axum::serve(direct, app.clone()),
//!     ws_handoff_backend::axum::serve(handed_over, app),
//! )?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod serve;
mod socket;
mod upgrade;

pub use serve::{Serve, ServeGracefully, serve};
pub use socket::WebSocket;
pub use upgrade::HandoffUpgrade;
