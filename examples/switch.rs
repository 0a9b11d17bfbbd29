//! `trefoil-shop scenario`: lists and switches the scenarios through the gateway.

use anyhow::{Context as _, bail};
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;

use crate::gateway::Listed;
use crate::kit::answer::RefusalBody;
use crate::kit::client::{http_client, root_cause};
use crate::kit::switches::Switch;
use crate::shop::{Addresses, Service};

/// Lists all scenarios, shows one, or switches one.
pub async fn run(
    addresses: Addresses,
    name: Option<&str>,
    state: Option<bool>,
) -> anyhow::Result<()> {
    let shop = Shop { http: http_client(Service::Gateway)?, base: addresses.url(Service::Gateway) };
    let listed = match (name, state) {
        (Some(name), Some(on)) => vec![shop.switch(name, on).await?],
        _ => shop.list().await?,
    };
    let shown: Vec<&Listed> =
        listed.iter().filter(|one| name.is_none_or(|name| one.name == name)).collect();
    if shown.is_empty() {
        let known: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
        bail!("no scenario `{}`; there are: {}", name.unwrap_or_default(), known.join(", "));
    }
    for scenario in shown {
        let state = if scenario.on { "on" } else { "off" };
        println!("{:16} {state:4} {}", scenario.name, scenario.summary);
    }
    Ok(())
}

struct Shop {
    http: Client,
    base: String,
}

impl Shop {
    async fn list(&self) -> anyhow::Result<Vec<Listed>> {
        self.read(self.http.get(format!("{}/scenarios", self.base)).send().await).await
    }

    async fn switch(&self, name: &str, on: bool) -> anyhow::Result<Listed> {
        let url = format!("{}/scenarios/{name}", self.base);
        self.read(self.http.put(url).json(&Switch { on }).send().await).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        answer: reqwest::Result<Response>,
    ) -> anyhow::Result<T> {
        let answer = answer.map_err(|error| {
            anyhow::anyhow!(
                "no shop answers at {} ({}); start one with `trefoil-shop up`",
                self.base,
                root_cause(&error)
            )
        })?;
        if answer.status().is_success() {
            return answer.json().await.context("the gateway's answer cannot be read");
        }
        let status = answer.status();
        match answer.json::<RefusalBody>().await {
            Ok(body) => bail!("{}", body.error.message),
            Err(_) => bail!("the gateway answered {status}"),
        }
    }
}
