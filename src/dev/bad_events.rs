//! Creates the 1,000 late and invalid events that a user can send with a button on the page of `dev`.

use crate::core::clock::UnixMs;
use crate::core::synth::{CITIES, Synth};
use crate::core::synth_faults::broken;

/// Total number of late and invalid events to send.
const COUNT: usize = 1_000;
/// Time between a late event and the watermark, in milliseconds. An event two hours before the watermark belongs to a
/// final window.
const LATE_MS: i64 = 2 * 3_600_000;

/// The late and invalid events that the panel sends.
#[derive(Debug, Default)]
pub(crate) struct BadEvents {
    /// The key and the value of each event.
    pub(crate) events: Vec<(String, Vec<u8>)>,
    /// Number of late events in `events`. All other events are invalid.
    pub(crate) late: usize,
}

/// Returns the events to send, in which late and invalid events alternate.
///
/// `watermark_ms` returns the watermark of the partition to which a city belongs. If the partition has no watermark,
/// all events for the city are invalid, because no event can be late.
pub(crate) fn make_bad_events(watermark_ms: impl Fn(&str) -> Option<UnixMs>) -> BadEvents {
    let mut synth = Synth::new(fastrand::u64(..));
    let mut text = String::new();
    let mut made = BadEvents::default();
    for n in 0..COUNT {
        let city = synth.next_event(UnixMs(0), &mut text);
        let event = match watermark_ms(city) {
            Some(watermark) if n % 2 == 0 => {
                made.late += 1;
                // The synthetic event has the event time 0, which this code replaces with the time of a late event.
                let time = crate::core::time::format_millis((watermark - LATE_MS).max(UnixMs(0)));
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
        let watermark = UnixMs(1_357_106_400_000);
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
