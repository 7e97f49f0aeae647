//! The program `ws-handoff-backend`.
//!
//! [`run`] binds, serves, and drains. `offers` turns an offer into a client or a refusal. A client is served by the
//! [`engine`](crate::engine) with the handlers in `parked`; or, with `--engine tasks`, by a task of its own on fastwebsockets:
//! `session` is its conversation (frames read by `messages`, written by `writer`), in which one of the `apps` takes part.
//! `manager` tells systemd, or whoever started the program, how it is.

mod admin;
mod apps;
mod arrivals;
mod cli;
mod direct;
mod drain;
mod greeter;
mod limits;
mod logging;
mod manager;
mod messages;
mod metrics;
mod offers;
mod parked;
mod session;
mod writer;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

pub use self::cli::{
    AdminAddress, AppKind, Arguments, EngineKind, LogFormat, SlowReceiverKind, TlsKind,
};
pub use self::logging::init_logging;

use self::admin::Admin;
use self::apps::Router;
use self::drain::Drain;
use self::limits::{Descriptors, Limits};
use self::metrics::Metrics;
use self::parked::{Apps, Parked};
use crate::engine::{EngineOptions, SlowReceiver};
use crate::error::BindError;
use crate::listener::HandoffListener;
use crate::options::{OfferOptions, Options};

