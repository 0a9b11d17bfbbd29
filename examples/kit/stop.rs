//! When a process ends: on SIGINT or SIGTERM, and, if asked, when the process that started it is gone.

use std::io::Read as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first signal.
///
/// * `end_with_stdin`: also cancel at the end of standard input. A parent that holds the other end of that pipe
///   ends its children by ending itself, even by SIGKILL.
pub fn on_signal(end_with_stdin: bool) -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let on_signal = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        on_signal.cancel();
    });
    if end_with_stdin {
        let at_end = token.clone();
        // A plain thread: a blocking read on the runtime would hold up its shutdown.
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || {
                let mut stdin = std::io::stdin().lock();
                let mut scrap = [0_u8; 64];
                while matches!(stdin.read(&mut scrap), Ok(n) if n > 0) {}
                at_end.cancel();
            })
            .context("cannot watch standard input")?;
    }
    Ok(token)
}
