//! A shared object that was built for another nginx: it is refused when it is loaded, by a line that says why, as it is
//! said in docs/install.md.

use std::fs;
use std::ops::Range;

use crate::support::nginx::version;
use crate::support::{Nginx, paths};

#[test]
fn built_for_another_version() {
    let Some(object) = Object::staged() else { return };
    let (major, minor, patch) = version();
    let own = u64::from(major * 1_000_000 + minor * 1_000 + patch);
    for other in [own + 1, own - 1, 1_018_000] {
        let complaint = format!("version {other} instead of {own} in ");
        object.with(object.version(own), &other.to_le_bytes()).is_refused(&complaint);
    }
}

#[test]
fn configured_otherwise() {
    let Some(object) = Object::staged() else { return };
    let signature = object.signature();
    // Whatever nginx was configured with: each is a digit or two.
    for n in [0, signature.len() / 2, signature.len() - 1] {
        let place = signature.start + n..signature.start + n + 1;
        let other = object.bytes[place.start] ^ 1;
        object.with(place, &[other]).is_refused("is not binary compatible in ");
    }
}

#[test]
fn loaded_twice() {
    let Some(object) = Object::staged() else { return };
    // By another name, before the one that the tests load.
    let (accepted, said) = object.load();
    assert!(!accepted, "{said}");
    let complaint = "module \"ngx_http_ws_handoff_module\" is already loaded in ";
    assert!(said.contains(&format!("[emerg] {complaint}")), "{said}");
}

/// The shared object under test, as a file.
struct Object {
    bytes: Vec<u8>,
}

impl Object {
    fn staged() -> Option<Object> {
        let Some(path) = paths::module() else {
            eprintln!("NOT TESTED: the nginx under test loads no shared object");
            return None;
        };
        Some(Object { bytes: fs::read(path).expect("read the module") })
    }

    /// Where the version is: in `NGX_MODULE_V1`, behind two indexes that are not set and three words of zero.
    fn version(&self, own: u64) -> Range<usize> {
        let unset = [0xff; 16];
        let pattern = [&unset[..], &[0; 24], &own.to_le_bytes()].concat();
        let found = self.only(&pattern);
        found.end - 8..found.end
    }

    /// Where `NGX_MODULE_SIGNATURE` is: sizes of three types, then a digit for each thing that can be configured.
    fn signature(&self) -> Range<usize> {
        let sizes = b"8,4,8,";
        let start = self.only(sizes).start;
        let is_part = |byte: &&u8| byte.is_ascii_digit() || **byte == b',';
        let len = self.bytes[start..].iter().take_while(is_part).count();
        assert!(len > 30, "{len}");
        start + sizes.len()..start + len
    }

    fn only(&self, pattern: &[u8]) -> Range<usize> {
        let found: Vec<usize> = self
            .bytes
            .windows(pattern.len())
            .enumerate()
            .filter(|(_, window)| *window == pattern)
            .map(|(at, _)| at)
            .collect();
        let [start] = found[..] else { panic!("{pattern:?} is at {found:?}") };
        start..start + pattern.len()
    }

    fn with(&self, place: Range<usize>, other: &[u8]) -> Object {
        let mut bytes = self.bytes.clone();
        bytes[place].copy_from_slice(other);
        Object { bytes }
    }

    fn is_refused(&self, complaint: &str) {
        let (accepted, said) = self.load();
        assert!(!accepted, "{said}");
        let expected = format!("other.so\" {complaint}");
        let line = said.lines().find(|line| line.contains("[emerg]")).expect("a complaint");
        assert!(line.contains("[emerg]") && line.contains(&expected), "{expected}\n{said}");
    }

    /// What `nginx -t` says of a configuration that loads it first of all.
    fn load(&self) -> (bool, String) {
        Nginx::builder().file("other.so", &self.bytes).main("load_module other.so;").check()
    }
}
