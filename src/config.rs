//! Settings: first what was typed ([`RawConfig`]), then what it means ([`Config`]).
//!
//! A setting comes from its flag, else from its `TREFOIL_*` variable, else from its key in `trefoil.toml`, else from
//! the default. All mistakes are reported together. After this file nothing is parsed again.

use crate::units::{self, Retention};
use clap::Args;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trefoil_collector::auth::Token;
use trefoil_storage::metrics::naming::Naming;

/// The server's settings as text, each absent until somebody sets it.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Directory that holds all data; made if it is not there [default: trefoil-data]
    #[arg(long, env = "TREFOIL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where to take OTLP over gRPC [default: 127.0.0.1:4317]
    #[arg(long, env = "TREFOIL_OTLP_GRPC_ADDR", value_name = "ADDR")]
    pub otlp_grpc_addr: Option<String>,

    /// Where to take OTLP over HTTP [default: 127.0.0.1:4318]
    #[arg(long, env = "TREFOIL_OTLP_HTTP_ADDR", value_name = "ADDR")]
    pub otlp_http_addr: Option<String>,

    /// Where to serve the UI, the query APIs, /healthz, /readyz and /metrics [default: 127.0.0.1:4319]
    #[arg(long, env = "TREFOIL_HTTP_ADDR", value_name = "ADDR")]
    pub http_addr: Option<String>,

    /// How long data is kept: a duration such as 7d or 12h, or "unlimited" [default: 7d]
    #[arg(long, env = "TREFOIL_RETENTION", value_name = "TIME")]
    pub retention: Option<String>,

    /// Size of the data directory above which the oldest data are dropped: such as 10GiB, or "unlimited" [default: unlimited]
    #[arg(long, env = "TREFOIL_RETENTION_SIZE", value_name = "BYTES")]
    #[serde(deserialize_with = "text_or_number")]
    pub retention_size: Option<String>,

    /// Age at which recent data leave memory for files; a restart reads the log of about as long [default: 5m]
    #[arg(long, env = "TREFOIL_SEAL_AGE", value_name = "TIME")]
    pub seal_age: Option<String>,

    /// Memory that hot data, requests in flight, caches and queries may use together, such as 512MiB [default: 1GiB]
    #[arg(long, env = "TREFOIL_MEMORY_LIMIT", value_name = "BYTES")]
    #[serde(deserialize_with = "text_or_number")]
    pub memory_limit: Option<String>,

    /// Accept the PromQL functions and syntax that Prometheus keeps behind feature flags
    #[arg(long, env = "TREFOIL_PROMQL_EXPERIMENTAL", num_args = 0..=1, default_missing_value = "true")]
    pub promql_experimental: Option<bool>,

    /// Samples that one PromQL query may hold in memory, 16 bytes each [default: a quarter of the memory limit, at most
    /// 50000000]
    #[arg(long, env = "TREFOIL_PROMQL_SAMPLES_MAX", value_name = "COUNT")]
    #[serde(deserialize_with = "text_or_number")]
    pub promql_samples_max: Option<String>,

    /// Series that the selectors of one PromQL query may touch [default: 1000000]
    #[arg(long, env = "TREFOIL_PROMQL_SERIES_MAX", value_name = "COUNT")]
    #[serde(deserialize_with = "text_or_number")]
    pub promql_series_max: Option<String>,

    /// Steps of one PromQL range query, at most 11000 [default: 11000]
    #[arg(long, env = "TREFOIL_PROMQL_STEPS_MAX", value_name = "COUNT")]
    #[serde(deserialize_with = "text_or_number")]
    pub promql_steps_max: Option<String>,

    /// How long one PromQL query may take, its wait for others included [default: 2m]
    #[arg(long, env = "TREFOIL_PROMQL_TIMEOUT", value_name = "TIME")]
    pub promql_timeout: Option<String>,

    /// PromQL queries that run at once; more wait [default: 20]
    #[arg(long, env = "TREFOIL_PROMQL_QUERIES_MAX", value_name = "COUNT")]
    #[serde(deserialize_with = "text_or_number")]
    pub promql_queries_max: Option<String>,

    /// How OTLP metrics are named in PromQL, as Prometheus' otlp.translation_strategy: UnderscoreEscapingWithSuffixes,
    /// UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation
    /// [default: UnderscoreEscapingWithSuffixes]
    #[arg(long, env = "TREFOIL_OTLP_TRANSLATION_STRATEGY", value_name = "NAME")]
    pub otlp_translation_strategy: Option<String>,

    /// Resource attributes that every OTLP series carries as labels, such as deployment.environment.name, or * for all;
    /// may be repeated [default: none, they are labels of target_info]
    #[arg(
        long = "otlp-promote-resource-attribute",
        env = "TREFOIL_OTLP_PROMOTE_RESOURCE_ATTRIBUTE",
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub otlp_promote_resource_attribute: Option<Vec<String>>,

    /// Show service.name, service.namespace and service.instance.id in target_info too, not only as job and instance
    #[arg(
        long,
        env = "TREFOIL_OTLP_KEEP_IDENTIFYING_RESOURCE_ATTRIBUTES",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub otlp_keep_identifying_resource_attributes: Option<bool>,

    /// Show the instrumentation scope of OTLP series as labels otel_scope_name, otel_scope_version, …
    #[arg(
        long,
        env = "TREFOIL_OTLP_PROMOTE_SCOPE_METADATA",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub otlp_promote_scope_metadata: Option<bool>,

    /// Secret that callers must show as "Authorization: Bearer TOKEN" (or as a basic-auth password)
    #[arg(long, env = "TREFOIL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// Listen beyond this machine without a token: whoever reaches the ports can read and write everything
    #[arg(long, env = "TREFOIL_ALLOW_UNAUTHENTICATED", num_args = 0..=1, default_missing_value = "true")]
    pub allow_unauthenticated: Option<bool>,

    /// Further names under which the UI and the query APIs may be asked for (the Host header); may be repeated
    #[arg(
        long = "allowed-host",
        env = "TREFOIL_ALLOWED_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allowed_host: Option<Vec<String>>,

    /// Web origins whose pages may send OTLP to the HTTP port, such as https://shop.example; may be repeated
    #[arg(
        long = "cors-origin",
        env = "TREFOIL_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub cors_origin: Option<Vec<String>>,

    /// What to log, in tracing's filter syntax [default: info]
    #[arg(long, env = "TREFOIL_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines look: text or json [default: text]
    #[arg(long, env = "TREFOIL_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// A setting that must not be printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the settings mean.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    pub otlp_grpc_addr: SocketAddr,
    pub otlp_http_addr: SocketAddr,
    pub http_addr: SocketAddr,
    pub retention: Retention,
    pub retention_bytes: Option<u64>,
    pub seal_age: Duration,
    pub memory_limit_bytes: u64,
    pub promql_experimental: bool,
    pub promql: Promql,
    /// How OTLP metrics show in PromQL.
    pub otlp: Naming,
    pub token: Option<Token>,
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<String>,
    pub log: Log,
}

