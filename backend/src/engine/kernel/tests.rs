//! Giving sessions to the kernel: what it does not take, and the one thing that user space does for it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use handoff_tls::Closed;

use super::*;
use crate::engine::connection::{Phase, Rate};
use crate::engine::groups::Memberships;
use crate::engine::handler::TlsFallbacks;
use crate::engine::transmit::{Scratch, transmit};

#[test]
fn there_is_an_example_of_each_protection() {
    let suites: Vec<_> =
        ALL.map(|(version, suite)| example(version, suite)).into_iter().flatten().collect();
    assert_eq!(suites.len(), ALL.len());
}

/// Places a session where it cannot be the kernel's, and insists that it goes on in user space, and on the cause.
fn stays(
    found: Option<Found>,
    session: Box<Session>,
    client: impl AsFd,
    cause: fn(&mut TlsFallbacks) -> &mut u64,
) -> Placed {
    let kernel = KernelTls { found, has_complained: AtomicBool::new(false) };
    let (mut state, mut traffic) = (KernelState::default(), Traffic::default());
    let mut expected = TlsFallbacks::default();
    let placed = kernel.place(client, session, &mut state, &mut traffic);
    *cause(&mut expected) = 1;
    assert_eq!(traffic.tls_fallbacks, expected);
    assert_eq!((traffic.tls_user, traffic.tls_kernel), (1, 0));
    assert!(state.secrets.is_empty());
    assert!(!placed.flags.has(Flags::SENDS) && !placed.flags.has(Flags::RECEIVES));
    placed
}

/// What another that has the same session opens of what this one seals: its own side is as good as the client's here.
fn opens(session: &mut Session, before: &[u8], version: Version, suite: u16) {
    let mut records = before.to_vec();
    session.seal(b"goes on", &mut records).expect("sealed");
    let mut clients = example(version, suite).expect("one");
    let opened = clients.open(&mut records);
    assert_eq!((opened.used, opened.alert), (records.len(), None));
    assert_eq!(&records[..opened.data], b"goes on");
}

fn boxed((version, suite): (Version, u16)) -> Box<Session> {
    Box::new(example(version, suite).expect("one"))
}

#[test]
fn sessions_that_the_kernel_does_not_take_go_on_in_user_space() {
    let (client, _other) = UnixStream::pair().expect("a pair");
    for (version, suite) in ALL {
        let session = || boxed((version, suite));
        let nothing = Some(Found::default());
        let placed = stays(nothing, session(), &client, |count| &mut count.unavailable);
        opens(&mut placed.session.expect("it stays"), &[], version, suite);

        let another = ALL.into_iter().find(|one| one.1 != suite).expect("another");
        let kind = Suite::from_number(another.0, another.1).expect("a suite");
        let found = Found { protections: vec![(another.0, kind)], changes_keys: true };
        let placed = stays(Some(found), session(), &client, |count| &mut count.suite);
        opens(&mut placed.session.expect("it stays"), &[], version, suite);

        // A Unix socket takes no TLS, whatever the kernel has.
        let placed = stays(None, session(), &client, |count| &mut count.socket);
        opens(&mut placed.session.expect("it stays"), &[], version, suite);
    }
}

#[test]
fn session_whose_key_update_finds_no_room_goes_on_in_user_space() {
    let (mut client, mut other) = UnixStream::pair().expect("a pair");
    client.set_nonblocking(true).expect("an option");
    let mut filled = 0;
    while let Ok(len) = client.write(&[0; 4096]) {
        filled += len;
    }
    for (version, suite) in ALL.into_iter().filter(|one| one.0 == Version::Tls13) {
        let state = State { owes_key_update: true, ..example_state(version, suite).expect("one") };
        let session = Box::new(Session::new(&state).expect("a session"));
        let placed = stays(None, session, &client, |count| &mut count.key_update);
        // A KeyUpdate with its type, tag and header.
        assert_eq!(placed.unsent.len(), 5 + 5 + 1 + 16);
        let mut session = placed.session.expect("it stays");
        opens(&mut session, &placed.unsent, version, suite);
    }
    other.read_exact(&mut vec![0; filled]).expect("what was in the way, and no more");
    other.set_nonblocking(true).expect("an option");
    assert!(other.read(&mut [0]).is_err());
}

#[test]
fn alert_for_a_bad_record_leaves_where_the_kernel_only_opens() {
    if !std::path::Path::new("/proc/net/tls_stat").exists() {
        eprintln!("NOT TESTED: make test-ktls does, under a kernel that has TLS");
        return;
    }
    let (version, suite) = ALL[0];
    let [ours, mut clients] = [(); 2].map(|()| Box::new(example(version, suite).expect("one")));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let mut client =
        TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
    let (socket, _) = listener.accept().expect("accept");
    socket::attach(&socket).expect("TLS");
    socket::set_receiving(&socket, &ours.receiving()).expect("a key");
    let mut flags = Flags::default();
    flags.set(Flags::RECEIVES, true);
    flags.set(Flags::TLS_1_3, true);
    let mut connection = Connection {
        socket: socket.into(),
        seen: 0,
        pinged: 0,
        memberships: Memberships::NONE,
        rate: Rate::default(),
        phase: Phase::Open,
        in_ready: false,
        flags,
        agreement: None,
        state: Some(()),
        tls: Some(ours),
        busy: None,
    };

    // Longer than a record may be: the kernel finds that out without being asked for it.
    client.write_all(&[23, 3, 3, 0xff, 0xff]).expect("sent");
    let (begun, mut frames) = (Instant::now(), 0);
    while !connection.is_refused() {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody has noticed");
        frames += 1;
        let frame: &[u8] = b"frame";
        let sent = transmit(&mut connection, [frame].into_iter(), &mut Scratch::default());
        assert_eq!(sent, Ok(5));
    }

    // Each record has a header, a type and a tag.
    let mut records = vec![0; (5 + 5 + 1 + 16) * frames + (5 + 2 + 1 + 16)];
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    client.read_exact(&mut records).expect("the frames, and an alert");
    let opened = clients.open(&mut records);
    assert_eq!((opened.used, opened.data), (records.len(), 5 * frames));
    assert_eq!(opened.closed, Some(Closed::Alert(22)), "record_overflow");
}
