//! What a role says about the address that it listens on.

use std::net::SocketAddr;

use crate::telemetry;

/// Prints where a role listens if it picked the port itself, because no setting holds that port. `what` names what
/// answers there.
pub(crate) fn print_picked(what: &str, asked: SocketAddr, address: SocketAddr) {
    if asked.port() == 0 {
        telemetry::show(&format!("{what}: http://{address}\n"));
    }
}

/// Says that other hosts can ask at this address of a role that knows no tokens.
pub(crate) fn warn_if_open(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "other hosts can ask here without a login; listen on 127.0.0.1 unless that is meant"
        );
    }
}
