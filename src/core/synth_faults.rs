//! Generates synthetic events with deliberate faults: late events, events out of order, invalid events, and too many
//! events in one city.
//!
//! The generator draws the faults from a separate random stream, so that a seed gives the same events with and without
//! faults. [`Faults::default`] causes no faults.

use crate::clock::UnixMs;
use crate::parse::VALUE_BYTES_MAX;
use crate::synth::{CITIES, Chance, Synth};

/// Minimum and maximum age of a generated late event, in milliseconds. A five-minute window with an allowed lateness of
/// ten minutes is final fifteen minutes after its start. The minimum age is longer, because the watermark may lag
/// behind the current time.
const LATE_MS: std::ops::Range<i64> = 20 * 60_000..40 * 60_000;
/// One of `LARGE_EVERY` invalid events has a value that is too large for the parser. With more large values, the disk
/// of a small broker would fill up.
const LARGE_EVERY: usize = 250;
/// Shares between 0 and 1 are rounded down to multiples of 1 / `PARTS`.
const PARTS: u64 = 1_000_000;

/// The kinds of faults in a stream, and how frequent they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Share of events that are late, from 0 to 1.
    pub late_ratio: f64,
    /// Share of events that are invalid, from 0 to 1.
    pub bad_ratio: f64,
    /// Maximum age of events that are not late, in milliseconds. Each event gets a random age up to this maximum, so
    /// that the events are out of order.
    pub out_of_order_ms: i64,
    /// Share of events, from 0 to 1, whose city the generator replaces with the first city of `CITIES`. Each other
    /// event keeps its random city, which may also be the first city.
    pub skew: f64,
}

/// The kind of a generated event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// An event without a fault, which is counted in its window.
    Fine,
    /// An event that is late.
    Late,
    /// An invalid event, which a consumer rejects.
    Bad,
}

/// An endless stream of events with faults.
#[derive(Clone, Debug)]
pub struct Stream {
    synth: Synth,
    faults: Faults,
    chance: Chance,
    bad: usize,
    text: String,
}

impl Stream {
    /// Returns the stream of events for a seed.
    pub fn new(seed: u64, faults: Faults) -> Stream {
        Stream {
            synth: Synth::new(seed),
            faults,
            chance: Chance::new(!seed),
            bad: 0,
            text: String::new(),
        }
    }

    /// Changes the stream so that every city, event type and severity has the same probability.
    #[must_use]
    pub fn uniform(self) -> Stream {
        Stream {
            synth: self.synth.uniform(),
            ..self
        }
    }

