//! The listening socket's file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::unistd::{getgid, getuid};
use ws_handoff_backend::{AcceptError, BindError, Group, HandoffListener, OfferOptions, Options};

use crate::fake::nginx::Nginx;
use crate::fake::program::exists;
use crate::fake::status;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn has_the_mode_and_group_asked_for() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    // Only root may give a file to any group.
    let gid = if getuid().is_root() { 4321 } else { getgid().as_raw() };
    let options = Options { mode: 0o640, group: Some(Group::Id(gid)), ..Options::new(&path) };
    let _listener = HandoffListener::bind(options).expect("bind");
    let file = fs::symlink_metadata(&path).expect("file");
    assert!(file.file_type().is_socket());
    assert_eq!(file.mode() & 0o7777, 0o640);
    assert_eq!(file.gid(), gid);
    assert_eq!(names(directory.path()), ["socket", "socket.lock"], "no temporary name is left");
}

#[tokio::test]
async fn a_group_may_be_a_users() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    if !getuid().is_root() {
        // Nobody else may give a file away; what a name means is then for the error to tell.
        let options = Options { group: Some("root".into()), ..Options::new(&path) };
        let error = HandoffListener::bind(options).expect_err("not a member").to_string();
        assert!(error.contains("chown"), "{error}");
        return;
    }
    let options = Options { group: Some("nobody".into()), ..Options::new(&path) };
    let _listener = HandoffListener::bind(options).expect("bind");
    assert_eq!(fs::symlink_metadata(&path).expect("file").gid(), 65534);
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_serves() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let _first = HandoffListener::bind(Options::new(&path)).expect("bind");
    let inode = fs::symlink_metadata(&path).expect("file").ino();
    let error = HandoffListener::bind(Options::new(&path)).expect_err("locked");
    assert!(matches!(error, BindError::Served { .. }));
    let said = error.to_string();
    let pid = format!("(pid {})", std::process::id());
    assert!(said.starts_with("another process") && said.contains(&pid), "{said}");
    assert!(said.contains("socket.lock"), "{said}");
    assert_eq!(fs::symlink_metadata(&path).expect("file").ino(), inode, "still the first one's");
}

#[tokio::test]
async fn replaces_a_socket_that_nobody_serves() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).expect("bind"));
    assert!(UnixStream::connect(&path).is_err(), "stale");
    let _listener = HandoffListener::bind(Options::new(&path)).expect("bind");
    assert!(UnixStream::connect(&path).is_ok());
}

#[tokio::test]
async fn never_replaces_anything_but_a_socket() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    fs::write(&path, "precious").expect("write");
    let error = HandoffListener::bind(Options::new(&path)).expect_err("a file");
    assert!(matches!(error, BindError::NotASocket(_)));
    assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
}

#[tokio::test]
async fn is_removed_at_the_end_and_can_be_bound_again() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    for _ in 0..3 {
        let listener = HandoffListener::bind(Options::new(&path)).expect("bind");
        assert!(exists(&path));
        drop(listener);
        assert!(!exists(&path));
    }
}

#[tokio::test]
async fn another_ones_socket_is_not_removed() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let listener = HandoffListener::bind(Options::new(&path)).expect("bind");
    fs::remove_file(&path).expect("remove");
    let _other = UnixListener::bind(&path).expect("bind");
    drop(listener);
    assert!(exists(&path));
}

#[tokio::test]
async fn errors_name_the_path_and_the_cause() {
    let directory = tempfile::tempdir().expect("directory");
    let missing = directory.path().join("missing/socket");
    let error =
        HandoffListener::bind(Options::new(&missing)).expect_err("no directory").to_string();
    assert!(error.contains("missing/socket") && error.contains("os error 2"), "{error}");

    let long = directory.path().join("x".repeat(108));
    assert!(matches!(HandoffListener::bind(Options::new(&long)), Err(BindError::TooLong(_))));

    let path = directory.path().join("socket");
    let options = Options { group: Some("no such group".into()), ..Options::new(&path) };
    let error = HandoffListener::bind(options).expect_err("no group").to_string();
    assert_eq!(error, "no group or user is called \"no such group\"");
    assert!(names(directory.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_users_may_offer() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let mine = getuid().as_raw();
    for (uid, admitted) in [(mine, true), (mine + 1, false)] {
        let offers = OfferOptions { allow_uids: Some(vec![uid]), ..OfferOptions::default() };
        let options = Options { offers, ..Options::new(&path) };
        let mut listener = HandoffListener::bind(options).expect("bind");
        let accepted = tokio::spawn(async move { listener.accept().await });
        let mut nginx = Nginx::offering(&path, "/", "");
        match accepted.await.expect("no panic") {
            Ok(offer) => {
                assert!(admitted);
                let peer = offer.peer().expect("credentials");
                assert_eq!(peer.uid, mine);
                assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
            }
            Err(error) => {
                assert!(!admitted);
                assert!(matches!(error, AcceptError::Forbidden { uid } if uid == mine), "{error}");
                assert_eq!(status(&nginx.head()), 403);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retiring_frees_the_path_and_serves_the_queue() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    let mut listener = HandoffListener::bind(Options::new(&path)).expect("bind");
    let _queued: Vec<_> = (0..3).map(|_| Nginx::offering(&path, "/", "")).collect();
    listener.retire();
    assert!(!exists(&path));
    let _next = HandoffListener::bind(Options::new(&path)).expect("the path is free");
    for _ in 0..3 {
        listener.accept().await.expect("an offer");
    }
    assert!(matches!(listener.accept().await, Err(AcceptError::Closed)));
    drop(listener);
    assert!(exists(&path), "the next process's socket");
}
