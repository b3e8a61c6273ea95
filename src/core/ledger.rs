//! Defines the ledger of a consumer, which counts what happened to every record that the consumer has consumed (INV-7).
//!
//! `consumed = counted + late + rejected + already_counted + heartbeats + given_up + in flight`

use crate::parse::Reason;

/// The counts of a ledger at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Number of records that were passed to the worker of their partition.
    pub consumed: u64,
    /// Number of events that this consumer has counted in a window.
    pub counted: u64,
    /// Number of late events that were counted.
    pub late: u64,
    /// Number of rejected records that the dead-letter topic acknowledged, for each [`Reason`] in the order of
    /// `Reason::ALL`.
    pub rejected: [u64; Reason::ALL.len()],
    /// Number of events that the tables had already counted.
    pub already_counted: u64,
    /// Number of heartbeats that were consumed.
    pub heartbeats: u64,
    /// Number of records that were dropped because the consumer gave up their partition. The next owner of the
    /// partition reads these records again.
    pub given_up: u64,
    /// Number of records that are not yet durable.
    pub in_flight: u64,
}

impl Ledger {
    /// Returns true if INV-7 holds.
    pub fn balances(&self) -> bool {
        self.consumed
            == self.counted
                + self.late
                + self.rejected.iter().sum::<u64>()
                + self.already_counted
                + self.heartbeats
                + self.given_up
                + self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_in_exactly_one_place() {
        let mut rejected = [0; Reason::ALL.len()];
        (rejected[0], rejected[12]) = (5, 7);
        let ledger = Ledger {
            consumed: 2 + 3 + 5 + 7 + 11 + 13 + 17 + 19,
            counted: 2,
            late: 3,
            rejected,
            already_counted: 11,
            heartbeats: 13,
            given_up: 17,
            in_flight: 19,
        };
        assert!(ledger.balances());
        let changes: [fn(&mut Ledger) -> &mut u64; 8] = [
            |l| &mut l.consumed,
            |l| &mut l.counted,
            |l| &mut l.late,
            |l| &mut l.rejected[12],
            |l| &mut l.already_counted,
            |l| &mut l.heartbeats,
            |l| &mut l.given_up,
            |l| &mut l.in_flight,
        ];
        for number in changes {
            let mut wrong = ledger.clone();
            *number(&mut wrong) += 1;
            assert!(!wrong.balances(), "{wrong:?}");
        }
    }
}
