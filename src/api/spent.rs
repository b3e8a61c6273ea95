//! The read units that a request has cost. Each response, including an error response, carries the read units that it
//! cost in its extensions.

/// A number of DynamoDB read units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent(pub(crate) f64);
