//! The demo shop. One binary, one process per service: `trefoil-shop up` starts them all.

mod catalog;
mod checkout;
mod gateway;
mod kit;
mod notifications;
mod payment;
mod queue;
mod shop;
mod switch;
mod traffic;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use kit::Kit;
use shop::{Addresses, PORT_BASE_DEFAULT, Service};

/// A shop of small services that send OpenTelemetry metrics, traces and logs.
///
/// Telemetry goes over OTLP/gRPC to OTEL_EXPORTER_OTLP_ENDPOINT (default http://127.0.0.1:4317).
/// A missing receiver is tolerated; the shop works on.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    /// First of the seven ports the shop listens on (loopback only)
    #[arg(long, env = "SHOP_PORT_BASE", default_value_t = PORT_BASE_DEFAULT, global = true)]
    port_base: u16,

    /// End when standard input is closed, so that no process outlives the one that started it
    #[arg(long, hide = true, global = true)]
    end_with_stdin: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start every service as a process of its own, and the load; Ctrl-C ends them all
    #[command(visible_alias = "all")]
    Up {
        /// Customers' requests per second; 0 starts no load
        #[arg(long, env = "SHOP_RATE", default_value_t = traffic::RATE_DEFAULT)]
        rate: f64,
    },
    /// List the scenarios, or switch one on or off in the running shop
    Scenario {
        /// Its name; leave out to list all
        name: Option<String>,
        /// What to do with it; leave out to see its state
        state: Option<State>,
    },
    /// The customers: send requests to the gateway
    Traffic {
        /// Requests per second
        #[arg(long, env = "SHOP_RATE", default_value_t = traffic::RATE_DEFAULT)]
        rate: f64,
    },
    /// The door of the shop
    Gateway,
    /// Products: list, search, details
    Catalog,
    /// Turns a basket into an order
    Checkout,
    /// Charges cards
    Payment,
    /// The broker of messages
    Queue,
    /// Sends order confirmations
    Notifications,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    On,
    Off,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let addresses = Addresses::new(arguments.port_base)?;
    let stop = kit::stop::on_signal(arguments.end_with_stdin)?;
    let service = match arguments.command {
        Command::Up { rate } => return up::run(addresses, rate, stop).await,
        Command::Scenario { name, state } => {
            return switch::run(addresses, name.as_deref(), state.map(|s| s == State::On)).await;
        }
        Command::Traffic { rate } => return traffic::run(addresses, rate, stop).await,
        Command::Gateway => Service::Gateway,
        Command::Catalog => Service::Catalog,
        Command::Checkout => Service::Checkout,
        Command::Payment => Service::Payment,
        Command::Queue => Service::Queue,
        Command::Notifications => Service::Notifications,
    };
    let kit = Kit::start(service, addresses, stop).await?;
    let router = match service {
        Service::Gateway => gateway::router(&kit),
        Service::Catalog => catalog::router(&kit),
        Service::Checkout => checkout::router(&kit),
        Service::Payment => payment::router(&kit),
        Service::Queue => queue::router(&kit),
        Service::Notifications => notifications::router(&kit),
        Service::Traffic => unreachable!("traffic has its own entry, without telemetry"),
    };
    kit.serve(router).await
}
