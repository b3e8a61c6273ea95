//! What `citystream serve` adds to the API: the access rules of its command line, and the readiness
//! of its tables.

pub(crate) mod access;
pub(crate) mod tables_probe;
