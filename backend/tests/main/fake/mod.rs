//! Stand-ins for what a backend talks to. All of it blocks, with timeouts: tests call it while the runtime's threads
//! run the code under test.

pub mod client;
pub mod nginx;
pub mod program;
pub mod random;
pub mod stopped;
pub mod tls;

use std::io::Read;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Longer than anything that is to happen takes; shorter than the patience of whoever runs the tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Lets this process have as many descriptors as it may, for tests with thousands of clients.
pub fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
}

/// Reads up to and including the empty line.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).expect("head is text")
}

/// Whether the other end has closed, once everything it sent was read.
pub fn is_at_end(stream: &mut impl Read) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// The status in a response's head.
pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
}

/// A field's value in a head.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}
