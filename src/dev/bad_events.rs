//! A thousand late and invalid events, for the panel.

use crate::core::synth::{CITIES, Synth};
use crate::core::synth_faults::broken;

/// Number of late and invalid events together.
const COUNT: usize = 1_000;
/// Distance of a late event from the watermark: far enough that its window is final.
const LATE_MS: i64 = 2 * 3_600_000;

/// Events to send.
#[derive(Debug, Default)]
pub(crate) struct BadEvents {
    /// Keys and values.
    pub(crate) events: Vec<(String, Vec<u8>)>,
    /// How many of the events are late. The others are invalid.
    pub(crate) late: usize,
}

/// Returns the events, every second one late.
///
/// `watermark_ms` returns the watermark of a city's partition. A partition without a watermark cannot
/// have late events, so its events are all invalid.
pub(crate) fn make_bad_events(watermark_ms: impl Fn(&str) -> Option<i64>) -> BadEvents {
    let mut synth = Synth::new(fastrand::u64(..));
    let mut text = String::new();
    let mut made = BadEvents::default();
    for n in 0..COUNT {
        let city = synth.next_event(0, &mut text);
        let event = match watermark_ms(city) {
            Some(watermark) if n % 2 == 0 => {
                made.late += 1;
                // The generator stamps all events with time 0, so the text gets its time here.
                let time = crate::core::time::format_millis((watermark - LATE_MS).max(0));
                let late = text.replace("1970-01-01T00:00:00.000Z", &time);
                (city.to_owned(), late.into_bytes())
            }
            _ => (CITIES[n % CITIES.len()].0.to_owned(), broken(n / 2, &text)),
        };
        made.events.push(event);
    }
    made
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::parse::{Reason, parse_event};

    #[test]
    fn half_is_late_and_half_is_invalid_in_many_ways() {
        let watermark = 1_357_106_400_000;
        let mut late = 0;
        let mut reasons = BTreeSet::new();
        let made = make_bad_events(|_| Some(watermark));
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
        let all_invalid = make_bad_events(|_| None);
        assert_eq!(all_invalid.late, 0);
        assert!(
            all_invalid
                .events
                .iter()
                .all(|(_, value)| parse_event(value).is_err())
        );
    }
}
