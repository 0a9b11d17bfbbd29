//! Carries the W3C trace context over HTTP headers and message headers.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::global;
use opentelemetry::propagation::{Extractor, Injector};

/// Headers of a queue message.
pub type MessageHeaders = BTreeMap<String, String>;

struct HttpCarrier<'a>(&'a HeaderMap);

impl Extractor for HttpCarrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HttpCarrierMut<'a>(&'a mut HeaderMap);

impl Injector for HttpCarrierMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}

struct MessageCarrier<'a>(&'a MessageHeaders);

impl Extractor for MessageCarrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

struct MessageCarrierMut<'a>(&'a mut MessageHeaders);

impl Injector for MessageCarrierMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }
}

/// The caller's context, or an empty one when the headers hold none.
///
/// Extracted onto an empty context, so that nothing of the current task leaks into the answer.
pub fn from_http(headers: &HeaderMap) -> Context {
    global::get_text_map_propagator(|p| {
        p.extract_with_context(&Context::new(), &HttpCarrier(headers))
    })
}

pub fn into_http(context: &Context, headers: &mut HeaderMap) {
    global::get_text_map_propagator(|p| p.inject_context(context, &mut HttpCarrierMut(headers)));
}

/// The publisher's context, or an empty one when the headers hold none.
pub fn from_message(headers: &MessageHeaders) -> Context {
    global::get_text_map_propagator(|p| {
        p.extract_with_context(&Context::new(), &MessageCarrier(headers))
    })
}

pub fn into_message(context: &Context, headers: &mut MessageHeaders) {
    global::get_text_map_propagator(|p| p.inject_context(context, &mut MessageCarrierMut(headers)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    };
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    #[test]
    fn a_context_survives_both_carriers() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let sent = SpanContext::new(
            TraceId::from_bytes(0x0af7651916cd43dd8448eb211c80319c_u128.to_be_bytes()),
            SpanId::from_bytes(0xb7ad6b7169203331_u64.to_be_bytes()),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let context = Context::new().with_remote_span_context(sent.clone());

        let mut http = HeaderMap::new();
        into_http(&context, &mut http);
        assert_eq!(http["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(from_http(&http).span().span_context(), &sent);

        let mut message = MessageHeaders::new();
        into_message(&context, &mut message);
        assert_eq!(from_message(&message).span().span_context(), &sent);

        assert!(!from_http(&HeaderMap::new()).span().span_context().is_valid());
    }
}
