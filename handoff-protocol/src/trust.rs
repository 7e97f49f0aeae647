//! Whether the path of a Unix socket leads to whom it should: no user but trusted ones can have put a socket there.
//!
//! The path is walked from the root directory on. Each directory belongs to a trusted user and can be changed by no other
//! one: so what was found in it is what anybody finds who comes along that path, before and afterwards, and the next step
//! begins from firm ground. A look at the socket and its own directory alone would miss a renamed directory above them.

use core::ffi::CStr;

/// What lstat(2) says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its owner.
    pub uid: u32,
    /// Its permission bits, and the sticky bit.
    pub mode: u32,
}

/// What a file is, as far as that matters on the way to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Directory,
    SymbolicLink,
    Socket,
    Other,
}

/// The file system, as far as it is asked.
pub trait Files {
    /// What the system calls fail with.
    type Error;

    /// lstat(2)
    ///
    /// # Errors
    ///
    /// Its own.
    fn look(&self, path: &CStr) -> Result<Entry, Self::Error>;

    /// readlink(2), which says how many bytes it has written to `target`; no more than there is room for.
    ///
    /// # Errors
    ///
    /// Its own.
    fn read_link(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Self::Error>;
}

/// Why a path is not trusted. It reads on from the [place](Walk::place) that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Doubt<E> {
    /// A path that begins nobody knows where.
    #[error("is no absolute path")]
    Relative,
    /// It cannot be looked at.
    #[error("cannot be looked at ({0})")]
    Unseen(E),
    /// It belongs to a user who is not trusted.
    #[error("belongs to user {0}, whom \"ws_handoff_tls_trust\" does not name")]
    Owner(u32),
    /// Who listens there is not trusted, whoever owns the file.
    #[error("is listened at by user {0}, whom \"ws_handoff_tls_trust\" does not name")]
    Listener(u32),
    /// Users other than its owner may write to it.
    #[error("is writable by others than its owner (mode {0:04o})")]
    Writable(u32),
    /// It is no socket, or no directory where one is needed.
    #[error("is no socket")]
    NoSocket,
    /// More links than path_resolution(7) follows, or a longer path than there is room for.
    #[error("leads through too many symbolic links, or too long ones")]
    Links,
}

/// The longest path, in bytes: a socket's has 107, links in it may lengthen it.
const ROOM: usize = 1024;

/// What the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Bits that let others than the owner write. Those of an access control list never exceed the group's (acl(5)).
const WRITE_GROUP: u32 = 0o020;
const WRITE_OTHERS: u32 = 0o002;
/// In such a directory nobody removes or renames what belongs to others.
const STICKY: u32 = 0o1000;

/// A walk along a path.
#[derive(Debug)]
pub struct Walk {
    /// The path, links resolved as far as the walk has come, and at least one byte more.
    path: [u8; ROOM],
    len: usize,
    /// Where the part ends that was looked at last.
    place: usize,
}

impl Walk {
    /// To the socket at `path`, which begins in the directory `base` (getcwd(2)) if it is not absolute.
    #[must_use]
    pub fn new(base: &[u8], path: &[u8]) -> Walk {
        let mut walk = Walk { path: [0; ROOM], len: 0, place: 0 };
        let is_absolute = path.starts_with(b"/");
        let (base, slash): (&[u8], &[u8]) = if is_absolute { (b"", b"") } else { (base, b"/") };
        // One that has no room is an empty one, which is not absolute.
        if [base, slash, path].into_iter().any(|part| walk.append(part).is_none()) {
            walk.len = 0;
        }
        walk
    }

