//! What nginx passes on of a TLS session whose handshake it has done: all that a record layer needs to carry it on.

mod state;
mod suite;

pub use state::{MAX_SECRET, Secret, State, StateError, cleanse_stack};
pub use suite::{Suite, Version};
