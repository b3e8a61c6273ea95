//! TLS for the server. The server reads the certificate chain and its key again when their files change.
//!
//! The server supports TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1, through rustls and aws-lc-rs. A renewed certificate
//! applies to new connections. If the certificate and the key do not match when the role starts, the role exits with
//! code 2. If the files change and the new certificate and key do not match, the role logs the error and keeps the
//! previous certificate.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::api::reload::{self, FileError};
use crate::shutdown::Shutdown;

/// The name of HTTP/2 in the ALPN extension of the TLS handshake.
pub(super) const H2: &[u8] = b"h2";

/// The certificate that the server currently uses.
#[derive(Debug)]
pub struct Certificate {
    paths: [PathBuf; 2],
    contents: Vec<Vec<u8>>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Returns the certificate chain from the PEM file `cert`, with the key from the PEM file `key`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or does not contain a certificate or key. Also returns an error if the
    /// key belongs to another certificate.
    pub fn load(cert: &Path, key: &Path) -> Result<Certificate, FileError> {
        let paths = [cert.to_owned(), key.to_owned()];
        let contents = vec![reload::read(cert)?, reload::read(key)?];
        let current = RwLock::new(Arc::new(parse(&paths, &contents)?));
        Ok(Certificate {
            paths,
            contents,
            current,
        })
    }

    /// Loads the certificate and the key again whenever their files change, until `shutdown` is triggered.
    pub async fn watch(self: Arc<Certificate>, shutdown: Shutdown) {
        let apply = |contents: &[Vec<u8>]| {
            let fresh = Arc::new(parse(&self.paths, contents)?);
            *self
                .current
                .write()
                .expect("no panic holds the certificate") = fresh;
            Ok(())
        };
        let (paths, known) = (self.paths.to_vec(), self.contents.clone());
        reload::watch("certificate", paths, known, shutdown, apply).await;
    }

    /// Returns the acceptor of TLS connections.
    ///
    /// # Panics
    /// Panics if aws-lc-rs offers no cipher for TLS 1.2 or 1.3.
    pub fn acceptor(self: Arc<Certificate>) -> TlsAcceptor {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has ciphers for both")
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().expect("no panic holds the certificate");
        Some(Arc::clone(&current))
    }
}

fn parse(paths: &[PathBuf; 2], contents: &[Vec<u8>]) -> Result<CertifiedKey, FileError> {
    let [cert, key] = paths;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&contents[0])
        .collect::<Result<_, _>>()
        .map_err(|error| FileError::new(cert, format!("it is not a PEM file: {error}")))?;
    if chain.is_empty() {
        return Err(FileError::new(cert, "it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(&contents[1])
        .map_err(|error| FileError::new(key, format!("it holds no private key: {error}")))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
        .map_err(|error| FileError::new(key, format!("certificate and key do not match: {error}")))
}
