//! Runs scripts in Prometheus' test language against the engine: those of the project always, and
//! Prometheus' own where they are at hand (in `../shared/conformance/promql` beside the workspace,
//! or in the folder that `TREFOIL_CONFORMANCE` names).
//!
//! Every instant evaluation is repeated as a step of a range query, and with `@` added at other
//! times; all must agree. Failures must be listed, with their reason, in `docs/promql.md`.

mod script;

use std::path::{Path, PathBuf};

use script::When;
use script::check::Answer;
use script::run::{self, Loaded, Tally, Target};
use trefoil_promql::{
    Budget, Engine, EngineOptions, Labels, Limits, MemorySource, QueryRange, SampleValue,
};

/// The engine over a store in memory.
struct InMemory {
    engine: Engine,
    source: MemorySource,
}

impl Target for InMemory {
    type Value = SampleValue;

    fn clear(&mut self) {
        self.source = MemorySource::new();
    }

    fn load(&mut self, series: &[(Labels, Vec<Loaded>)]) {
        for (labels, samples) in series {
            for s in samples {
                self.source.add_started(labels, s.time_ms, s.value.clone(), s.start_ms);
            }
        }
    }

    fn query(&mut self, query: &str, when: When) -> Result<Answer<SampleValue>, String> {
        let budget = Budget::new(Limits::default());
        let outcome = match when {
            When::Instant(time) => self.engine.instant(&self.source, query, time, &budget),
            When::Range(start_ms, end_ms, step_ms) => {
                let range = QueryRange { start_ms, end_ms, step_ms };
                self.engine.range(&self.source, query, range, &budget)
            }
        }
        .map_err(|e| e.to_string())?;
        let (warnings, infos) = outcome.annotations.texts(query, 0);
        Ok(Answer { value: outcome.value.into(), warnings, infos })
    }

    fn pins(&self) -> bool {
        true
    }
}

fn run_files(folder: &Path) -> Vec<(String, Tally)> {
    let run_file = |path: PathBuf| {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let engine = Engine::new(EngineOptions::experimental());
        let mut target = InMemory { engine, source: MemorySource::new() };
        (run::file_name(&path), run::run(&mut target, &text))
    };
    run::scripts(folder).into_iter().map(run_file).collect()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn our_own_scripts_hold() {
    for folder in ["query/promql/tests/cases", "tests/promql"] {
        let folder = workspace().join(folder);
        let tallies = run_files(&folder);
        assert!(!tallies.is_empty(), "no scripts in {}", folder.display());
        run::assert_all_hold(&tallies);
    }
}

#[test]
fn prometheus_scripts_hold_except_for_what_is_listed() {
    let folder = run::prometheus_folder(&workspace());
    let tallies = run_files(&folder);
    if tallies.is_empty() {
        println!("no scripts in {}: nothing to compare with", folder.display());
        return;
    }
    run::assert_holds_but_for_what_is_listed(&workspace(), &tallies);
}
