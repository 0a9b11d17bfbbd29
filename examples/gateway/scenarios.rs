//! One place to see and switch the scenarios of the whole shop.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use http::Method;
use serde::{Deserialize, Serialize};

use crate::kit::answer::Refusal;
use crate::kit::client::{Call, CallError, Client};
use crate::kit::switches::{States, Switch};
use crate::shop::{SCENARIOS, Scenario, Service};

/// A scenario as listed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    pub summary: String,
    /// Whether any of its players has it on.
    pub on: bool,
}

/// `GET /scenarios` and `PUT /scenarios/{name}` with `{"on":true|false}`; not traced.
pub fn router(client: Client) -> Router {
    Router::new()
        .route("/scenarios", get(list))
        .route("/scenarios/{name}", put(switch))
        .with_state(Arc::new(client))
}

async fn list(State(client): State<Arc<Client>>) -> Result<Json<Vec<Listed>>, Refusal> {
    let mut listed = Vec::with_capacity(SCENARIOS.len());
    for scenario in SCENARIOS {
        listed.push(state_of(&client, scenario).await.map_err(CallError::into_refusal)?);
    }
    Ok(Json(listed))
}

async fn switch(
    State(client): State<Arc<Client>>,
    Path(name): Path<String>,
    Json(switch): Json<Switch>,
) -> Result<Json<Listed>, Refusal> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        Refusal::not_found(format!("no scenario `{name}`; there are: {}", known.join(", ")))
    })?;
    for player in scenario.players {
        turn(&client, *player, &name, &switch).await.map_err(CallError::into_refusal)?;
    }
    Ok(Json(state_of(&client, scenario).await.map_err(CallError::into_refusal)?))
}

async fn state_of(client: &Client, scenario: &Scenario) -> Result<Listed, CallError> {
    let mut on = false;
    for player in scenario.players {
        let path = "/control/scenarios";
        let states: States =
            client.send_untraced(Call::get(*player, path, path.to_owned())).await?;
        on |= states.get(scenario.name).copied().unwrap_or(false);
    }
    Ok(Listed { name: scenario.name.to_owned(), summary: scenario.summary.to_owned(), on })
}

async fn turn(
    client: &Client,
    player: Service,
    name: &str,
    switch: &Switch,
) -> Result<States, CallError> {
    let template = "/control/scenarios/{name}";
    let path = format!("/control/scenarios/{name}");
    let call = Call::new(Method::PUT, player, template, path).body(switch);
    client.send_untraced(call).await
}
