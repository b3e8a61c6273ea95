//! Decides what a gap between the offsets of delivered records means.
//!
//! A gap has one of two causes, and the offsets do not show which one. Control records and records of aborted
//! transactions have offsets, but the Kafka client never delivers them, so they leave a real gap. A Kafka client that
//! skips records by mistake also leaves a gap. A consumer that commits past skipped records loses them without a trace.
//! Only a second, independent read of the same range can distinguish a real gap from skipped records. Therefore, a
//! restart point moves past a gap only after a second read has confirmed that the gap is real.
//!
//! The maintainers of librdkafka recommend that consumers check for gaps in the offsets
//! (<https://github.com/confluentinc/librdkafka/issues/2256>).

use crate::event::Offset;

/// A range of offsets `[from, to)` in one partition for which the Kafka client delivered no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The offset after the last delivered record.
    pub from: Offset,
    /// The offset of the next delivered record, or of the end of the log.
    pub to: Offset,
}

/// The result of a second read that starts at [`Gap::from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondRead {
    /// The offset of the first record that the second read found, or the end of the log if the read found no record.
    Next(Offset),
    /// The brokers have no record at `from`, because retention removed it or the log was truncated.
    OutOfRange,
    /// The brokers did not answer in time.
    NoAnswer,
}

/// The result of checking a gap with a second read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log holds no record in the gap, so reading continues after the gap.
    Real,
    /// The Kafka client skipped at least one record, so the consumer must read the gap again.
    Skipped {
        /// The offset of the first record that the second read found.
        found: Offset,
    },
    /// The log no longer contains the offset at which the gap begins. The partition restarts, and the start rule
    /// determines which records are lost.
    OutOfRange,
    /// The cause of the gap is still unknown, so the second read must be repeated.
    Unknown,
}

impl Gap {
    /// Returns the verdict on the gap. `second` is the result of a second read that starts at the beginning of the gap.
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
