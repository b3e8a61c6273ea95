//! Tests of the certificate authorities: the host's own ones, and the built-in ones of a host without any.

use std::process::{Command, Stdio};

use crate::role::wait_for;
use crate::services::skipped;
use crate::world::World;

/// Returns whether this process may give a child its own `/etc`. Reports the test as skipped if not.
fn may_mount() -> bool {
    let may = Command::new("unshare")
        .args(["-m", "true"])
        .stderr(Stdio::null())
        .status();
    let may = may.is_ok_and(|status| status.success());
    if !may {
        skipped("authorities of other hosts (needs root, for a mount namespace)");
    }
    may
}

/// Runs a program in an `/etc` that contains only `file` at `place`.
fn in_bare_etc(place: &str, file: &str) -> Command {
    let script = "mount -t tmpfs none /etc && mkdir -p \"$(dirname \"$1\")\" && cp \"$2\" \"$1\" && \
                  shift 2 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", place, file]);
    command.arg(crate::role::binary());
    command
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_host_without_authorities_uses_the_built_in_ones_and_logs_it() {
    let world = World::new("no-authorities");
    if !may_mount() {
        return;
    }
    let folder = world.services.folder();
    let (empty, log) = (folder.join("empty"), folder.join("no-authorities.err"));
    std::fs::write(&empty, "").unwrap();
    let mut init = in_bare_etc("/etc/empty", empty.to_str().unwrap())
        .args(["init-tables", "--table-prefix", world.name])
        .args(["--brokers", world.services.brokers()])
        .env_clear()
        .envs(world.services.exports())
        .env("PATH", std::env::var_os("PATH").unwrap())
        // This broker speaks TLS, and no built-in authority signed its certificate.
        .env(
            "AWS_ENDPOINT_URL_DYNAMODB",
            format!("https://{}", world.services.export("KAFKA_SERVERS_TLS")),
        )
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut err = String::new();
    wait_for("the log to name the authorities", || {
        err = std::fs::read_to_string(&log).unwrap();
        (err.contains("built in") && err.contains("waiting for DynamoDB")).then_some(())
    });
    assert!(init.try_wait().unwrap().is_none(), "it waits\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    init.kill().unwrap();
    init.wait().unwrap();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_hosts_authorities_are_found_where_distributions_keep_them() {
    let world = World::new("probe");
    world.init();
    if !may_mount() {
        return;
    }
    let services = world.services;
    let root = format!("{}/root.pem", services.export("KAFKA_CREDENTIALS"));
    for place in [
        "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu
        "/etc/pki/tls/certs/ca-bundle.crt",   // Amazon Linux, RHEL, Fedora
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // the same, where it points to
        "/etc/ssl/ca-bundle.pem",             // SUSE
        "/etc/ssl/cert.pem",                  // Alpine
    ] {
        let output = in_bare_etc(place, &root)
            .args(["tail", "--topic", world.name])
            .args(["--kafka-auth", "tls", "--exit-at-end"])
            .args(["--brokers", services.export("KAFKA_SERVERS_TLS")])
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{place}\n{err}");
    }
}
