//! Thousands of clients end at the same moment, each in another way, and nothing is left of them; they begin so, too.

use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use crate::fake::client::{BINARY, CLOSE, Client, FIN, TEXT, frame, reset};
use crate::fake::program::{Program, wait_until};
use crate::fake::random::Random;
use crate::fake::{PATIENCE, raise_descriptors};

const CLIENTS: usize = 3000;

/// Connections that come by every way, at several at a time.
fn connect(program: &Program, target: &str, count: usize) -> Vec<OwnedFd> {
    const AT_ONCE: usize = 8;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|first| {
                scope.spawn(move || {
                    let client = |n: usize| -> OwnedFd {
                        match n % 3 {
                            0 => Client::connect(program.listen, target).stream.into(),
                            1 => Client::tunnelled(&program.socket(), target).stream.into(),
                            _ => Client::handed_over(&program.socket(), target, b"").stream.into(),
                        }
                    };
                    (first..count).step_by(AT_ONCE).map(client).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("connect")).collect()
    })
}

fn wait_for_active(program: &Program, count: usize) {
    wait_until(&format!("{count} clients are served"), || {
        program.metric("websocket_connections_active") == count as f64
    });
}

/// Descriptors when nobody is connected: what the first clients make it open stays, and one is for asking.
fn descriptors_at_rest(program: &Program) -> usize {
    drop(connect(program, "/", 12));
    wait_until("all have come", || {
        program.metric("websocket_connections_total{source=\"direct\"}") == 4.0
    });
    wait_for_active(program, 0);
    program.descriptors() + 1
}

fn leaves_nothing_behind(arguments: &[&str], target: &str, end: impl Fn(usize, TcpStream)) {
    raise_descriptors();
    let program = Program::start(&[arguments, &["--log-level", "info"]].concat());
    let before = descriptors_at_rest(&program);
    let clients = connect(&program, target, CLIENTS);
    wait_for_active(&program, CLIENTS);
    assert!(program.descriptors() > CLIENTS);
    for (n, client) in clients.into_iter().enumerate() {
        // Both kinds of socket are used by the same calls.
        end(n, TcpStream::from(client));
    }
    wait_for_active(&program, 0);
    wait_until("the descriptors are closed", || program.descriptors() <= before);
    // And it goes on.
    let mut client = Client::connect(program.listen, target);
    client.text("still there");
    assert_eq!(client.receive_text(), "still there");
    client.close();
}

/// Every third is reset, ends without a word, or ends in the middle of a frame.
fn vanish(n: usize, stream: TcpStream) {
    let mut client = Client { stream };
    match n / 3 % 4 {
        0 => reset(client.stream),
        1 => drop(client),
        2 => {
            client.raw(&frame(FIN | BINARY, &[1; 5000])[..700]);
            drop(client);
        }
        _ => {
            client.raw(&frame(TEXT, b"begun"));
            client.raw(&frame(FIN | CLOSE, b"")[..3]);
            reset(client.stream);
        }
    }
}

#[test]
fn of_clients_that_vanish_nothing_is_left_by_one_thread() {
    leaves_nothing_behind(&["--workers", "1"], "/", vanish);
}

#[test]
fn of_clients_that_vanish_nothing_is_left_by_four_threads() {
    leaves_nothing_behind(&["--workers", "4"], "/", vanish);
}

/// While the room's members are told of others, too.
#[test]
fn of_members_that_vanish_nothing_is_left() {
    let arguments = ["--workers", "4", "--app", "broadcast"];
    leaves_nothing_behind(&arguments, "/room", |n, stream| {
        if n % 100 == 0 {
            let mut client = Client { stream };
            client.text("farewell");
            vanish(n, client.stream);
        } else {
            vanish(n, stream);
        }
    });
}

#[test]
fn clients_that_close_all_at_once_are_all_answered() {
    raise_descriptors();
    for workers in ["1", "4"] {
        let program = Program::start(&["--workers", workers, "--log-level", "info"]);
        let before = descriptors_at_rest(&program);
        let mut clients: Vec<Client> = connect(&program, "/", CLIENTS)
            .into_iter()
            .map(|fd| Client { stream: TcpStream::from(fd) })
            .collect();
        wait_for_active(&program, CLIENTS);
        for client in &mut clients {
            client.text("last words");
            client.raw(&frame(FIN | CLOSE, &1000u16.to_be_bytes()));
        }
        for client in &mut clients {
            assert_eq!(client.receive_text(), "last words");
            assert_eq!(client.receive_close(), 1000);
            client.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            assert!(crate::fake::is_at_end(&mut client.stream), "this side closes first");
        }
        for client in clients {
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        wait_for_active(&program, 0);
        wait_until("the descriptors are closed", || program.descriptors() <= before);
        let closed = program.metric("websocket_closed_total{by=\"client\"}");
        assert_eq!(closed, CLIENTS as f64, "each told once how it ended");
    }
}

/// Early data ends anywhere, within a frame's head too; the rest follows on the client's own socket, from another thread
/// and at any moment.
#[test]
fn early_data_comes_first() {
    raise_descriptors();
    let program = Program::start(&["--workers", "4", "--log-level", "info"]);
    thread::scope(|scope| {
        for first in 0..8 {
            let program = &program;
            scope.spawn(move || {
                let mut random = Random::new(first);
                for n in 0..100 {
                    let sayings: Vec<Vec<u8>> = (0..4)
                        .map(|_| {
                            let len = random.below(300);
                            random.bytes(len)
                        })
                        .collect();
                    let wire: Vec<u8> = sayings
                        .iter()
                        .flat_map(|said| {
                            let (one, other) = said.split_at(said.len() / 2);
                            [frame(BINARY, one), frame(FIN, other)].concat()
                        })
                        .collect();
                    let (early, late) = wire.split_at(random.below(wire.len() + 1));
                    let mut client = Client::handed_over(&program.socket(), "/", early);
                    client.raw(late);
                    for said in sayings {
                        assert!(client.receive() == (FIN | BINARY, said), "client {n} of {first}");
                    }
                }
            });
        }
    });
    assert_eq!(program.metric("websocket_messages_received_total"), 3200.0);
    wait_for_active(&program, 0);
}
