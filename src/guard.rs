//! Who may use the UI and the query APIs, and what their answers forbid browsers.
//!
//! A page from elsewhere can make a browser send requests here. The Host check stops names that were pointed at this
//! address (DNS rebinding), where a same-origin GET carries no Origin; the origin check stops forms and scripts of
//! other sites from writing; the token stops whoever is not meant to be here at all.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::header::{self, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use trefoil_collector::auth::Token;

/// What requests to the UI and query port are held against.
#[derive(Clone)]
pub struct Guard(Arc<Rules>);

struct Rules {
    bound: IpAddr,
    allowed_hosts: Vec<String>,
    token: Option<Token>,
}

impl Guard {
    /// * `bound`: the address that is listened on.
    /// * `allowed_hosts`: further names, without ports.
    pub fn new(bound: SocketAddr, allowed_hosts: &[String], token: Option<Token>) -> Self {
        let allowed_hosts = allowed_hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self(Arc::new(Rules { bound: bound.ip(), allowed_hosts, token }))
    }
}

/// Lets a request through or answers it, and marks every answer with the security headers.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.0.judge(&request) {
        Ok(()) => AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
            // The panic itself is in the log; the program goes on.
            refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the request hit a fault of the server",
            )
        }),
        Err(response) => *response,
    };
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// No script but our own files and WebAssembly, nothing from elsewhere, no framing.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

impl Rules {
    fn judge(&self, request: &Request) -> Result<(), Box<Response>> {
        let host = host_of(request);
        if !host.as_ref().is_some_and(|host| self.knows(host)) {
            let message = match &host {
                Some(host) => format!(
                    "this server is not known as {host}; if it should be, start it with --allowed-host {}",
                    host.host()
                ),
                None => "the request names no host".to_owned(),
            };
            return Err(Box::new(refusal(
                StatusCode::MISDIRECTED_REQUEST,
                "unknown_host",
                &message,
            )));
        }
        if let Some(token) = &self.token
            && !is_probe(request.uri().path())
            && !token.allows(request.headers())
        {
            let mut response =
                refusal(StatusCode::UNAUTHORIZED, "unauthenticated", "this server wants a token");
            // Basic as well: browsers then ask for it (any user, the token as password).
            for scheme in ["Bearer", "Basic realm=\"trefoil\""] {
                response
                    .headers_mut()
                    .append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
            return Err(Box::new(response));
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !reads && !is_same_origin(request.headers(), host.as_ref()) {
            return Err(Box::new(refusal(
                StatusCode::FORBIDDEN,
                "cross_origin",
                "pages of other sites may not send this request",
            )));
        }
        Ok(())
    }

    /// Loopback names, the bound address and the configured names; on any port, since ports get forwarded. Bound to
    /// all addresses, any address will do: rebinding needs a name.
    fn knows(&self, host: &Authority) -> bool {
        let name = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") || self.allowed_hosts.contains(&name)
        {
            return true;
        }
        name.parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip == self.bound || self.bound.is_unspecified())
    }
}

/// Asked by supervisors, which hold no token.
fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

fn host_of(request: &Request) -> Option<Authority> {
    match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok()?.parse().ok(),
        // HTTP/2 has it in the request line.
        None => request.uri().authority().cloned(),
    }
}

/// Browsers say where a request comes from; other clients say nothing, and have no ambient rights to abuse.
fn is_same_origin(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().unwrap_or_default();
    let named = origin.split_once("://").map(|(_, authority)| authority);
    host.is_some_and(|host| named == Some(host.as_str()))
}

/// An error as the native API has it.
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rules: &Rules, method: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri("/api/services");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match rules.judge(&request.body(Body::empty()).unwrap()) {
            Ok(()) => 200,
            Err(response) => response.status().as_u16(),
        }
    }

    fn rules(bound: &str) -> Rules {
        Rules {
            bound: bound.parse().unwrap(),
            allowed_hosts: vec!["trefoil.example".into()],
            token: None,
        }
    }

    #[test]
    fn only_known_hosts_are_answered() {
        let rules = rules("10.1.2.3");
        for known in [
            "localhost",
            "localhost:4319",
            "127.0.0.1:4319",
            "[::1]:4319",
            "10.1.2.3",
            "Trefoil.Example:80",
        ] {
            assert_eq!(verdict(&rules, "GET", &[("host", known)]), 200, "{known}");
        }
        for unknown in
            ["evil.test", "10.1.2.4", "localhost.evil.test", "127.0.0.1.evil.test", "a b"]
        {
            assert_eq!(verdict(&rules, "GET", &[("host", unknown)]), 421, "{unknown}");
        }
        assert_eq!(verdict(&rules, "GET", &[]), 421);
    }

    #[test]
    fn bound_to_all_addresses_any_address_is_known_but_no_name() {
        let rules = rules("0.0.0.0");
        assert_eq!(verdict(&rules, "GET", &[("host", "192.168.0.9:4319")]), 200);
        assert_eq!(verdict(&rules, "GET", &[("host", "evil.test")]), 421);
    }

    #[test]
    fn other_sites_can_not_write() {
        let rules = rules("127.0.0.1");
        let host = ("host", "localhost:4319");
        for (origin, expected) in [
            (("origin", "http://localhost:4319"), 200),
            (("origin", "http://evil.test"), 403),
            (("origin", "null"), 403),
            (("sec-fetch-site", "same-origin"), 200),
            (("sec-fetch-site", "none"), 200),
            (("sec-fetch-site", "cross-site"), 403),
            (("sec-fetch-site", "same-site"), 403),
            (("user-agent", "curl"), 200),
        ] {
            assert_eq!(verdict(&rules, "POST", &[host, origin]), expected, "{origin:?}");
            assert_eq!(verdict(&rules, "GET", &[host, origin]), 200, "{origin:?}");
        }
    }

    #[test]
    fn a_token_is_wanted_everywhere_but_at_the_probes() {
        let rules = Rules { token: Some(Token::new("t")), ..rules("127.0.0.1") };
        let host = ("host", "localhost");
        assert_eq!(verdict(&rules, "GET", &[host]), 401);
        assert_eq!(verdict(&rules, "GET", &[host, ("authorization", "Bearer t")]), 200);
        assert_eq!(verdict(&rules, "GET", &[host, ("authorization", "Basic eDp0")]), 200);
        assert_eq!(verdict(&rules, "GET", &[host, ("authorization", "Basic eDp1")]), 401);
        assert!(is_probe("/healthz") && !is_probe("//healthz") && !is_probe("/healthz/"));
    }
}
