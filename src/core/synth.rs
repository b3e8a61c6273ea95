//! Generates synthetic city events. The same seed always gives the same events, except for their times.
//!
//! The generator draws cities, event types and severities with fixed weights. Low is the most frequent severity. This
//! file contains its own random number generator instead of using a crate, so that a seed gives the same events in
//! every release. The caller decides the event times.

use std::fmt::Write as _;

use crate::clock::UnixMs;
use crate::event::Severity;
use crate::time::push_millis;

/// The cities of synthetic events, each with its relative frequency. The recorded events in `data/` have the same
/// cities.
pub const CITIES: [(&str, u32); 6] = [
    ("NYC", 30),
    ("LA", 22),
    ("Chicago", 16),
    ("SF", 12),
    ("Boston", 10),
    ("Seattle", 10),
];

const TYPES: [(&str, u32); 4] = [
    ("traffic", 50),
    ("weather", 20),
    ("incident", 18),
    ("construction", 12),
];

const SEVERITIES: [(Severity, u32); 4] = [
    (Severity::Low, 45),
    (Severity::Medium, 33),
    (Severity::High, 16),
    (Severity::Critical, 6),
];

/// The phrases that describe an event, for each event type in the order of [`TYPES`]. The description of an event
/// consists of the severity and one of the phrases.
const HAPPENINGS: [[&str; 3]; 4] = [
    [
        "traffic congestion detected",
        "traffic delay on a main road",
        "traffic slowdown near the centre",
    ],
    [
        "weather disturbance observed",
        "weather warning for the area",
        "weather impact on travel",
    ],
    [
        "priority incident reported",
        "priority incident with emergency services on site",
        "priority incident under investigation",
    ],
    [
        "construction impact on a lane",
        "construction work in progress",
        "construction noise reported",
    ],
];

/// An endless stream of synthetic events. The seed determines the events.
#[derive(Clone, Debug)]
pub struct Synth {
    chance: Chance,
    uniform: bool,
}

/// A generator of random numbers with a seed. The algorithm is SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// Returns the stream of random numbers for a seed.
    pub fn new(seed: u64) -> Chance {
        Chance { state: seed }
    }

    /// Draws a random number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Synth {
    /// Returns the stream of events for a seed.
    pub fn new(seed: u64) -> Synth {
        Synth {
            chance: Chance::new(seed),
            uniform: false,
        }
    }

    /// Changes the stream so that every city, event type and severity has the same probability.
    #[must_use]
    pub fn uniform(self) -> Synth {
        Synth {
            uniform: true,
            ..self
        }
    }

    /// Clears `out`, writes the JSON of the next event with the event time `now_ms` to it, and returns the event's
    /// city.
    pub fn next_event(&mut self, now_ms: UnixMs, out: &mut String) -> &'static str {
        self.next_event_in(None, now_ms, out)
    }

    /// Works like [`Synth::next_event`], but uses `city` instead of the drawn city if `city` is given.
    pub fn next_event_in(
        &mut self,
        city: Option<&'static str>,
        now_ms: UnixMs,
        out: &mut String,
    ) -> &'static str {
        let drawn = CITIES[self.pick(CITIES.map(|(_, weight)| weight))].0;
        let city = city.unwrap_or(drawn);
        let kind = self.pick(TYPES.map(|(_, weight)| weight));
        let severity = SEVERITIES[self.pick(SEVERITIES.map(|(_, weight)| weight))].0;
        let happening = HAPPENINGS[kind][self.pick([1, 1, 1])];
        out.clear();
        // Writing to a string cannot fail, and none of the texts contain a character that JSON must escape.
        let written = write!(
            out,
            "{{\"city\":\"{city}\",\"event_type\":\"{}\",\"severity\":\"{severity}\",\"description\":\"{severity} {happening}\",\"timestamp\":\"",
            TYPES[kind].0
        );
        debug_assert!(written.is_ok());
        push_millis(out, now_ms);
        out.push_str("\"}");
        city
    }

    /// Draws a random index, either with the given weights or with equal probability.
    fn pick<const N: usize>(&mut self, weights: [u32; N]) -> usize {
        let weights = if self.uniform { [1; N] } else { weights };
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let mut left = self.chance.next_u64() % total;
        for (index, weight) in weights.into_iter().enumerate() {
            match left.checked_sub(u64::from(weight)) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        N - 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::parse::parse_event;

    fn events(seed: u64, count: usize, now_ms: i64) -> Vec<String> {
        let (mut synth, mut out) = (Synth::new(seed), String::new());
        (0..count)
            .map(|_| {
                synth.next_event(UnixMs(now_ms), &mut out);
                out.clone()
            })
            .collect()
    }

    #[test]
    fn a_seed_decides_everything_but_the_time() {
        let a = events(7, 200, 1_356_998_400_000);
        assert_eq!(a, events(7, 200, 1_356_998_400_000));
        assert_ne!(a, events(8, 200, 1_356_998_400_000));
        let later = events(7, 200, 1_357_020_000_007);
        for (a, b) in a.iter().zip(&later) {
            let b = b.replace("2013-01-01T06:00:00.007Z", "2013-01-01T00:00:00.000Z");
            assert_eq!(*a, b);
        }
    }

    #[test]
    fn a_seed_means_the_same_events_in_every_release() {
        assert_eq!(
            events(1, 1, 0)[0],
            r#"{"city":"Chicago","event_type":"traffic","severity":"high","description":"high traffic slowdown near the centre","timestamp":"1970-01-01T00:00:00.000Z"}"#
        );
    }

    #[test]
    fn uniform_events_have_no_favourites() {
        let (mut synth, mut out) = (Synth::new(5).uniform(), String::new());
        let mut kinds = BTreeMap::new();
        for _ in 0..19_200 {
            synth.next_event(UnixMs(0), &mut out);
            let event = parse_event(out.as_bytes()).expect("valid");
            let kind = (event.city, event.event_type, event.severity);
            *kinds.entry(kind).or_insert(0) += 1;
        }
        assert_eq!(kinds.len(), 6 * 4 * 4);
        // Each combination of city, type and severity has 200 events on average, with a standard deviation of 14.
        assert!(kinds.values().all(|n| (130..270).contains(n)), "{kinds:?}");
    }

    #[test]
    fn every_event_is_valid_and_every_kind_occurs() {
        let mut kinds = BTreeMap::new();
        let mut synth = Synth::new(3);
        let mut out = String::new();
        for _ in 0..10_000 {
            let city = synth.next_event(UnixMs(1_356_998_400_123), &mut out);
            let event = parse_event(out.as_bytes()).expect("valid");
            assert_eq!(&*event.city, city);
            assert_eq!(event.time_ms, UnixMs(1_356_998_400_123));
            let kind = (event.city, event.event_type, event.severity);
            *kinds.entry(kind).or_insert(0) += 1;
        }
        assert_eq!(kinds.len(), 6 * 4 * 4);
        let low: i32 = kinds
            .iter()
            .filter(|((_, _, severity), _)| *severity == Severity::Low)
            .map(|(_, count)| count)
            .sum();
        assert!((4_200..4_800).contains(&low), "{low} of 10,000 are low");
    }
}
