//! The protocol's rules, one module per message, and what holds for any input.

mod answer;
mod chunked;
mod commit;
mod golden;
mod origin;
mod properties;
mod request;
mod vectors;
