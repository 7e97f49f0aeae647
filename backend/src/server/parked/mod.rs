//! `--engine parked`: the applications as handlers of an [`Engine`].

mod hello;
mod rooms;

use std::sync::Arc;

use super::apps::{Route, Router};
use super::limits::Admission;
use super::metrics::{Closed, Metrics};
use crate::engine::{
    Cause, Context, Ended, Engine, EngineOptions, Handler, Message, Request, Traffic,
};

use self::hello::Hello;
use self::rooms::{Rooms, Seat};

/// The engine and what is served by it.
pub(crate) type Parked = Engine<Apps>;

/// All applications: which one a connection is for comes with it.
#[derive(Debug)]
pub(crate) struct Apps {
    rooms: Arc<Rooms>,
    metrics: Arc<Metrics>,
}

/// What goes along with a client's request.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) route: Route,
    /// Tells clients apart.
    pub(crate) number: u64,
    pub(crate) admission: Admission,
}

/// What is kept of a client.
#[derive(Debug)]
pub(crate) struct Client {
    app: App,
    #[expect(dead_code, reason = "held")]
    admission: Admission,
}

#[derive(Debug)]
enum App {
    Echo,
    Hello(Box<Hello>),
    Room(Seat),
}

impl Apps {
    pub(crate) fn start(options: EngineOptions, metrics: Arc<Metrics>) -> std::io::Result<Parked> {
        Engine::start(Apps { rooms: Arc::default(), metrics }, options)
    }

    /// Whether [`EngineOptions::sweeps`] is needed for what the router leads to.
    pub(crate) fn needs_sweeps(router: &Router) -> bool {
        router.has_hello()
    }
}

impl Handler for Apps {
    type Connection = Client;
    type Ticket = Ticket;

    fn on_open(&self, _: Request, ticket: Ticket, context: &mut Context<'_>) -> Client {
        let Ticket { route, number, admission } = ticket;
        let app = match route {
            Route::Echo => App::Echo,
            Route::Hello => App::Hello(Box::new(Hello::new(number))),
            Route::Room(name) => App::Room(self.rooms.join(name, context)),
        };
        Client { app, admission }
    }

    fn on_message(&self, client: &mut Client, message: Message<'_>, context: &mut Context<'_>) {
        match &mut client.app {
            App::Echo => context.send(message),
            App::Hello(hello) => hello.received(message),
            App::Room(seat) => seat.say(message, context),
        }
    }

    fn on_close(&self, client: &mut Client, ended: Ended) {
        if let Ended::ByServer(_, Cause::Queue) = ended {
            self.metrics.slow_receivers.inc();
        }
        self.metrics.closed(closed(ended));
        if let Some(limit) = limit(ended) {
            self.metrics.limited(limit);
        }
        if let App::Room(seat) = std::mem::replace(&mut client.app, App::Echo) {
            self.rooms.leave(&seat);
        }
    }

    fn on_sweep(&self, client: &mut Client, context: &mut Context<'_>) {
        if let App::Hello(hello) = &mut client.app {
            hello.due(context);
        }
    }

    fn on_traffic(&self, traffic: &Traffic) {
        let metrics = &self.metrics;
        metrics.messages_received.inc_by(traffic.messages_received);
        metrics.bytes_received.inc_by(traffic.bytes_received);
        metrics.messages_sent.inc_by(traffic.messages_sent);
        metrics.bytes_sent.inc_by(traffic.bytes_sent);
        metrics.messages_dropped.inc_by(traffic.messages_dropped);
        metrics.serves(traffic.opened, traffic.gone);
        if traffic.tls_user + traffic.tls_kernel > 0 {
            metrics.tls(traffic);
        }
    }
}

fn closed(ended: Ended) -> Closed {
    match ended {
        Ended::ByClient => Closed::ByClient,
        Ended::ByServer(code, _) => Closed::ByServer(code),
        Ended::Lost => Closed::Lost,
    }
}

/// The limit that a client has run into.
fn limit(ended: Ended) -> Option<&'static str> {
    match ended {
        Ended::ByServer(_, Cause::MessageSize) => Some("message_size"),
        Ended::ByServer(_, Cause::MessageRate) => Some("message_rate"),
        Ended::ByServer(_, Cause::Queue) => Some("queue"),
        Ended::ByServer(_, Cause::Idle) => Some("idle"),
        Ended::ByServer(_, Cause::Keys) => Some("tls_keys"),
        _ => None,
    }
}
