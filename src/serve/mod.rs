//! The parts of `citystream serve` in addition to the API: the access rules of its options, and the readiness of its
//! tables.

pub(crate) mod tables_probe;