/// Bounds of PromQL queries.
#[derive(Debug, Clone)]
pub struct Promql {
    /// In memory at once, of one query.
    pub samples_max: u64,
    pub series_max: u64,
    pub steps_max: u64,
    pub timeout: Duration,
    pub queries_max: u64,
}

/// How to log.
#[derive(Debug, Clone)]
pub struct Log {
    pub filter: String,
    pub json: bool,
}

/// All that is wrong with the settings, one line each.
#[derive(Debug)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Mistakes {}

/// The file read when `--config` names none and it is there.
pub const DEFAULT_FILE: &str = "trefoil.toml";

impl RawConfig {
    /// What `file` says about the settings that were not typed.
    ///
    /// # Errors
    /// When the file can't be read, is not TOML, or has a key that is no setting.
    pub fn or_from_file(self, file: Option<&Path>) -> Result<Self, Mistakes> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        if file.is_none() && !path.exists() {
            return Ok(self);
        }
        if !path.is_file() {
            return Err(Mistakes(vec![format!("the file {} is not there", path.display())]));
        }
        let of_file: Self = Figment::from(Toml::file_exact(path)).extract().map_err(|errors| {
            Mistakes(errors.into_iter().map(|e| format!("{}: {e}", path.display())).collect())
        })?;
        Ok(Self {
            data_dir: self.data_dir.or(of_file.data_dir),
            otlp_grpc_addr: self.otlp_grpc_addr.or(of_file.otlp_grpc_addr),
            otlp_http_addr: self.otlp_http_addr.or(of_file.otlp_http_addr),
            http_addr: self.http_addr.or(of_file.http_addr),
            retention: self.retention.or(of_file.retention),
            retention_size: self.retention_size.or(of_file.retention_size),
            seal_age: self.seal_age.or(of_file.seal_age),
            memory_limit: self.memory_limit.or(of_file.memory_limit),
            promql_experimental: self.promql_experimental.or(of_file.promql_experimental),
            promql_samples_max: self.promql_samples_max.or(of_file.promql_samples_max),
            promql_series_max: self.promql_series_max.or(of_file.promql_series_max),
            promql_steps_max: self.promql_steps_max.or(of_file.promql_steps_max),
            promql_timeout: self.promql_timeout.or(of_file.promql_timeout),
            promql_queries_max: self.promql_queries_max.or(of_file.promql_queries_max),
            otlp_translation_strategy: self
                .otlp_translation_strategy
                .or(of_file.otlp_translation_strategy),
            otlp_promote_resource_attribute: self
                .otlp_promote_resource_attribute
                .or(of_file.otlp_promote_resource_attribute),
            otlp_keep_identifying_resource_attributes: self
                .otlp_keep_identifying_resource_attributes
                .or(of_file.otlp_keep_identifying_resource_attributes),
            otlp_promote_scope_metadata: self
                .otlp_promote_scope_metadata
                .or(of_file.otlp_promote_scope_metadata),
            token: self.token.or(of_file.token),
            allow_unauthenticated: self.allow_unauthenticated.or(of_file.allow_unauthenticated),
            allowed_host: self.allowed_host.or(of_file.allowed_host),
            cors_origin: self.cors_origin.or(of_file.cors_origin),
            log: self.log.or(of_file.log),
            log_format: self.log_format.or(of_file.log_format),
        })
    }

    /// Reads every setting.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn parse(self) -> Result<Config, Mistakes> {
        let mut reader = Reader(Vec::new());
        let memory_limit_bytes =
            reader.read("memory-limit", self.memory_limit.as_deref(), "1GiB", units::bytes);
        let samples_max = (memory_limit_bytes / 4 / SAMPLE_BYTES).min(SAMPLES_MAX).to_string();
        let promql = Promql {
            samples_max: reader.read(
                "promql-samples-max",
                self.promql_samples_max.as_deref(),
                &samples_max,
                units::count,
            ),
            series_max: reader.read(
                "promql-series-max",
                self.promql_series_max.as_deref(),
                "1000000",
                units::count,
            ),
            steps_max: reader.read(
                "promql-steps-max",
                self.promql_steps_max.as_deref(),
                "11000",
                |text| match units::count(text)? {
                    // Clients of Prometheus' API count on that refusal.
                    11_001.. => Err("must be at most 11000".to_owned()),
                    steps => Ok(steps),
                },
            ),
            timeout: reader.read("promql-timeout", self.promql_timeout.as_deref(), "2m", |text| {
                match units::duration(text)? {
                    Duration::ZERO => Err("must be longer than nothing".to_owned()),
                    some => Ok(some),
                }
            }),
            queries_max: reader.read(
                "promql-queries-max",
                self.promql_queries_max.as_deref(),
                "20",
                units::count,
            ),
        };
        let promoted = self.otlp_promote_resource_attribute.unwrap_or_default();
        let config = Config {
            data_dir: self.data_dir.unwrap_or_else(|| "trefoil-data".into()),
            otlp_grpc_addr: reader.addr("otlp-grpc-addr", self.otlp_grpc_addr, 4317),
            otlp_http_addr: reader.addr("otlp-http-addr", self.otlp_http_addr, 4318),
            http_addr: reader.addr("http-addr", self.http_addr, 4319),
            retention: reader.read("retention", self.retention.as_deref(), "7d", units::retention),
            retention_bytes: reader.read(
                "retention-size",
                self.retention_size.as_deref(),
                "unlimited",
                units::size_limit,
            ),
            seal_age: reader.read("seal-age", self.seal_age.as_deref(), "5m", units::duration),
            memory_limit_bytes,
            promql_experimental: self.promql_experimental.unwrap_or(false),
            promql,
            otlp: Naming {
                translation: reader.read(
                    "otlp-translation-strategy",
                    self.otlp_translation_strategy.as_deref(),
                    "UnderscoreEscapingWithSuffixes",
                    str::parse,
                ),
                promote_all: promoted.iter().any(|key| key == "*"),
                promoted,
                scope_labels: self.otlp_promote_scope_metadata.unwrap_or(false),
                keep_identifying: self.otlp_keep_identifying_resource_attributes.unwrap_or(false),
            },
            token: self.token.map(|secret| Token::new(secret.reveal())),
            allowed_hosts: self.allowed_host.unwrap_or_default(),
            cors_origins: self.cors_origin.unwrap_or_default(),
            log: Log {
                filter: reader.read("log", self.log.as_deref(), "info", filter),
                json: reader.read("log-format", self.log_format.as_deref(), "text", |format| {
                    match format {
                        "text" => Ok(false),
                        "json" => Ok(true),
                        _ => Err("must be text or json".to_owned()),
                    }
                }),
            },
        };
        if config.memory_limit_bytes < MEMORY_LIMIT_MIN {
            reader.0.push("memory-limit must be at least 64MiB".to_owned());
        }
        if config.retention_bytes.is_some_and(|bytes| bytes < RETENTION_SIZE_MIN) {
            reader.0.push("retention-size must be at least 256MiB".to_owned());
        }
        if config.token.is_none() && !self.allow_unauthenticated.unwrap_or(false) {
            for (name, addr) in [
                ("otlp-grpc-addr", config.otlp_grpc_addr),
                ("otlp-http-addr", config.otlp_http_addr),
                ("http-addr", config.http_addr),
            ] {
                if !addr.ip().is_loopback() {
                    reader.0.push(format!(
                        "{name} {addr} can be reached from other machines: set --token (or TREFOIL_TOKEN), \
                         or --allow-unauthenticated if that is meant"
                    ));
                }
            }
        }
        if reader.0.is_empty() { Ok(config) } else { Err(Mistakes(reader.0)) }
    }
}

