//! TLS connections to receivers, and the certificate authorities that each connection trusts.
//!
//! By default, a connection trusts the certificate authorities of the host. If the host has no certificate authorities,
//! the connection trusts the authorities that are built into the program. A receiver with `ca_file` trusts only the
//! authorities in that file.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::failure::Failure;

/// The TLS configuration for receivers without `ca_file`. The certificate authorities are loaded only once.
static OF_HOST: LazyLock<ClientConfig> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs().certs;
    let (count, _) = roots.add_parsable_certificates(found);
    if count == 0 {
        let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
        roots.add_parsable_certificates(built_in.iter().cloned());
    }
    trusting(roots)
});

/// Returns the TLS configuration for connections to a receiver.
///
/// # Errors
/// Returns a failure if `ca_file` cannot be read or contains no certificate.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let Some(path) = ca_file else {
        return Ok(OF_HOST.clone());
    };
    let failed = |why: String| {
        Failure::new(format!("failed to load {} (ca_file)", path.display()))
            .with_why(why)
            .with_remedy("name a PEM file with the certificates of the authorities")
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    Ok(trusting(roots))
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has ciphers for both")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
