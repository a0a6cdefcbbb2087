//! TLS: whom we believe, and what it is called when we do not.

use std::path::PathBuf;
use std::sync::Arc;

use farcall_core::attempt::BytesSent::{Maybe, No};
use farcall_core::call::ErrorKind::{Tls, Truncated};
use farcall_engine::execute::http::{CaError, Transport, TransportError, TransportSettings};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::{answer, execute, failure, get, post, transport};
use crate::upstream::{Step, Upstream, ok};

/// A certificate authority with its file.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("an authority signs itself");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("a writable folder");
        Self { issuer: Issuer::new(params, key), certificate, folder }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A transport that believes this authority.
    pub(super) fn transport(&self) -> Transport {
        let settings = TransportSettings { ca_file: Some(self.file()), ..TransportSettings::default() };
        Transport::new(&settings).expect("a good authority file")
    }

    /// A server with a certificate for this name.
    pub(super) fn server(&self, name: &str) -> ServerConfig {
        self.server_with(name, &[&rustls::version::TLS13], |_| {})
    }

    fn server_with(
        &self,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name for a certificate");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key that was just made");
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key))
            .expect("a good certificate")
    }
}

async fn check_refused(server: ServerConfig, transport: &Transport, named: &str) {
    let upstream = Upstream::tls(server, vec![Step::Serve(ok("hi"))]).await;
    let report = execute(transport, post(upstream.url("/"), "order")).await;
    assert_eq!(failure(&report), (Some(Tls), No, None, None), "{named}");
    let message = report.message.expect("a failure has a message");
    assert!(message.contains(named), "{message:?} names {named:?}");
    upstream.until(|seen| seen.closed == 1).await;
    assert_eq!(upstream.arrivals(), []);
}

#[tokio::test]
async fn an_upstreams_own_authority_is_believed_by_name_and_by_address() {
    let authority = Authority::new("ours");
    for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
        for name in ["127.0.0.1", "localhost"] {
            let server = authority.server_with(name, &versions, |_| {});
            let upstream = Upstream::tls(server, vec![Step::Serve(ok("hi"))]).await;
            let transport = authority.transport();
            let url: url::Url = format!("https://{name}:{}/", upstream.port()).parse().expect("a URL");
            for _ in 0..5 {
                let report = execute(&transport, post(url.clone(), "order")).await;
                assert_eq!(answer(&report), (200, b"hi".as_slice()));
            }
            assert_eq!((upstream.connections(), upstream.arrivals().len()), (1, 5));
        }
    }
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused_before_a_byte_is_sent() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let transport = ours.transport();
    check_refused(other.server("127.0.0.1"), &transport, "UnknownIssuer").await;
    check_refused(ours.server("other.example.com"), &transport, "not valid for").await;
    let versions = [&rustls::version::TLS13];
    let expired = ours.server_with("127.0.0.1", &versions, |params| params.not_after = date_time_ymd(2001, 1, 1));
    check_refused(expired, &transport, "expired").await;
    let early = ours.server_with("127.0.0.1", &versions, |params| params.not_before = date_time_ymd(2901, 1, 1));
    check_refused(early, &transport, "not valid yet").await;
}

#[tokio::test]
async fn a_machine_does_not_believe_an_authority_it_was_not_told_of() {
    let upstream = Upstream::tls(Authority::new("ours").server("127.0.0.1"), vec![Step::Serve(ok("hi"))]).await;
    let report = execute(&transport(), get(upstream.url("/"))).await;
    assert_eq!(failure(&report), (Some(Tls), No, None, None));
}

#[tokio::test]
async fn an_upstream_without_tls_is_a_failed_handshake() {
    let authority = Authority::new("ours");
    let reply = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    for script in [vec![Step::Send(reply), Step::AwaitClose], vec![], vec![Step::Reset]] {
        let upstream = Upstream::always(script).await;
        let url = format!("https://127.0.0.1:{}/", upstream.port()).parse().expect("a URL");
        let report = execute(&authority.transport(), get(url)).await;
        assert_eq!(failure(&report), (Some(Tls), No, None, None));
    }
}

