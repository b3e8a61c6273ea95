//! What a request paid: it stands among the extensions of its response, an error's too.

/// Read units of DynamoDB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent(pub(crate) f64);
