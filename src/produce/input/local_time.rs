//! Parses the timestamps in a CSV file. A timestamp is in RFC 3339 format, or in the format that the operator
//! specifies. A timestamp without a UTC offset is a local time in the time zone that the operator specifies.
//!
//! | a local time that | means |
//! |---|---|
//! | occurs twice, because clocks are set back | the first of the two instants |
//! | does not occur, because clocks are set forward | the time is moved forward by the same amount as the clocks |

use std::borrow::Cow;

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use crate::core::clock::UnixMs;
use crate::core::time::parse_timestamp;

/// The format and the time zone of the timestamps in a CSV file.
#[derive(Clone, Debug, Default)]
pub(super) struct TimeRules {
    /// The format of the timestamps, in the syntax of `strftime`. `None` means that the timestamps are in RFC 3339
    /// format.
    pub(super) format: Option<String>,
    /// The time zone of all timestamps that have no UTC offset.
    pub(super) zone: Option<TimeZone>,
}

impl TimeRules {
    /// Parses a text as a time.
    ///
    /// # Errors
    /// Returns the reason why the text is not a valid time.
    pub(super) fn parse(&self, text: &str) -> Result<UnixMs, Cow<'static, str>> {
        let Some(format) = &self.format else {
            return self.parse_rfc3339(text);
        };
        let wrong = |error: jiff::Error| format!("does not match --time-format: {error}");
        let time = strtime::parse(format, text).map_err(wrong)?;
        let instant = if time.offset().is_some() || time.timestamp().is_some() {
            time.to_timestamp().map_err(wrong)?
        } else {
            let local = time.to_datetime().map_err(wrong)?;
            return self.in_zone(local);
        };
        Ok(UnixMs(instant.as_millisecond()))
    }

    fn parse_rfc3339(&self, text: &str) -> Result<UnixMs, Cow<'static, str>> {
        if let Some(ms) = parse_timestamp(text) {
            return Ok(ms);
        }
        // A local time has the same syntax as an RFC 3339 timestamp, but no UTC offset at its end.
        let Some(as_utc) = parse_timestamp(&format!("{text}Z")) else {
            return Err(
                "is not YYYY-MM-DDThh:mm:ss[.fff](Z or ±hh:mm); --time-format reads other times"
                    .into(),
            );
        };
        let instant = jiff::Timestamp::from_millisecond(as_utc.0);
        let instant = instant.map_err(|error| error.to_string())?;
        self.in_zone(TimeZone::UTC.to_datetime(instant))
    }

    fn in_zone(&self, local: DateTime) -> Result<UnixMs, Cow<'static, str>> {
        let Some(zone) = &self.zone else {
            return Err("has no offset; give --time-zone".into());
        };
        let instant = zone.to_ambiguous_timestamp(local).compatible();
        let instant = instant.map_err(|error| error.to_string())?;
        Ok(UnixMs(instant.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::format_millis;

    fn parsed(format: Option<&str>, zone: Option<&str>, text: &str) -> String {
        let rules = TimeRules {
            format: format.map(str::to_owned),
            zone: zone.map(|name| TimeZone::get(name).expect(name)),
        };
        match rules.parse(text) {
            Ok(ms) => format_millis(ms),
            Err(why) => why.into_owned(),
        }
    }

    #[test]
    fn times_have_an_offset_or_are_local() {
        let us = Some("%m/%d/%Y %I:%M:%S %p");
        let (day, numeric) = (Some("%d.%m.%Y"), Some("%F %T %z"));
        let (new_york, berlin) = (Some("America/New_York"), Some("Europe/Berlin"));
        for (format, zone, text, want) in [
            (
                None,
                None,
                "2013-01-01 06:00:00.25+01:00",
                "01-01T05:00:00.250Z",
            ),
            (None, berlin, "2013-01-01T06:00:00Z", "01-01T06:00:00.000Z"),
            (
                None,
                berlin,
                "2013-01-01T06:00:00.500",
                "01-01T05:00:00.500Z",
            ),
            (
                us,
                new_york,
                "07/01/2013 12:00:00 AM",
                "07-01T04:00:00.000Z",
            ),
            (us, new_york, "1/5/2013 6:07:08 PM", "01-05T23:07:08.000Z"),
            (
                us,
                Some("UTC"),
                "12/31/2013 12:00:00 PM",
                "12-31T12:00:00.000Z",
            ),
            (day, berlin, "02.02.2013", "02-01T23:00:00.000Z"),
            (
                numeric,
                berlin,
                "2013-02-01 00:00:00 -0200",
                "02-01T02:00:00.000Z",
            ),
            (Some("%s"), None, "1357020000", "01-01T06:00:00.000Z"),
        ] {
            let found = parsed(format, zone, text);
            assert_eq!(found, format!("2013-{want}"), "{format:?} {zone:?}");
        }
    }

    #[test]
    fn local_times_that_occur_twice_or_not_at_all_have_an_instant() {
        for (zone, text, want) in [
            (
                "America/New_York",
                "2013-11-03T01:30:00",
                "11-03T05:30:00.000Z",
            ),
            (
                "Europe/Berlin",
                "2013-03-31T02:30:00",
                "03-31T01:30:00.000Z",
            ),
        ] {
            let found = parsed(None, Some(zone), text);
            assert_eq!(found, format!("2013-{want}"));
        }
    }

    #[test]
    fn other_texts_say_what_is_wrong() {
        let us = Some("%m/%d/%Y %I:%M:%S %p");
        let utc = Some("UTC");
        for (format, zone, text, words) in [
            (None, None, "2013-01-01T06:00:00", "give --time-zone"),
            (us, None, "01/01/2013 06:00:00 AM", "give --time-zone"),
            (None, utc, "01/01/2013 06:00:00 AM", "--time-format reads"),
            (None, utc, "2013-01-01", "--time-format reads"),
            (
                us,
                utc,
                "2013-01-01T06:00:00Z",
                "does not match --time-format",
            ),
            (
                us,
                utc,
                "13/01/2013 06:00:00 AM",
                "does not match --time-format",
            ),
            (
                us,
                utc,
                "02/30/2013 06:00:00 AM",
                "does not match --time-format",
            ),
        ] {
            let why = parsed(format, zone, text);
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
