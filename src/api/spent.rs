//! What a request has cost. Each response carries it among its extensions, error responses too.

/// DynamoDB read units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent(pub(crate) f64);
