//! The number of DynamoDB read units that a request has cost. Each response, including an error response, contains its
//! cost as an extension.

/// A number of DynamoDB read units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent(pub(crate) f64);
