//! Measures how far this host's clock is from DynamoDB's clock, by the `Date` of each answer.
//!
//! AWS refuses the signatures of a host whose clock is five minutes off, and its message does not name
//! the clock. The SDK corrects its own time by the answer, but TTLs, latencies and synthetic events
//! stay as wrong as the clock. So the difference is a metric and, from 30 seconds on, a warning.
//! `Date` has whole seconds and an answer takes time to arrive, so a second is not a skew.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use prometheus::Gauge;

use crate::store::warn_limit::WarnLimit;
use crate::telemetry::unix_ms;

/// Least skew that is worth a warning. AWS refuses signatures from five minutes on.
const WARN_SECONDS: f64 = 30.0;
/// Least time between two warnings.
const WARN_EVERY: Duration = Duration::from_mins(10);

/// Compares the clocks with every answer.
#[derive(Clone, Debug)]
pub(super) struct ClockWatch {
    gauge: Gauge,
    warnings: Arc<WarnLimit>,
}

impl ClockWatch {
    /// Sets `gauge` to the seconds by which DynamoDB's clock is ahead of this one.
    pub(super) fn new(gauge: Gauge) -> ClockWatch {
        ClockWatch {
            gauge,
            warnings: Arc::new(WarnLimit::new(WARN_EVERY)),
        }
    }

    /// Measures the skew by the date of an answer that came at `now_ms`. Returns the skew in seconds if
    /// a warning is due.
    fn measure(&self, date: &str, now_ms: i64) -> Option<f64> {
        let server = DateTime::from_str(date, Format::HttpDate).ok()?;
        let server_ms = server.to_millis().ok()?;
        // `Date` leaves out the fraction of the second: half a second on average.
        let skew_ms = i32::try_from(server_ms + 500 - now_ms).unwrap_or(i32::MAX);
        let seconds = f64::from(skew_ms) / 1_000.0;
        self.gauge.set(seconds);
        (seconds.abs() >= WARN_SECONDS && self.warnings.is_due()).then_some(seconds)
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
        if let Some(skew_seconds) = date.and_then(|date| self.measure(date, unix_ms())) {
            tracing::warn!(
                skew_seconds,
                "the clock of this host is off by more than 30 s; AWS refuses signatures from five minutes on"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skew_is_a_metric_and_half_a_minute_is_a_warning_once_in_a_while() {
        let watch = ClockWatch::new(Gauge::new("x", "x").expect("a name"));
        let now_ms = 1_357_020_000_000;
        let check = |date: &str, seconds: f64, is_warned: bool| {
            assert_eq!(watch.measure(date, now_ms).is_some(), is_warned, "{date}");
            assert!((watch.gauge.get() - seconds).abs() < 0.001, "{date}");
        };
        check("Tue, 01 Jan 2013 06:00:00 GMT", 0.5, false);
        check("Tue, 01 Jan 2013 06:00:25 GMT", 25.5, false);
        check("Tue, 01 Jan 2013 05:59:20 GMT", -39.5, true);
        check("Tue, 01 Jan 2013 06:10:00 GMT", 600.5, false);
        check("yesterday", 600.5, false);
    }
}
