//! What comes of a client's bytes, however they are cut, and what a server's bytes are.

mod client;
mod deflate;
mod distances;
mod encoding;
mod extension;
mod memory;
mod properties;
mod reference;
mod rules;
