//! The readiness check of `citystream serve`, which tests whether the DynamoDB tables can be read.

pub(crate) mod tables_probe;
