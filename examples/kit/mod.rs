//! What every service of the shop shares: telemetry, an HTTP server and client that carry the trace along,
//! the queue's client, and the switches of the scenarios.

pub mod answer;
pub mod client;
pub mod exemplars;
pub mod instruments;
pub mod process;
pub mod propagation;
pub mod queue;
pub mod server;
pub mod stop;
pub mod switches;
pub mod telemetry;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use opentelemetry::global::{self, BoxedTracer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::shop::{Addresses, Service};
use client::Client;
use instruments::Instruments;
use queue::QueueClient;
use switches::Switches;
use telemetry::Telemetry;

/// A service's tools. Made first thing in a process, before any router.
pub struct Kit {
    pub service: Service,
    pub addresses: Addresses,
    /// Makes metrics whose measurements remember their trace.
    pub instruments: Instruments,
    /// Calls other services.
    pub client: Client,
    pub switches: Arc<Switches>,
    /// Cancelled when the process is asked to end.
    pub stop: CancellationToken,
    listener: TcpListener,
    telemetry: Telemetry,
}

impl Kit {
    /// Takes the service's port, then starts its telemetry.
    ///
    /// # Errors
    /// When the port is taken, or the exporter's address is malformed. An absent receiver is no error.
    pub async fn start(
        service: Service,
        addresses: Addresses,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let listener = listen(service, addresses).await?;
        let telemetry = Telemetry::start(service, addresses.port(service))?;
        let instruments = Instruments::new(global::meter(service.name()), telemetry.exemplars());
        process::observe(instruments.meter());
        Ok(Self {
            service,
            addresses,
            client: Client::new(service, addresses, &instruments)?,
            instruments,
            switches: Arc::new(Switches::of(service)),
            stop,
            listener,
            telemetry,
        })
    }

    pub fn tracer(&self) -> BoxedTracer {
        global::tracer(self.service.name())
    }

    pub fn queue(&self) -> QueueClient {
        QueueClient::new(self.client.clone(), self.service, &self.instruments)
    }

    /// Serves until the process is asked to end, then hands over the last telemetry.
    ///
    /// * `router`: the service's routes, traced where it wants them traced (`server::traced`).
    ///
    /// Prints `ready` on standard output once requests are answered; `up` waits for it.
    pub async fn serve(self, router: Router) -> anyhow::Result<()> {
        let router = router.merge(switches::control_router(self.switches.clone()));
        let stop = self.stop.clone();
        println!("ready");
        axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await
            .context("the HTTP server failed")?;
        self.telemetry.shutdown().await;
        Ok(())
    }
}

/// Binds the service's port, with words that help when it is taken.
pub async fn listen(service: Service, addresses: Addresses) -> anyhow::Result<TcpListener> {
    let port = addresses.port(service);
    TcpListener::bind(("127.0.0.1", port)).await.with_context(|| {
        format!(
            "{service} cannot listen on 127.0.0.1:{port}: end the program that holds the port \
             (perhaps another shop), or pass a different --port-base"
        )
    })
}
