//! Several backends behind one `upstream {}`: clients are spread over them, a key leads to the same one, and one that is
//! full or about to end sends newcomers on.

use crate::support::{Backend, Client, Nginx, frame};

const CLIENTS: usize = 30;

fn behind(backends: &[&Backend], balancing: &str) -> Nginx {
    with_parameters(backends, balancing, "")
}

fn with_parameters(backends: &[&Backend], balancing: &str, parameters: &str) -> Nginx {
    let server = |backend: &&Backend| format!("server {} {parameters};\n", backend.address());
    let servers: String = backends.iter().map(server).collect();
    Nginx::builder()
        .http(format!("upstream several {{ {balancing} {servers} }}"))
        .server("location /ws { ws_handoff several; }")
        // nginx's own line for a backend whose socket is gone.
        .tolerate("(2: No such file or directory) while connecting to upstream")
        .start()
}

fn served(backend: &Backend) -> usize {
    backend.metric("websocket_connections_active") as usize
}

/// Connects and speaks, so that each is served by then.
fn clients(nginx: &Nginx, count: usize) -> Vec<Client> {
    (0..count)
        .map(|n| {
            let mut client = Client::upgraded(nginx.address(), "/ws");
            client.echo(&format!("client {n}"));
            client
        })
        .collect()
}

/// nginx's own count of a peer's connections ends with the hand-over, so that least_conn takes turns.
#[test]
fn clients_are_spread_evenly() {
    for balancing in ["", "least_conn;"] {
        let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
        let [one, two, three] = &backends;
        let nginx = behind(&[one, two, three], balancing);
        let clients = clients(&nginx, CLIENTS);
        for backend in &backends {
            assert_eq!(served(backend), CLIENTS / 3, "{balancing}");
        }
        drop(clients);
    }
}

#[test]
fn hash_leads_a_key_to_the_same_backend() {
    let backends =
        [Backend::start(&["--app", "broadcast"]), Backend::start(&["--app", "broadcast"])];
    let [one, two] = &backends;
    let nginx = behind(&[one, two], "hash $arg_room consistent;");
    // A room is a path of a backend's: whoever is to hear each other has to meet there.
    for room in 0..8 {
        let target = format!("/ws?room={room}");
        let before = [served(one), served(two)];
        let mut members: Vec<Client> =
            (0..4).map(|_| Client::upgraded(nginx.address(), &target)).collect();
        // A member hears what is said once it has heard itself.
        for member in &mut members {
            member.send_frame(&frame::Frame::text("hello"));
            member.expect_frame(1, b"hello");
        }
        let grown = [served(one) - before[0], served(two) - before[1]];
        assert!(grown == [4, 0] || grown == [0, 4], "room {room}: {grown:?}");
        drop(members);
        one.wait_active(0);
        two.wait_active(0);
    }
}

#[test]
fn full_backend_sends_newcomers_on() {
    let small = Backend::start(&["--app", "echo", "--max-connections", "3"]);
    let large = Backend::echo();
    let nginx = behind(&[&small, &large], "");
    let clients = clients(&nginx, 12);
    assert_eq!((served(&small), served(&large)), (3, 9));
    drop(clients);
}

#[test]
fn draining_backend_loses_its_clients_with_1001_and_gets_no_more() {
    let mut ending = Backend::start(&["--app", "echo", "--drain-timeout", "2"]);
    let staying = Backend::echo();
    let nginx = behind(&[&ending, &staying], "");
    let mut all = clients(&nginx, 12);
    assert_eq!((served(&ending), served(&staying)), (6, 6));

    ending.drain();
    // Round robin: the first went to the first.
    for client in all.iter_mut().step_by(2) {
        let close = client.read_frame();
        assert_eq!((close.opcode, &close.payload[..2]), (8, &1001u16.to_be_bytes()[..]));
    }
    let newcomers = clients(&nginx, 6);
    assert_eq!(served(&staying), 12);
    for client in all.iter_mut().skip(1).step_by(2) {
        client.echo("still here");
    }
    drop(newcomers);
}

/// The second goes while nginx would still pass over the first, which has come back: `max_fails=0` remembers nothing.
#[test]
fn rolling_restart_refuses_no_newcomer() {
    let mut first = Backend::start(&["--app", "echo", "--drain-timeout", "1"]);
    let mut second = Backend::start(&["--app", "echo", "--drain-timeout", "1"]);
    let nginx = with_parameters(&[&first, &second], "keepalive 4;", "max_fails=0");
    for _ in 0..3 {
        for backend in [&mut first, &mut second] {
            let members = clients(&nginx, 4);
            backend.drain();
            // Some may still come to the one that ends, and be closed by it; none is refused.
            while !backend.has_ended() {
                Client::upgraded(nginx.address(), "/ws");
            }
            drop((members, clients(&nginx, 4)));
            backend.start_again();
        }
    }
}