    /// Walks to the end.
    ///
    /// # Errors
    ///
    /// [`Doubt`], of what [`Self::place`] names.
    pub fn check<F: Files>(
        &mut self,
        files: &F,
        trusts: impl Fn(u32) -> bool,
    ) -> Result<(), Doubt<F::Error>> {
        self.place = self.len;
        if self.len == 0 || self.path.first() != Some(&b'/') {
            return Err(Doubt::Relative);
        }
        let mut links = 0;
        // The root directory, then whatever stands between two slashes.
        let (mut start, mut end) = (0, 1);
        // The mode of the directory that was passed last, if others may write to it.
        let mut shared = None;
        loop {
            self.place = end;
            let entry = self.with_c_str(end, |path| files.look(path)).ok_or(Doubt::Links)?;
            let entry = entry.map_err(Doubt::Unseen)?;
            if !trusts(entry.uid) {
                return Err(Doubt::Owner(entry.uid));
            }
            // A hard link to something of a trusted user's could stand there as long as nothing else does. Directories have
            // none.
            if let (Some(mode), true) = (shared, entry.kind != Kind::Directory) {
                self.place = self.parent(start);
                return Err(Doubt::Writable(mode));
            }
            match entry.kind {
                Kind::Directory => {
                    let others = entry.mode & (WRITE_GROUP | WRITE_OTHERS) != 0;
                    if others && entry.mode & STICKY == 0 {
                        return Err(Doubt::Writable(entry.mode));
                    }
                    shared = others.then_some(entry.mode);
                    start = end;
                }
                Kind::SymbolicLink => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Doubt::Links);
                    }
                    start = self.follow(files, start, end)?;
                    if start == 0 {
                        end = 1;
                        continue;
                    }
                }
                // Its group's members connect to it.
                Kind::Socket if end == self.len && entry.mode & WRITE_OTHERS != 0 => {
                    return Err(Doubt::Writable(entry.mode));
                }
                Kind::Socket if end == self.len => return Ok(()),
                Kind::Socket | Kind::Other => return Err(Doubt::NoSocket),
            }
            let rest = self.path.get(start..self.len).unwrap_or_default();
            start += rest.iter().take_while(|byte| **byte == b'/').count();
            let rest = self.path.get(start..self.len).unwrap_or_default();
            if rest.is_empty() {
                return Err(Doubt::NoSocket);
            }
            end = start + rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        }
    }

    /// What the last verdict is about: the path up to there.
    #[must_use]
    pub fn place(&self) -> &[u8] {
        self.path.get(..self.place).unwrap_or_default()
    }

    /// Puts a link's target in its place, and returns where to go on.
    fn follow<F: Files>(
        &mut self,
        files: &F,
        start: usize,
        end: usize,
    ) -> Result<usize, Doubt<F::Error>> {
        let mut target = [0; ROOM];
        let read = self.with_c_str(end, |path| files.read_link(path, &mut target));
        let read = read.ok_or(Doubt::Links)?.map_err(Doubt::Unseen)?;
        // One that fills the room may be longer.
        let target = target.get(..read).filter(|_| read < ROOM).ok_or(Doubt::Links)?;
        let before = if target.starts_with(b"/") { 0 } else { start };
        let old = self.path;
        let rest = old.get(end..self.len).unwrap_or_default();
        if before + target.len() + rest.len() >= ROOM {
            return Err(Doubt::Links);
        }
        self.len = before;
        let _ = self.append(target).and_then(|()| self.append(rest));
        Ok(before)
    }

    fn append(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len()).filter(|end| *end < ROOM)?;
        self.path.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// Calls `ask` with the path up to `end`; `None` if there is a NUL in it.
    fn with_c_str<T>(&mut self, end: usize, ask: impl FnOnce(&CStr) -> T) -> Option<T> {
        let next = core::mem::replace(self.path.get_mut(end)?, 0);
        let answer = self.path.get(..=end).and_then(|path| CStr::from_bytes_with_nul(path).ok());
        let answer = answer.map(ask);
        *self.path.get_mut(end)? = next;
        answer
    }

    /// Where the directory's path ends that what begins at `start` is in.
    fn parent(&self, start: usize) -> usize {
        let before = self.path.get(..start).unwrap_or_default();
        before.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1)
    }
}

/// Users who are trusted with TLS sessions: root, who can have them anyway, the process's own, and those that were named.
#[derive(Clone, Copy, Debug)]
pub struct TrustedUsers<'n> {
    /// The process's own.
    pub own: u32,
    /// Those that the configuration names.
    pub named: &'n [u32],
    /// Who is shown in place of users that this user namespace does not know: nobody in particular, if there are such.
    pub ambiguous: Option<u32>,
}

impl TrustedUsers<'_> {
    /// Whether that user is.
    #[must_use]
    pub fn trusts(&self, uid: u32) -> bool {
        self.ambiguous != Some(uid) && (uid == 0 || uid == self.own || self.named.contains(&uid))
    }
}

