//! RFC 8448 section 3: the records after a simple 1-RTT handshake.

use handoff_tls::{Alert, Closed, Opened, Secret, Session, State, Version};

const CLIENT_SECRET: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER_SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";

const CLIENT_DATA: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e\
    2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const CLIENT_ALERT: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_DATA: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59\
    a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const SERVER_ALERT: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("hex")).collect()
}

fn session() -> Session {
    let secret = |hex| Secret::new(&bytes(hex)).expect("a secret");
    Session::new(&State {
        version: Version::Tls13,
        suite: 0x1301,
        rx_seq: 0,
        // The server has sent a NewSessionTicket.
        tx_seq: 1,
        rx_secret: secret(CLIENT_SECRET),
        tx_secret: secret(SERVER_SECRET),
        owes_key_update: false,
    })
    .expect("a session")
}

#[test]
fn the_clients_records_are_opened() {
    let mut session = session();
    let mut input = [bytes(CLIENT_DATA), bytes(CLIENT_ALERT)].concat();
    let used = input.len();
    let opened = session.open(&mut input);
    let closed = Some(Closed::Notify);
    assert_eq!(opened, Opened { used, data: 50, closed, alert: None });
    assert_eq!(input[..50], (0..50).collect::<Vec<u8>>());
}

#[test]
fn the_servers_records_are_sealed() {
    let mut session = session();
    let mut out = Vec::new();
    session.seal(&(0..50).collect::<Vec<u8>>(), &mut out).expect("sealed");
    assert_eq!(out, bytes(SERVER_DATA));
    out.clear();
    session.seal_alert(Alert::CloseNotify, &mut out);
    assert_eq!(out, bytes(SERVER_ALERT));
}
