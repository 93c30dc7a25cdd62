//! Secure connections: rustls with the roots of the platform, and those that a tool's registration adds.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::effect::http::HttpError;

/// The application protocol of HTTP/1.1 (RFC 7301).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// Whose certificates are believed. Cheap to clone; the roots are read at the first use.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    extra: Arc<[CertificateDer<'static>]>,
    config: Arc<OnceLock<Result<Arc<ClientConfig>, String>>>,
}

/// A file of certificates that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// Not PEM.
    #[error("it is not a PEM file of certificates: {0}")]
    Pem(String),
    /// Nothing in it.
    #[error("it holds no certificate")]
    Empty,
    /// Not an authority's certificate.
    #[error("a certificate in it cannot be used: {0}")]
    Certificate(String),
}

impl Tls {
    /// The platform's roots and the certificates of this PEM text.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn with_ca(pem: &[u8]) -> Result<Self, CaError> {
        let extra: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| CaError::Pem(e.to_string()))?;
        if extra.is_empty() {
            return Err(CaError::Empty);
        }
        let mut roots = RootCertStore::empty();
        for certificate in &extra {
            roots.add(certificate.clone()).map_err(|e| CaError::Certificate(e.to_string()))?;
        }
        Ok(Self { extra: extra.into(), config: Arc::default() })
    }

    /// What makes a secure connection. Names nothing but the protocols offered, none when `alpn` is empty.
    ///
    /// # Errors
    /// [`HttpError::Tls`] when nobody is believed, since this machine has no roots.
    pub(crate) fn connector(&self, alpn: &[&[u8]]) -> Result<TlsConnector, HttpError> {
        let config = self.config.get_or_init(|| configure(&self.extra)).clone().map_err(HttpError::Tls)?;
        if alpn.is_empty() {
            return Ok(TlsConnector::from(config));
        }
        let mut with_alpn = ClientConfig::clone(&config);
        with_alpn.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(TlsConnector::from(Arc::new(with_alpn)))
    }

    /// Secure `stream`; the certificate must be good for `host`, the name (or address) that was decided.
    ///
    /// # Errors
    /// [`HttpError::Tls`].
    pub(crate) async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
        alpn: &[&[u8]],
    ) -> Result<TlsStream<S>, HttpError> {
        let connector = self.connector(alpn)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|e| HttpError::Tls(e.to_string()))?;
        connector.connect(name, stream).await.map_err(|e| HttpError::Tls(e.to_string()))
    }
}

fn configure(extra: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::clone(platform_roots());
    for certificate in extra {
        roots.add(certificate.clone()).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("this machine has no root certificates".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Read once: the platform's store, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name. What cannot be read is not believed.
fn platform_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a root certificate of the platform cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error() {
        assert_eq!(Tls::with_ca(b"").unwrap_err(), CaError::Empty);
        assert!(matches!(Tls::with_ca(b"-----BEGIN CERTIFICATE-----\n"), Err(CaError::Pem(_))));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Tls::with_ca(broken), Err(CaError::Certificate(_))));
    }
}
