//! The engine as a library: an application that is told by texts what to do, and tells what it was told.

mod handler; // what a handler is told, from a connection's begin to its end
mod sending; // to one connection from anywhere, and to groups
mod together; // what leaves together at the end of a round

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender as Told, channel};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use ws_handoff_backend::engine::{
    Context, Ended, Engine, EngineOptions, Group, Handler, Message, Prepared, Request, Sender,
    Traffic,
};
use ws_handoff_backend::{HandoffListener, Options};

use crate::fake::PATIENCE;
use crate::fake::client::Client;

/// What the application was told of a connection, by the connection's number.
#[derive(Debug, PartialEq)]
enum Event {
    Opened(String),
    Said(String),
    Swept,
    Closed(Ended, usize),
    Dropped,
}

/// An application that is told by texts what to do.
struct App {
    /// Two groups.
    lobby: Mutex<Option<Group>>,
    annex: Mutex<Option<Group>>,
    told: Told<(u64, Event)>,
    senders: Told<Sender>,
    received: AtomicU64,
    dropped: AtomicU64,
    /// Holds up the thread that is told to wait, until a word comes.
    held_up: Mutex<Receiver<()>>,
    go_on: Told<()>,
}

impl App {
    /// Lets a thread go on that waits.
    fn go_on(&self) {
        self.go_on.send(()).expect("a receiver");
    }

    fn group(of: &Mutex<Option<Group>>) -> Group {
        of.lock().expect("not poisoned").clone().expect("a group")
    }
}

struct Connection {
    number: u64,
    group: Group,
    annex: Group,
    /// What is done when it is swept.
    sweep: Sweep,
    told: Told<(u64, Event)>,
}

enum Sweep {
    Tell,
    /// Publishes this many bytes.
    Publish(usize),
    Join,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.told.send((self.number, Event::Dropped));
    }
}

impl Connection {
    fn tell(&self, event: Event) {
        let _ = self.told.send((self.number, event));
    }
}

impl Handler for App {
    type Connection = Connection;
    type Ticket = u64;

    fn on_open(&self, request: Request, number: u64, context: &mut Context<'_>) -> Connection {
        let mut lobby = self.lobby.lock().expect("not poisoned");
        let group = lobby.get_or_insert_with(|| context.new_group()).clone();
        let mut annex = self.annex.lock().expect("not poisoned");
        let annex = annex.get_or_insert_with(|| context.new_group()).clone();
        let (sweep, told) = (Sweep::Tell, self.told.clone());
        let connection = Connection { number, group, annex, sweep, told };
        connection.tell(Event::Opened(request.uri.to_string()));
        if request.uri.path() == "/refused" {
            context.send_text("not today");
            context.close(4003, "refused");
        }
        connection
    }

    fn on_message(
        &self,
        connection: &mut Connection,
        message: Message<'_>,
        context: &mut Context<'_>,
    ) {
        let Message::Text(text) = message else { return context.send(message) };
        connection.tell(Event::Said(text.to_owned()));
        let (word, what) = text.split_once(' ').unwrap_or((text, ""));
        let in_annex = what.strip_prefix("annex");
        let group = if in_annex.is_some() { &connection.annex } else { &connection.group }.clone();
        match (word, in_annex.unwrap_or(what)) {
            ("join", _) => context.join(&group),
            ("leave", _) => context.leave(&group),
            ("publish", what) => context.publish(&group, Message::Text(what)),
            ("both", _) => {
                context.publish(&connection.group, Message::Text("1"));
                context.publish(&connection.annex, Message::Text("2"));
                context.publish(&connection.group, Message::Text("3"));
            }
            ("sweep", "join") => connection.sweep = Sweep::Join,
            ("sweep", bytes) => {
                connection.sweep = Sweep::Publish(bytes.parse().expect("a number"));
            }
            ("order", _) => {
                context.send_text("1");
                context.publish(&group, Message::Text("2"));
                context.send_text("3");
                context.publish(&group, Message::Text("4"));
            }
            ("prepared", what) => {
                let prepared = Prepared::new(Message::Text(what));
                context.send_prepared(&prepared);
                context.send_prepared(&prepared);
            }
            ("close", _) => {
                context.send_text("before");
                context.close(4000, "as told");
                context.close(4001, "the first counts");
                context.send_text("after");
            }
            ("sender", _) => {
                let _ = self.senders.send(context.sender().expect("a sender"));
            }
            ("queued", _) => {
                connection.tell(said(&format!("{} wait", context.queued())));
            }
            ("hold", _) => {
                let held_up = self.held_up.lock().expect("not poisoned");
                held_up.recv_timeout(PATIENCE).expect("to go on");
            }
            ("panic", _) => panic!("as told"),
            _ => context.send_text(text),
        }
    }

