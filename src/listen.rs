//! Messages about the address that a role listens on.

use std::net::SocketAddr;

use crate::telemetry;

/// Prints the address of the role if the configured port is 0. For port 0, the operating system chooses the port, so no
/// setting contains the port number.
///
/// `service` names the service that listens on the address. `scheme` is `http` or `https`.
pub(crate) fn print_picked(service: &str, scheme: &str, setting: SocketAddr, address: SocketAddr) {
    if setting.port() == 0 {
        telemetry::print_stdout(&format!("{service}: {scheme}://{address}\n"));
    }
}

/// Logs a warning if other hosts can reach `address`. This function is meant for ports that accept requests without a
/// login.
pub(crate) fn warn_if_open(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "other hosts can reach this address without a login; listen on 127.0.0.1 to prevent that"
        );
    }
}
