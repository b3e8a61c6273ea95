//! The number of read units that a request has cost. Each response, including an error response, carries its cost in
//! read units as an extension.

/// A number of DynamoDB read units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent(pub(crate) f64);
