//! The switches of the scenarios: kept in memory, off at every start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::answer::Refusal;
use crate::shop::{SCENARIOS, Service};

/// The scenarios a service plays, each on or off.
pub struct Switches(Vec<(&'static str, AtomicBool)>);

/// The body of `PUT /control/scenarios/{name}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Switch {
    pub on: bool,
}

/// Scenario name to state.
pub type States = BTreeMap<String, bool>;

impl Switches {
    pub fn of(service: Service) -> Self {
        Self(
            SCENARIOS
                .iter()
                .filter(|scenario| scenario.players.contains(&service))
                .map(|scenario| (scenario.name, AtomicBool::new(false)))
                .collect(),
        )
    }

    /// Whether the scenario is on; never for one that this service does not play.
    pub fn on(&self, name: &str) -> bool {
        self.find(name).is_some_and(|state| state.load(Ordering::Relaxed))
    }

    fn find(&self, name: &str) -> Option<&AtomicBool> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, state)| state)
    }

    fn states(&self) -> States {
        self.0
            .iter()
            .map(|(name, state)| ((*name).to_owned(), state.load(Ordering::Relaxed)))
            .collect()
    }
}

/// `GET /control/scenarios` and `PUT /control/scenarios/{name}`, and `GET /healthz`; not traced.
pub fn control_router(switches: Arc<Switches>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/control/scenarios", get(list))
        .route("/control/scenarios/{name}", put(switch))
        .with_state(switches)
}

async fn list(State(switches): State<Arc<Switches>>) -> Json<States> {
    Json(switches.states())
}

async fn switch(
    State(switches): State<Arc<Switches>>,
    Path(name): Path<String>,
    Json(switch): Json<Switch>,
) -> Result<Json<States>, Refusal> {
    let state = switches
        .find(&name)
        .ok_or_else(|| Refusal::not_found(format!("no scenario `{name}` here")))?;
    if state.swap(switch.on, Ordering::Relaxed) != switch.on {
        tracing::info!(
            name: "scenario.switched",
            { shop.scenario = name, shop.scenario.on = switch.on },
            "scenario {name} switched {}",
            if switch.on { "on" } else { "off" }
        );
    }
    Ok(Json(switches.states()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::SLOW_PAYMENT;

    #[test]
    fn a_service_has_only_its_own_switches_and_they_start_off() {
        let payment = Switches::of(Service::Payment);
        assert!(!payment.on(SLOW_PAYMENT));
        payment.find(SLOW_PAYMENT).unwrap().store(true, Ordering::Relaxed);
        assert!(payment.on(SLOW_PAYMENT));
        assert!(Switches::of(Service::Catalog).find(SLOW_PAYMENT).is_none());
    }
}
