//! Requestko's endpoint, to the letter.

use std::time::{Duration, Instant};

use serde_json::json;

use super::rig::{Gateway, Outcome, Peer};
use crate::rig::{assert_within, pause, until};

fn config(peer: &Peer, more: &str) -> String {
    let route = format!("style: smart, upstream: work, path: /api/work{more}");
    format!("upstreams: {{ work: {{ base_url: \"{}\" }} }}\nroutes: {{ /api/smart: {{ {route} }} }}\n", peer.url())
}

fn open(peer: &Peer) -> std::io::Result<Gateway> {
    Gateway::open(&config(peer, ""))
}

#[test]
fn the_first_success_comes_back_as_json_and_nothing_of_the_client_goes_out() -> Outcome {
    let peer = Peer::saying(
        "HTTP/1.1 200 OK\ncontent-type: Application/JSON; charset=utf-8\nx-own: 1\ncontent-length: 15\n\n {\"time\": 1.0} ",
    )?;
    let gateway = open(&peer)?;
    let request =
        "GET /api/smart?timeout=60000&x=y HTTP/1.1\nhost: localhost\ncookie: a=b\nx-mine: 1\ncontent-length: 3\n\nabc";
    let reply = gateway.ask(request)?;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!((reply.text().as_str(), reply.header("x-own")), (" {\"time\": 1.0} ", None));
    assert!(reply.header("farcall-call-id").is_some());
    let head = &peer.heads()[0];
    assert!(head.starts_with("GET /api/work HTTP/1.1\r\n"), "{head}");
    for mine in ["cookie", "x-mine", "content-length", "x=y", "via"] {
        assert!(!head.contains(mine), "{mine}: {head}");
    }
    Ok(())
}

#[test]
fn an_answer_that_is_there_comes_back_at_once() -> Outcome {
    let peer = Peer::start(|arrived| {
        pause(Duration::from_millis(5));
        arrived.reply(200, "[]")
    })?;
    let gateway = open(&peer)?;
    assert_within(Duration::from_millis(100), "an answer that takes 5 ms", || {
        assert_eq!(gateway.get("/api/smart?timeout=5000").expect("an answer").status, 200);
    });
    Ok(())
}

#[test]
fn a_timeout_is_an_integer_of_any_length() -> Outcome {
    let peer = Peer::start(|arrived| arrived.reply(200, "[]"))?;
    let gateway = open(&peer)?;
    let nines = "9".repeat(5_000);
    for right in ["60000", "060000", "18446744073709551615", "18446744073709551616", &nines] {
        let reply = gateway.get(&format!("/api/smart?timeout={right}"))?;
        assert_eq!((reply.status, reply.text().as_str()), (200, "[]"), "{right}");
    }
    let asked = peer.heads().len();
    for wrong in [
        "",
        "?",
        "?timeout",
        "?timeout=",
        "?timeout=-1",
        "?timeout=%2B1",
        "?timeout=+1",
        "?timeout=1.0",
        "?timeout=x",
        "?time=1",
        "?timeout=1%00",
        "?timeout=%D9%A1",
    ] {
        let reply = gateway.get(&format!("/api/smart{wrong}"))?;
        assert_eq!((reply.status, reply.header("content-type")), (400, Some("application/json")), "{wrong}");
        assert_eq!(
            reply.json(),
            json!({"detail": "You should send integer as query parameter: ?timeout=100"}),
            "{wrong}"
        );
    }
    assert_eq!(peer.heads().len(), asked);
    Ok(())
}

#[test]
fn none_at_all_asks_nobody() -> Outcome {
    let peer = Peer::start(|arrived| arrived.reply(200, "[]"))?;
    let gateway = open(&peer)?;
    for zero in ["0", "000"] {
        let reply = gateway.get(&format!("/api/smart?timeout={zero}"))?;
        assert_eq!((reply.status, reply.header("content-type")), (504, Some("application/json")));
        let told = reply.json();
        assert_eq!((&told["detail"], &told["timeout"]), (&json!("Error defined timeout reached"), &json!(0.0)));
        assert!(told["time_spent"].as_f64().is_some_and(|spent| (0.0..1.0).contains(&spent)), "{told}");
        assert_eq!(told.as_object().map(serde_json::Map::len), Some(3), "{told}");
    }
    assert_eq!(peer.heads(), [""; 0]);
    Ok(())
}

#[test]
fn what_is_late_is_told_with_the_time_spent_and_left() -> Outcome {
    let peer = Peer::start(|arrived| arrived.until_left())?;
    let gateway = open(&peer)?;
    let begun = Instant::now();
    let reply = gateway.get("/api/smart?timeout=150")?;
    let took = begun.elapsed();
    let told = reply.json();
    assert_eq!(
        (reply.status, &told["detail"], &told["timeout"]),
        (504, &json!("Error defined timeout reached"), &json!(0.15))
    );
    let spent = Duration::from_secs_f64(told["time_spent"].as_f64().ok_or("a number")?);
    assert!(spent >= Duration::from_millis(150) && spent <= took, "{told} {took:?}");
    assert!(reply.header("farcall-call-id").is_some());
    until("the upstream to be left", || (peer.closed() as usize == peer.heads().len()).then_some(()));
    Ok(())
}

