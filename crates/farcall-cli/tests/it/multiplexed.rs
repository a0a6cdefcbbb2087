//! HTTP/2 upstreams, as the whole program uses them: few connections, every limit kept, refused requests included.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::rig::command::start;
use crate::rig::{drop_file, response};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// What an upstream does with a request, by how many came before it.
#[derive(Debug, Clone, Copy)]
enum Does {
    Answer(u16),
    Refuse,
}

/// What an upstream has seen.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    /// Requests by path, and when each arrived.
    arrivals: Vec<(String, Instant)>,
    refused: usize,
}

/// An upstream under TLS that speaks HTTP/2 and nothing else. Its thread ends with the test's process.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Upstream {
    /// Its authority's certificate is written to `ca`.
    fn start(ca: &Path, does: fn(usize) -> Does) -> Outcome<Self> {
        let tls = TlsAcceptor::from(Arc::new(server(ca)?));
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let upstream = Self { address: listener.local_addr()?, seen: Arc::default() };
        let seen = Arc::clone(&upstream.seen);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(listen(listener, tls, seen, does)));
        Ok(upstream)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }
}

impl Seen {
    /// The most arrivals in any half-open window of this length, wherever it begins.
    fn worst_window(&self, window: Duration) -> usize {
        let mut times: Vec<Instant> = self.arrivals.iter().map(|&(_, at)| at).collect();
        times.sort_unstable();
        let within = |begin: usize| times[begin..].iter().take_while(|&&at| at - times[begin] < window).count();
        (0..times.len()).map(within).max().unwrap_or(0)
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("nobody panics with it")
}

fn server(ca: &Path) -> Outcome<ServerConfig> {
    let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(ca, authority.self_signed(&authority_key)?.pem())?;
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der())?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn listen(listener: std::net::TcpListener, tls: TlsAcceptor, seen: Arc<Mutex<Seen>>, does: fn(usize) -> Does) {
    let listener = TcpListener::from_std(listener).expect("a listener in the runtime");
    while let Ok((tcp, _)) = listener.accept().await {
        locked(&seen).connections += 1;
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                take(&seen, &request, respond, does);
            }
        });
    }
}

fn take(
    seen: &Mutex<Seen>,
    request: &Request<RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
    does: fn(usize) -> Does,
) {
    let mut seen = locked(seen);
    let number = seen.arrivals.len();
    seen.arrivals.push((request.uri().path().to_owned(), Instant::now()));
    match does(number) {
        Does::Answer(status) => {
            let answer = Response::builder().status(status).body(()).expect("a good answer");
            // Who has gone does not hear it.
            let _gone = respond.send_response(answer, true);
        }
        Does::Refuse => {
            seen.refused += 1;
            respond.send_reset(Reason::REFUSED_STREAM);
        }
    }
}

#[test]
fn a_limit_holds_over_many_calls_on_one_connection_with_retries_and_refusals() -> Outcome {
    const CALLS: usize = 60;
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(&dir.path().join("ca.pem"), |number| match number % 6 {
        2 => Does::Refuse,
        4 => Does::Answer(503),
        _ => Does::Answer(200),
    })?;
    let config = format!(
        "upstreams:\n  api:\n    base_url: https://{}\n    tls: {{ ca: ca.pem }}\n    limits: [20/1s]\n    strict: true\n    \
         retry: {{ max: 20, base: 10ms, max_delay: 50ms }}\n",
        upstream.address
    );
    fs::write(dir.path().join("farcall.yml"), config)?;
    for number in 0..CALLS {
        let call = json!({"upstream": "api", "end_point": number.to_string(), "method": "POST", "body": {}});
        drop_file(dir.path(), format!("{number}.json"), &call.to_string())?;
    }
    let finished = start([Path::new("run"), dir.path()], [])?.finish()?;
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    let mut attempts = 0;
    let mut arrivals: HashMap<String, u64> = HashMap::new();
    let seen = upstream.seen();
    for (path, _) in &seen.arrivals {
        *arrivals.entry(path.clone()).or_default() += 1;
    }
    for number in 0..CALLS {
        let response = response(dir.path(), format!("{number}.json"));
        assert_eq!((&response["state"], &response["status"]), (&"succeeded".into(), &200.into()));
        let made = response["attempts"].as_u64().ok_or("attempts is a number")?;
        assert_eq!(arrivals.get(&format!("/{number}")), Some(&made), "every arrival is an attempt on record");
        attempts += made;
    }
    assert_eq!(attempts, seen.arrivals.len() as u64);
    assert!(seen.refused >= 10 && seen.connections == 1, "{} refused, {} connections", seen.refused, seen.connections);
    let worst = seen.worst_window(Duration::from_secs(1));
    assert!((2..=20).contains(&worst), "{worst} arrivals within a second");
    Ok(())
}
