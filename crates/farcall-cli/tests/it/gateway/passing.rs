//! Requests and answers come through as they are.

use super::rig::{Gateway, Outcome, Peer, header, target};

#[test]
fn every_method_goes_through_and_every_answer_comes_back() -> Outcome {
    let answer = "HTTP/1.1 207 Whatever\ncontent-type: text/x-odd; a=b\nset-cookie: a=1\nset-cookie: b=2\n\
                  cache-control: max-age=60\nX-Own: kept\ncontent-length: 5\n\nh\0llo";
    let peer = Peer::saying(answer)?;
    let gateway = Gateway::before(&peer)?;
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "x-odd"] {
        let reply = gateway
            .ask(&format!("{method} /proxy/api/v1 HTTP/1.1\nhost: localhost\ncontent-length: 4\n\n\0\x01\x02x"))?;
        assert_eq!((reply.status, &*reply.body), (207, &b"h\0llo"[..]), "{method}");
        assert_eq!((reply.header("content-type"), reply.header("x-own")), (Some("text/x-odd; a=b"), Some("kept")));
        let cookies: Vec<_> = reply.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
        assert_eq!(cookies.len(), 2, "{cookies:?}");
        // What farcall says of its own pages it does not say of others' answers.
        assert_eq!((reply.header("cache-control"), reply.header("x-content-type-options")), (Some("max-age=60"), None));
        assert!(reply.header("farcall-call-id").is_some_and(|id| id.starts_with("call_")), "{:?}", reply.headers);
        let head = peer.heads().pop().ok_or("a request")?;
        assert!(head.starts_with(&format!("{method} /base/v1 HTTP/1.1\r\n")), "{head}");
        assert_eq!(peer.bodies().pop().as_deref(), Some(&b"\0\x01\x02x"[..]), "{method}");
    }
    Ok(())
}

#[test]
fn path_and_query_stay_as_they_are_written() -> Outcome {
    let peer = Peer::saying("HTTP/1.1 200 OK\ncontent-length: 0\n\n")?;
    let gateway = Gateway::before(&peer)?;
    for rest in [
        "",
        "/",
        "//",
        "?",
        "?a",
        "/?a=b",
        "/a%20b/%c3%a9/%C3%A9/;x=1/@:!$&'()*+,=~-._",
        "/a//b///",
        "/a?x=%20&y=+&&z=1;2&=&'()*!$@:/?",
        "/%2e%2Ehidden/..x/x../.%2ex",
        "/a?b=../../..",
    ] {
        assert_eq!(gateway.get(&format!("/proxy/api{rest}"))?.status, 200, "{rest}");
        assert_eq!(peer.heads().last().map(|head| target(head).to_owned()), Some(format!("/base{rest}")));
    }
    Ok(())
}

#[test]
fn nothing_leaves_the_base_url() -> Outcome {
    let peer = Peer::saying("HTTP/1.1 200 OK\ncontent-length: 0\n\n")?;
    let gateway = Gateway::before(&peer)?;
    for rest in [
        "/..",
        "/../",
        "/../other",
        "/a/../../other",
        "/%2e%2e/other",
        "/.%2E/other",
        "/a/%2e./%2E%2e/other",
        "/..%2fother",
        "/a%2f..%2f..%2fother",
        "/..%5cother",
        "/..\\other",
        "/a/..\\..\\other",
    ] {
        let reply = gateway.get(&format!("/proxy/api{rest}"))?;
        assert_eq!(reply.problem(), (400, "malformed_request".to_owned()), "{rest}");
    }
    assert_eq!(peer.heads(), [""; 0]);
    Ok(())
}

#[test]
fn answers_without_a_body_have_none() -> Outcome {
    let peer = Peer::start(|arrived| {
        arrived.write(match arrived.target() {
            "/base/204" => "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
            "/base/304" => "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 17\r\n\r\n",
            "/base/empty" => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-b: 2\r\n\r\n",
        })
    })?;
    let gateway = Gateway::before(&peer)?;
    // On one connection: had any of them a body, the next head would not be one.
    let mut client = gateway.connect()?;
    for (line, status, length) in [
        ("HEAD /proxy/api/big", 200, Some("1234")),
        ("GET /proxy/api/204", 204, None),
        ("GET /proxy/api/304", 304, None),
        ("HEAD /proxy/api/304", 304, Some("17")),
        ("GET /proxy/api/empty", 200, Some("0")),
        ("GET /proxy/api/204", 204, None),
    ] {
        client.send(&format!("{line} HTTP/1.1\nhost: localhost\n\n"))?;
        let reply = client.head()?;
        assert_eq!((reply.status, reply.header("content-length")), (status, length), "{line} {reply:?}");
    }
    Ok(())
}

#[test]
fn a_client_that_expects_to_be_told_to_go_on_is_told_so() -> Outcome {
    let peer = Peer::saying("HTTP/1.1 200 OK\ncontent-length: 0\n\n")?;
    let gateway = Gateway::before(&peer)?;
    let mut client = gateway.connect()?;
    client.send("POST /proxy/api/x HTTP/1.1\nhost: localhost\nexpect: 100-continue\ncontent-length: 4\n\n")?;
    assert_eq!(client.head()?.status, 100);
    client.send("body")?;
    assert_eq!(client.reply()?.status, 200);
    assert_eq!((peer.bodies(), header(&peer.heads()[0], "expect")), (vec![b"body".to_vec()], None));
    // Whoever is refused anyway need not send it.
    let mut refused = gateway.connect()?;
    refused.send("POST /proxy/nobody/x HTTP/1.1\nhost: localhost\nexpect: 100-continue\ncontent-length: 4\n\n")?;
    assert_eq!(refused.reply()?.problem(), (404, "not_found".to_owned()));
    Ok(())
}
