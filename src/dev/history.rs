//! Sends events of the last hours when `dev` starts, so that the page has data to show at once.

use crate::core::clock::UnixMs;
use crate::core::murmur2::partition_of;
use crate::core::synth_faults::Stream;
use crate::produce::credit::Credit;
use crate::produce::producer::{EventProducer, ProducerError};
use crate::settings::Rate;
use crate::shutdown::Shutdown;

/// Maximum number of events in the history, which the embedded broker and database process within a few seconds.
const EVENTS_MAX: u64 = 30_000;
/// Pause between two attempts to send an event while the embedded broker has no room for records.
const CREDIT_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// Returns the event times of the history, which ends at `now_ms`.
///
/// The history has the same rate as the live events, so the chart shows no sudden change where the live events begin.
/// If `history_ms` is so long that the history would have more than [`EVENTS_MAX`] events, the history is shorter. If
/// the rate is `max`, the history has [`EVENTS_MAX`] events that are spread evenly over `history_ms`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]
fn times(now_ms: UnixMs, history_ms: i64, rate: Rate) -> impl Iterator<Item = UnixMs> {
    let (count, span_ms) = match rate {
        Rate::Max => (EVENTS_MAX, history_ms),
        // The rate is never negative, so the cast to `u64` only drops the fraction or saturates, and the call of `min`
        // limits the number of events.
        Rate::PerSecond(n) => {
            let count = ((history_ms as f64 / 1_000.0 * n) as u64).min(EVENTS_MAX);
            (
                count,
                history_ms.min((count as f64 / n * 1_000.0).ceil() as i64),
            )
        }
    };
    let count = i64::try_from(count).unwrap_or(0);
    (0..count).map(move |n| now_ms - span_ms + span_ms * n / count)
}

/// Sends synthetic events for the last `history_ms` milliseconds, and returns the number of events sent. The function
/// blocks the calling thread, and returns early if `shutdown` is triggered.
///
/// # Errors
/// See [`EventProducer::send`].
pub(crate) fn send_history(
    producer: &EventProducer,
    credit: &Credit,
    partitions: i32,
    (now_ms, history_ms, rate): (UnixMs, i64, Rate),
    shutdown: &Shutdown,
) -> Result<u64, ProducerError> {
    let mut stream = Stream::new(
        fastrand::u64(..),
        crate::core::synth_faults::Faults::default(),
    );
    let (mut value, mut sent) = (Vec::new(), 0);
    for time_ms in times(now_ms, history_ms, rate) {
        let (city, _) = stream.next_event(time_ms, &mut value);
        let partition = partition_of(city.as_bytes(), partitions);
        while !credit.try_take(partition, city.len() + value.len()) {
            if shutdown.is_triggered() {
                return Ok(sent);
            }
            std::thread::sleep(CREDIT_PAUSE);
        }
        if !producer.send(city, &value, shutdown)? {
            break;
        }
        sent += 1;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_ends_now_and_has_the_live_rate() {
        let hour_ms = 3_600_000;
        let all: Vec<UnixMs> = times(UnixMs(10 * hour_ms), hour_ms, Rate::PerSecond(2.0)).collect();
        assert_eq!(all.len(), 7_200);
        assert_eq!(all[0], UnixMs(9 * hour_ms));
        assert_eq!(all[7_199], UnixMs(10 * hour_ms - 500));
        assert!(all.is_sorted());
        let three_hours = times(UnixMs(0), 3 * hour_ms, Rate::PerSecond(2.0)).count();
        assert_eq!(three_hours, 21_600, "the defaults are not cut short");
        for (rate, first) in [(Rate::Max, -hour_ms), (Rate::PerSecond(1_000.0), -30_000)] {
            let all: Vec<UnixMs> = times(UnixMs(0), hour_ms, rate).collect();
            assert_eq!(u64::try_from(all.len()), Ok(EVENTS_MAX));
            assert_eq!(all[0], UnixMs(first), "it is shorter, with the live rate");
        }
        assert_eq!(times(UnixMs(0), 0, Rate::PerSecond(2.0)).count(), 0);
    }
}
