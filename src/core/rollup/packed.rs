//! Packs the 24 hours of a day into one binary attribute.
//!
//! The first three bytes contain one bit for each hour, which is 1 if the hour has events. The lowest bit of the first
//! byte stands for hour 0. After the first three bytes, four counts follow for each hour that has events, one for each
//! severity from low to critical. Each count is a LEB128 number: every byte contains seven bits of the number, with the
//! lowest bits first. The highest bit of a byte is 1 if another byte follows. A day takes 99 bytes if each hour has
//! events and fewer than 128 events of each severity.

use super::{DayHours, SeverityCounts};

/// Maximum number of bytes of a 64-bit number in LEB128.
const NUMBER_BYTES_MAX: usize = 10;

/// Returns the bytes of the attribute that stores the hours of a day.
pub fn pack(hours: &DayHours) -> Vec<u8> {
    let mut out = vec![0; 3];
    for (hour, counts) in hours.iter().enumerate() {
        if counts == &SeverityCounts::default() {
            continue;
        }
        out[hour / 8] |= 1 << (hour % 8);
        for count in counts {
            push_number(&mut out, *count);
        }
    }
    out
}

/// Returns the hours of a day from the bytes of the attribute, or `None` if the bytes do not have the format of
/// [`pack`].
pub fn unpack(bytes: &[u8]) -> Option<DayHours> {
    let (present, mut rest) = bytes.split_at_checked(3)?;
    let mut out = DayHours::default();
    for (hour, counts) in out.iter_mut().enumerate() {
        if present[hour / 8] & (1 << (hour % 8)) == 0 {
            continue;
        }
        for count in counts {
            (*count, rest) = split_number(rest)?;
        }
    }
    // The function accepts only the bytes that `pack` writes, so each day has exactly one valid encoding.
    (rest.is_empty() && pack(&out) == bytes).then_some(out)
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn split_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(NUMBER_BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        let shifted = bits.checked_shl(u32::try_from(at * 7).ok()?)?;
        number |= shifted;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}
