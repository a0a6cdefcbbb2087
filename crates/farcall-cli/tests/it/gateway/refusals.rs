//! Requests that are not passed on, and calls without an answer: what their clients are told.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::rig::{Gateway, Outcome, Peer};
use crate::rig::until;

const OK: &str = "HTTP/1.1 200 OK\ncontent-length: 0\n\n";

#[test]
fn what_cannot_be_passed_on_is_refused_before_anything_is_sent() -> Outcome {
    let peer = Peer::saying(OK)?;
    let url = peer.url();
    let gateway =
        Gateway::open(&format!("server: {{ max_body: 100 }}\nupstreams: {{ api: {{ base_url: \"{url}\" }} }}\n"))?;
    let check = |request: &str, status: u16, code: &str| -> Outcome {
        let reply = gateway.ask(&request.replace("HTTP/1.1", "HTTP/1.1\nhost: localhost"))?;
        assert_eq!(reply.problem(), (status, code.to_owned()), "{request}");
        assert_eq!(reply.header("farcall-call-id"), None, "{request}");
        Ok(())
    };
    check("GET /proxy/nobody/x HTTP/1.1\n\n", 404, "not_found")?;
    check("GET /proxy/ HTTP/1.1\n\n", 404, "not_found")?;
    check("GET /proxy HTTP/1.1\n\n", 404, "not_found")?;
    check("GET /proxy/http%3A%2F%2Fevil.test/x HTTP/1.1\n\n", 404, "not_found")?;
    check("GET /proxy/%ff/x HTTP/1.1\n\n", 404, "not_found")?;
    for wrong in ["", "-1", "1.5", "soon", "1s", "0x10", "5, 5"] {
        check(&format!("GET /proxy/api/ HTTP/1.1\nfarcall-timeout: {wrong}\n\n"), 400, "malformed_request")?;
    }
    check("GET /proxy/api/ HTTP/1.1\nfarcall-timeout: 5\nfarcall-timeout: 5\n\n", 400, "malformed_request")?;
    check("GET /proxy/api/ HTTP/1.1\nfarcall-timeout: 0\n\n", 504, "upstream_timeout")?;
    check("GET /proxy/api/ HTTP/1.1\nconnection: upgrade\nupgrade: websocket\n\n", 501, "upgrade_unsupported")?;
    check("CONNECT /proxy/api/ HTTP/1.1\n\n", 405, "method_not_allowed")?;
    let circles = "1.1 farcall, ".repeat(8);
    check(&format!("GET /proxy/api/ HTTP/1.1\nvia: {circles}\n\n"), 508, "loop_detected")?;
    assert_eq!(peer.heads(), [""; 0]);
    Ok(())
}

#[test]
fn the_longest_timeout_is_no_mistake() -> Outcome {
    let peer = Peer::saying(OK)?;
    let gateway = Gateway::before(&peer)?;
    for timeout in ["18446744073709551615", "99999999999999999999999999999999999999"] {
        let reply =
            gateway.ask(&format!("GET /proxy/api/ HTTP/1.1\nhost: localhost\nfarcall-timeout: {timeout}\n\n"))?;
        assert_eq!(reply.status, 200, "{timeout}: {}", reply.text());
    }
    Ok(())
}

#[test]
fn an_upstream_without_an_answer_is_a_bad_gateway() -> Outcome {
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let broken = Peer::start(|arrived| match arrived.target() {
        "/silent" => Err(std::io::ErrorKind::ConnectionAborted.into()),
        "/switch" => arrived.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
        _ => arrived.write("this is no HTTP\r\n\r\n"),
    })?;
    let url = broken.url();
    let config =
        format!("upstreams: {{ gone: {{ base_url: \"http://{nobody}\" }}, broken: {{ base_url: \"{url}\" }} }}\n");
    let gateway = Gateway::open(&config)?;
    for path in ["gone/", "broken/silent", "broken/switch", "broken/"] {
        let reply = gateway.ask(&format!("POST /proxy/{path} HTTP/1.1\nhost: localhost\ncontent-length: 0\n\n"))?;
        assert_eq!(reply.problem(), (502, "upstream_failed".to_owned()), "{path}");
        assert!(reply.header("farcall-call-id").is_some(), "{path}");
    }
    Ok(())
}

#[test]
fn a_late_upstream_is_a_gateway_timeout_and_is_left() -> Outcome {
    let peer = Peer::start(|arrived| arrived.until_left())?;
    let gateway = Gateway::before(&peer)?;
    let begun = Instant::now();
    let reply = gateway.ask("GET /proxy/api/ HTTP/1.1\nhost: localhost\nfarcall-timeout: 200\n\n")?;
    assert_eq!(reply.problem(), (504, "upstream_timeout".to_owned()));
    assert!(begun.elapsed() >= Duration::from_millis(200) && reply.header("farcall-call-id").is_some());
    until("the upstream to be left", || (peer.closed() == 1).then_some(()));
    Ok(())
}

#[test]
fn a_client_that_hangs_up_is_waited_with_no_longer() -> Outcome {
    let peer = Peer::start(|arrived| arrived.until_left())?;
    let gateway = Gateway::before(&peer)?;
    for (number, path) in (1..).zip(["/proxy/api/x", "/proxy/api/y"]) {
        let mut client = gateway.connect()?;
        client.send(&format!("GET {path} HTTP/1.1\nhost: localhost\n\n"))?;
        until("the request", || (peer.heads().len() == number).then_some(()));
        client.hang_up();
        until("the upstream to be left", || (peer.closed() as usize == number).then_some(()));
    }
    Ok(())
}

#[test]
fn what_limits_or_a_breaker_keep_from_being_in_time_is_turned_away_at_once_and_not_sent() -> Outcome {
    let limited = Peer::saying(OK)?;
    let failing = Peer::saying("HTTP/1.1 500 No\ncontent-length: 0\n\n")?;
    let gateway = Gateway::open(&format!(
        "upstreams:\n  limited: {{ base_url: \"{}\", rate_hour: 1 }}\n  failing: {{ base_url: \"{}\", \
         breaker: {{ failures: 50%, calls: 2, window: 30s, open: 10m }} }}\n",
        limited.url(),
        failing.url()
    ))?;
    let ask =
        |name: &str| gateway.ask(&format!("GET /proxy/{name}/ HTTP/1.1\nhost: localhost\nfarcall-timeout: 60000\n\n"));
    assert_eq!(ask("limited")?.status, 200);
    let turned_away = ask("limited")?;
    assert_eq!(turned_away.problem(), (503, "busy".to_owned()));
    let retry_after_s: u64 = turned_away.header("retry-after").ok_or("it says when to come back")?.parse()?;
    assert!((3_000..=3_700).contains(&retry_after_s), "{retry_after_s}");
    assert_eq!([ask("failing")?.status, ask("failing")?.status], [500, 500], "answers are given on as they are");
    let turned_away = ask("failing")?;
    assert_eq!(turned_away.problem(), (503, "busy".to_owned()));
    assert!(turned_away.text().contains("breaker_open"), "{}", turned_away.text());
    assert_eq!((limited.heads().len(), failing.heads().len()), (1, 2));
    Ok(())
}
