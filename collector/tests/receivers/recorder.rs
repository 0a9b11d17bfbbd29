//! A store that keeps what it is given, and says what it is told to say.

use axum::Router;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trefoil_collector::auth::Token;
use trefoil_collector::ingest::{Ingest, Receiver};
use trefoil_collector::limits::Limits;
use trefoil_collector::listen::{self, Serving};
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::{Ack, AppendError};

type Answer = Box<dyn Fn() -> Result<Ack, AppendError> + Send + Sync>;

pub struct Recorder {
    pub bodies: Mutex<Vec<(FrameKind, Bytes)>>,
    pub rejected: Mutex<u64>,
    answer: Answer,
    delay: Duration,
}

impl Ingest for Recorder {
    fn append(
        &self,
        kind: FrameKind,
        body: Bytes,
        _arrival_ns: u64,
    ) -> BoxFuture<'_, Result<Ack, AppendError>> {
        Box::pin(async move {
            tokio::time::sleep(self.delay).await;
            self.bodies.lock().push((kind, body));
            (self.answer)()
        })
    }

    fn note_rejected(&self, _kind: FrameKind, records: u64) {
        *self.rejected.lock() += records;
    }
}

/// What a test may choose about a server.
pub struct Setup {
    pub token: Option<&'static str>,
    pub origins: Vec<String>,
    pub limits: Limits,
    pub answer: Answer,
    pub delay: Duration,
    /// Whether the store is open.
    pub open: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            token: None,
            origins: Vec::new(),
            limits: Limits { body_bytes_max: 100_000, ..Limits::for_memory(1 << 30) },
            answer: Box::new(|| Ok(Ack { accepted: 1, ..Ack::default() })),
            delay: Duration::ZERO,
            open: true,
        }
    }
}

/// A running receiver; its listeners end with it.
pub struct Server {
    pub addr: SocketAddr,
    pub recorder: Arc<Recorder>,
    pub receiver: Receiver,
    stop: CancellationToken,
}

impl Server {
    pub async fn start(setup: Setup, router: impl Fn(Receiver) -> Router) -> Self {
        let Setup { token, origins, limits, answer, delay, open } = setup;
        let receiver = Receiver::new(limits, token.map(Token::new), origins);
        let recorder = Arc::new(Recorder {
            bodies: Mutex::default(),
            rejected: Mutex::default(),
            answer,
            delay,
        });
        if open {
            receiver.open(recorder.clone());
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = Serving {
            router: router(receiver.clone()),
            receiver: receiver.clone(),
            stop: stop.clone(),
        };
        tokio::spawn(listen::serve(listener, serving));
        Self { addr, recorder, receiver, stop }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The one body that came to the store.
    pub fn stored(&self) -> (FrameKind, Bytes) {
        let bodies = self.recorder.bodies.lock();
        assert_eq!(bodies.len(), 1, "requests that came to the store");
        bodies[0].clone()
    }

    pub fn stored_count(&self) -> usize {
        self.recorder.bodies.lock().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A trace request of one span; `name` makes it as large as wanted.
pub fn traces(name: &str) -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;
    let span =
        Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: name.into(), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}
