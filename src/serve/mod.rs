//! The part of `citystream serve` that does not belong to the API: the readiness of the tables.

pub(crate) mod tables_probe;
