//! The command line.

use crate::client::{self, Server};
use crate::config::RawConfig;
use crate::{app, check, demo};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Metrics, traces and logs in one binary: an OpenTelemetry observability stack
#[derive(Debug, Parser)]
#[command(name = "trefoil", version, max_term_width = 100)]
#[command(
    after_help = "Every flag of `serve` can also be set by its TREFOIL_* variable, or by its key in trefoil.toml \
(the flag's name with underscores: memory_limit = \"2GiB\"). A flag goes before a variable, a variable before the file.\n\n\
Start:   trefoil serve\n\
Send:    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 (gRPC) or http://127.0.0.1:4318 (HTTP)\n\
Look:    http://127.0.0.1:4319"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Serve),
    /// Ask a running server
    #[command(subcommand)]
    Query(Query),
    /// Print log records as they arrive
    Tail(Tail),
    /// Delete all data of a service from a running server
    Delete(Delete),
    /// Verify a data directory, also while a server runs on it
    #[command(
        after_help = "Prints a line for each fault. Exit codes: 0 all is sound, 1 there are faults, 2 the directory can't be read."
    )]
    Check(Check),
    /// Run the demo shop against the running server, or with a server of its own
    Demo(Demo),
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    config: RawConfig,

    /// TOML file with settings [default: trefoil.toml, if it is there]
    #[arg(long = "config", env = "TREFOIL_CONFIG", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

/// How to reach the server and how to print.
#[derive(Debug, Args)]
pub struct Connect {
    /// Address of the server's UI port
    #[arg(long, env = "TREFOIL_URL", default_value = "http://127.0.0.1:4319", value_name = "URL")]
    pub url: String,

    /// The server's token, if it wants one
    #[arg(long, env = "TREFOIL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,

    /// How to print the answer
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: client::Output,
}

#[derive(Debug, Subcommand)]
enum Query {
    /// Evaluate a PromQL expression, at one time or over a range
    Promql {
        /// For example: sum by (service_name) (rate(traces_spanmetrics_calls_total[1m]))
        expr: String,
        /// Evaluate at this time: RFC 3339, Unix seconds, or an age such as -5m [default: now]
        #[arg(long, conflicts_with_all = ["start", "end", "step"], allow_hyphen_values = true)]
        time: Option<String>,
        /// Start of the range [default: one hour before its end]
        #[arg(long, allow_hyphen_values = true)]
        start: Option<String>,
        /// End of the range [default: now]
        #[arg(long, allow_hyphen_values = true)]
        end: Option<String>,
        /// Evaluate at every step of the range: seconds, or a duration such as 30s
        #[arg(long)]
        step: Option<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Run SQL over the tables spans, logs and metrics
    Sql {
        /// For example: select service, count(*) from spans group by service
        sql: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Search log records
    Logs {
        /// For example: payment AND severity:error; all records if it is left out
        #[arg(default_value = "")]
        q: String,
        /// Only records of this trace
        #[arg(long)]
        trace_id: Option<String>,
        #[command(flatten)]
        range: Range,
        /// Which end to print first: desc (newest) or asc
        #[arg(long, default_value = "desc", value_parser = ["asc", "desc"])]
        order: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Search traces
    Traces {
        /// Service that has a span in the trace
        #[arg(long)]
        service: Option<String>,
        /// Name of a span
        #[arg(long)]
        operation: Option<String>,
        /// At least this long, such as 250ms
        #[arg(long)]
        min_duration: Option<String>,
        /// At most this long
        #[arg(long)]
        max_duration: Option<String>,
        /// error, or ok for traces without an errored span
        #[arg(long, value_parser = ["error", "ok"])]
        status: Option<String>,
        /// Attribute that a span has, as key=value; may be repeated
        #[arg(long, value_name = "K=V")]
        attr: Vec<String>,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        connect: Connect,
    },
}

/// Which part of the data to look at.
#[derive(Debug, Args)]
pub struct Range {
    /// From this time on: RFC 3339, Unix nanoseconds, or an age such as -1h
    #[arg(long, allow_hyphen_values = true)]
    pub start: Option<String>,
    /// Up to this time
    #[arg(long, allow_hyphen_values = true)]
    pub end: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20)]
    pub limit: u32,
}

#[derive(Debug, Args)]
struct Tail {
    /// Log query; all records if it is left out
    #[arg(default_value = "")]
    q: String,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
struct Delete {
    /// Its name, as in service.name; everything that it has sent so far goes
    #[arg(long, value_name = "NAME")]
    service: String,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
struct Check {
    /// Directory to verify [default: trefoil-data]
    #[arg(long, env = "TREFOIL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// How to print what was found
    #[arg(long, short, value_enum, default_value = "table")]
    output: CheckOutput,