    fn on_close(&self, connection: &mut Connection, ended: Ended) {
        connection.tell(Event::Closed(ended, connection.group.len()));
    }

    fn on_sweep(&self, connection: &mut Connection, context: &mut Context<'_>) {
        connection.tell(Event::Swept);
        match connection.sweep {
            Sweep::Tell => context.send_text("swept"),
            Sweep::Publish(len) => {
                context.publish(&connection.group, Message::Binary(&vec![1; len]));
            }
            Sweep::Join => context.join(&connection.group),
        }
    }

    fn on_traffic(&self, traffic: &Traffic) {
        self.received.fetch_add(traffic.messages_received, Ordering::Relaxed);
        self.dropped.fetch_add(traffic.messages_dropped, Ordering::Relaxed);
    }
}

/// An engine with that application, and a listener that brings it clients, numbered from 0.
struct Bed {
    engine: Engine<App>,
    events: Receiver<(u64, Event)>,
    senders: Receiver<Sender>,
    path: PathBuf,
    runtime: Runtime,
    _directory: TempDir,
}

impl Bed {
    fn new(threads: usize) -> Bed {
        Bed::with(EngineOptions { threads: NonZeroUsize::new(threads), ..EngineOptions::default() })
    }

    fn with(options: EngineOptions) -> Bed {
        let ((told, events), (sender, senders)) = (channel(), channel());
        let (lobby, annex) = (Mutex::default(), Mutex::default());
        let (received, dropped) = (AtomicU64::default(), AtomicU64::default());
        let (go_on, held_up) = channel();
        let held_up = Mutex::new(held_up);
        let app = App { lobby, annex, told, senders: sender, received, dropped, held_up, go_on };
        let engine = Engine::start(app, options).expect("an engine");
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("socket");
        let runtime = Runtime::new().expect("a runtime");
        let served = engine.clone();
        let bound = path.clone();
        runtime.block_on(async move {
            let mut listener = HandoffListener::bind(Options::new(&bound)).expect("bind");
            tokio::spawn(async move {
                for number in 0.. {
                    let Ok(offer) = listener.accept().await else { return };
                    if let Ok(client) = offer.accept().send_detached().await {
                        served.serve(client, number).expect("a thread");
                    }
                }
            });
        });
        Bed { engine, events, senders, path, runtime, _directory: directory }
    }

    /// A client, once the application knows it.
    fn client(&self, number: u64) -> Client {
        let client = Client::handed_over(&self.path, "/", b"");
        assert_eq!(self.event(), (number, Event::Opened("/".to_owned())));
        client
    }

    fn event(&self) -> (u64, Event) {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn sender_of<S: Read + Write>(&self, client: &mut Client<S>) -> Sender {
        client.text("sender");
        self.senders.recv_timeout(PATIENCE).expect("a sender")
    }

    /// What is left once everybody is gone.
    fn remaining(self) -> Vec<(u64, Event)> {
        self.engine.stop();
        let Bed { engine, events, runtime, .. } = self;
        runtime.shutdown_timeout(PATIENCE);
        drop(engine);
        events.iter().collect()
    }
}

fn said(text: &str) -> Event {
    Event::Said(text.to_owned())
}
