//! Messages to a group, until the round is over: each member is sent all of them at once.
//!
//! A send of four short messages costs what a send of one does, and the more a thread has to do, the more come together.
//! Members see no other order than if each had left alone: messages are numbered, and before anything else is done for a
//! member, or sent to it, it catches up.

use std::collections::HashMap;

use super::prepared::Prepared;
use super::slab::Key;

/// What waits for the members of one group on one thread.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    messages: Vec<Numbered>,
    /// Members that have the first so many already.
    ahead: HashMap<Key, usize>,
}

/// A message with its place among all that the thread sends to groups.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) message: Prepared,
}

impl Batch {
    pub(crate) fn push(&mut self, number: u64, message: Prepared) {
        self.messages.push(Numbered { number, message });
    }

    /// What this member has not got.
    pub(crate) fn for_member(&self, key: Key) -> &[Numbered] {
        let has =
            if self.ahead.is_empty() { 0 } else { self.ahead.get(&key).copied().unwrap_or(0) };
        self.messages.get(has..).unwrap_or_default()
    }

    /// It gets only what comes after this.
    pub(crate) fn has_all(&mut self, key: Key) {
        self.ahead.insert(key, self.messages.len());
    }
}

#[cfg(test)]
mod tests {
    use handoff_websocket::Message;

    use super::*;

    #[test]
    fn a_member_gets_each_message_once() {
        let mut batch = Batch::default();
        let keys = [0, 1].map(|place| Key { place, generation: 0 });
        let push = |batch: &mut Batch, number: u64| {
            batch.push(number, Prepared::new(Message::Binary(b"")));
        };
        let numbers = |batch: &Batch, key: Key| -> Vec<u64> {
            batch.for_member(key).iter().map(|numbered| numbered.number).collect()
        };
        push(&mut batch, 1);
        push(&mut batch, 2);
        batch.has_all(keys[0]);
        assert_eq!(numbers(&batch, keys[0]), [0; 0]);
        push(&mut batch, 3);
        assert_eq!(numbers(&batch, keys[0]), [3]);
        assert_eq!(numbers(&batch, keys[1]), [1, 2, 3]);
    }
}
