//! Defines the ledger of a consumer, which counts what happened to every record that the consumer has consumed (INV-7).
//!
//! `consumed = counted + late + rejected + already_counted + heartbeats + given_up + in flight`

use crate::parse::Reason;

/// The counts of a ledger at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Number of records that were passed to the worker of their partition.
    pub consumed: u64,
    /// Number of events that were counted in a window.
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
