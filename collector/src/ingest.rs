//! The way of every request, whatever transport brought it: admit, read, make plain protobuf, append.

use crate::auth::Token;
use crate::body::{self, Encoding, Framing};
use crate::decode::DecodeLimits;
use crate::decode::remote_write::{self, Written};
use crate::json;
use crate::limits::{InFlight, Limits, Reservation};
use crate::reply::{Format, Reason, Refusal};
use crate::self_stats::{Ending, SelfStats};
use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use trefoil_storage::signal::FrameKind;
use trefoil_storage::store::{Ack, AppendError, Store};

/// What carried a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Http,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What became of a request that was taken: durable when this is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub accepted: u64,
    pub rejected: u64,
    /// Why records were rejected.
    pub reason: Option<String>,
    /// What was kept of a remote-write 2.0 request, whose senders want to know.
    pub written: Option<Written>,
}

/// What the receivers ask of the store.
pub trait Ingest: Send + Sync + 'static {
    /// Makes a request durable, then visible. A request seen before is not stored again and gets the same answer.
    ///
    /// * `body`: protobuf, see [`FrameKind`].
    /// * `arrival_ns`: Unix ns when the request came in.
    fn append(
        &self,
        kind: FrameKind,
        body: Bytes,
        arrival_ns: u64,
    ) -> BoxFuture<'_, Result<Ack, AppendError>>;

    /// How long a request should wait before it is appended, so that the store keeps up.
    fn pause(&self) -> Duration {
        Duration::ZERO
    }

    /// Enters records into the ledger that were rejected before they could be appended.
    fn note_rejected(&self, kind: FrameKind, records: u64);
}

impl Ingest for Store {
    fn append(
        &self,
        kind: FrameKind,
        body: Bytes,
        arrival_ns: u64,
    ) -> BoxFuture<'_, Result<Ack, AppendError>> {
        Box::pin(Store::append(self, kind, body, arrival_ns))
    }

    fn pause(&self) -> Duration {
        Store::pause(self)
    }

    fn note_rejected(&self, kind: FrameKind, records: u64) {
        Store::note_rejected(self, kind.signal(), records);
    }
}

/// The receivers' side of the program: what they share.
#[derive(Clone)]
pub struct Receiver(Arc<Shared>);

struct Shared {
    limits: Limits,
    in_flight: Arc<InFlight>,
    store: OnceLock<Arc<dyn Ingest>>,
    stopping: AtomicBool,
    token: Option<Token>,
    cors_origins: Vec<String>,
    stats: SelfStats,
}

/// A request as its transport found it.
pub(crate) struct Request<B> {
    pub kind: FrameKind,
    pub transport: Transport,
    pub format: Format,
    pub encoding: Encoding,
    pub headers: HeaderMap,
    pub body: B,
}

impl Receiver {
    /// Answers 503 until [`open`](Self::open).
    pub fn new(limits: Limits, token: Option<Token>, cors_origins: Vec<String>) -> Self {
        Self(Arc::new(Shared {
            in_flight: InFlight::new(limits.in_flight_bytes_max),
            limits,
            store: OnceLock::new(),
            stopping: AtomicBool::new(false),
            token,
            cors_origins,
            stats: SelfStats::default(),
        }))
    }

    /// From now on requests go to `store`, whose replay is over.
    pub fn open(&self, store: Arc<dyn Ingest>) {
        // A second call would be a mistake of the caller's; the first store stays.
        let _ = self.0.store.set(store);
    }

    /// From now on requests are refused; those under way go on.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether requests are taken: the store is open and not stopping.
    pub fn is_open(&self) -> bool {
        self.store().is_ok()
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub fn in_flight(&self) -> &InFlight {
        &self.0.in_flight
    }

    pub fn stats(&self) -> &SelfStats {
        &self.0.stats
    }

    pub(crate) fn cors_origins(&self) -> &[String] {
        &self.0.cors_origins
    }

    /// The store, if requests may go to it now.
    pub(crate) fn store(&self) -> Result<&Arc<dyn Ingest>, Refusal> {
        if self.0.stopping.load(Ordering::Relaxed) {
            return Err(Refusal::new(Reason::Stopping, "the server is stopping"));
        }
        self.0.store.get().ok_or_else(|| {
            Refusal::new(Reason::Starting, "the server is starting: it replays its write-ahead log")
        })
    }

    /// Whether the caller may send at all; asked before anything of the body is read.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.0.token {
            Some(token) if !token.allows(headers) => Err(Refusal::new(
                Reason::Unauthenticated,
                "this server wants a token: set OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN",
            )),
            _ => Ok(()),
        }
    }

    /// Takes one export request in and counts how it ended.
    pub(crate) async fn export<B>(&self, request: Request<B>) -> Result<Outcome, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let (kind, transport) = (request.kind, request.transport);
        // The program must outlive a fault in one request.
        let result = AssertUnwindSafe(self.take_in(request)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(Refusal::fault()));
        self.count(kind, transport, &result);
        result
    }

    pub(crate) fn count(
        &self,
        kind: FrameKind,
        transport: Transport,
        result: &Result<Outcome, Refusal>,
    ) {
        let ending = match result {
            Ok(outcome) if outcome.rejected == 0 => Ending::Ok,
            Ok(_) => Ending::Partial,
            Err(refusal) => Ending::Refused(refusal.reason),
        };
        self.0.stats.request(kind, transport, ending);
    }

    async fn take_in<B>(&self, request: Request<B>) -> Result<Outcome, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let store = self.store()?;
        self.admit(&request.headers)?;
        let arrival_ns = now_ns();
        let mut room = self.0.in_flight.reservation();
        let sent = self.read(request, &mut room).await?;
        let kind = sent.kind;
        let (plain, _room) = self.make_plain(sent, room).await?;
        self.0.stats.body(kind, plain.bytes.len());
        let bytes = plain.bytes.clone();
        let pause = store.pause();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let ack = append(store, kind, plain.bytes, arrival_ns).await?;
        let written = (kind == FrameKind::RemoteWrite2)
            .then(|| written(kind, &bytes, arrival_ns, &ack))
            .flatten();
        if plain.rejected > 0 {
            store.note_rejected(kind, plain.rejected);
            self.0.stats.unreadable(kind, plain.rejected);
        }
        Ok(Outcome {
            written,
            accepted: ack.accepted,
            rejected: ack.rejected + plain.rejected,
            reason: joined(plain.reason, ack.reason),
        })
    }

    /// Reads a request's body as it was sent, without the transport's framing.
    async fn read<B>(&self, request: Request<B>, room: &mut Reservation) -> Result<Sent, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let Request { kind, transport, format, mut encoding, headers, body } = request;
        let framing = match transport {
            Transport::Grpc => Framing::Grpc,
            Transport::Http => Framing::Plain { declared_bytes: content_length(&headers) },
        };
        let mut bytes = body::read(body, framing, &self.0.limits, room).await?;
        if transport == Transport::Grpc {
            encoding = unframe(&mut bytes, encoding)?;
        }
        Ok(Sent { kind, format, encoding, bytes })
    }

    async fn make_plain(
        &self,
        sent: Sent,
        mut room: Reservation,
    ) -> Result<(Plain, Reservation), Refusal> {
        if sent.encoding == Encoding::Identity && sent.format == Format::Protobuf {
            return Ok((Plain { bytes: sent.bytes, rejected: 0, reason: None }, room));
        }
        let limits = self.0.limits.clone();
        let work_bytes = sent.bytes.len();
        let work = move || sent.into_plain(&limits, &mut room).map(|plain| (plain, room));
        body::off_network(work_bytes, work).await.unwrap_or_else(|| Err(Refusal::fault()))
    }
}

