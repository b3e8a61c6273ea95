//! HTTP: the accept loop, health and metrics of every role, and the REST API of `serve`.

pub mod ops;
pub mod server;
