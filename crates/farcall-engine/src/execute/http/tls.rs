//! Whom we believe: the platform's root certificates, and beside them an upstream's own authority.
//!
//! Reading the platform's roots takes milliseconds and memory, so it happens at the first https request, off the
//! runtime's threads, and once for all upstreams without an authority of their own. A machine without any roots can
//! still use http, and https with a configured authority. The provider is always named: with two in the build,
//! rustls would have to guess.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

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
static PLATFORM: OnceCell<Configs> = OnceCell::const_new();
/// The trust in authorities of their own, one for all upstreams that have the same: sessions are resumed within it.
static WITH_AUTHORITIES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
/// As ALPN names them (RFC 7301, RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

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

/// The trust of one upstream: the platform's, or with authorities of its own.
#[derive(Debug, Default)]
pub(super) struct Trust(Option<Arc<Shared>>);

/// Authorities, and what connections need to believe them.
#[derive(Debug)]
struct Shared {
    authorities: Vec<CertificateDer<'static>>,
    configs: OnceCell<Configs>,
}

/// The same trust and the same sessions, with different protocols to choose from.
#[derive(Debug, Clone)]
struct Configs {
    both: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// What the other side is offered to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2, else HTTP/1.1.
    Both,
    Http1,
}

impl Trust {
    /// Reads and checks the upstream's authority file now, so that a mistake is known at start.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, CaError> {
        Ok(Self(ca_file.map(read_authorities).transpose()?.map(Shared::of)))
    }

    /// What a connection needs to know; built at the first use.
    pub(super) async fn config(&self, offer: Offer) -> Result<Arc<ClientConfig>, Failure> {
        let configs = match &self.0 {
            None => PLATFORM.get_or_try_init(|| build(Vec::new())).await?,
            Some(shared) => shared.configs.get_or_try_init(|| build(shared.authorities.clone())).await?,
        };
        Ok(Arc::clone(match offer {
            Offer::Both => &configs.both,
            Offer::Http1 => &configs.http1,
        }))
    }
}

impl Shared {
    /// The one with these authorities, made when nobody has it.
    fn of(authorities: Vec<CertificateDer<'static>>) -> Arc<Self> {
        let mut known = WITH_AUTHORITIES.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|shared| shared.strong_count() > 0);
        if let Some(same) = known.iter().filter_map(Weak::upgrade).find(|shared| shared.authorities == authorities) {
            return same;
        }
        let new = Arc::new(Self { authorities, configs: OnceCell::new() });
        known.push(Arc::downgrade(&new));
        new
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

async fn build(authorities: Vec<CertificateDer<'static>>) -> Result<Configs, Failure> {
    let built = tokio::task::spawn_blocking(move || client_config(authorities)).await;
    match built {
        Ok(Ok(both)) => {
            let mut http1 = both.clone();
            http1.alpn_protocols = vec![HTTP1.to_vec()];
            Ok(Configs { both: Arc::new(both), http1: Arc::new(http1) })
        }
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
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
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
