//! What customers do, in which shares.

use rand::Rng;
use rand::seq::IndexedRandom as _;
use reqwest::{Client, RequestBuilder};

use crate::checkout::{Basket, Item};
use crate::gateway::SESSION;

const THINGS: [&str; 8] = ["lamp", "chair", "bowl", "shelf", "rug", "clock", "vase", "table"];
const MATERIALS: [&str; 6] = ["oak", "steel", "linen", "clay", "glass", "wool"];
const COLOURS: [&str; 5] = ["red", "blue", "green", "white", "grey"];
/// First digits of the cards, one for each bank.
const CARDS: [&str; 3] = ["4000 0000 0000 0002", "5100 0000 0000 0008", "6011 0000 0000 0004"];
const CUSTOMERS: u32 = 500;

/// One request of one customer.
#[derive(Debug, PartialEq)]
pub struct Visit {
    customer: u32,
    wish: Wish,
}

#[derive(Debug, PartialEq)]
enum Wish {
    List { page: u32 },
    Search { words: String },
    Look { sku: String },
    Buy { items: Vec<(String, u32)>, card: &'static str },
}

impl Visit {
    /// 40 % look at a product, 15 % leaf through the list, 20 % search, 25 % buy.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let wish = match rng.random_range(0..100) {
            0..40 => Wish::Look { sku: sku(rng) },
            40..55 => Wish::List { page: rng.random_range(0..12) },
            55..75 => Wish::Search { words: search(rng) },
            _ => Wish::Buy {
                items: (0..rng.random_range(1..=3))
                    .map(|_| (sku(rng), rng.random_range(1..=2)))
                    .collect(),
                card: pick(&CARDS, rng),
            },
        };
        Self { customer: rng.random_range(0..CUSTOMERS), wish }
    }

    /// The request as sent to the gateway.
    pub fn request(&self, http: &Client, gateway: &str) -> RequestBuilder {
        let request = match &self.wish {
            Wish::List { page } => {
                http.get(format!("{gateway}/api/products")).query(&[("page", page)])
            }
            Wish::Search { words } => {
                http.get(format!("{gateway}/api/search")).query(&[("q", words)])
            }
            Wish::Look { sku } => http.get(format!("{gateway}/api/products/{sku}")),
            Wish::Buy { items, card } => {
                let item = |(sku, quantity): &(String, u32)| Item {
                    sku: sku.clone(),
                    quantity: *quantity,
                };
                let basket = Basket {
                    customer: format!("customer-{}", self.customer),
                    card: (*card).to_owned(),
                    items: items.iter().map(item).collect(),
                };
                http.post(format!("{gateway}/api/checkout")).json(&basket)
            }
        };
        request.header(SESSION, format!("session-{}", self.customer))
    }
}

fn pick(words: &[&'static str], rng: &mut impl Rng) -> &'static str {
    words.choose(rng).copied().unwrap_or_default()
}

/// One in two hundred is a product that no longer exists, as old bookmarks are.
fn sku(rng: &mut impl Rng) -> String {
    let material = if rng.random_range(0..200) == 0 { "tin" } else { pick(&MATERIALS, rng) };
    format!("{}-{material}-{}", pick(&THINGS, rng), pick(&COLOURS, rng))
}

/// Mostly a thing, often with a colour or a material: few enough different searches for a cache to help.
fn search(rng: &mut impl Rng) -> String {
    let thing = pick(&THINGS, rng);
    match rng.random_range(0..4) {
        0 => format!("{} {thing}", pick(&COLOURS, rng)),
        1 => format!("{} {thing}", pick(&MATERIALS, rng)),
        _ => thing.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn a_quarter_of_the_visits_buy() {
        let mut rng = StdRng::seed_from_u64(3);
        let buys =
            (0..10_000).filter(|_| matches!(Visit::draw(&mut rng).wish, Wish::Buy { .. })).count();
        // Expected 2,500; 6 standard deviations are 260.
        assert!((2_240..=2_760).contains(&buys), "{buys}");
    }
}
