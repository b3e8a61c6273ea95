//! Gaps between the offsets that a Kafka client hands on.
//!
//! Two causes look alike to a reader. Control records and records of aborted transactions take offsets and
//! are never handed on: such a gap is real. A client that skips records leaves a gap too, and whoever
//! commits past it loses them without a trace. Only a second, independent read of the same range tells
//! the two apart, so no restart point crosses a gap before that read has confirmed it.
//!
//! Source: librdkafka's maintainers advise consumers to compare offsets
//! (<https://github.com/confluentinc/librdkafka/issues/2256>).

use crate::event::Offset;

/// Offsets `[from, to)` of one partition that the client passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The offset after the last record that was handed on.
    pub from: Offset,
    /// The offset of the next record, or the end of the log.
    pub to: Offset,
}

/// What a second read from [`Gap::from`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondRead {
    /// The first committed record is at this offset, or the log ends there.
    Next(Offset),
    /// The brokers have no record at `from`: retention removed it, or the log was cut.
    OutOfRange,
    /// The brokers did not answer in time.
    NoAnswer,
}

/// What a gap turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log holds no record in the gap. Reading continues after it.
    Real,
    /// The client skipped the record at `found`. The gap must be read again.
    Skipped {
        /// The first offset that the second read found.
        found: Offset,
    },
    /// The log no longer covers the gap. The start rule decides what is lost.
    OutOfRange,
    /// Unknown yet. The second read must be repeated.
    Unknown,
}

impl Gap {
    /// Returns what the gap is, judged by a second read from its beginning.
    pub fn verdict(self, second: SecondRead) -> Verdict {
        match second {
            SecondRead::Next(next) if next >= self.to => Verdict::Real,
            SecondRead::Next(found) => Verdict::Skipped { found },
            SecondRead::OutOfRange => Verdict::OutOfRange,
            SecondRead::NoAnswer => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_read_that_finds_nothing_below_the_end_confirms_a_gap() {
        let gap = Gap {
            from: Offset(10),
            to: Offset(15),
        };
        let skipped = |found| Verdict::Skipped {
            found: Offset(found),
        };
        for (second, verdict) in [
            (SecondRead::Next(Offset(15)), Verdict::Real),
            (SecondRead::Next(Offset(16)), Verdict::Real),
            (SecondRead::Next(Offset(14)), skipped(14)),
            (SecondRead::Next(Offset(10)), skipped(10)),
            (SecondRead::OutOfRange, Verdict::OutOfRange),
            (SecondRead::NoAnswer, Verdict::Unknown),
        ] {
            assert_eq!(gap.verdict(second), verdict, "{second:?}");
        }
    }
}