/// Serves until SIGTERM or SIGINT, then drains. Ends the process itself on a second signal.
///
/// # Errors
///
/// [`RunError`]: what keeps it from starting.
pub fn run(arguments: Arguments) -> Result<(), RunError> {
    let descriptors = Descriptors::raise(arguments.workers);
    // An engine has threads of its own: this runtime only takes offers.
    let mut builder = match arguments.engine {
        EngineKind::Parked => tokio::runtime::Builder::new_current_thread(),
        EngineKind::Tasks => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().thread_name("ws-handoff");
    if let Some(workers) = arguments.workers {
        builder.worker_threads(workers.into());
    }
    let runtime = builder.build().map_err(RunError::Runtime)?;
    let result = runtime.block_on(serve(arguments, descriptors));
    // Whoever is still connected is hung up on: dropping a client's stream does that.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// What keeps the program from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Nowhere to get clients from.
    #[error("nothing to serve: give --socket or --listen, or pass sockets (LISTEN_FDS)")]
    NothingToServe,
    /// A socket could not be made.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The TCP socket of `--listen` could not be made.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The errno.
        source: io::Error,
    },
    /// An option that only one of the engines has.
    #[error("{0} needs --engine parked")]
    Unsupported(&'static str),
    /// No threads, no epoll.
    #[error("starting the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// No signal handlers.
    #[error("handling signals: {0}")]
    Signals(#[source] io::Error),
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: Settings,
    router: Router,
    /// `None`: a task for each client.
    engine: Option<Parked>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    drain: Drain,
    next_client: AtomicU64,
}

#[derive(Debug)]
struct Settings {
    subprotocols: Vec<String>,
    compression: bool,
    carries_tls: bool,
    max_message_size: usize,
    ping_interval: Option<Duration>,
    idle_timeout: Option<Duration>,
    send_timeout: Duration,
}

impl Shared {
    fn new(arguments: &Arguments, descriptors: Descriptors) -> Result<Shared, RunError> {
        let unless_zero = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        let settings = Settings {
            subprotocols: arguments
                .subprotocol
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            compression: arguments.compression,
            carries_tls: arguments.tls != TlsKind::Off,
            max_message_size: arguments.max_message_size,
            ping_interval: unless_zero(arguments.ping_interval),
            idle_timeout: unless_zero(arguments.idle_timeout),
            send_timeout: Duration::from_secs(arguments.send_timeout.into()),
        };
        let wanted = arguments.max_connections.unwrap_or(descriptors.clients);
        if wanted > descriptors.clients {
            tracing::warn!(
                wanted,
                possible = descriptors.clients,
                "--max-connections exceeds what RLIMIT_NOFILE allows"
            );
        }
        let metrics = Arc::new(Metrics::new());
        let router = Router::new(arguments.app, Arc::clone(&metrics));
        let engine = match arguments.engine {
            EngineKind::Parked => {
                let options = engine_options(arguments, &settings, Apps::needs_sweeps(&router));
                let engine = Apps::start(options, Arc::clone(&metrics));
                Some(engine.map_err(RunError::Runtime)?)
            }
            EngineKind::Tasks => {
                refuse_options_of_the_engine(arguments)?;
                None
            }
        };
        Ok(Shared {
            settings,
            router,
            engine,
            limits: Arc::new(Limits::new(
                wanted.min(descriptors.clients),
                arguments.max_connections_per_ip,
            )),
            metrics,
            drain: Drain::default(),
            next_client: AtomicU64::new(0),
        })
    }
}

fn engine_options(arguments: &Arguments, settings: &Settings, sweeps: bool) -> EngineOptions {
    EngineOptions {
        threads: arguments.workers.and_then(|workers| NonZeroUsize::new(workers.into())),
        max_message_size: settings.max_message_size,
        max_message_rate: Some(arguments.max_message_rate).filter(|rate| *rate > 0),
        max_queue: arguments.max_queue,
        slow_receiver: match arguments.slow_receiver {
            SlowReceiverKind::Close1008 => SlowReceiver::Close(1008),
            SlowReceiverKind::Close1013 => SlowReceiver::Close(1013),
            SlowReceiverKind::Drop => SlowReceiver::Drop,
        },
        ping_interval: settings.ping_interval,
        idle_timeout: settings.idle_timeout,
        send_timeout: settings.send_timeout,
        kernel_tls: arguments.tls == TlsKind::Kernel,
        sweeps,
    }
}

fn refuse_options_of_the_engine(arguments: &Arguments) -> Result<(), RunError> {
    let given = [
        (arguments.compression, "--compression"),
        (arguments.max_message_rate > 0, "--max-message-rate"),
        (arguments.slow_receiver != SlowReceiverKind::Close1008, "--slow-receiver"),
        (arguments.tls == TlsKind::Kernel, "--tls kernel"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(RunError::Unsupported(option)),
        None => Ok(()),
    }
}

async fn serve(arguments: Arguments, descriptors: Descriptors) -> Result<(), RunError> {
    // Before anything can be connected to: a signal from here on drains.
    let mut signals = Signals::install().map_err(RunError::Signals)?;
    let shared = Arc::new(Shared::new(&arguments, descriptors)?);
    // First, so that a start that fails has not taken over the socket that offers come to.
    let admin = arguments.admin.as_ref().map(Admin::bind).transpose()?;
    let listeners = listeners(&arguments, descriptors)?;

    if let Some(admin) = admin {
        match &admin {
            Admin::Tcp { address, .. } => tracing::info!(%address, "admin endpoint"),
            Admin::Unix { .. } => tracing::info!(address = ?arguments.admin, "admin endpoint"),
        }
        tokio::spawn(admin.serve(Arc::clone(&shared)));
    }
    let (alive, mut all_gone) = mpsc::channel(1);
    for listener in listeners {
        tokio::spawn(offers::take(listener, Arc::clone(&shared), alive.clone()));
    }
    drop(alive);
    tracing::info!(app = ?arguments.app, "ready");
    manager::ready(&shared);
    tokio::spawn(manager::keep_informed(Arc::clone(&shared)));

    signals.next().await;
    let clients = shared.limits.clients();
    let limit = Duration::from_secs(arguments.drain_timeout.into());
    tracing::info!(clients, ?limit, "draining");
    let span = shared.drain.begin(clients, limit);
    if let Some(engine) = &shared.engine {
        engine.drain(span);
    }
    manager::stopping(&shared);
    let drained = async {
        all_gone.recv().await;
        // Whoever was accepted last is with the engine by now.
        while shared.engine.as_ref().is_some_and(|engine| engine.connections() > 0) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        gone = timeout(limit, drained) => match gone {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::warn!(clients = shared.limits.clients(), "drain timeout: hanging up"),
        },
        number = signals.next() => {
            tracing::warn!(clients = shared.limits.clients(), "second signal: ending at once");
            // The shell's convention for death by a signal. Sockets close with the process, which hangs up on every
            // client that nginx let go of.
            std::process::exit(128 + number);
        }
    }
    if let Some(engine) = &shared.engine {
        engine.stop();
    }
    Ok(())
}

fn listeners(
    arguments: &Arguments,
    descriptors: Descriptors,
) -> Result<Vec<HandoffListener>, RunError> {
    let offers = OfferOptions {
        max_pending: descriptors.pending,
        max_handovers: descriptors.handovers,
        allow_uids: (!arguments.allow_uid.is_empty()).then(|| arguments.allow_uid.clone()),
        ..OfferOptions::default()
    };
    let mut listeners = HandoffListener::from_environment(&offers)?;
    if !listeners.is_empty() {
        tracing::info!(sockets = listeners.len(), "serving sockets of LISTEN_FDS");
    }
    if let Some(address) = arguments.listen {
        let (listener, bound) = direct::listen(address, offers.clone())
            .map_err(|source| RunError::Listen { address, source })?;
        tracing::info!(address = %bound, "listening");
        listeners.push(listener);
    }
    // Last: it takes the path over from another process.
    if let Some(path) = &arguments.socket {
        listeners.push(HandoffListener::bind(Options {
            mode: arguments.socket_mode,
            group: arguments.socket_group.as_deref().map(Into::into),
            offers,
            ..Options::new(path)
        })?);
        tracing::info!(path = %path.display(), mode = format_args!("{:04o}", arguments.socket_mode),
            "taking offers");
    }
    if listeners.is_empty() { Err(RunError::NothingToServe) } else { Ok(listeners) }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal's number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}
