//! The web shop that the corpus tells of: services, what they serve and call, and where they run.

use super::random::mix;
use super::wire::Message;

/// One service.
pub struct Service {
    pub name: &'static str,
    pub language: &'static str,
    pub runtime: &'static str,
    /// What it serves: method, route.
    pub routes: &'static [(&'static str, &'static str)],
    /// Services it calls over HTTP, by index.
    pub calls: &'static [usize],
    /// Database system and tables, if it has one.
    pub database: Option<(&'static str, &'static [&'static str])>,
    /// Topic to which it writes.
    pub topic: Option<&'static str>,
}

/// Instances of each service, up to full scale.
pub const PODS_PER_SERVICE: usize = 6;

/// Where traces begin.
pub const ENTRY: usize = 0;

/// Who reads the topics.
pub const CONSUMER: usize = 11;

pub const SERVICES: [Service; 14] = [
    Service {
        name: "gateway",
        language: "rust",
        runtime: "rustc",
        routes: &[
            ("GET", "/"),
            ("GET", "/products"),
            ("GET", "/products/{id}"),
            ("POST", "/cart/items"),
            ("GET", "/cart"),
            ("POST", "/checkout"),
            ("GET", "/orders/{id}"),
            ("POST", "/login"),
        ],
        calls: &[1, 2, 3, 4, 5, 6, 9],
        database: None,
        topic: None,
    },
    Service {
        name: "catalog",
        language: "go",
        runtime: "go",
        routes: &[
            ("GET", "/v1/products"),
            ("GET", "/v1/products/{id}"),
            ("GET", "/v1/categories"),
            ("GET", "/v1/products/{id}/variants"),
        ],
        calls: &[8, 12],
        database: Some(("postgresql", &["products", "categories", "variants"])),
        topic: None,
    },
    Service {
        name: "search",
        language: "java",
        runtime: "OpenJDK Runtime Environment",
        routes: &[("GET", "/search"), ("GET", "/suggest"), ("POST", "/search/rank")],
        calls: &[1],
        database: Some(("opensearch", &["products-v7", "suggestions"])),
        topic: None,
    },
    Service {
        name: "recommendation",
        language: "python",
        runtime: "cpython",
        routes: &[("GET", "/recommendations/{customer}"), ("GET", "/trending")],
        calls: &[1, 7],
        database: Some(("redis", &["features", "models"])),
        topic: None,
    },
    Service {
        name: "cart",
        language: "dotnet",
        runtime: ".NET",
        routes: &[
            ("GET", "/carts/{id}"),
            ("POST", "/carts/{id}/items"),
            ("DELETE", "/carts/{id}/items/{item}"),
        ],
        calls: &[8, 12],
        database: Some(("redis", &["carts"])),
        topic: None,
    },
    Service {
        name: "checkout",
        language: "java",
        runtime: "OpenJDK Runtime Environment",
        routes: &[("POST", "/orders"), ("GET", "/orders/{id}"), ("POST", "/orders/{id}/cancel")],
        calls: &[4, 6, 8, 9, 10, 12],
        database: Some(("postgresql", &["orders", "order_lines", "outbox"])),
        topic: Some("orders"),
    },
    Service {
        name: "payment",
        language: "nodejs",
        runtime: "nodejs",
        routes: &[("POST", "/charges"), ("POST", "/refunds"), ("GET", "/charges/{id}")],
        calls: &[13],
        database: Some(("postgresql", &["charges", "idempotency_keys"])),
        topic: Some("payments"),
    },
    Service {
        name: "reviews",
        language: "python",
        runtime: "cpython",
        routes: &[("GET", "/reviews/{product}"), ("POST", "/reviews")],
        calls: &[9],
        database: Some(("mysql", &["reviews", "ratings"])),
        topic: None,
    },
    Service {
        name: "inventory",
        language: "go",
        runtime: "go",
        routes: &[
            ("GET", "/stock/{sku}"),
            ("POST", "/reservations"),
            ("DELETE", "/reservations/{id}"),
        ],
        calls: &[],
        database: Some(("postgresql", &["stock", "reservations"])),
        topic: Some("stock"),
    },
    Service {
        name: "accounts",
        language: "dotnet",
        runtime: ".NET",
        routes: &[
            ("POST", "/sessions"),
            ("GET", "/customers/{id}"),
            ("GET", "/customers/{id}/addresses"),
        ],
        calls: &[],
        database: Some(("mysql", &["customers", "sessions", "addresses"])),
        topic: None,
    },
    Service {
        name: "shipping",
        language: "ruby",
        runtime: "ruby",
        routes: &[("POST", "/quotes"), ("POST", "/shipments"), ("GET", "/shipments/{id}")],
        calls: &[12],
        database: Some(("mysql", &["shipments"])),
        topic: Some("shipments"),
    },
    Service {
        name: "notifications",
        language: "nodejs",
        runtime: "nodejs",
        routes: &[("POST", "/messages"), ("GET", "/templates/{name}")],
        calls: &[9],
        database: Some(("mongodb", &["messages", "templates"])),
        topic: None,
    },
    Service {
        name: "pricing",
        language: "rust",
        runtime: "rustc",
        routes: &[("POST", "/prices"), ("GET", "/currencies"), ("POST", "/discounts")],
        calls: &[],
        database: Some(("redis", &["prices", "discounts"])),
        topic: None,
    },
    Service {
        name: "fraud",
        language: "python",
        runtime: "cpython",
        routes: &[("POST", "/scores"), ("GET", "/rules")],
        calls: &[9],
        database: Some(("redis", &["velocity"])),
        topic: None,
    },
];

/// Work inside a service, as internal spans name it.
pub const STEPS: [&str; 8] = [
    "validate request",
    "authorize",
    "load feature flags",
    "map response",
    "apply discounts",
    "serialize",
    "check cache",
    "rank results",
];

/// One instance.
pub struct Pod {
    pub service: usize,
    /// The encoded `Resource` message.
    pub resource: Vec<u8>,
    pub address: String,
}

/// All instances, those of one service side by side.
pub fn pods(seed: u64, per_service: usize) -> Vec<Pod> {
    (0..SERVICES.len() * per_service).map(|number| pod(seed, number, per_service)).collect()
}

fn pod(seed: u64, number: usize, per_service: usize) -> Pod {
    let service = &SERVICES[number / per_service];
    let hash = mix(seed ^ number as u64 ^ 0x0070_6f64);
    let name = format!(
        "{}-{:09x}-{:05x}",
        service.name,
        mix(seed ^ service.name.len() as u64) >> 28,
        hash >> 44
    );
    let node = number % 12;
    let host = format!("node-{}-{node:02}", node / 4);
    let address = format!("10.4.{}.{}", node / 4, 100 + number);
    let mut resource = Vec::new();
    let mut message = Message(&mut resource);
    let id = format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        hash as u32,
        (hash >> 32) as u16,
        hash >> 52,
        mix(hash) & 0xfff,
        mix(hash ^ 1) >> 16
    );
    let container =
        format!("{:016x}{:016x}{:016x}{:016x}", hash, mix(hash ^ 2), mix(hash ^ 3), mix(hash ^ 4));
    let version = format!("1.{}.{}", service.name.len(), hash % 7);
    for (key, value) in [
        ("service.name", service.name),
        ("service.namespace", "shop"),
        ("service.version", &version),
        ("service.instance.id", &id),
        ("deployment.environment.name", "production"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.language", service.language),
        ("telemetry.sdk.version", "1.38.0"),
        ("host.name", &host),
        ("host.arch", "amd64"),
        ("os.type", "linux"),
        ("os.version", "2023.6"),
        ("process.runtime.name", service.runtime),
        ("container.id", &container),
        ("k8s.pod.name", &name),
        ("k8s.namespace.name", "shop"),
        ("k8s.node.name", &host),
        ("cloud.provider", "aws"),
        ("cloud.region", "eu-central-1"),
    ] {
        message.attribute(1, key, value);
    }
    message.attribute_int(1, "process.pid", 1 + hash % 40);
    Pod { service: number / per_service, resource, address }
}
