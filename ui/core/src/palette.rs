//! Which colour a service has: the same everywhere, and another one than its neighbours'.

use std::collections::{BTreeMap, BTreeSet};

/// Colours that are told apart at a glance; as many classes `s0`, `s1`, … are in the style sheet.
pub const COLOURS: usize = 24;

/// The first so many are the strong ones, taken before their lighter and darker sisters.
const STRONG: usize = 12;

/// The colours given so far. A name's colour follows from the name alone, unless another name was there first: then it
/// is the next free one. A name keeps what it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Palette {
    given: BTreeMap<String, usize>,
}

impl Palette {
    /// The colour of a service, 0 to [`COLOURS`]; with more services than colours some share one.
    pub fn colour(&mut self, name: &str) -> usize {
        if let Some(colour) = self.given.get(name) {
            return *colour;
        }
        let wanted = hash(name) % STRONG;
        let taken = |colour: usize| self.given.values().any(|other| *other == colour);
        // Steps of five go through all twelve, to a colour that is far from the wanted one first.
        let strong = (0..STRONG).map(|i| (wanted + 5 * i) % STRONG);
        let soft = (STRONG..COLOURS).map(|i| STRONG + (wanted + i) % STRONG);
        let colour = strong.chain(soft).find(|colour| !taken(*colour)).unwrap_or(wanted);
        self.given.insert(name.to_owned(), colour);
        colour
    }

    /// Meets several services at once, in the order of their names: the same set gets the same colours.
    ///
    /// When the colours don't suffice, services that are not among these are forgotten.
    pub fn meet<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let new = names.iter().filter(|name| !self.given.contains_key(**name)).count();
        if self.given.len() + new > COLOURS {
            self.given.retain(|name, _| names.contains(name.as_str()));
        }
        for name in names {
            self.colour(name);
        }
    }

    /// Text to keep it under, a line `colour name` each.
    pub fn to_text(&self) -> String {
        self.given.iter().map(|(name, colour)| format!("{colour} {name}\n")).collect()
    }

    /// The reverse; lines that are none are left out.
    pub fn from_text(text: &str) -> Self {
        let line = |line: &str| {
            let (colour, name) = line.split_once(' ')?;
            let colour = colour.parse().ok().filter(|colour| *colour < COLOURS)?;
            Some((name.to_owned(), colour))
        };
        Self { given: text.lines().filter_map(line).collect() }
    }

    pub fn len(&self) -> usize {
        self.given.len()
    }

    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }
}

/// FNV-1a.
fn hash(name: &str) -> usize {
    let hash =
        name.bytes().fold(2_166_136_261u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    (hash >> 7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: [&str; 9] = [
        "gateway",
        "catalog",
        "reviews",
        "cart",
        "inventory",
        "checkout",
        "payment",
        "notifications",
        "recommendations",
    ];

    #[test]
    fn services_differ_as_long_as_there_are_colours() {
        let mut palette = Palette::default();
        let shop: BTreeSet<usize> = SHOP.iter().map(|name| palette.colour(name)).collect();
        assert_eq!(shop.len(), SHOP.len());
        assert!(shop.iter().all(|colour| *colour < STRONG), "strong ones first: {shop:?}");
        let names: Vec<String> = (0..100).map(|i| format!("service-{i}")).collect();
        let mut palette = Palette::default();
        let first: BTreeSet<usize> =
            names[..COLOURS].iter().map(|name| palette.colour(name)).collect();
        assert_eq!(first.len(), COLOURS);
        assert!(names.iter().all(|name| palette.colour(name) < COLOURS));
    }

    #[test]
    fn a_set_gets_the_same_colours_in_any_order_and_a_name_keeps_its_own() {
        let (mut one, mut other) = (Palette::default(), Palette::default());
        one.meet(SHOP);
        other.meet(SHOP.iter().rev().copied());
        assert_eq!(one, other);
        let before = one.colour("cart");
        one.meet(["a", "b", "c"]);
        assert_eq!(one.colour("cart"), before);
    }

    #[test]
    fn services_long_gone_take_no_colour_from_those_that_are_there() {
        let mut palette = Palette::default();
        let gone: Vec<String> = (0..20).map(|i| format!("gone-{i}")).collect();
        palette.meet(gone.iter().map(String::as_str));
        palette.meet(SHOP);
        let shop: BTreeSet<usize> = SHOP.iter().map(|name| palette.colour(name)).collect();
        assert_eq!((shop.len(), palette.len()), (SHOP.len(), SHOP.len()));
    }

    #[test]
    fn it_is_kept_as_text() {
        let mut palette = Palette::default();
        palette.meet(["a service", "b"]);
        assert_eq!(Palette::from_text(&palette.to_text()), palette);
        assert!(Palette::from_text("99 far\nnone\nx y\n").is_empty());
    }
}
