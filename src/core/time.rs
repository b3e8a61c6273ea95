//! Converts text to instants and instants to text.
//!
//! An event's `timestamp` may have fewer formats than RFC 3339 allows, and far fewer than the parser of the jiff crate
//! accepts. Therefore, this module checks the format of a timestamp itself. The module uses jiff only to check that the
//! date exists, and to compute the instant. All output formats have a fixed width, so that texts sort in the same order
//! as their instants.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::clock::UnixMs;

/// The first instant after the valid event times, 9999-01-01T00:00:00Z.
pub const TIME_MS_END: UnixMs = UnixMs(253_370_764_800_000);

/// Returns the instant of a timestamp, or `None` if the text is not a valid timestamp. A timestamp consists of
/// `YYYY-MM-DD`, then `T`, `t` or a space, then `hh:mm:ss`, then an optional point with 1 to 9 digits, and finally `Z`,
/// `z` or `±hh:mm`. The instant must be in the years 1970 to 9998 UTC.
///
/// The function reads second 60 as second 59 with the same fraction, and ignores digits after the milliseconds.
pub fn parse_timestamp(text: &str) -> Option<UnixMs> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    if !matches!(b[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = two(b, 0)? * 100 + two(b, 2)?;
    let (month, day) = (two(b, 5)?, two(b, 8)?);
    let (hour, minute, second) = (two(b, 11)?, two(b, 14)?, two(b, 17)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut fraction_ms = 0;
    if b[at] == b'.' {
        at += 1;
        let digits = b[at..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        let mut scale = 100;
        for c in &b[at..at + digits.min(3)] {
            fraction_ms += i64::from(c - b'0') * scale;
            scale /= 10;
        }
        at += digits;
    }
    let offset_s = match b.get(at)? {
        b'Z' | b'z' if b.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if b.len() == at + 6 && b[at + 3] == b':' => {
            let (h, m) = (two(b, at + 1)?, two(b, at + 4)?);
            if h > 23 || m > 59 {
                return None;
            }
            let s = i64::from(h * 60 + m) * 60;
            if *sign == b'-' { -s } else { s }
        }
        _ => return None,
    };
    let date = Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    let time = Time::new(
        i8::try_from(hour).ok()?,
        i8::try_from(minute).ok()?,
        i8::try_from(second.min(59)).ok()?,
        0,
    )
    .ok()?;
    let local_s = unix_seconds(DateTime::from_parts(date, time))?;
    let ms = UnixMs((local_s - offset_s) * 1_000 + fraction_ms);
    is_event_time(ms).then_some(ms)
}

/// Returns true if the instant is in the range of valid event times.
pub fn is_event_time(ms: UnixMs) -> bool {
    (UnixMs(0)..TIME_MS_END).contains(&ms)
}

/// Converts a date and time in UTC to the number of seconds since 1970. Returns `None` if jiff does not support the
/// year. All valid event times are in years that jiff supports.
fn unix_seconds(at: DateTime) -> Option<i64> {
    Some(TimeZone::UTC.to_timestamp(at).ok()?.as_second())
}

/// Parses the two ASCII digits at the index `at` as a number.
fn two(b: &[u8], at: usize) -> Option<i16> {
    let (hi, lo) = (b.get(at)?, b.get(at + 1)?);
    if !hi.is_ascii_digit() || !lo.is_ascii_digit() {
        return None;
    }
    Some(i16::from(hi - b'0') * 10 + i16::from(lo - b'0'))
}

/// Appends an instant in the format `2013-01-01T06:00:00.000Z`. For an instant outside jiff's range, appends the
/// nearest instant in that range.
pub fn push_millis(out: &mut String, ms: UnixMs) {
    match digits_of(ms) {
        Some(digits) => out.push_str(std::str::from_utf8(&digits).expect("ASCII")),
        None => write!(out, "{:.3}", instant(ms)).expect("writing to a string does not fail"),
    }
}

/// Returns the text of an instant in the range of valid event times, or `None` for other instants. The function does
/// not use jiff's formatter, because it would take longer for the two instants of a stored item than all other
/// attributes together take.
fn digits_of(ms: UnixMs) -> Option<[u8; 24]> {
    if !is_event_time(ms) {
        return None;
    }
    let at = TimeZone::UTC.to_datetime(instant(ms));
    let mut out = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, width: usize, value: i64| {
        let mut left = value;
        for place in out[at..at + width].iter_mut().rev() {
            *place = b'0' + u8::try_from(left % 10).expect("a digit");
            left /= 10;
        }
    };
    put(0, 4, at.year().into());
    put(5, 2, at.month().into());
    put(8, 2, at.day().into());
    put(11, 2, at.hour().into());
    put(14, 2, at.minute().into());
    put(17, 2, at.second().into());
    put(20, 3, ms.0 % 1_000);
    Some(out)
}

/// Formats an instant like `2013-01-01T06:00:00.000Z`.
pub fn format_millis(ms: UnixMs) -> String {
    let mut out = String::with_capacity(24);
    push_millis(&mut out, ms);
    out
}

/// Formats an instant like `2013-01-01T06:00:00Z`, which is the format of window starts and ends. The text does not
/// contain fractions of a second.
pub fn format_seconds(ms: UnixMs) -> String {
    format!("{:.0}", instant(UnixMs(ms.0.div_euclid(1_000) * 1_000)))
}

fn instant(ms: UnixMs) -> Timestamp {
    Timestamp::from_millisecond(ms.0).unwrap_or(if ms < UnixMs(0) {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy as _;

    use super::*;

    #[test]
    fn the_grammar_is_exactly_the_contracts() {
        let check = |text: &str, want: Option<i64>| {
            assert_eq!(parse_timestamp(text), want.map(UnixMs), "{text:?}");
        };
        let base = 1_356_998_400_000; // 2013-01-01T00:00:00Z
        check("2013-01-01T00:00:00Z", Some(base));
        check("2013-01-01t00:00:00z", Some(base));
        check("2013-01-01 00:00:00Z", Some(base));
        check("2013-01-01T00:00:00.1Z", Some(base + 100));
        check("2013-01-01T00:00:00.123456789Z", Some(base + 123));
        check("2013-01-01T00:00:00.999999999Z", Some(base + 999));
        check("2013-01-01T00:00:60Z", Some(base + 59_000));
        check("2013-01-01T00:00:60.5Z", Some(base + 59_500));
        check("2013-01-01T14:00:00+14:00", Some(base));
        check("2012-12-31T12:00:00-12:00", Some(base));
        check("2013-01-01T00:00:00-00:00", Some(base));
        check("2013-01-01T23:59:00+23:59", Some(base));
        check("1970-01-01T00:00:00Z", Some(0));
        check("1969-12-31T23:59:59Z", None);
        check("1969-12-31T23:59:59.999Z", None);
        check("1969-12-31T23:59:59-00:01", Some(59_000));
        check("1970-01-01T00:00:00+00:01", None);
        check("9998-12-31T23:59:59.999Z", Some(TIME_MS_END.0 - 1));
        check("9998-12-31T23:59:60.999Z", Some(TIME_MS_END.0 - 1));
        check("9999-01-01T00:00:00Z", None);
        check("9999-01-01T13:59:59+14:00", Some(TIME_MS_END.0 - 1_000));
        check("9998-12-31T23:59:59-00:01", None);
        check("9999-12-31T23:59:59Z", None);
        check("9999-12-31T23:59:59+23:59", None);
        check("0000-01-01T00:00:00Z", None);
        check("2012-02-29T00:00:00Z", Some(1_330_473_600_000));
        check("2013-02-29T00:00:00Z", None);
        for bad in [
            "",
            "2013-01-01",
            "2013-01-01T00:00:00",
            "2013-01-01T24:00:00Z",
            "2013-01-01T00:60:00Z",
            "2013-01-01T00:00:61Z",
            "2013-13-01T00:00:00Z",
            "2013-00-01T00:00:00Z",
            "2013-01-00T00:00:00Z",
            "2013-01-32T00:00:00Z",
            "2013-01-01T00:00:00.Z",
            "2013-01-01T00:00:00.1234567890Z",
            "2013-01-01T00:00:00,5Z",
            "2013-01-01T00:00:00+24:00",
            "2013-01-01T00:00:00+00:60",
            "2013-01-01T00:00:00+0000",
            "2013-01-01T00:00:00+00",
            "2013-01-01T00:00:00Z ",
            " 2013-01-01T00:00:00Z",
            "2013-01-01T00:00:00ZZ",
            "2013-01-01T00:00Z",
            "2013-1-01T00:00:00Z",
            "+2013-01-01T00:00:00Z",
            "2013-01-01T00:00:00[UTC]",
            "2013-01-01T00:00:00Z[UTC]",
            "２013-01-01T00:00:00Z",
            "2013-01-01_00:00:00Z",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn each_separator_is_in_its_place() {
        for bad in [
            "2013/01-01T00:00:00Z",
            "2013-01/01T00:00:00Z",
            "2013-01-01T00.00:00Z",
            "2013-01-01T00:00.00Z",
            "2013-01-01T00:00:00+00:000",
            "2013-01-01T00:00:00+00:00Z",
            "2013-01-01T00:00:00+00.00",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }

    #[test]
    fn formats_are_fixed_width() {
        assert_eq!(
            format_millis(UnixMs(1_357_020_000_000)),
            "2013-01-01T06:00:00.000Z"
        );
        assert_eq!(format_millis(UnixMs(7)), "1970-01-01T00:00:00.007Z");
        assert_eq!(format_millis(TIME_MS_END - 1), "9998-12-31T23:59:59.999Z");
        assert_eq!(
            format_seconds(UnixMs(1_357_020_000_999)),
            "2013-01-01T06:00:00Z"
        );
        assert_eq!(format_seconds(TIME_MS_END), "9999-01-01T00:00:00Z");
    }

    #[test]
    fn instants_that_no_event_has_are_formatted_too() {
        for (ms, text) in [
            (UnixMs(-1), "1969-12-31T23:59:59.999Z"),
            (TIME_MS_END, "9999-01-01T00:00:00.000Z"),
            (UnixMs::MIN, "-009999-01-02T01:59:59.000Z"),
            (UnixMs(i64::MAX), "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(format_millis(ms), text);
        }
        assert_eq!(format_seconds(UnixMs(-1)), "1969-12-31T23:59:59Z");
    }

    proptest::proptest! {
        #[test]
        fn digits_are_what_the_general_formatter_writes(ms in (0..TIME_MS_END.0).prop_map(UnixMs)) {
            proptest::prop_assert_eq!(format_millis(ms), format!("{:.3}", instant(ms)));
        }

        #[test]
        fn format_and_parse_are_inverse(ms in (0..TIME_MS_END.0).prop_map(UnixMs)) {
            proptest::prop_assert_eq!(parse_timestamp(&format_millis(ms)), Some(ms));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = parse_timestamp(&text);
        }
    }
}