/// One request of the largest legal size, its columns, and something to spare.
const MEMORY_LIMIT_MIN: u64 = 64 << 20;

/// A PromQL sample in memory: time and value.
pub const SAMPLE_BYTES: u64 = 16;

/// Prometheus' own limit, however much memory there is.
const SAMPLES_MAX: u64 = 50_000_000;

/// Half a second, after which a seal may begin, brings some 10 MiB at full ingest: the limit is held within 5 %.
const RETENTION_SIZE_MIN: u64 = 256 << 20;

/// Collects mistakes while settings are read.
struct Reader(Vec<String>);

impl Reader {
    /// The setting, or its default with the mistake noted.
    fn read<T>(
        &mut self,
        name: &str,
        text: Option<&str>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let parsed = parse(text.unwrap_or(default)).unwrap_or_else(|mistake| {
            let text = text.unwrap_or(default);
            self.0.push(format!("{name} {text:?}: {mistake}"));
            parse(default).expect("defaults are valid")
        });
        parsed
    }

    fn addr(&mut self, name: &str, text: Option<String>, port: u16) -> SocketAddr {
        self.read(name, text.as_deref(), &format!("127.0.0.1:{port}"), |text| address(text, port))
    }
}

/// An address to bind: `IP:PORT`, or `localhost:PORT`, or the port left out.
fn address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    let local = text.replacen("localhost", "127.0.0.1", usize::from(text.starts_with("localhost")));
    local
        .parse()
        .or_else(|_| local.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, default_port)))
        .map_err(|_| "must be an address such as 127.0.0.1:4317 or [::1]:4317".to_owned())
}

fn filter(text: &str) -> Result<String, String> {
    text.parse::<tracing_subscriber::EnvFilter>()
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// TOML may give a number of bytes without quotes.
fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(u64),
    }
    Ok(Some(match Either::deserialize(from)? {
        Either::Text(text) => text,
        Either::Number(number) => number.to_string(),
    }))
}

#[cfg(test)]
mod tests;
