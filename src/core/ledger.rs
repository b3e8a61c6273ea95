//! What became of every record a consumer took (INV-7).
//!
//! `consumed = counted + late + rejected + already_counted + heartbeats + given_up + in flight`

use crate::parse::Reason;

/// The counts, all of the same moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records handed to a partition's worker.
    pub consumed: u64,
    /// Events counted in a window.
    pub counted: u64,
    /// Events counted as late.
    pub late: u64,
    /// Records acknowledged by the dead-letter topic, by [`Reason`] in the order of its list.
    pub rejected: [u64; Reason::ALL.len()],
    /// Events that the tables had counted before.
    pub already_counted: u64,
    /// Heartbeats taken.
    pub heartbeats: u64,
    /// Records dropped with their partition; whoever takes it reads them again.
    pub given_up: u64,
    /// Records not yet durable.
    pub in_flight: u64,
}

impl Ledger {
    /// Tells whether INV-7 holds.
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
