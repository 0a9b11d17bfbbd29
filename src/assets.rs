//! The UI, embedded in the binary.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};
use rust_embed::{EmbeddedFile, RustEmbed};
use std::fmt::Write;
use std::io::Read;

/// `ui/dist` as `make ui` leaves it: each file, and beside it a `.br` and `.gz` form where that is smaller. Absent in
/// builds made without the UI. The WebAssembly itself is there in these forms only: few ask for it as it is, and it is the
/// largest file by far.
#[derive(RustEmbed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Dist;

/// Answers what no API answers: a file of the UI, or its index page for an address within the UI.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return crate::guard::refusal(
            StatusCode::NOT_FOUND,
            "not_found",
            &format!("there is nothing at {}", uri.path()),
        );
    }
    let name = uri.path().trim_start_matches('/');
    if !name.is_empty()
        && let Some(response) = file(name, &headers)
    {
        return response;
    }
    if is_page(name) {
        return file("index.html", &headers).unwrap_or_else(no_ui);
    }
    crate::guard::refusal(
        StatusCode::NOT_FOUND,
        "not_found",
        &format!("there is nothing at {}", uri.path()),
    )
}

/// Whether a path is under one of the prefixes that belong to APIs.
pub fn is_api(path: &str) -> bool {
    const APIS: [&str; 7] = ["api", "prometheus", "jaeger", "loki", "tempo", "v1", "-"];
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    APIS.contains(&first)
}

/// UI addresses are under none of those prefixes, and have no file extension, but what they name may have dots.
fn is_page(name: &str) -> bool {
    const NAMES: [&str; 2] = ["service", "trace"];
    let names_something = name
        .split_once('/')
        .is_some_and(|(page, thing)| NAMES.contains(&page) && !thing.is_empty());
    let last = name.rsplit('/').next().unwrap_or_default();
    !is_api(name) && (names_something || !last.contains('.'))
}

fn no_ui() -> Response {
    let text = "This build of Trefoil holds no UI (`make ui` builds it). The APIs are here: /api/openapi.json\n";
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text)
        .into_response()
}

fn file(name: &str, headers: &HeaderMap) -> Option<Response> {
    let accepts = |coding: &str| accepts(headers, coding);
    let (coding, found) = [("br", "br"), ("gzip", "gz")]
        .into_iter()
        .filter(|(coding, _)| accepts(coding))
        .find_map(|(coding, suffix)| Some((Some(coding), Dist::get(&format!("{name}.{suffix}"))?)))
        .or_else(|| Some((None, plain(name)?)))?;

    let etag = etag(&found);
    let mut response = if is_known(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(found.data.into_owned()).into_response()
    };
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    answer.insert(header::ETAG, etag);
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    // Asked again each time, answered with 304: a new version of the program is seen at once.
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(coding) = coding {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    Some(response)
}

/// A file as it is.
fn plain(name: &str) -> Option<EmbeddedFile> {
    if let Some(file) = Dist::get(name) {
        return Some(file);
    }
    let mut file = Dist::get(&format!("{name}.gz"))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&*file.data).read_to_end(&mut bytes).ok()?;
    file.data = bytes.into();
    Some(file)
}

fn etag(file: &EmbeddedFile) -> HeaderValue {
    let mut tag = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..16] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    HeaderValue::try_from(tag).expect("hex digits are a valid header value")
}

fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
        |list| {
            list.split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
        },
    )
}

/// Whether `Accept-Encoding` names this coding with a weight above 0.
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(
        |list| {
            list.split(',').any(|item| {
                let mut parts = item.split(';').map(str::trim);
                parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding))
                    && !parts.any(|weight| matches!(weight, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
            })
        },
    )
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        // Anything else and the browser would not compile it while it arrives.
        "wasm" => "application/wasm",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "json" | "map" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_from_files_and_apis() {
        for page in [
            "",
            "service/checkout",
            "service/shop.example.com",
            "service/a%2Fb.c",
            "trace/0af7651916cd43dd8448eb211c80319c",
            "logs",
        ] {
            assert!(is_page(page), "{page}");
        }
        for other in [
            "app.js",
            "api/nothing",
            "api/services/a.b",
            "prometheus/api/v1/x",
            "favicon.ico",
            "v1/traces",
            "img/logo.png",
        ] {
            assert!(!is_page(other), "{other}");
        }
    }

    #[test]
    fn a_coding_of_weight_zero_is_not_accepted() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, "gzip;q=0.5, br;q=0".parse().unwrap());
        assert!(accepts(&headers, "gzip"));
        assert!(!accepts(&headers, "br"));
        assert!(!accepts(&headers, "zstd"));
    }
}