    /// Mend what can be mended, while no server runs: indexes are made anew from sound Parquet files, other damaged
    /// files are set aside in DIR/quarantine
    #[arg(long)]
    repair: bool,

    /// The server's setting: --repair reads the log as the server would
    #[arg(long, env = "TREFOIL_RETENTION", value_name = "TIME")]
    retention: Option<String>,

    /// TOML file with settings [default: trefoil.toml, if it is there]
    #[arg(long = "config", env = "TREFOIL_CONFIG", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

/// How `trefoil check` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// Lines, for people
    Table,
    /// One JSON object
    Json,
}

#[derive(Debug, Args)]
struct Demo {
    #[command(flatten)]
    serve: Serve,
}

/// Does what was typed.
///
/// # Errors
/// In one line what went wrong and, where there is one, the remedy.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Check(check) => return Ok(verify(check).await),
        Command::Serve(serve) => app::serve(serve.config()?).await?,
        Command::Query(query) => ask(query).await?,
        Command::Tail(Tail { q, connect }) => {
            client::tail::tail(&Server::new(&connect)?, &q, connect.output).await?
        }
        Command::Delete(Delete { service, connect }) => {
            client::delete::delete(&Server::new(&connect)?, &service, connect.output).await?
        }
        Command::Demo(Demo { serve }) => demo::run(serve.config()?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Any failure but faults in the data is code 2.
async fn verify(check: Check) -> ExitCode {
    let Check { data_dir, output, repair, retention, config_file } = check;
    let verified = async move {
        let typed = RawConfig { data_dir, retention, ..RawConfig::default() };
        let config = typed.or_from_file(config_file.as_deref())?.parse()?;
        tokio::task::spawn_blocking(move || check::run(&config, repair, output)).await?
    };
    verified.await.unwrap_or_else(|error| {
        eprintln!("trefoil: {error:#}");
        ExitCode::from(2)
    })
}

impl Serve {
    fn config(self) -> anyhow::Result<crate::config::Config> {
        Ok(self.config.or_from_file(self.config_file.as_deref())?.parse()?)
    }
}

async fn ask(query: Query) -> anyhow::Result<()> {
    match query {
        Query::Promql { expr, time, start, end, step, connect } => {
            let when = client::promql::When::read(time, start, end, step)?;
            client::promql::query(&Server::new(&connect)?, &expr, &when, connect.output).await
        }
        Query::Sql { sql, connect } => {
            client::sql::query(&Server::new(&connect)?, &sql, connect.output).await
        }
        Query::Logs { q, trace_id, range, order, connect } => {
            let mut parameters = client::time_range(&range)?;
            parameters.extend([("q", q), ("order", order)]);
            parameters.extend(trace_id.map(|id| ("trace_id", id)));
            client::logs::query(&Server::new(&connect)?, &parameters, connect.output).await
        }
        Query::Traces {
            service,
            operation,
            min_duration,
            max_duration,
            status,
            attr,
            range,
            connect,
        } => {
            let mut parameters = client::time_range(&range)?;
            parameters.extend(service.map(|v| ("service", v)));
            parameters.extend(operation.map(|v| ("operation", v)));
            parameters.extend(min_duration.map(|v| ("min_duration", v)));
            parameters.extend(max_duration.map(|v| ("max_duration", v)));
            parameters.extend(status.map(|v| ("status", v)));
            parameters.extend(attr.into_iter().map(|v| ("attr", v)));
            client::traces::query(&Server::new(&connect)?, &parameters, connect.output).await
        }
    }
}
