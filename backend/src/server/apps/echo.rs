//! `echo`: each message comes back as it is, text as text and binary as binary.

use super::Application;
use crate::server::messages::Message;

#[derive(Debug)]
pub(super) struct Echo;

impl Application for Echo {
    fn received(&mut self, message: Message) -> Option<Message> {
        Some(message)
    }
}
