//! Messages about the address that a role listens on.

use std::net::SocketAddr;

use crate::telemetry;

/// Prints the role's address if the operating system chose the port (`:0`), because no setting shows that port.
///
/// `service` names what answers there.
pub(crate) fn print_picked(service: &str, setting: SocketAddr, address: SocketAddr) {
    if setting.port() == 0 {
        telemetry::print_stdout(&format!("{service}: http://{address}\n"));
    }
}

/// Logs a warning if other hosts can reach the address of a role that has no login.
pub(crate) fn warn_if_open(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "other hosts can reach this address without a login; listen on 127.0.0.1 to prevent that"
        );
    }
}
