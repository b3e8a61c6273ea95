//! The range of a timeline as the client requests it.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::grid::{StepRange, midnight};
use crate::api::error::ApiError;
use crate::api::params::{HOUR_MS, Params};
use crate::core::clock::UnixMs;
use crate::core::time::TIME_MS_END;

/// The number of hours that a timeline covers if the client names no range.
const HOURS_DEFAULT: u32 = 6;
/// Maximum value of the parameter `hours`: the number of hours in a leap year. For a longer range, a client uses the
/// parameter `from`.
const HOURS_MAX: u32 = 8_784;
/// The end of a range is rounded up to a multiple of `TO_MS` milliseconds. Because of the rounding, requests that
/// arrive shortly after each other have the same range and can use the same cached response.
const TO_MS: i64 = 300_000;

/// The beginning of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The range begins the given number of milliseconds before its end.
    Before(i64),
    /// The range begins at the given instant.
    At(UnixMs),
    /// The range begins with the first rolled-up hour that has an event.
    First,
}

/// The range that a client requests.
#[derive(Clone, Debug)]
pub(super) struct AskedRange {
    pub(super) begin: Begin,
    /// The end of the range. If the end is `None`, the range ends with the current window, or with the newest window if
    /// no events have arrived for a while.
    pub(super) to_ms: Option<UnixMs>,
    /// The time zone that determines when days begin.
    pub(super) zone: TimeZone,
}

impl AskedRange {
    /// Parses the parameters `hours`, `from`, `to` and `tz`.
    ///
    /// # Errors
    /// Returns `bad_parameter` if a parameter is malformed, if `from` is not before `to`, or if both `from` and `hours`
    /// are given.
    pub(super) fn parse(params: &Params) -> Result<AskedRange, ApiError> {
        let zone = parse_zone(params)?;
        let to_ms = parse_instant(params, "to", &zone)?.map(round_up);
        let hours = params.number("hours", HOURS_MAX)?;
        let from = match params.given("from") {
            Some("first") => Some(Begin::First),
            _ => parse_instant(params, "from", &zone)?.map(Begin::At),
        };
        let begin = match (from, hours) {
            (Some(_), Some(_)) => {
                return Err(ApiError::bad_parameter(
                    "from and hours both name the begin of the range; give only one",
                ));
            }
            (Some(begin), None) => begin,
            (None, hours) => {
                let hours = hours.unwrap_or(HOURS_DEFAULT);
                Begin::Before(i64::from(hours) * HOUR_MS)
            }
        };
        if let (Begin::At(from_ms), Some(to_ms)) = (begin, to_ms)
            && from_ms >= to_ms
        {
            return Err(ApiError::bad_parameter("from must be before to"));
        }
        Ok(AskedRange { begin, to_ms, zone })
    }

    /// Returns the text that identifies the range in the cache keys of responses.
    pub(super) fn key(&self) -> String {
        let zone = self.zone.iana_name().unwrap_or_default();
        format!("{:?} {:?} {zone}", self.begin, self.to_ms)
    }

    /// Returns the range that ends at `to_ms`. `first_ms` is the start of the first rolled-up hour that has an event,
    /// if that hour is known.
    pub(super) fn ending_at(&self, to_ms: UnixMs, first_ms: Option<UnixMs>) -> StepRange {
        let from_ms = match self.begin {
            Begin::Before(span_ms) => to_ms - span_ms,
            Begin::At(from_ms) => from_ms,
            Begin::First => first_ms.unwrap_or(to_ms - i64::from(HOURS_DEFAULT) * HOUR_MS),
        };
        StepRange {
            from_ms: from_ms.clamp(UnixMs(0), to_ms - 1),
            to_ms,
            keeps_length: matches!(self.begin, Begin::Before(_)),
        }
    }
}

fn parse_zone(params: &Params) -> Result<TimeZone, ApiError> {
    let Some(name) = params.text("tz") else {
        return Ok(TimeZone::UTC);
    };
    TimeZone::get(name).map_err(|_unknown| {
        ApiError::bad_parameter("tz must be the name of a time zone, such as Europe/Berlin or UTC")
    })
}

/// Parses a parameter that is an RFC 3339 time or a date. A date without a time stands for the first instant of that
/// day in `zone`.
fn parse_instant(params: &Params, name: &str, zone: &TimeZone) -> Result<Option<UnixMs>, ApiError> {
    let date = params.given(name).filter(|text| text.len() == 10);
    let Some(date) = date.and_then(|text| text.parse::<Date>().ok()) else {
        return params.instant(name);
    };
    let start = Some(midnight(date, zone));
    match start.filter(|ms| (UnixMs(0)..TIME_MS_END).contains(ms)) {
        Some(start) => Ok(Some(start)),
        None => params.instant(name),
    }
}

fn round_up(to_ms: UnixMs) -> UnixMs {
    UnixMs((to_ms.0 + TO_MS - 1).div_euclid(TO_MS) * TO_MS).min(TIME_MS_END)
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn asked(query: &str) -> Result<AskedRange, ApiError> {
        let uri: Uri = format!("/?{query}").parse().unwrap();
        AskedRange::parse(&Params::parse("/", None, &uri, "hours from to tz").unwrap())
    }

    /// The instant 2013-01-01T00:00:00Z.
    const JANUARY: UnixMs = UnixMs(1_356_998_400_000);

    #[test]
    fn a_range_is_hours_before_its_end_or_begins_at_an_instant() {
        for (query, begin, to_ms) in [
            ("", Begin::Before(6 * HOUR_MS), None),
            ("hours=24", Begin::Before(24 * HOUR_MS), None),
            ("from=first", Begin::First, None),
            ("from=2013-01-01", Begin::At(JANUARY), None),
            (
                "from=2013-01-01&to=2013-01-02&tz=Europe/Berlin",
                Begin::At(JANUARY - HOUR_MS),
                Some(JANUARY + 23 * HOUR_MS),
            ),
            (
                "hours=1&to=2013-01-01T00:00:00.001Z",
                Begin::Before(HOUR_MS),
                Some(JANUARY + 300_000),
            ),
        ] {
            let got = asked(query).unwrap();
            assert_eq!((got.begin, got.to_ms), (begin, to_ms), "{query}");
        }
    }

    #[test]
    fn a_range_that_makes_no_sense_is_refused() {
        for (query, word) in [
            ("from=2013-01-02&to=2013-01-01", "from must be before to"),
            ("from=2013-01-01&hours=6", "give only one"),
            ("from=2013-13-01", "from must be an RFC 3339 time"),
            ("tz=Berlin", "tz must be"),
            ("hours=0", "hours must be"),
        ] {
            let error = asked(query).unwrap_err().to_string();
            assert!(error.contains(word), "{query}: {error}");
        }
    }

    #[test]
    fn the_end_is_rounded_up_to_five_minutes() {
        for (to_ms, want) in [(0, 0), (1, TO_MS), (TO_MS, TO_MS), (TO_MS + 1, 2 * TO_MS)] {
            assert_eq!(round_up(UnixMs(to_ms)), UnixMs(want));
        }
    }
}