/// The uid in whose name unknown users are shown, by what is read of `/proc/self/uid_map` and
/// `/proc/sys/kernel/overflowuid` (user_namespaces(7)); `None` if every user is known, as in the initial namespace. What cannot
/// be read is an empty text.
#[must_use]
pub fn ambiguous_uid(uid_map: &[u8], overflow_uid: &[u8]) -> Option<u32> {
    const EVERYBODY: [&[u8]; 3] = [b"0", b"0", b"4294967295"];
    const OVERFLOW: u32 = 65534;
    let words = |text| <[u8]>::split(text, u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    if words(uid_map).eq(EVERYBODY) {
        return None;
    }
    let overflow = core::str::from_utf8(overflow_uid).ok();
    Some(overflow.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::CStr;

    use super::*;

    /// A path, and what is there; links with their target.
    struct Fake(BTreeMap<&'static str, (Entry, &'static str)>);

    impl Files for Fake {
        type Error = &'static str;

        fn look(&self, path: &CStr) -> Result<Entry, &'static str> {
            let mut path = path.to_str().unwrap().to_owned();
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            self.0.get(path.as_str()).map(|found| found.0).ok_or("absent")
        }

        fn read_link(&self, path: &CStr, out: &mut [u8]) -> Result<usize, &'static str> {
            let target = self.0.get(path.to_str().unwrap()).ok_or("absent")?.1;
            let len = target.len().min(out.len());
            out[..len].copy_from_slice(&target.as_bytes()[..len]);
            Ok(len)
        }
    }

    const BACKEND: u32 = 101;
    const STRANGER: u32 = 1000;

    /// `/run/ws/a.sock` as the packages have it, and other ways to it.
    fn files() -> Fake {
        let entry = |kind, uid, mode| (Entry { kind, uid, mode }, "");
        let link = |target| (Entry { kind: Kind::SymbolicLink, uid: 0, mode: 0o777 }, target);
        Fake(BTreeMap::from([
            ("/", entry(Kind::Directory, 0, 0o755)),
            ("/run", entry(Kind::Directory, 0, 0o755)),
            ("/run/ws", entry(Kind::Directory, BACKEND, 0o2750)),
            ("/run/ws/a.sock", entry(Kind::Socket, BACKEND, 0o660)),
            ("/run/ws/file", entry(Kind::Other, BACKEND, 0o600)),
            ("/run/ws/..", entry(Kind::Directory, 0, 0o755)),
            ("/run/ws/../ws", entry(Kind::Directory, BACKEND, 0o2750)),
            ("/run/ws/../ws/a.sock", entry(Kind::Socket, BACKEND, 0o660)),
            ("/run/ws/current", link("a.sock")),
            ("/run/loop", link("loop")),
            ("/var", entry(Kind::Directory, 0, 0o755)),
            ("/var/run", link("/run")),
            ("/tmp", entry(Kind::Directory, 0, 0o1777)),
            ("/tmp/link", link("/run/ws")),
            ("/tmp/a.sock", entry(Kind::Socket, BACKEND, 0o660)),
            ("/tmp/d", entry(Kind::Directory, BACKEND, 0o700)),
            ("/tmp/d/a.sock", entry(Kind::Socket, BACKEND, 0o660)),
        ]))
    }

    fn check(files: &Fake, path: &str) -> Result<(), (String, Doubt<&'static str>)> {
        let mut walk = Walk::new(b"/run", path.as_bytes());
        let users = TrustedUsers { own: 33, named: &[BACKEND], ambiguous: None };
        let verdict = walk.check(files, |uid| users.trusts(uid));
        verdict.map_err(|doubt| (String::from_utf8_lossy(walk.place()).into_owned(), doubt))
    }

    #[track_caller]
    fn doubted(files: &Fake, path: &str, place: &str, doubt: Doubt<&'static str>) {
        assert_eq!(check(files, path), Err((place.to_owned(), doubt)));
    }

    #[test]
    fn ways_that_only_trusted_users_have_made() {
        for path in [
            "/run/ws/a.sock",
            "//run///ws//a.sock",
            "/var/run/ws/a.sock",
            "/run/ws/current",
            "/run/ws/../ws/a.sock",
            "/tmp/d/a.sock",
            "ws/a.sock",
        ] {
            assert_eq!(check(&files(), path), Ok(()), "{path}");
        }
    }

    #[test]
    fn ways_that_lead_to_no_socket() {
        for (path, place) in [("/run/ws", "/run/ws"), ("/", "/"), ("/run/ws/file", "/run/ws/file")]
        {
            doubted(&files(), path, place, Doubt::NoSocket);
        }
        doubted(&files(), "/run/ws/a.sock/", "/run/ws/a.sock", Doubt::NoSocket);
        doubted(&files(), "/run/ws/b.sock", "/run/ws/b.sock", Doubt::Unseen("absent"));
        doubted(&files(), "b.sock", "/run/b.sock", Doubt::Unseen("absent"));
        doubted(&files(), "", "/run", Doubt::NoSocket);
        // What getcwd(2) says of a directory that is in no path of this process's.
        let mut walk = Walk::new(b"(unreachable)/run", b"a.sock");
        assert_eq!(walk.check(&files(), |_| true), Err(Doubt::Relative));
        doubted(&files(), "/run/loop", "/run/loop", Doubt::Links);
        let long = format!("/{}", "a".repeat(ROOM));
        doubted(&files(), &long, "", Doubt::Relative);
    }

    #[test]
    fn each_owner_on_the_way_counts() {
        for place in ["/", "/run", "/run/ws", "/run/ws/a.sock"] {
            let mut files = files();
            files.0.get_mut(place).unwrap().0.uid = STRANGER;
            doubted(&files, "/run/ws/a.sock", place, Doubt::Owner(STRANGER));
        }
        // Whoever owns a link says where it leads.
        let mut files = files();
        files.0.get_mut("/var/run").unwrap().0.uid = STRANGER;
        doubted(&files, "/var/run/ws/a.sock", "/var/run", Doubt::Owner(STRANGER));
    }

    #[test]
    fn nobody_else_may_write() {
        for place in ["/", "/run", "/run/ws"] {
            for mode in [0o775, 0o757, 0o2770] {
                let mut files = files();
                files.0.get_mut(place).unwrap().0.mode = mode;
                doubted(&files, "/run/ws/a.sock", place, Doubt::Writable(mode));
            }
        }
        let mut files = files();
        files.0.get_mut("/run/ws/a.sock").unwrap().0.mode = 0o666;
        doubted(&files, "/run/ws/a.sock", "/run/ws/a.sock", Doubt::Writable(0o666));
    }

    #[test]
    fn in_a_sticky_directory_only_directories_count() {
        let doubt = Doubt::Writable(0o1777);
        doubted(&files(), "/tmp/a.sock", "/tmp", doubt);
        doubted(&files(), "/tmp/link/a.sock", "/tmp", doubt);
    }

    #[test]
    fn a_target_that_fills_the_room_is_not_followed() {
        let mut files = files();
        let long: &'static str = "a".repeat(ROOM).leak();
        files.0.get_mut("/var/run").unwrap().1 = long;
        doubted(&files, "/var/run/ws/a.sock", "/var/run", Doubt::Links);
        files.0.get_mut("/var/run").unwrap().1 = &long[..ROOM - 10];
        doubted(&files, "/var/run/ws/a.sock", "/var/run", Doubt::Links);
    }

    #[test]
    fn root_the_own_user_and_named_ones_are_trusted() {
        let users = TrustedUsers { own: 33, named: &[101, 65534], ambiguous: None };
        assert!([0, 33, 101, 65534].iter().all(|uid| users.trusts(*uid)));
        assert!(!users.trusts(34));
        let users = TrustedUsers { ambiguous: Some(65534), ..users };
        assert!(users.trusts(101) && !users.trusts(65534));
    }

    #[test]
    fn unknown_users_are_nobody_in_particular() {
        let initial = b"         0          0 4294967295\n";
        assert_eq!(ambiguous_uid(initial, b"65534\n"), None);
        assert_eq!(ambiguous_uid(b" 0 100000 65536\n", b"65534\n"), Some(65534));
        assert_eq!(ambiguous_uid(b"0 0 4294967295\n1 1 1\n", b"1234\n"), Some(1234));
        assert_eq!(ambiguous_uid(b"", b""), Some(65534));
    }
}
