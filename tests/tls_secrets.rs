//! Where the secrets of a TLS session are to be found that is handed over: in nginx while it has the session, in the backend
//! while that has it, and nowhere afterwards. All that either process could write to is searched, what it has freed included.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::support::backend::{changes_keys, kernel_carries};
use crate::support::proc::keeps_what_it_frees;
use crate::support::s_client::SClient;
use crate::support::tls_site::{Site, upgrade};
use crate::support::{Backend, wait_until};

/// What of a secret is looked for: a part of it would be too much, too.
const PART: usize = 16;

/// The largest piece of memory that is searched, in bytes: what is larger is AddressSanitizer's.
const LARGEST: u64 = 1 << 28;

#[test]
fn traffic_secrets_move_with_the_session() {
    secrets_move("TLSv1.3", &["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"]);
}

#[test]
fn master_secret_moves_nowhere() {
    secrets_move("TLSv1.2", &["CLIENT_RANDOM"]);
}

fn secrets_move(version: &str, labels: &[&str]) {
    let backend = Backend::start(&["--app", "echo", "--engine", "parked"]);
    // A ticket is made of the master secret, and a cache keeps it.
    let site = Site::at(
        &backend.address(),
        &format!("ssl_protocols {version}; ssl_session_tickets off; ssl_session_cache off;"),
    );
    let nginx = site.nginx.worker();
    // The first is not looked at: the dynamic linker saves registers, whatever is in them, where a function is called first.
    let (mut client, _) = connect(&site, labels);
    upgrade(&mut client, "first");
    client.quit();

    // What OpenSSL leaves of a session that ends in nginx: it frees some without zeroing them.
    let (client, secrets) = connect(&site, labels);
    client.quit();
    site.nginx.wait_inactive();
    let left = copies(nginx, &secrets);
    // That memory may have been used again just now, and not the next time.
    let at_least = if version == "TLSv1.3" { 1 } else { 0 };
    let left: Vec<_> = left.into_iter().map(|copies| copies.max(at_least)).collect();

    for _ in 0..3 {
        let (mut client, secrets) = connect(&site, labels);
        let before = copies(nginx, &secrets);
        assert!(before.iter().all(|copies| *copies > 0), "nginx had them: {before:?}");
        upgrade(&mut client, "handed over");
        site.nginx.wait_inactive();
        let after = copies(nginx, &secrets);
        let are_gone = after.iter().zip(&left).all(|(now, then)| now <= then);
        assert!(are_gone || keeps_what_it_frees(), "{after:?} {left:?}");

        // Those of TLS 1.3 are what next keys are made of, which not every kernel lets a session have: there it has the keys alone.
        let held = copies(backend.pid(), &secrets);
        match version {
            "TLSv1.2" => assert_eq!(held, [0]),
            _ if kernel_carries() && !changes_keys(&backend) => assert_eq!(held, [0, 0]),
            _ => assert_eq!(held, [1, 1]),
        }
        client.quit();
        backend.wait_active(0);
        wait_until("the backend has forgotten them", || {
            copies(backend.pid(), &secrets).iter().all(|copies| *copies == 0)
        });
    }
}

/// A client whose handshake is over, and its secrets with these labels (RFC 9850).
fn connect(site: &Site, labels: &[&str]) -> (SClient, Vec<Vec<u8>>) {
    let path = site.nginx.dir().join("keys");
    let client = site.s_client(&["-keylogfile", &path.display().to_string()]);
    let text = fs::read_to_string(&path).expect("read the key log");
    fs::remove_file(&path).expect("remove the key log");
    let secrets: Vec<_> = text
        .lines()
        .filter(|line| labels.iter().any(|label| line.starts_with(label)))
        .map(|line| bytes_of(line.rsplit(' ').next().expect("a word")))
        .collect();
    assert_eq!(secrets.len(), labels.len(), "{text}");
    (client, secrets)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// How often `pid` has each of them in its memory, as they are or in hexadecimal.
fn copies(pid: i32, secrets: &[Vec<u8>]) -> Vec<usize> {
    let memory = memory(pid);
    let count = |wanted: &[u8]| {
        let found =
            |region: &Vec<u8>| region.windows(PART).filter(|bytes| *bytes == wanted).count();
        memory.iter().map(found).sum::<usize>()
    };
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    secrets
        .iter()
        .map(|secret| count(&secret[..PART]) + count(&hex(secret).as_bytes()[..PART]))
        .collect()
}

/// All that `pid` can write to.
fn memory(pid: i32) -> Vec<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("open the memory");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("read the maps");
    let address = |text| u64::from_str_radix(text, 16).expect("an address");
    let writable = maps.lines().filter(|line| line.contains(" rw")).map(|line| {
        let range = line.split(' ').next().expect("a range");
        let (start, end) = range.split_once('-').expect("start and end");
        (address(start), address(end))
    });
    let searched: Vec<_> = writable
        .filter(|(start, end)| end - start <= LARGEST)
        .filter_map(|(start, end)| {
            let mut bytes = vec![0; usize::try_from(end - start).expect("it fits")];
            // One that was unmapped meanwhile has nothing any more.
            memory.read_exact_at(&mut bytes, start).ok().map(|()| bytes)
        })
        .collect();
    assert!(searched.len() > 3, "{maps}");
    searched
}
