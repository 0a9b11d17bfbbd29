//! The running server: owns every task, from the first bound port to the last seal.

use crate::config::Config;
use crate::guard::Guard;
use crate::rooms::{self, Rooms};
use crate::site::Site;
use anyhow::Context;
use axum::Router;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use trefoil_collector::ingest::Receiver;
use trefoil_collector::limits::Limits;
use trefoil_collector::listen::{self, Serving};
use trefoil_collector::{grpc, http};
use trefoil_storage::store::Store;

/// A server that takes requests.
pub struct App {
    tasks: JoinSet<Ended>,
    stop: CancellationToken,
    receiver: Receiver,
    store: Arc<Store>,
    addrs: Addrs,
}

/// The addresses that are listened on, ports as the system gave them.
#[derive(Debug, Clone, Copy)]
pub struct Addrs {
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub http: SocketAddr,
}

/// A task that came to its end, and how.
struct Ended {
    name: &'static str,
    result: std::io::Result<()>,
}

/// Why the server stops.
#[derive(Debug)]
pub enum Cause {
    /// Somebody asked for it.
    Asked(&'static str),
    /// A task ended by itself: the server would be crippled without it.
    TaskEnded { name: &'static str, error: String },
}

/// From the signal to the exit. Listeners get the first part to finish what they answer, the store the rest.
const DRAIN_MAX: Duration = Duration::from_secs(9);
const ANSWER_MAX: Duration = Duration::from_secs(4);

impl App {
    /// Binds the ports, opens the store, replays its log. From the first moment on the ports answer: with 503 until
    /// the store is open, so that exporters wait and do not drop.
    ///
    /// # Errors
    /// A port that is taken or a data directory that can't be used, with the remedy.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let limits = Limits::for_memory(config.memory_limit_bytes);
        let receiver = Receiver::new(limits, config.token.clone(), config.cors_origins.clone());
        let grpc = bind("otlp-grpc-addr", config.otlp_grpc_addr).await?;
        let otlp = bind("otlp-http-addr", config.otlp_http_addr).await?;
        let http = bind("http-addr", config.http_addr).await?;
        let addrs = Addrs {
            otlp_grpc: grpc.local_addr()?,
            otlp_http: otlp.local_addr()?,
            http: http.local_addr()?,
        };

        let stop = CancellationToken::new();
        let guard = Guard::new(addrs.http, &config.allowed_hosts, config.token.clone());
        let site = Site::new(receiver.clone());
        let mut tasks = JoinSet::new();
        let mut listen = |name, listener, router: Router| {
            let serving = Serving { router, receiver: receiver.clone(), stop: stop.clone() };
            tasks.spawn(
                async move { Ended { name, result: listen::serve(listener, serving).await } },
            );
        };
        listen("otlp-grpc listener", grpc, grpc::router(receiver.clone()));
        listen("otlp-http listener", otlp, http::router(receiver.clone()));
        listen("http listener", http, site.router(guard));

        let opened = tokio::task::spawn_blocking(move || rooms::open(&config)).await;
        let Rooms { store, api } = opened.context("opening the store")??;
        site.open(store.clone(), api);
        receiver.open(store.clone());
        Ok(Self { tasks, stop, receiver, store, addrs })
    }

    pub fn addrs(&self) -> Addrs {
        self.addrs
    }

    /// Waits until somebody asks the server to stop, or one of its tasks ends.
    pub async fn first_stop(&mut self, asked: impl Future<Output = &'static str>) -> Cause {
        tokio::select! {
            signal = asked => Cause::Asked(signal),
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(Ended { name, result }) => {
                    let error = result.err().map_or("it returned".to_owned(), |e| e.to_string());
                    Cause::TaskEnded { name, error }
                }
                Err(error) => Cause::TaskEnded { name: "a listener", error: error.to_string() },
            },
        }
    }

    /// Stops in the order in which data flow: no new requests, running ones answered, hot data sealed, files closed.
    ///
    /// # Errors
    /// When the cause was a fault, or the store could not be closed; what was acknowledged is durable all the same.
    pub async fn drain(mut self, cause: Cause) -> anyhow::Result<()> {
        let started = Instant::now();
        match &cause {
            Cause::Asked(signal) => info!(signal, "stopping"),
            Cause::TaskEnded { name, error } => {
                error!(task = name, error, "stopping: a task ended")
            }
        }
        self.receiver.stop();
        self.stop.cancel();
        let answered = async { while self.tasks.join_next().await.is_some() {} };
        if timeout_at(started + ANSWER_MAX, answered).await.is_err() {
            warn!("some answers took too long and were cut off");
            self.tasks.shutdown().await;
        }
        let store = self.store.clone();
        let closed = tokio::task::spawn_blocking(move || store.close());
        match timeout_at(started + DRAIN_MAX, closed).await {
            Ok(closed) => closed.context("closing the store")?.context("sealing")?,
            Err(_) => warn!("sealing took too long: the next start replays the write-ahead log"),
        }
        match cause {
            Cause::Asked(_) => {
                info!(elapsed_ms = started.elapsed().as_millis() as u64, "stopped");
                Ok(())
            }
            Cause::TaskEnded { name, error } => anyhow::bail!("{name} ended: {error}"),
        }
    }
}

/// Runs a server until it is asked to stop.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    crate::logging::start(&config.log);
    let started = Instant::now();
    let mut asked = pin!(shutdown_signal());
    let mut app = tokio::select! {
        app = App::build(config) => app?,
        signal = &mut asked => {
            info!(signal, "stopped while starting");
            return Ok(());
        }
    };
    let Addrs { otlp_grpc, otlp_http, http } = app.addrs();
    let elapsed_ms = started.elapsed().as_millis() as u64;
    info!(%otlp_grpc, %otlp_http, %http, elapsed_ms, "ready");
    let cause = app.first_stop(asked).await;
    app.drain(cause).await
}

async fn bind(name: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("can't listen on {addr}: free that port or set --{name}"))
}

/// The first SIGINT or SIGTERM, by name.
pub async fn shutdown_signal() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process as they do by default.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
