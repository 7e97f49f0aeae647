//! What went wrong, counted; the first few told.

use std::fmt::Display;

use serde::Serialize;

/// Failures of connections.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Failures {
    #[serde(rename = "errors")]
    count: u64,
    first_errors: Vec<String>,
}

impl Failures {
    pub(crate) fn add(&mut self, what: impl Display) {
        self.count += 1;
        if self.first_errors.len() < 5 {
            self.first_errors.push(what.to_string());
        }
    }

    pub(crate) fn merge(&mut self, other: Failures) {
        self.count += other.count;
        self.first_errors.extend(other.first_errors);
        self.first_errors.truncate(5);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}
