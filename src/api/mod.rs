//! HTTP: the accept loop, health and metrics of every role, and the REST API of `serve`.
//!
//! [`server`] accepts connections and bounds what one client can take; [`ops`] answers `/livez`,
//! `/readyz` and `/metrics`; [`error`] is the one shape of every error; [`observe`] counts requests.

pub mod error;
pub mod observe;
pub mod ops;
pub mod server;
mod stall;
