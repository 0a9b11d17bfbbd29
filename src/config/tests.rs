//! Settings as they are typed, and what they mean.

use super::*;
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
        otlp_translation_strategy: Some("shouting".into()),
        ..RawConfig::default()
    };
    let mistakes = raw.parse().unwrap_err().to_string();
    for name in
        ["http-addr", "retention", "memory-limit", "log-format", "otlp-translation-strategy"]
    {
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

#[test]
fn the_memory_limit_bounds_the_samples_of_a_query() {
    let config = |memory: &str| {
        RawConfig { memory_limit: Some(memory.into()), ..RawConfig::default() }.parse().unwrap()
    };
    assert_eq!(config("1GiB").promql.samples_max, 1 << 24);
    assert_eq!(config("64GiB").promql.samples_max, 50_000_000);
    let typed = RawConfig { promql_samples_max: Some("1000".into()), ..RawConfig::default() };
    assert_eq!(typed.parse().unwrap().promql.samples_max, 1_000);
}

#[test]
fn bounds_of_queries_are_read_from_the_file_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    std::fs::write(&file, "promql_steps_max = 500\npromql_timeout = \"10s\"\n").unwrap();
    let promql = RawConfig::default().or_from_file(Some(&file)).unwrap().parse().unwrap().promql;
    assert_eq!((promql.steps_max, promql.timeout), (500, Duration::from_secs(10)));
    let raw = RawConfig {
        promql_steps_max: Some("11001".into()),
        promql_queries_max: Some("0".into()),
        promql_series_max: Some("many".into()),
        ..RawConfig::default()
    };
    let mistakes = raw.parse().unwrap_err().to_string();
    for name in ["promql-steps-max", "promql-queries-max", "promql-series-max"] {
        assert!(mistakes.contains(name), "{name} in {mistakes}");
    }
}
