//! The goods: a fixed assortment, made of a few words so that searches find something.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// One thing to buy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Product {
    pub sku: String,
    pub name: String,
    pub description: String,
    pub price_cents: u64,
}

const MATERIALS: [&str; 6] = ["oak", "steel", "linen", "clay", "glass", "wool"];
const COLOURS: [&str; 5] = ["red", "blue", "green", "white", "grey"];
const THINGS: [(&str, &str, u64); 8] = [
    ("lamp", "lights a desk or a corner", 4_900),
    ("chair", "seats one, stacks four high", 8_900),
    ("bowl", "holds fruit, bread or keys", 1_900),
    ("shelf", "carries thirty kilograms on each board", 12_900),
    ("rug", "lies flat and washes at thirty degrees", 15_900),
    ("clock", "runs a year on one battery", 3_900),
    ("vase", "stands firm with long stems", 2_900),
    ("table", "gives room to six", 29_900),
];

/// The assortment with an index of the words of its names and descriptions.
pub struct Products {
    products: Vec<Product>,
    by_sku: HashMap<String, usize>,
    /// Word to products, ascending.
    by_word: HashMap<String, Vec<usize>>,
}

impl Products {
    /// 240 products: every material and colour of every thing.
    pub fn assortment() -> Self {
        let mut products = Vec::new();
        for (thing, use_of_it, price) in THINGS {
            for (m, material) in MATERIALS.iter().enumerate() {
                for colour in COLOURS {
                    products.push(Product {
                        sku: format!("{thing}-{material}-{colour}"),
                        name: format!("{colour} {material} {thing}"),
                        description: format!("A {thing} of {material} in {colour}: {use_of_it}."),
                        price_cents: price + 500 * m as u64,
                    });
                }
            }
        }
        let mut by_word: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, product) in products.iter().enumerate() {
            for word in words(&product.name).chain(words(&product.description)) {
                let list = by_word.entry(word).or_default();
                if list.last() != Some(&index) {
                    list.push(index);
                }
            }
        }
        let by_sku = products.iter().enumerate().map(|(i, p)| (p.sku.clone(), i)).collect();
        Self { products, by_sku, by_word }
    }

    pub fn len(&self) -> usize {
        self.products.len()
    }

    pub fn get(&self, sku: &str) -> Option<&Product> {
        self.by_sku.get(sku).map(|index| &self.products[*index])
    }

    /// Up to `count` products from the `page`th page on, counted from 0.
    pub fn page(&self, page: usize, count: usize) -> Vec<Product> {
        self.products.iter().skip(page.saturating_mul(count)).take(count).cloned().collect()
    }

    /// The products that share the most words with `query`, at most `count`, ties in order of the assortment.
    pub fn search(&self, query: &str, count: usize) -> Vec<Product> {
        let mut scores: HashMap<usize, usize> = HashMap::new();
        for word in words(query) {
            for index in self.by_word.get(&word).into_iter().flatten() {
                *scores.entry(*index).or_default() += 1;
            }
        }
        let mut found: Vec<(usize, usize)> = scores.into_iter().collect();
        found.sort_by_key(|(index, score)| (usize::MAX - score, *index));
        found.truncate(count);
        found.into_iter().map(|(index, _)| self.products[index].clone()).collect()
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_match_comes_first() {
        let products = Products::assortment();
        assert_eq!(products.len(), 240);
        let found = products.search("Blue WOOL rug!", 5);
        assert_eq!(found[0].sku, "rug-wool-blue");
        assert_eq!(found.len(), 5);
        assert!(products.search("submarine", 5).is_empty());
    }

    #[test]
    fn pages_cover_the_assortment_without_overlap() {
        let products = Products::assortment();
        let skus: Vec<_> =
            (0..13).flat_map(|page| products.page(page, 20)).map(|p| p.sku).collect();
        assert_eq!(skus.len(), 240);
        assert!(skus.iter().all(|sku| products.get(sku).is_some()));
        assert!(products.page(usize::MAX, 20).is_empty());
    }
}
