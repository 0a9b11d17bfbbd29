//! The card network: three banks, each with its own distribution of answer times.
//!
//! This is a model of a system outside the shop, which no demo can call for real. What it models is what a payment
//! service sees of its providers: log-normal answer times, refusals of cards, and now and then a bank that is down.

use std::time::Duration;

use rand::Rng;

/// A bank's behaviour at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    /// Half the answers take less.
    pub median: Duration,
    /// Standard deviation of the logarithm: 0.3 keeps nearly all answers within a factor of 2.5 of the median.
    pub sigma: f64,
    /// Share of requests that find the bank unavailable.
    pub unavailable: f64,
}

#[derive(Debug)]
pub struct Bank {
    pub name: &'static str,
    pub healthy: Behaviour,
}

pub const NORTHBANK: Bank = Bank {
    name: "northbank",
    healthy: Behaviour { median: Duration::from_millis(45), sigma: 0.3, unavailable: 0.001 },
};
pub const ATLAS: Bank = Bank {
    name: "atlas",
    healthy: Behaviour { median: Duration::from_millis(30), sigma: 0.25, unavailable: 0.001 },
};
pub const MERIDIAN: Bank = Bank {
    name: "meridian",
    healthy: Behaviour { median: Duration::from_millis(60), sigma: 0.35, unavailable: 0.001 },
};

/// Share of cards that a bank declines.
const DECLINED: f64 = 0.02;

/// A bank's answer to a request for money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Authorized,
    /// The bank said no; asking again will not help.
    Declined,
    /// The bank could not answer.
    Unavailable,
}

/// The bank of a card, told by its first digit, as in life.
pub fn bank_of(card: &str) -> &'static Bank {
    match card.bytes().next() {
        Some(b'4') => &NORTHBANK,
        Some(b'5') => &ATLAS,
        _ => &MERIDIAN,
    }
}

/// Draws how one request goes: what the bank says and after what time.
pub fn draw(behaviour: Behaviour, rng: &mut impl Rng) -> (Verdict, Duration) {
    let verdict = match rng.random::<f64>() {
        x if x < behaviour.unavailable => Verdict::Unavailable,
        x if x < behaviour.unavailable + DECLINED => Verdict::Declined,
        _ => Verdict::Authorized,
    };
    let factor = (behaviour.sigma * standard_normal(rng)).exp();
    (verdict, behaviour.median.mul_f64(factor))
}

/// Box and Muller's transform of two uniform numbers.
fn standard_normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn half_the_answers_come_before_the_median() {
        let mut rng = StdRng::seed_from_u64(7);
        let behaviour = NORTHBANK.healthy;
        let early = (0..20_000).filter(|_| draw(behaviour, &mut rng).1 < behaviour.median).count();
        // Expected 10,000; 6 standard deviations are 424.
        assert!((9_576..=10_424).contains(&early), "{early}");
    }

    #[test]
    fn verdicts_come_in_their_shares() {
        let mut rng = StdRng::seed_from_u64(8);
        let behaviour = Behaviour { unavailable: 0.6, ..ATLAS.healthy };
        let mut counts = [0_u32; 3];
        for _ in 0..20_000 {
            counts[draw(behaviour, &mut rng).0 as usize] += 1;
        }
        assert!(counts[Verdict::Unavailable as usize].abs_diff(12_000) < 420, "{counts:?}");
        assert!(counts[Verdict::Declined as usize].abs_diff(400) < 120, "{counts:?}");
    }

    #[test]
    fn cards_go_to_their_bank() {
        let names = ["4000", "5100", "6011", ""].map(|card| bank_of(card).name);
        assert_eq!(names, ["northbank", "atlas", "meridian", "meridian"]);
    }
}
