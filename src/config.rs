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
use trefoil_collector::auth::Token;

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

    /// Memory that hot data, requests in flight, caches and queries may use together, such as 512MiB [default: 1GiB]
    #[arg(long, env = "TREFOIL_MEMORY_LIMIT", value_name = "BYTES")]
    #[serde(deserialize_with = "text_or_number")]
    pub memory_limit: Option<String>,

    /// Accept the PromQL functions and syntax that Prometheus keeps behind feature flags
    #[arg(long, env = "TREFOIL_PROMQL_EXPERIMENTAL", num_args = 0..=1, default_missing_value = "true")]
    pub promql_experimental: Option<bool>,

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
    pub memory_limit_bytes: u64,
    pub promql_experimental: bool,
    pub token: Option<Token>,
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<String>,
    pub log: Log,
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
            memory_limit: self.memory_limit.or(of_file.memory_limit),
            promql_experimental: self.promql_experimental.or(of_file.promql_experimental),
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
        let config = Config {
            data_dir: self.data_dir.unwrap_or_else(|| "trefoil-data".into()),
            otlp_grpc_addr: reader.addr("otlp-grpc-addr", self.otlp_grpc_addr, 4317),
            otlp_http_addr: reader.addr("otlp-http-addr", self.otlp_http_addr, 4318),
            http_addr: reader.addr("http-addr", self.http_addr, 4319),
            retention: reader.read("retention", self.retention.as_deref(), "7d", units::retention),
            memory_limit_bytes: reader.read(
                "memory-limit",
                self.memory_limit.as_deref(),
                "1GiB",
                units::bytes,
            ),
            promql_experimental: self.promql_experimental.unwrap_or(false),
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
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_typed_is_a_whole_configuration() {
        let config = RawConfig::default().parse().unwrap();
        assert_eq!(config.otlp_grpc_addr.to_string(), "127.0.0.1:4317");
        assert_eq!(config.http_addr.to_string(), "127.0.0.1:4319");
        assert_eq!(config.retention, Retention::For(Duration::from_secs(7 * 86400)));
        assert_eq!(config.memory_limit_bytes, 1 << 30);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let raw = RawConfig {
            http_addr: Some("nowhere".into()),
            retention: Some("soon".into()),
            memory_limit: Some("lots".into()),
            log_format: Some("xml".into()),
            ..RawConfig::default()
        };
        let mistakes = raw.parse().unwrap_err().to_string();
        for name in ["http-addr", "retention", "memory-limit", "log-format"] {
            assert!(mistakes.contains(name), "{name} in {mistakes}");
        }
    }

    #[test]
    fn an_open_address_wants_a_token_or_an_explicit_flag() {
        let open = || RawConfig { http_addr: Some("0.0.0.0:4319".into()), ..RawConfig::default() };
        assert!(open().parse().unwrap_err().to_string().contains("--token"));
        assert!(RawConfig { token: Some("t".into()), ..open() }.parse().is_ok());
        assert!(RawConfig { allow_unauthenticated: Some(true), ..open() }.parse().is_ok());
    }

    #[test]
    fn typed_settings_go_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        std::fs::write(&file, "retention = \"1d\"\nmemory_limit = 134217728\n").unwrap();
        let raw = RawConfig { retention: Some("2d".into()), ..RawConfig::default() };
        let config = raw.or_from_file(Some(&file)).unwrap().parse().unwrap();
        assert_eq!(config.retention, Retention::For(Duration::from_secs(2 * 86400)));
        assert_eq!(config.memory_limit_bytes, 128 << 20);
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        std::fs::write(&file, "retention_time = \"1d\"\n").unwrap();
        let mistakes = RawConfig::default().or_from_file(Some(&file)).unwrap_err().to_string();
        assert!(mistakes.contains("retention_time"), "{mistakes}");
    }

    #[test]
    fn secrets_are_not_printed() {
        let raw = RawConfig { token: Some("canary".into()), ..RawConfig::default() };
        assert!(!format!("{raw:?}").contains("canary"));
        assert!(!format!("{:?}", raw.parse().unwrap()).contains("canary"));
    }
}