/// Requests larger than this are decoded off the network's threads; nearly all are smaller, and are done sooner than
/// another thread would wake.
const APPEND_ON_NETWORK_MAX: usize = 512 << 10;

async fn append(
    store: &Arc<dyn Ingest>,
    kind: FrameKind,
    body: Bytes,
    arrival_ns: u64,
) -> Result<Ack, Refusal> {
    if body.len() <= APPEND_ON_NETWORK_MAX {
        return Ok(store.append(kind, body, arrival_ns).await?);
    }
    let (store, runtime) = (store.clone(), Handle::current());
    let append = move || runtime.block_on(store.append(kind, body, arrival_ns));
    let appended = tokio::task::spawn_blocking(append).await;
    Ok(appended.map_err(|_| Refusal::fault())??)
}

/// A body as it was sent.
struct Sent {
    kind: FrameKind,
    format: Format,
    encoding: Encoding,
    bytes: Bytes,
}

/// A body as the store wants it: protobuf.
struct Plain {
    bytes: Bytes,
    /// Records that JSON held and protobuf does not, because they could not be read.
    rejected: u64,
    reason: Option<String>,
}

impl Sent {
    fn into_plain(self, limits: &Limits, room: &mut Reservation) -> Result<Plain, Refusal> {
        let bytes = match self.encoding {
            Encoding::Identity => self.bytes,
            encoding => body::inflate(&self.bytes, encoding, limits, room)?,
        };
        if self.format == Format::Protobuf {
            return Ok(Plain { bytes, rejected: 0, reason: None });
        }
        let json::Transcoded { protobuf, rejected, reason } = json::transcode(self.kind, &bytes)
            .map_err(|fault| {
                let message = format!("the body is not OTLP/JSON: {fault}");
                Refusal::new(Reason::Malformed, message)
            })?;
        Ok(Plain { bytes: protobuf.into(), rejected, reason })
    }
}

/// Takes the one message of a unary gRPC call out of its frame.
///
/// * `declared`: the `grpc-encoding`; the frame's flag says whether it was used.
/// * returns how the message is compressed.
fn unframe(bytes: &mut Bytes, declared: Encoding) -> Result<Encoding, Refusal> {
    let malformed = |message: &str| Err(Refusal::new(Reason::Malformed, message));
    let Some((&[flag, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() else {
        return malformed("the call holds no message");
    };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if rest.len() < len {
        return malformed("the call ends inside its message");
    }
    if rest.len() > len {
        return malformed("a unary call holds one message, here are more");
    }
    bytes.advance(5);
    match flag {
        0 => Ok(Encoding::Identity),
        1 if declared != Encoding::Identity => Ok(declared),
        1 => malformed("the message is marked compressed, but grpc-encoding does not say how"),
        _ => malformed("the message's compression flag is neither 0 nor 1"),
    }
}

/// Both reasons, if there are two.
fn joined(unreadable: Option<String>, rejected: Option<String>) -> Option<String> {
    match (unreadable, rejected) {
        (Some(first), Some(second)) => Some(format!("{first}; {second}")),
        (first, second) => first.or(second),
    }
}

/// What the store kept of a remote-write request, by kind of record.
fn written(kind: FrameKind, body: &[u8], arrival_ns: u64, ack: &Ack) -> Option<Written> {
    let mut limits = DecodeLimits::default();
    if ack.rejected == 0 {
        // However far ahead its times are, the store took them.
        limits.future_ns = u64::MAX;
    }
    remote_write::written(kind, body, arrival_ns, &limits).ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Unix time now, in nanoseconds; 0 on a clock set before 1970.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
