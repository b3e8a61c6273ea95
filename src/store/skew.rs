//! How far this host's clock is from DynamoDB's, by the `Date` of its answers (E5).
//!
//! AWS refuses signatures of a clock that is minutes off, in words that do not name the clock. The
//! SDK corrects itself by the answer, but the rest of the host does not: TTLs, latencies and the
//! synthetic events are as wrong as the clock. So the difference is a metric and, from half a minute
//! on, a warning. `Date` has whole seconds, and the answer took a moment: one second is no skew.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use prometheus::Gauge;

use crate::telemetry::unix_ms;

/// From here on the skew is worth a warning; AWS refuses signatures at five minutes.
const WARN_SECONDS: f64 = 30.0;
/// Least time between two warnings.
const WARN_EVERY: Duration = Duration::from_mins(10);

/// Looks at every answer.
#[derive(Clone, Debug)]
pub(super) struct ClockWatch {
    gauge: Gauge,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl ClockWatch {
    /// Shows the skew in `gauge`: seconds that DynamoDB's clock is ahead of this one.
    pub(super) fn new(gauge: Gauge) -> ClockWatch {
        ClockWatch {
            gauge,
            warned: Arc::default(),
        }
    }

    /// Takes the date of an answer that came at `now_ms`; returns the skew if it is time to warn.
    fn look(&self, date: &str, now_ms: i64) -> Option<f64> {
        let server = DateTime::from_str(date, Format::HttpDate).ok()?;
        let server_ms = server.to_millis().ok()?;
        // The second is cut off, so on average half of it is missing.
        let skew_ms = i32::try_from(server_ms + 500 - now_ms).unwrap_or(i32::MAX);
        let seconds = f64::from(skew_ms) / 1_000.0;
        self.gauge.set(seconds);
        if seconds.abs() < WARN_SECONDS {
            return None;
        }
        let mut warned = self.warned.lock().expect("no panic holds the lock");
        if warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return None;
        }
        *warned = Some(Instant::now());
        Some(seconds)
    }
}

#[dyn_dispatch_hint]
impl Intercept for ClockWatch {
    fn name(&self) -> &'static str {
        "ClockWatch"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(skew_seconds) = date.and_then(|date| self.look(date, unix_ms())) {
            tracing::warn!(
                skew_seconds,
                "the clock of this host is off by more than 30 s; AWS refuses signatures at five minutes"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e5_the_skew_is_shown_and_half_a_minute_is_told_once_in_a_while() {
        let watch = ClockWatch::new(Gauge::new("x", "x").expect("a name"));
        let now_ms = 1_357_020_000_000;
        let check = |date: &str, seconds: f64, told: bool| {
            assert_eq!(watch.look(date, now_ms).is_some(), told, "{date}");
            assert!((watch.gauge.get() - seconds).abs() < 0.001, "{date}");
        };
        check("Tue, 01 Jan 2013 06:00:00 GMT", 0.5, false);
        check("Tue, 01 Jan 2013 06:00:25 GMT", 25.5, false);
        check("Tue, 01 Jan 2013 05:59:20 GMT", -39.5, true);
        check("Tue, 01 Jan 2013 06:10:00 GMT", 600.5, false);
        check("yesterday", 600.5, false);
    }
}