    /// Clears `out`, writes the value of the next event at `now_ms` to it, and returns the event's city and kind.
    pub fn next_event(&mut self, now_ms: UnixMs, out: &mut Vec<u8>) -> (&'static str, Made) {
        let Faults {
            late_ratio,
            bad_ratio,
            out_of_order_ms,
            skew,
        } = self.faults;
        let city = self.hits(skew).then_some(CITIES[0].0);
        let bad = self.hits(bad_ratio);
        let late = !bad && self.hits(late_ratio);
        let back_ms = if late {
            self.between(LATE_MS.start, LATE_MS.end)
        } else if out_of_order_ms > 0 {
            self.between(0, out_of_order_ms + 1)
        } else {
            0
        };
        let time_ms = (now_ms - back_ms).max(UnixMs(0));
        let city = self.synth.next_event_in(city, time_ms, &mut self.text);
        out.clear();
        if bad {
            out.extend_from_slice(&broken(self.bad, &self.text));
            self.bad += 1;
        } else {
            out.extend_from_slice(self.text.as_bytes());
        }
        let made = match (bad, late) {
            (true, _) => Made::Bad,
            (false, true) => Made::Late,
            (false, false) => Made::Fine,
        };
        (city, made)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn hits(&mut self, share: f64) -> bool {
        // `share` is between 0 and 1, so `share * PARTS` fits into a `u64`, and the rounding error is negligible.
        share > 0.0 && self.chance.next_u64() % PARTS < (share * PARTS as f64) as u64
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        let span = u64::try_from(to - from).unwrap_or(1).max(1);
        from + i64::try_from(self.chance.next_u64() % span).unwrap_or(0)
    }
}

/// Returns an invalid version of `event`, made with fault number `n`.
pub fn broken(n: usize, event: &str) -> Vec<u8> {
    let swap = |from: &str, to: &str| event.replacen(from, to, 1);
    let field = |name: &str, value: &str| {
        // The values of synthetic events contain no quotation marks, so a value ends at the next quotation mark.
        let start = event
            .find(&format!("\"{name}\":\""))
            .map(|at| at + name.len() + 4);
        let start = start.expect("events have this field");
        let end = start + event[start..].find('"').expect("values end with a quote");
        format!("{}{value}{}", &event[..start], &event[end..])
    };
    if n.is_multiple_of(LARGE_EVERY) {
        return field("description", &"x".repeat(VALUE_BYTES_MAX)).into_bytes();
    }
    match n % 9 {
        0 => Vec::new(),
        1 => b"{\"city\":\"NYC\",".to_vec(),
        2 => vec![b'{', 0xff, 0xfe, b'}'],
        3 => swap("\"severity\"", "\"how_bad\"").into_bytes(),
        4 => field("city", "NYC#1").into_bytes(),
        5 => field("event_type", "9 lives").into_bytes(),
        6 => field("severity", "apocalyptic").into_bytes(),
        7 => field("timestamp", "half past nine").into_bytes(),
        _ => swap("{", "{\"event_id\":\"\",").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::parse::parse_event;

    const NOW_MS: UnixMs = UnixMs(1_357_020_000_000);

    fn stream(faults: Faults, count: usize) -> Vec<(&'static str, Made, Vec<u8>)> {
        let (mut stream, mut out) = (Stream::new(7, faults), Vec::new());
        (0..count)
            .map(|_| {
                let (city, made) = stream.next_event(NOW_MS, &mut out);
                (city, made, out.clone())
            })
            .collect()
    }

    #[test]
    fn without_trouble_a_seed_means_what_it_always_did() {
        let (mut synth, mut text) = (Synth::new(7), String::new());
        for (city, made, value) in stream(Faults::default(), 500) {
            assert_eq!(synth.next_event(NOW_MS, &mut text), city);
            assert_eq!((made, value), (Made::Fine, text.clone().into_bytes()));
        }
    }

    #[test]
    fn shares_are_kept_and_every_event_is_what_it_is_said_to_be() {
        let faults = Faults {
            late_ratio: 0.1,
            bad_ratio: 0.2,
            out_of_order_ms: 120_000,
            skew: 0.5,
        };
        let mut counts = BTreeMap::new();
        let mut first_city = 0;
        for (city, made, value) in stream(faults, 10_000) {
            let back_ms = parse_event(&value).map(|event| NOW_MS - event.time_ms);
            let fits = match made {
                Made::Fine => back_ms.is_ok_and(|ms| (0..=120_000).contains(&ms)),
                Made::Late => back_ms.is_ok_and(|ms| LATE_MS.contains(&ms)),
                Made::Bad => back_ms.is_err(),
            };
            assert!(fits, "{made:?}: {}", String::from_utf8_lossy(&value));
            *counts.entry(format!("{made:?}")).or_insert(0) += 1;
            first_city += i32::from(city == CITIES[0].0);
        }
        assert!((1_900..2_100).contains(&counts["Bad"]), "{counts:?}");
        // One tenth of the valid events are late.
        assert!((720..880).contains(&counts["Late"]), "{counts:?}");
        // About 65 % of the events are in the first city. The generator moves half of the events to the first city, and
        // three tenths of the other half have it as their random city.
        assert!((6_300..6_700).contains(&first_city), "{first_city}");
        let all = Faults {
            bad_ratio: 1.0,
            ..Faults::default()
        };
        assert!(
            stream(all, 1_000)
                .iter()
                .all(|(_, made, _)| *made == Made::Bad)
        );
    }

    #[test]
    fn events_are_late_or_out_of_order_by_any_allowed_time() {
        let backs = |faults: Faults, made: Made| {
            let events = stream(faults, 2_000).into_iter();
            let events = events.filter(|(_, kind, _)| *kind == made);
            let back_ms = events.map(|(_, _, value)| {
                let event = parse_event(&value).expect("it is valid");
                NOW_MS - event.time_ms
            });
            back_ms.collect::<Vec<i64>>()
        };
        for out_of_order_ms in [0, 1, 2] {
            let faults = Faults {
                out_of_order_ms,
                ..Faults::default()
            };
            let ages: BTreeSet<i64> = backs(faults, Made::Fine).into_iter().collect();
            let want: BTreeSet<i64> = (0..=out_of_order_ms).collect();
            assert_eq!(ages, want);
        }
        let faults = Faults {
            late_ratio: 1.0,
            ..Faults::default()
        };
        let minutes: BTreeSet<i64> = backs(faults, Made::Late)
            .into_iter()
            .map(|ms| ms / 60_000)
            .collect();
        assert_eq!(minutes, (20..40).collect());
    }

    #[test]
    fn bad_events_break_every_rule_in_turn() {
        let faults = Faults {
            bad_ratio: 1.0,
            ..Faults::default()
        };
        let reasons: Vec<&str> = stream(faults, 751)
            .iter()
            .map(|(_, _, value)| parse_event(value).expect_err("it is bad").reason.name())
            .collect();
        let turn = [
            "not_json",
            "not_utf8",
            "missing_field",
            "bad_city",
            "bad_event_type",
            "bad_severity",
            "bad_timestamp",
            "bad_event_id",
            "empty",
        ];
        assert_eq!(reasons[1..10], turn);
        assert_eq!(reasons[10..19], turn);
        let large: Vec<usize> = (0..751).filter(|n| reasons[*n] == "too_large").collect();
        assert_eq!(large, [0, 250, 500, 750]);
    }

    #[test]
    fn no_event_is_older_than_1970() {
        let faults = Faults {
            late_ratio: 1.0,
            ..Faults::default()
        };
        let (mut stream, mut out) = (Stream::new(7, faults), Vec::new());
        stream.next_event(UnixMs(5), &mut out);
        let event = parse_event(&out).expect("it is valid");
        assert_eq!(event.time_ms, UnixMs(0));
    }

    #[test]
    fn a_stream_with_faults_can_be_uniform_too() {
        let (mut stream, mut out) = (Stream::new(7, Faults::default()).uniform(), Vec::new());
        let mut synth = Synth::new(7).uniform();
        let mut text = String::new();
        for _ in 0..50 {
            stream.next_event(NOW_MS, &mut out);
            synth.next_event(NOW_MS, &mut text);
            assert_eq!(out, text.as_bytes());
        }
    }
}
