//! Who may come in is who may come in anywhere, and a token goes no further.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::rig::{Gateway, Outcome, Peer, header};

fn config(peer: &Peer, server: &str) -> String {
    let routes = "routes: { /shop: { upstream: api }, /api/smart: { style: smart, upstream: api } }";
    format!("server: {{ {server} }}\nupstreams: {{ api: {{ base_url: \"{}\" }} }}\n{routes}\n", peer.url())
}

const OK: &str = "HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: 2\n\n{}";
const PATHS: [&str; 3] = ["/proxy/api/x", "/shop/x", "/api/smart?timeout=5000"];

#[test]
fn pages_of_others_and_foreign_hosts_are_kept_out() -> Outcome {
    let peer = Peer::saying(OK)?;
    let gateway = Gateway::open(&config(&peer, ""))?;
    for path in PATHS {
        let refused =
            |headers: &str| gateway.ask(&format!("GET {path} HTTP/1.1\n{headers}\n\n")).map(|reply| reply.problem());
        assert_eq!(refused("host: evil.test")?, (421, "foreign_host".to_owned()), "{path}");
        assert_eq!(refused("host: localhost\norigin: http://evil.test")?, (403, "foreign_origin".to_owned()), "{path}");
        assert_eq!(
            refused("host: localhost\nsec-fetch-site: cross-site")?,
            (403, "foreign_origin".to_owned()),
            "{path}"
        );
    }
    assert_eq!(peer.heads(), [""; 0]);
    Ok(())
}

#[test]
fn with_tokens_one_is_needed_and_goes_to_no_upstream() -> Outcome {
    let peer = Peer::saying(OK)?;
    let gateway = Gateway::open(&config(&peer, "tokens: [s3cret, other]"))?;
    for path in PATHS {
        let ask = |headers: &str| gateway.ask(&format!("GET {path} HTTP/1.1\nhost: localhost\n{headers}\n\n"));
        assert_eq!(ask("x-a: 1")?.problem(), (401, "unauthorized".to_owned()), "{path}");
        assert_eq!(ask("authorization: Bearer wrong")?.problem(), (401, "unauthorized".to_owned()), "{path}");
        assert_eq!(peer.heads(), [""; 0]);
    }
    for (headers, sent) in [
        ("authorization: Bearer s3cret", None),
        ("authorization: bearer  s3cret", None),
        ("farcall-token: s3cret", None),
        ("farcall-token: s3cret\nauthorization: Bearer for-the-upstream", Some("Bearer for-the-upstream")),
        ("farcall-token: s3cret\nauthorization: Bearer other", None),
        ("farcall-token: s3cret\nauthorization: Basic s3cret", Some("Basic s3cret")),
    ] {
        for path in ["/proxy/api/x", "/shop/x"] {
            let reply = gateway.ask(&format!("GET {path} HTTP/1.1\nhost: localhost\n{headers}\n\n"))?;
            assert_eq!(reply.status, 200, "{headers}");
            let head = peer.heads().pop().ok_or("a request")?;
            assert_eq!(header(&head, "authorization"), sent, "{headers}");
            assert!(!head.to_ascii_lowercase().contains("farcall-token") && !head.contains("Bearer s3cret"), "{head}");
        }
    }
    // Through the socket nobody needs one, and one that is sent all the same stays here.
    let mut stream = UnixStream::connect(gateway.home.path().join(".farcall/farcall.sock"))?;
    stream.write_all(
        b"GET /proxy/api/x HTTP/1.1\r\nhost: f\r\nconnection: close\r\nauthorization: Bearer s3cret\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(header(&peer.heads().pop().ok_or("a request")?, "authorization"), None);
    Ok(())
}

#[test]
fn a_page_of_an_upstream_is_no_page_of_farcall() -> Outcome {
    let peer = Peer::saying(
        "HTTP/1.1 200 OK\ncontent-type: text/html\ncontent-security-policy: img-src *\ncontent-length: 0\n\n",
    )?;
    let gateway = Gateway::open(&config(&peer, ""))?;
    let policies = |headers: &str| -> std::io::Result<Vec<String>> {
        let reply = gateway.ask(&format!("GET /proxy/api/ HTTP/1.1\nhost: localhost\n{headers}\n\n"))?;
        let policies = reply.headers.into_iter().filter(|(name, _)| name == "content-security-policy");
        Ok(policies.map(|(_, value)| value).collect())
    };
    assert_eq!(policies("accept: */*")?, ["img-src *"]);
    assert_eq!(policies("sec-fetch-site: same-origin\nsec-fetch-dest: empty\naccept: text/html")?, ["img-src *"]);
    assert_eq!(policies("sec-fetch-site: none\nsec-fetch-dest: document")?, ["img-src *", "sandbox"]);
    assert_eq!(policies("accept: text/html,application/xhtml+xml")?, ["img-src *", "sandbox"]);
    Ok(())
}