#[tokio::test]
async fn an_answer_that_ends_without_a_closing_alert_may_have_been_cut() {
    let authority = Authority::new("ours");
    let unframed = b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec();
    let upstream = Upstream::tls(authority.server("127.0.0.1"), vec![Step::Request, Step::Send(unframed)]).await;
    let report = execute(&authority.transport(), get(upstream.url("/"))).await;
    assert_eq!(failure(&report), (Some(Truncated), Maybe, Some(200), Some(b"abc".as_slice())));
}

#[tokio::test]
async fn an_upstream_that_wants_a_certificate_of_ours_is_a_tls_failure() {
    let authority = Authority::new("ours");
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).expect("a good authority");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let key = KeyPair::generate().expect("keys can be made");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name for a certificate");
    let certificate = params.signed_by(&key, &authority.issuer).expect("an authority signs");
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_client_cert_verifier(verifier.expect("a good authority"))
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key that was just made"),
        )
        .expect("a good certificate");
    let upstream = Upstream::tls(server, vec![Step::Serve(ok("hi"))]).await;
    let report = execute(&authority.transport(), get(upstream.url("/"))).await;
    // In TLS 1.3 the server refuses only after our side of the handshake is done, so the request may be out.
    assert_eq!((report.result.error, report.result.bytes_sent), (Some(Tls), Maybe), "{report:?}");
}

#[tokio::test]
async fn connections_under_tls_are_replaced_and_counted_like_others() {
    let authority = Authority::new("ours");
    let upstream = Upstream::tls(authority.server("127.0.0.1"), vec![Step::Request, Step::Send(ok("hi"))]).await;
    let transport = authority.transport();
    for number in 1..=5 {
        assert_eq!(answer(&execute(&transport, post(upstream.url("/"), "order")).await).1, b"hi");
        upstream.until(|seen| seen.closed == number).await;
    }
    assert_eq!((upstream.connections(), upstream.arrivals().len()), (5, 5));
}

#[test]
fn a_mistake_in_an_authority_file_is_told_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with = |text: Option<&str>| {
        let path = folder.path().join("ca.pem");
        if let Some(text) = text {
            std::fs::write(&path, text).expect("a writable folder");
        }
        let settings = TransportSettings { ca_file: Some(path), ..TransportSettings::default() };
        let TransportError::Ca(error) = Transport::new(&settings).expect_err("no good authority file");
        error
    };
    assert!(matches!(with(None), CaError::Read { .. }));
    assert!(matches!(with(Some("")), CaError::Empty { .. }));
    let unended = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert!(matches!(with(Some(unended)), CaError::Pem { .. }));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(with(Some(nonsense)), CaError::Certificate { number: 1, .. }));
}

#[test]
fn a_machine_without_roots_still_has_http_and_its_configured_authorities() {
    let nowhere = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
    super::in_own_process("http::tls::on_a_machine_without_roots", &nowhere);
}

#[tokio::test]
#[ignore = "started by the test above, in an environment of its own"]
async fn on_a_machine_without_roots() {
    let authority = Authority::new("ours");
    let secure = Upstream::tls(authority.server("127.0.0.1"), vec![Step::Serve(ok("secure"))]).await;
    let plain = Upstream::always(vec![Step::Serve(ok("plain"))]).await;
    let without = transport();
    assert_eq!(answer(&execute(&without, get(plain.url("/"))).await).1, b"plain");
    assert_eq!(answer(&execute(&authority.transport(), get(secure.url("/"))).await).1, b"secure");

    let report = execute(&without, get(secure.url("/"))).await;
    assert_eq!(failure(&report), (Some(Tls), No, None, None));
    let message = report.message.expect("a failure has a message");
    assert!(message.contains("tls.ca"), "{message}");
    assert_eq!(secure.connections(), 1, "nothing was opened");
}