#[test]
fn only_json_of_status_200_is_a_success() -> Outcome {
    let peer = Peer::start(|arrived| match arrived.number {
        _ if arrived.target() != "/api/work" => arrived.reply(404, "{}"),
        0 => arrived.reply(200, "{\"half\":"),
        1 => arrived.write("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n{}"),
        2 => arrived.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        3 => arrived.reply(201, "{}"),
        4 => arrived.reply(500, "{}"),
        5 => {
            arrived.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}")?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        _ => Err(std::io::ErrorKind::ConnectionAborted.into()),
    })?;
    let gateway = open(&peer)?;
    let mut answered = 0;
    while peer.heads().len() < 7 {
        let reply = gateway.get("/api/smart?timeout=60000")?;
        let told = reply.json();
        assert_eq!((reply.status, reply.header("content-type")), (502, Some("application/json")), "{told}");
        assert!(told["detail"].as_str().is_some_and(|detail| detail.len() > 5), "{told}");
        let attempts = told["attempts"].as_u64().ok_or("a number")?;
        assert_eq!(told.as_object().map(serde_json::Map::len), Some(2), "{told}");
        answered += attempts;
        assert_eq!(answered, peer.heads().len() as u64, "{told}");
        assert!(reply.header("farcall-call-id").is_some());
    }
    Ok(())
}

#[test]
fn it_may_say_itself_what_success_is() -> Outcome {
    let peer =
        Peer::start(|arrived| arrived.write("HTTP/1.1 203 OK\r\ncontent-type: text/x\r\ncontent-length: 1\r\n\r\n7"))?;
    let gateway = Gateway::open(&config(&peer, ", success: { statuses: [203], content_type: text/x }"))?;
    let reply = gateway.get("/api/smart?timeout=60000")?;
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.header("content-type")),
        (200, "7", Some("application/json"))
    );
    Ok(())
}

#[test]
fn it_has_no_other_method_and_nothing_below() -> Outcome {
    let peer = Peer::start(|arrived| arrived.reply(200, "[]"))?;
    let gateway = open(&peer)?;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"] {
        let mut client = gateway.connect()?;
        client.send(&format!("{method} /api/smart?timeout=5 HTTP/1.1\nhost: localhost\ncontent-length: 0\n\n"))?;
        let head = client.head()?;
        assert_eq!((head.status, head.header("allow")), (405, Some("GET")), "{method}");
        assert_eq!(head.header("content-type"), Some("application/problem+json"));
    }
    for path in ["/api/smart/?timeout=5", "/api/smart/x?timeout=5", "/api?timeout=5", "/api/smarter?timeout=5"] {
        assert_eq!(gateway.get(path)?.problem(), (404, "not_found".to_owned()), "{path}");
    }
    assert_eq!(peer.heads(), [""; 0]);
    Ok(())
}

#[test]
fn what_takes_long_is_asked_for_twice_more_and_the_first_success_wins() -> Outcome {
    let peer = Peer::start(|arrived| match arrived.number {
        0 | 1 => arrived.until_left(),
        _ => arrived.reply(200, &format!("{{\"number\":{}}}", arrived.number)),
    })?;
    let gateway = open(&peer)?;
    let begun = Instant::now();
    let reply = gateway.get("/api/smart?timeout=60000")?;
    assert_eq!((reply.status, reply.json()), (200, json!({"number": 2})));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    until("the others to be left", || (peer.closed() == 2).then_some(()));
    assert_eq!(peer.heads().len(), 3);
    Ok(())
}

#[test]
fn what_has_failed_is_asked_for_twice_more_at_once() -> Outcome {
    let peer = Peer::start(|arrived| match arrived.number % 3 {
        0 => arrived.reply(500, "{}"),
        1 => arrived.until_left(),
        _ => arrived.reply(200, "7"),
    })?;
    let gateway = open(&peer)?;
    assert_within(Duration::from_millis(250), "asking again", || {
        let reply = gateway.get("/api/smart?timeout=60000").expect("an answer");
        assert_eq!((reply.status, reply.text().as_str()), (200, "7"));
    });
    until("the others to be left", || (peer.closed() as usize == peer.heads().len() / 3).then_some(()));
    Ok(())
}

#[test]
fn when_all_have_failed_it_says_how_many_there_were() -> Outcome {
    let peer = Peer::start(|arrived| arrived.reply(503, "{}"))?;
    for (more, attempts) in [("", 3), (", hedge: { after: 5s, extra: 1 }", 2), (", hedge: none", 1)] {
        let before = peer.heads().len();
        let gateway = Gateway::open(&config(&peer, more))?;
        let reply = gateway.get("/api/smart?timeout=60000")?;
        assert_eq!((reply.status, &reply.json()["attempts"]), (502, &json!(attempts)), "{more}");
        assert_eq!(peer.heads().len(), before + attempts, "{more}");
    }
    Ok(())
}
