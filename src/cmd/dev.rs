//! `citystream dev`: every role in one process, on an embedded broker and an embedded DynamoDB.

pub use crate::dev::run;
