//! Parsers for option values: numbers, durations, sizes, rates and instants.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::parse::{CITY_CHARS_MAX, EVENT_TYPE_BYTES_MAX, is_city, is_event_type, trim};

/// The rate at which events are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// The given number of events is sent per second.
    PerSecond(f64),
    /// Events are sent as fast as the broker accepts them.
    Max,
}

/// Parses a whole number.
pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = |_| {
        format!(
            "expected a whole number such as 6000, from 0 to {}",
            u64::MAX
        )
    };
    text.parse().map_err(wrong)
}

/// Parses a whole number from `min` to `max`, both inclusive.
pub(super) fn parse_whole<N: TryFrom<i64>>(text: &str, min: i64, max: i64) -> Result<N, String> {
    let number = text.parse().ok().filter(|n| (min..=max).contains(n));
    number
        .and_then(|n| N::try_from(n).ok())
        .ok_or_else(|| format!("expected a whole number from {min} to {max}"))
}

/// Parses an IP address with a port.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| "expected an IP address and a port, such as 127.0.0.1:8081".to_owned();
    text.parse().map_err(wrong)
}

/// Parses an IP address without a port.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let wrong = |_| "expected an IP address, such as 127.0.0.1".to_owned();
    text.parse().map_err(wrong)
}

pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    let wrong = |_| "expected a port from 1 to 65535, or 0 for a free one".to_owned();
    text.parse().map_err(wrong)
}

/// Refuses an empty value, which usually comes from an environment variable that was left empty.
pub(super) fn parse_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("the value is empty; give one, or leave the option out".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the name of a city, and removes white space at both ends, as the parser of events does.
pub(super) fn parse_city(text: &str) -> Result<String, String> {
    let city = trim(text);
    is_city(city).then(|| city.to_owned()).ok_or_else(|| {
        format!(
            "no event has such a city; expected 1 to {CITY_CHARS_MAX} characters without # and control characters"
        )
    })
}

/// Parses an event type, which is not case-sensitive, and returns it in lower case.
pub(super) fn parse_event_type(text: &str) -> Result<String, String> {
    let event_type = text.to_ascii_lowercase();
    if is_event_type(&event_type) {
        return Ok(event_type);
    }
    Err(format!(
        "no event has such a type; expected at most {EVENT_TYPE_BYTES_MAX} letters, digits, _ and -, a letter first"
    ))
}

/// Parses a host name in the form of the request header `Host`, without the port.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(legal) {
        return Err(
            "expected a host name such as city.example, without scheme and port".to_owned(),
        );
    }
    Ok(text.to_owned())
}

pub(crate) fn parse_duration_ms(text: &str, min_ms: i64, max_ms: i64) -> Result<i64, String> {
    let allowed = || {
        format!(
            "expected a duration such as 5s, 250ms or 10m, from {} to {}",
            show_ms(min_ms),
            show_ms(max_ms)
        )
    };
    let duration = humantime::parse_duration(text).map_err(|_| allowed())?;
    let ms = i64::try_from(duration.as_millis()).map_err(|_| allowed())?;
    if !(min_ms..=max_ms).contains(&ms) {
        return Err(allowed());
    }
    Ok(ms)
}

/// Returns a duration as text in the format that options accept, such as `5m 30s`.
pub fn show_ms(ms: i64) -> String {
    humantime::format_duration(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).to_string()
}

pub(super) fn parse_bytes(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        _ => None,
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .zip(shift)
        .and_then(|(n, shift)| n.checked_mul(1 << shift))
        .filter(|n| (min..=max).contains(n));
    bytes.ok_or_else(|| {
        format!(
            "expected a size such as 128MiB, from {}MiB to {}GiB",
            min >> 20,
            max >> 30
        )
    })
}

pub(super) fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(n) if n.is_finite() && (0.001..=10_000_000.0).contains(&n) => Ok(Rate::PerSecond(n)),
        _ => Err("expected events per second such as 1000/s, from 0.001/s, or max".to_owned()),
    }
}

pub(super) fn parse_speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(n) if (0.001..=1_000_000.0).contains(&n) => Ok(n),
        _ => Err("expected how many times faster, such as 60x, from 0.001x to 1000000x".to_owned()),
    }
}

pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=1.0).contains(&n) => Ok(n),
        _ => Err("expected a share from 0 to 1, such as 0.05".to_owned()),
    }
}

pub(super) fn parse_severity(text: &str) -> Result<Severity, String> {
    Severity::from_name(&text.to_ascii_lowercase())
        .ok_or_else(|| "expected low, medium, high or critical".to_owned())
}

/// Parses an instant in RFC 3339 format, or a date. A date means the start of that day in UTC.
pub(super) fn parse_instant(text: &str) -> Result<UnixMs, String> {
    let midnight = format!("{text}T00:00:00Z");
    crate::core::time::parse_timestamp(text)
        .or_else(|| crate::core::time::parse_timestamp(&midnight))
        .ok_or_else(|| {
            "expected an instant such as 2013-01-01T06:00:00Z, or a date such as 2013-01-01"
                .to_owned()
        })
}
