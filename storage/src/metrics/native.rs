//! Native histograms as Prometheus has them, and how OTLP exponential histograms become such.

use super::batch::ExponentialPoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bits of the NaN with which Prometheus marks a series as gone.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Highest and lowest resolution that Prometheus knows.
const SCHEMA_MAX: i32 = 8;
const SCHEMA_MIN: i32 = -4;

/// Width of the zero bucket when the sender names none (Prometheus' OTLP receiver).
const ZERO_THRESHOLD: f64 = 1e-128;

/// Absolute counts by bucket index; bucket `i` of schema `s` holds `(b^(i-1), b^i]` with `b = 2^(2^-s)`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NativeHistogram {
    /// -4 to 8, or -53 for custom bounds.
    pub schema: i32,
    #[serde(with = "float")]
    pub zero_threshold: f64,
    #[serde(with = "float")]
    pub zero_count: f64,
    #[serde(with = "float")]
    pub count: f64,
    #[serde(with = "float")]
    pub sum: f64,
    /// (index, count), ascending.
    #[serde(with = "buckets")]
    pub positive: Vec<(i32, f64)>,
    #[serde(with = "buckets")]
    pub negative: Vec<(i32, f64)>,
    /// Upper bounds for schema -53, +Inf left out.
    #[serde(with = "floats", default)]
    pub custom_bounds: Vec<f64>,
    /// 0 unknown, 1 reset, 2 no reset, 3 gauge (`ResetHint` of remote write).
    #[serde(default)]
    pub reset_hint: i32,
}

impl NativeHistogram {
    /// An OTLP exponential histogram; `None` when its scale is below what Prometheus knows.
    ///
    /// OTLP bucket `i` is `(b^i, b^(i+1)]`, so its index here is one more; scales above 8 are merged down.
    pub fn from_exponential(point: &ExponentialPoint) -> Option<Self> {
        if point.scale < SCHEMA_MIN {
            return None;
        }
        let shift = (point.scale - SCHEMA_MAX).clamp(0, 31);
        let side = |offset: i32, counts: &[u64]| -> Vec<(i32, f64)> {
            let mut merged: BTreeMap<i32, f64> = BTreeMap::new();
            for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let index = (offset.saturating_add(i as i32) >> shift).saturating_add(1);
                *merged.entry(index).or_default() += *count as f64;
            }
            merged.into_iter().collect()
        };
        Some(Self {
            schema: point.scale.min(SCHEMA_MAX),
            zero_threshold: if point.zero_threshold > 0.0 {
                point.zero_threshold
            } else {
                ZERO_THRESHOLD
            },
            zero_count: point.zero_count as f64,
            count: point.count as f64,
            sum: point.sum.unwrap_or(f64::NAN),
            positive: side(point.positive_offset, &point.positive),
            negative: side(point.negative_offset, &point.negative),
            custom_bounds: Vec::new(),
            reset_hint: 0,
        })
    }

    /// Memory it takes, in samples of 16 bytes.
    pub fn samples(&self) -> u64 {
        let buckets = self.positive.len() + self.negative.len() + self.custom_bounds.len() / 2;
        (size_of::<Self>() / 16 + buckets) as u64
    }

    /// Adds another histogram of observations of the same thing; the coarser schema holds.
    pub fn add(&mut self, other: &Self) {
        let schema = self.schema.min(other.schema);
        let sum = |a: &[(i32, f64)], a_schema: i32, b: &[(i32, f64)], b_schema: i32| {
            let mut merged: BTreeMap<i32, f64> = BTreeMap::new();
            for (buckets, of) in [(a, a_schema), (b, b_schema)] {
                for (index, count) in buckets {
                    *merged.entry(coarser(*index, of - schema)).or_default() += count;
                }
            }
            merged.into_iter().collect()
        };
        self.positive = sum(&self.positive, self.schema, &other.positive, other.schema);
        self.negative = sum(&self.negative, self.schema, &other.negative, other.schema);
        self.schema = schema;
        self.zero_threshold = self.zero_threshold.max(other.zero_threshold);
        self.zero_count += other.zero_count;
        self.count += other.count;
        self.sum += other.sum;
    }

    /// The marker that a histogram series is gone.
    pub fn stale() -> Self {
        Self { sum: f64::from_bits(STALE_BITS), ..Self::default() }
    }
}

/// Index of the bucket that holds bucket `index` after `steps` halvings of the resolution.
fn coarser(index: i32, steps: i32) -> i32 {
    ((index - 1) >> steps.clamp(0, 31)) + 1
}

/// Floats in JSON: finite ones as numbers, others by name, NaN with unusual bits by its bits.
pub(super) mod float {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else {
            serializer.serialize_str(&format!("{:016x}", value.to_bits()))
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub enum Either {
        Number(f64),
        Bits(String),
    }

    impl Either {
        pub fn value(self) -> Option<f64> {
            match self {
                Self::Number(value) => Some(value),
                Self::Bits(bits) => u64::from_str_radix(&bits, 16).ok().map(f64::from_bits),
            }
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Either::deserialize(deserializer)?
            .value()
            .ok_or_else(|| serde::de::Error::custom("not the bits of a float"))
    }
}

/// [`float`] that may be missing.
pub(super) mod maybe_float {
    use super::float;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => float::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<float::Either>::deserialize(d)?.and_then(float::Either::value))
    }
}

/// Lists of [`float`].
pub(super) mod floats {
    use super::float;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    struct One(f64);

    impl Serialize for One {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            float::serialize(&self.0, serializer)
        }
    }

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|v| One(*v)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
        let list = Vec::<float::Either>::deserialize(d)?;
        Ok(list.into_iter().filter_map(float::Either::value).collect())
    }
}

/// Buckets as `[[index, count], …]`.
mod buckets {
    use super::float;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(list: &[(i32, f64)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<(i32, f64)>, D::Error> {
        let list = Vec::<(i32, float::Either)>::deserialize(d)?;
        Ok(list.into_iter().filter_map(|(i, count)| Some((i, count.value()?))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_buckets_move_up_by_one_and_fine_scales_merge() {
        let point = ExponentialPoint {
            scale: 9,
            positive_offset: 4,
            positive: vec![1, 2, 4],
            count: 7,
            ..ExponentialPoint::default()
        };
        let native = NativeHistogram::from_exponential(&point).unwrap();
        assert_eq!((native.schema, native.zero_threshold), (8, 1e-128));
        // Indices 4, 5, 6 of scale 9 are 2, 2, 3 of scale 8, plus one.
        assert_eq!(native.positive, [(3, 3.0), (4, 4.0)]);
        let coarse = ExponentialPoint { scale: -5, ..point };
        assert_eq!(NativeHistogram::from_exponential(&coarse), None);
    }

    #[test]
    fn adding_keeps_the_coarser_schema() {
        let fine = NativeHistogram {
            schema: 1,
            count: 3.0,
            positive: vec![(1, 1.0), (2, 2.0)],
            ..NativeHistogram::default()
        };
        let mut coarse = NativeHistogram {
            schema: 0,
            count: 1.0,
            positive: vec![(1, 1.0)],
            ..NativeHistogram::default()
        };
        coarse.add(&fine);
        assert_eq!((coarse.schema, coarse.positive, coarse.count), (0, vec![(1, 4.0)], 4.0));
    }

    #[test]
    fn json_keeps_the_bits_of_every_float() {
        let stale = NativeHistogram::stale();
        let text = serde_json::to_string(&stale).unwrap();
        let back: NativeHistogram = serde_json::from_str(&text).unwrap();
        assert_eq!(back.sum.to_bits(), STALE_BITS);
    }
}
