//! Whom we believe: the platform's root certificates, and beside them an upstream's own authority.
//!
//! Reading the platform's roots takes milliseconds and memory, so it happens at the first https request, off the
//! runtime's threads, and once for all upstreams without an authority of their own. A machine without any roots can
//! still use http, and https with a configured authority. The provider is always named: with two in the build,
//! rustls would have to guess.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farcall_core::call::ErrorKind;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::classify::{Failure, deepest};
use super::outgoing::Origin;

/// The platform's trust, the same for the whole process. A failure is not kept: roots may be installed later.
static PLATFORM: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();

/// Why a certificate authority file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot read the certificate authority file {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no PEM file")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path} holds no certificate")]
    Empty { path: PathBuf },
    #[error("certificate {number} in {path} is none that can be trusted")]
    Certificate { path: PathBuf, number: usize, source: rustls::Error },
}

/// The trust of one upstream.
#[derive(Debug, Default)]
pub(super) struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    /// Reads and checks the upstream's authority file now, so that a mistake is known at start.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, CaError> {
        let authorities = ca_file.map_or_else(|| Ok(Vec::new()), read_authorities)?;
        Ok(Self { authorities, config: OnceCell::new() })
    }

    /// What a connection needs to know; built at the first use.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let shared = if self.authorities.is_empty() { &PLATFORM } else { &self.config };
        shared.get_or_try_init(|| build(self.authorities.clone())).await.cloned()
    }
}

/// Makes the connection a TLS connection to the origin's host.
pub(super) async fn handshake(
    config: Arc<ClientConfig>,
    origin: &Origin,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    let server = match &origin.host {
        Host::Ipv4(address) => ServerName::from(std::net::IpAddr::V4(*address)),
        Host::Ipv6(address) => ServerName::from(std::net::IpAddr::V6(*address)),
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|_| Failure::new(ErrorKind::Tls, format!("{name} cannot be the name in a certificate")))?,
    };
    let refused =
        |error: std::io::Error| Failure::new(ErrorKind::Tls, format!("no TLS with {origin}: {}", deepest(&error)));
    TlsConnector::from(config).connect(server, tcp).await.map_err(refused)
}

async fn build(authorities: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, Failure> {
    let built = tokio::task::spawn_blocking(move || client_config(authorities)).await;
    match built {
        Ok(Ok(config)) => Ok(Arc::new(config)),
        Ok(Err(error)) => {
            let hint = "install the system's ca-certificates or set tls.ca";
            Err(Failure::new(ErrorKind::Tls, format!("no certificate can be checked here: {error}; {hint}")))
        }
        Err(stopped) => Err(Failure::new(ErrorKind::Internal, format!("reading root certificates: {stopped}"))),
    }
}

fn client_config(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(authorities, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Early data may be delivered twice (RFC 8446, section 8); what we send leaves once.
    config.enable_early_data = false;
    Ok(config)
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let path_owned = || path.to_path_buf();
    let text = std::fs::read(path).map_err(|source| CaError::Read { path: path_owned(), source })?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| CaError::Pem { path: path_owned(), source })?;
    if certificates.is_empty() {
        return Err(CaError::Empty { path: path_owned() });
    }
    let mut roots = rustls::RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|source| CaError::Certificate {
            path: path_owned(),
            number: index + 1,
            source,
        })?;
    }
    Ok(certificates)
}
