//! Header fields: what stays behind, what is added, what wins.

use super::rig::{Gateway, Outcome, Peer, header};

const OK: &str = "HTTP/1.1 200 OK\ncontent-length: 0\n\n";

#[test]
fn what_belongs_to_a_connection_stays_there() -> Outcome {
    let answer = "HTTP/1.1 200 OK\nconnection: x-mine, keep-alive\nx-mine: 1\nkeep-alive: timeout=9\nupgrade: h9\n\
                  proxy-connection: close\nx-through: 2\nfarcall-call-id: call_x\ncontent-length: 0\n\n";
    let peer = Peer::saying(answer)?;
    let gateway = Gateway::before(&peer)?;
    let request = "GET /proxy/api/ HTTP/1.1\nhost: localhost\nconnection: x-one , te,upgrade\nx-one: 1\nte: trailers\n\
                   upgrade: h2c\nhttp2-settings: AAMA\nkeep-alive: 5\nproxy-connection: x\nproxy-authorization: Basic eA==\n\
                   x-two: 2\naccept: */*\n\n";
    let reply = gateway.ask(request)?;
    let names: Vec<&str> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
    for gone in ["connection", "x-mine", "keep-alive", "upgrade", "proxy-connection"] {
        assert!(!names.contains(&gone), "{gone}: {names:?}");
    }
    assert_eq!(reply.header("x-through"), Some("2"));
    assert_ne!(reply.header("farcall-call-id"), Some("call_x"));
    let head = &peer.heads()[0];
    for gone in [
        "connection",
        "x-one",
        "te",
        "upgrade",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    ] {
        assert_eq!(header(head, gone), None, "{gone}: {head}");
    }
    assert_eq!((header(head, "x-two"), header(head, "accept")), (Some("2"), Some("*/*")));
    Ok(())
}

#[test]
fn the_upstreams_headers_win_and_nothing_is_asked_for_that_the_client_did_not() -> Outcome {
    let peer = Peer::saying(OK)?;
    let config = format!(
        "upstreams: {{ api: {{ base_url: \"{}\", headers: {{ Authorization: Bearer theirs, X-Key: own }} }} }}\n",
        peer.url()
    );
    let gateway = Gateway::open(&config)?;
    let request = "GET /proxy/api/ HTTP/1.1\nhost: localhost\nauthorization: Bearer mine\nx-key: other\nx-key: again\n\
                   user-agent: test/1\naccept-encoding: br;q=0.3\n\n";
    assert_eq!(gateway.ask(request)?.status, 200);
    gateway.get("/proxy/api/")?;
    // It would send back what it was sent, theirs too.
    let trace = gateway.ask("TRACE /proxy/api/ HTTP/1.1\nhost: localhost\n\n")?;
    assert_eq!(trace.problem(), (405, "method_not_allowed".to_owned()));
    assert_eq!(trace.header("allow"), Some("GET,HEAD,PUT,POST,DELETE,OPTIONS,PATCH"));
    let [first, second] = &peer.heads()[..] else { return Err("two requests".into()) };
    assert_eq!((header(first, "authorization"), header(first, "x-key")), (Some("Bearer theirs"), Some("own")));
    assert_eq!(first.to_ascii_lowercase().matches("x-key").count(), 1, "{first}");
    assert_eq!((header(first, "user-agent"), header(first, "accept-encoding")), (Some("test/1"), Some("br;q=0.3")));
    assert_eq!(header(second, "accept-encoding"), None, "{second}");
    assert!(header(second, "user-agent").is_some_and(|agent| agent.starts_with("farcall/")), "{second}");
    assert_eq!(header(second, "host"), Some(peer.url().trim_start_matches("http://")));
    Ok(())
}

#[test]
fn who_asked_is_told_only_where_the_upstream_says_so() -> Outcome {
    let peer = Peer::saying(OK)?;
    let upstream = |rest: &str| format!("upstreams: {{ api: {{ base_url: \"{}\"{rest} }} }}\n", peer.url());
    let gateway = Gateway::open(&upstream(""))?;
    gateway.get("/proxy/api/")?;
    gateway.reconfigure(&upstream(", forwarded: true"))?;
    gateway.get("/proxy/api/")?;
    let heads = peer.heads();
    assert!(!heads[0].contains("x-forwarded") && header(&heads[0], "via") == Some("1.1 farcall"), "{}", heads[0]);
    let told = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"].map(|name| header(&heads[1], name));
    assert_eq!(told, [Some("127.0.0.1"), Some("localhost"), Some("http")]);
    Ok(())
}

#[test]
fn a_trace_goes_on_in_a_span_of_its_own() -> Outcome {
    let peer = Peer::saying(OK)?;
    let gateway = Gateway::before(&peer)?;
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let request =
        format!("GET /proxy/api/ HTTP/1.1\nhost: localhost\ntraceparent: 00-{trace}-{span}-01\ntracestate: a=1\n\n");
    gateway.ask(&request)?;
    let head = &peer.heads()[0];
    let sent = header(head, "traceparent").ok_or("a trace")?;
    assert!(sent.contains(trace) && !sent.contains(span), "{sent}");
    assert_eq!((header(head, "tracestate"), head.matches("traceparent").count()), (Some("a=1"), 1));
    Ok(())
}
