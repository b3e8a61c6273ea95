//! A thousand events that nobody wants: half of them late, half of them broken in every way there is.

use crate::core::synth::{CITIES, Synth};
use crate::core::trial::broken;

/// Late and broken events together.
pub(super) const COUNT: usize = 1_000;
/// Before the watermark by so much that each window is long closed.
const LATE_MS: i64 = 2 * 3_600_000;

/// Events to send.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    /// Keys and values.
    pub(super) events: Vec<(String, Vec<u8>)>,
    /// How many of them are late; the others are broken.
    pub(super) late: usize,
}

/// Returns the events; `watermark_ms` is the partition's watermark of a city, if it has one.
///
/// Where no city has one, nothing can be late, and all of them are broken.
pub(super) fn garbage(watermark_ms: impl Fn(&str) -> Option<i64>) -> Garbage {
    let mut synth = Synth::new(fastrand::u64(..));
    let mut text = String::new();
    let mut garbage = Garbage::default();
    for n in 0..COUNT {
        let city = synth.next_event(0, &mut text);
        let event = match watermark_ms(city) {
            Some(watermark) if n % 2 == 0 => {
                garbage.late += 1;
                // Written again with its time: the stream of the generator is of one time only.
                let time = crate::core::time::format_millis((watermark - LATE_MS).max(0));
                let late = text.replace("1970-01-01T00:00:00.000Z", &time);
                (city.to_owned(), late.into_bytes())
            }
            _ => (CITIES[n % CITIES.len()].0.to_owned(), broken(n / 2, &text)),
        };
        garbage.events.push(event);
    }
    garbage
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::parse::{Reason, parse_event};

    #[test]
    fn half_is_late_and_half_is_broken_in_many_ways() {
        let watermark = 1_357_106_400_000;
        let mut late = 0;
        let mut reasons = BTreeSet::new();
        let made = garbage(|_| Some(watermark));
        assert_eq!(made.late, COUNT / 2);
        for (_, value) in made.events {
            match parse_event(&value) {
                Ok(event) => {
                    assert_eq!(event.time_ms, watermark - LATE_MS);
                    late += 1;
                }
                Err(reject) => {
                    reasons.insert(reject.reason.to_string());
                }
            }
        }
        assert_eq!(late, COUNT / 2);
        for reason in [
            Reason::Empty,
            Reason::TooLarge,
            Reason::NotUtf8,
            Reason::BadEventId,
        ] {
            assert!(reasons.contains(&reason.to_string()), "{reasons:?}");
        }
        assert_eq!(reasons.len(), 10, "{reasons:?}");
        let all_broken = garbage(|_| None);
        assert_eq!(all_broken.late, 0);
        assert!(
            all_broken
                .events
                .iter()
                .all(|(_, value)| parse_event(value).is_err())
        );
    }
}
