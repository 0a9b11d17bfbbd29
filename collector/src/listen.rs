//! From a listening socket to requests: connection caps, time limits, orderly end.
//!
//! `axum::serve` would set no timer, and with that no header timeout; a slow or silent peer would hold its
//! connection for ever.

use crate::ingest::Receiver;
use crate::limits::Limits;
use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use http::Version;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

/// What a listener needs besides its socket.
#[derive(Clone)]
pub struct Serving {
    pub router: Router,
    /// Gives the limits and counts the connections.
    pub receiver: Receiver,
    /// Cancelled when no new connections or requests may be taken: open ones finish what they are doing.
    pub stop: CancellationToken,
}

/// Takes connections until `stop`, then returns once the open ones have answered what they had begun.
///
/// HTTP/1 and HTTP/2 (with prior knowledge) are told apart by their first bytes.
///
/// # Errors
/// When the socket itself fails; a failing connection only ends itself.
pub async fn serve(listener: TcpListener, serving: Serving) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(serving.receiver.limits().connections_max));
    loop {
        // Finished tasks are let go as they end; one that panicked has only ended its own connection.
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok((slot, listener.accept().await?))
        };
        let (slot, (stream, peer)) = tokio::select! {
            () = serving.stop.cancelled() => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_connections_own(&error) => continue,
                Err(error) => {
                    // Out of file descriptors, mostly: waiting is all that helps.
                    warn!(%error, "no connection could be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let serving = serving.clone();
        connections.spawn(async move {
            connection(stream, peer, serving).await;
            drop(slot);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn is_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(stream: TcpStream, peer: SocketAddr, serving: Serving) {
    let Serving { router, receiver, stop } = serving;
    receiver.stats().connection_opened();
    // Answers are small and whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let movement = Arc::new(Movement::new());
    let io = TokioIo::new(Watched { stream, movement: movement.clone() });

    let seen = movement.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        let asked = seen.asked(request.version());
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().oneshot(request);
        async move {
            let _asked = asked;
            answer.await
        }
    });
    let builder = builder(receiver.limits());
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut watch = tokio::time::interval(Duration::from_secs(1));
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    let stalled = loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(%peer, %error, "connection ended");
                }
                break false;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = watch.tick() => {
                if movement.stalled(receiver.limits()) {
                    break true;
                }
            }
        }
    };
    receiver.stats().connection_closed(stalled);
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper starts this clock when an answer is done, so it bounds idleness; slow headers are seen by `Movement`.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle_time_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// When bytes last moved on a connection, and what is owed on it. Times are milliseconds since `born`; 0 is never.
struct Movement {
    born: Instant,
    /// Last byte in either direction.
    moved_ms: AtomicU64,
    /// First byte of the headers that are arriving. HTTP/1 only: HTTP/2 has frames that belong to no request.
    head_ms: AtomicU64,
    /// First write that the peer has not made room for since.
    blocked_ms: AtomicU64,
    /// Requests being answered.
    active: AtomicU64,
    /// There has been a request, and how it came.
    asked: AtomicBool,
    http2: AtomicBool,
}

/// A peer that does not read its answer for this long is gone.
const BLOCKED_TIME_MAX: Duration = Duration::from_secs(15);

/// A request being answered.
struct Asked(Arc<Movement>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

impl Movement {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            moved_ms: AtomicU64::new(0),
            head_ms: AtomicU64::new(0),
            blocked_ms: AtomicU64::new(0),
            active: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            http2: AtomicBool::new(false),
        }
    }

    fn age_ms(&self) -> u64 {
        (self.born.elapsed().as_millis() as u64).max(1)
    }

    /// The headers of a request have arrived.
    fn asked(self: &Arc<Self>, version: Version) -> Asked {
        self.asked.store(true, Relaxed);
        self.http2.store(version == Version::HTTP_2, Relaxed);
        self.head_ms.store(0, Relaxed);
        self.active.fetch_add(1, Relaxed);
        Asked(self.clone())
    }

    fn moved(&self) {
        self.moved_ms.store(self.age_ms(), Relaxed);
    }

    fn read(&self) {
        self.moved();
        if self.active.load(Relaxed) == 0 {
            // Only the first byte counts.
            let _ = self.head_ms.compare_exchange(0, self.age_ms(), Relaxed, Relaxed);
        }
    }

    fn wrote<T>(&self, written: Poll<T>) -> Poll<T> {
        match written {
            Poll::Ready(_) => {
                self.moved();
                self.blocked_ms.store(0, Relaxed);
            }
            Poll::Pending => {
                // Only the first refusal counts.
                let _ = self.blocked_ms.compare_exchange(0, self.age_ms(), Relaxed, Relaxed);
            }
        }
        written
    }

    /// Whether the connection only costs: no request in time, no byte for long, or answers that nobody takes.
    fn stalled(&self, limits: &Limits) -> bool {
        let now = self.age_ms();
        let longer = |since: u64, max: Duration| now.saturating_sub(since) > max.as_millis() as u64;
        let head = self.head_ms.load(Relaxed);
        let blocked = self.blocked_ms.load(Relaxed);
        (!self.asked.load(Relaxed) && longer(0, limits.header_time_max))
            || (head > 0 && !self.http2.load(Relaxed) && longer(head, limits.header_time_max))
            || (blocked > 0 && longer(blocked, BLOCKED_TIME_MAX))
            || longer(self.moved_ms.load(Relaxed), limits.idle_time_max)
    }
}

/// A stream that notes its movement.
struct Watched {
    stream: TcpStream,
    movement: Arc<Movement>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.movement.read();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.movement.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.movement.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
