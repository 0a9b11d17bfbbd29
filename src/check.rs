//! `trefoil check`: verifies a data directory, and with `--repair` mends it.
//!
//! Exit codes: 0 all is sound, 1 there are faults, 2 the directory can't be read.

use crate::cli::CheckOutput;
use crate::config::Config;
use crate::{rooms, units};
use anyhow::Context;
use serde_json::json;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use trefoil_storage::Stores;
use trefoil_storage::check::{self, Report};
use trefoil_storage::mend::Mended;
use trefoil_storage::metrics::naming::Naming;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::StoreSet;
use trefoil_storage::store::Store;

/// Checks the data directory; with `repair` mends what is wrong and checks again. Blocks.
///
/// # Errors
/// In one line why the directory can't be read or, for a repair, locked.
pub fn run(config: &Config, repair: bool, output: CheckOutput) -> anyhow::Result<ExitCode> {
    let data_dir = &config.data_dir;
    let found = check(data_dir)?;
    let mut out = io::stdout().lock();
    if found.is_sound() || !repair {
        match output {
            CheckOutput::Json => writeln!(out, "{:#}", json!(found))?,
            CheckOutput::Table => out.write_all(told(&found).as_bytes())?,
        }
        return Ok(code(&found));
    }
    let mended = mend(config)?;
    let left = check(data_dir).context("checking again after the repair")?;
    match output {
        CheckOutput::Json => {
            let report = json!({ "found": found, "mended": mended, "left": left });
            writeln!(out, "{report:#}")?;
        }
        CheckOutput::Table => {
            out.write_all(told(&found).as_bytes())?;
            for Mended { segment, rebuilt, rows, .. } in &mended {
                let fate = if *rebuilt { "made anew from Parquet" } else { "set aside" };
                writeln!(out, "{segment}: {fate}, {rows} rows")?;
            }
            writeln!(out, "after the repair:")?;
            out.write_all(told(&left).as_bytes())?;
        }
    }
    Ok(code(&left))
}

fn check(data_dir: &Path) -> anyhow::Result<Report> {
    let fresh = || -> Arc<dyn StoreSet> {
        Arc::new(Stores::new(Arc::new(Interner::default()), Naming::default()))
    };
    check::check(data_dir, &fresh).context("checking the data directory")
}

/// Opens the directory as a server would, which sets aside what can't be opened; mends the rest; seals the log.
fn mend(config: &Config) -> anyhow::Result<Vec<Mended>> {
    let interner = Arc::new(Interner::default());
    let stores = Arc::new(Stores::new(interner.clone(), Naming::default()));
    let mut storage = trefoil_storage::config::Config::new(&config.data_dir);
    // A repair drops nothing, whatever its age.
    storage.retention = None;
    let decoder = rooms::decoder(interner, config.retention);
    let store = Store::open(storage, stores, decoder).context("opening the data directory")?;
    let mended = store.mend_now().context("mending segments")?;
    store.renew_generations().context("committing the repair")?;
    store.close().context("sealing")?;
    Ok(mended)
}

fn code(report: &Report) -> ExitCode {
    ExitCode::from(u8::from(!report.is_sound()))
}

/// A line for each fault, then what there is.
fn told(report: &Report) -> String {
    let mut text = String::new();
    for fault in &report.faults {
        text += &format!("{}: {}\n", fault.file.display(), fault.what);
    }
    for (signal, totals) in &report.segments {
        text += &format!(
            "{signal}: {} rows in {} segments, {}\n",
            totals.rows,
            totals.segments,
            units::size(totals.bytes)
        );
    }
    text += &format!("log: {} requests not yet in segments\n", report.wal_frames);
    if !report.quarantined.is_empty() {
        text += &format!("set aside before: {}\n", report.quarantined.len());
    }
    text += &match report.faults.len() {
        0 => "sound\n".to_owned(),
        1 => "1 fault\n".to_owned(),
        faults => format!("{faults} faults\n"),
    };
    text
}
