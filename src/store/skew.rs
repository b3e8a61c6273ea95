//! Measures the difference between this host's clock and DynamoDB's clock with the header `Date` of each response.
//!
//! AWS refuses the signatures of a host whose clock is wrong by five minutes, and the error message does not mention
//! the clock. The SDK corrects the time in its signatures, but TTLs, measured latencies and the times of synthetic
//! events still depend on the wrong clock. Therefore, the program reports the clock difference as a metric, and logs a
//! warning if the difference reaches 30 seconds. A measured difference of about one second is normal, because `Date`
//! has whole seconds and a response takes time to arrive.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use prometheus::Gauge;

use crate::core::clock::UnixMs;
use crate::telemetry::{LogLimit, unix_ms};

/// The program logs a warning if the clock difference reaches this number of seconds. At five minutes, AWS refuses
/// signatures.
const WARN_SECONDS: f64 = 30.0;
/// Minimum time between two warnings.
const WARN_EVERY: Duration = Duration::from_mins(10);

/// Compares this host's clock with DynamoDB's clock each time a response arrives.
#[derive(Clone, Debug)]
pub(super) struct ClockWatch {
    gauge: Gauge,
    warnings: Arc<LogLimit>,
}

impl ClockWatch {
    /// Returns a [`ClockWatch`] that sets `gauge` to the number of seconds by which DynamoDB's clock is ahead of this
    /// host's clock.
    pub(super) fn new(gauge: Gauge) -> ClockWatch {
        ClockWatch {
            gauge,
            warnings: Arc::new(LogLimit::every(WARN_EVERY)),
        }
    }

    /// Measures the clock skew from the date of a response that arrived at the time `now_ms`. Returns the skew in
    /// seconds if a warning is due.
    fn measure(&self, date: &str, now_ms: UnixMs) -> Option<f64> {
        let server = DateTime::from_str(date, Format::HttpDate).ok()?;
        let server_ms = UnixMs(server.to_millis().ok()?);
        // The header `Date` contains whole seconds. The calculation adds half a second, the average of the missing
        // fraction.
        let skew_ms = i32::try_from(server_ms + 500 - now_ms).unwrap_or(i32::MAX);
        let seconds = f64::from(skew_ms) / 1_000.0;
        self.gauge.set(seconds);
        (seconds.abs() >= WARN_SECONDS && self.warnings.allows()).then_some(seconds)
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
                "the clock of this host is off by more than 30 s; AWS refuses signatures if it is off by five minutes or more"
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
        let now_ms = UnixMs(1_357_020_000_000);
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
