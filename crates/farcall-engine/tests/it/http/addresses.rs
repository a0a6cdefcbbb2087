//! `addresses: public`: no spelling, no name server and no redirect leads a call into the inside.

use std::net::IpAddr;

use bytes::Bytes;
use farcall_core::attempt::BytesSent::{Maybe, No};
use farcall_core::call::ErrorKind::{BlockedAddress, Connect, Dns};
use farcall_engine::config::{Addresses, Config};
use farcall_engine::document::{Routing, parse};
use farcall_engine::execute::HttpRequest;
use url::Url;

use super::network::{Everywhere, hold, in_own_network, serve_names};
use super::{answer, execute, failure, get, transport};
use crate::upstream::{Step, Upstream, ok};

/// Ways to write the same few inner addresses.
const SPELLINGS: &[&str] = &[
    // 127.0.0.1, as people, C libraries and browsers write it.
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.1.",
    "127.0.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0177.1",
    "0177.0.0.01",
    "00000177.0.0.1",
    "0x7f.0.0.1",
    "0X7F.0.0.1",
    "0x7f.1",
    "0x7f000001",
    "0x7F000001",
    "0x7f.0x0.0x0.0x1",
    "0x000000007f.0.0.1",
    "2130706433",
    "2130706433.",
    "017700000001",
    "0o177.0.0.1",
    "127.255.255.254",
    "127.65535",
    // In other digits and dots.
    "１２７.0.0.1",
    "１２７．０．０．１",
    "127。0。0。1",
    "127｡0｡0｡1",
    "①②⑦.⓪.⓪.①",
    "０ｘ７ｆ.1",
    "２１３０７０６４３３",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "127.0.0.1%00",
    "127.0.0.1%2f",
    "127.0.0.1%23",
    // By name.
    "localhost",
    "LOCALHOST",
    "LocalHost",
    "localhost.",
    "ｌｏｃａｌｈｏｓｔ",
    "%6cocalhost",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "loc\u{ad}alhost",
    // This machine, as zero.
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    "0.0",
    "[::]",
    "[0:0:0:0:0:0:0:0]",
    // In IPv6, with IPv4 inside.
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fec0::1]",
    "[fe80::1]",
    "[fe80::1%eth0]",
    "[fe80::1%25eth0]",
    "[fe80::1%251]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    // The metadata of clouds, and the rest of the inside.
    "169.254.169.254",
    "169.254.43518",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "10.0.0.1",
    "012.1",
    "172.16.0.1",
    "192.168.0.1",
    "192.168.257",
    "100.64.0.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "224.0.0.1",
    "203.0.113.1",
    // More than one idea of where the host ends.
    "8.8.8.8@127.0.0.1",
    "127.0.0.1:80@8.8.8.8",
    "8.8.8.8\\@127.0.0.1",
    "127.0.0.1\\.example.com",
    "[127.0.0.1]",
    "[localhost]",
    "127.0.0.1#.example.com",
    "127.0.0.1 ",
    "127.0.0.1\t",
    "127.0.\n0.1",
];

fn public(url: Url) -> HttpRequest {
    HttpRequest { addresses: Addresses::Public, ..get(url) }
}

/// What the intake makes of a call to this host; nothing when it refuses it.
fn taken_in(host: &str, port: u16) -> Option<Url> {
    let document = serde_json::json!({"url": format!("http://{host}:{port}/")}).to_string();
    parse(&Bytes::from(document), &Routing::from(&Config::default())).ok().map(|document| document.url)
}

#[tokio::test]
async fn no_spelling_of_an_inner_address_is_called() {
    let upstream = Upstream::always(vec![Step::Serve(ok("inside"))]).await;
    let transport = transport();
    let mut refused = Vec::new();
    for host in SPELLINGS {
        let Some(url) = taken_in(host, upstream.port()) else {
            refused.push(*host);
            continue;
        };
        let report = execute(&transport, public(url.clone())).await;
        if url.host_str() == Some("localhost.") && report.result.error == Some(Dns) {
            // Not every resolver knows this name; then nobody can be called by it.
            continue;
        }
        assert_eq!(failure(&report), (Some(BlockedAddress), No, None, None), "{host} is {url}: {:?}", report.message);
        let message = report.message.expect("a failure has a message");
        assert!(message.contains("public internet"), "{message}");
    }
    assert_eq!(upstream.connections(), 0);
    // The others were understood: each is the address that its reader meant, and that address was refused.
    assert!(refused.iter().all(|host| !host.chars().all(|c| c.is_ascii_digit() || c == '.')), "{refused:?}");
    assert!(refused.len() < 25, "{refused:?}");
}

#[tokio::test]
async fn a_connection_to_any_address_serves_no_request_that_may_go_to_public_ones_only() {
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let transport = transport();
    let report = execute(&transport, get(upstream.url("/"))).await;
    assert_eq!(answer(&report), (200, b"hi".as_slice()));
    let report = execute(&transport, public(upstream.url("/"))).await;
    assert_eq!(failure(&report), (Some(BlockedAddress), No, None, None));
    assert_eq!((upstream.connections(), upstream.arrivals().len()), (1, 1));
}

#[test]
fn name_servers_lead_nobody_inside() {
    in_own_network("http::addresses::names_in_a_network_of_their_own");
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test above, in a network that is its own"]
async fn names_in_a_network_of_their_own() {
    const OUTSIDE: [&str; 2] = ["8.8.8.8", "2001:4860:4860::8888"];
    hold(&["8.8.8.8/32", "2001:4860:4860::8888/128", "169.254.169.254/32", "fd00:ec2::254/128", "10.0.0.1/32"]);
    serve_names(|name, asked| match (name, asked % 2) {
        ("public.test", _) | ("rebinding.test", 0) => vec![ip(OUTSIDE[0])],
        ("rebinding.test", _) => vec![ip("127.0.0.1")],
        ("six.test", _) => vec![ip(OUTSIDE[1])],
        ("both.test", _) => OUTSIDE.map(ip).to_vec(),
        ("mixed.test", _) => vec![ip(OUTSIDE[0]), ip("169.254.169.254")],
        ("families.test", _) => vec![ip(OUTSIDE[0]), ip("fd00:ec2::254")],
        ("metadata.test", 0) => vec![ip("169.254.169.254")],
        ("metadata.test", _) => vec![ip("fd00:ec2::254")],
        ("mapped.test", _) => vec![ip("::ffff:10.0.0.1")],
        ("translated.test", _) => vec![ip("64:ff9b::a9fe:a9fe")],
        _ => Vec::new(),
    });
    let upstream = Everywhere::listen(80).await;
    for name in ["mixed.test", "families.test", "metadata.test", "mapped.test", "translated.test", "METADATA.test."] {
        for _ in 0..4 {
            let report = execute(&transport(), public(format!("http://{name}/").parse().expect("a URL"))).await;
            assert_eq!(failure(&report), (Some(BlockedAddress), No, None, None), "{name}: {:?}", report.message);
        }
    }
    assert_eq!(upstream.called(), Vec::<IpAddr>::new());
    for name in ["public.test", "six.test", "both.test"] {
        let report = execute(&transport(), public(format!("http://{name}/").parse().expect("a URL"))).await;
        assert_eq!((report.result.status, report.result.bytes_sent), (Some(200), Maybe), "{name}: {report:?}");
    }
    let (mut sent, mut blocked) = (0, 0);
    for _ in 0..20 {
        let report = execute(&transport(), public("http://rebinding.test/".parse().expect("a URL"))).await;
        match report.result.error {
            None => sent += 1,
            Some(kind) => {
                assert_eq!((kind, report.result.bytes_sent), (BlockedAddress, No), "{:?}", report.message);
                blocked += 1;
            }
        }
    }
    assert_eq!((sent, blocked), (10, 10));
    let outside = OUTSIDE.map(ip);
    assert!(upstream.called().iter().all(|at| outside.contains(at)), "{:?}", upstream.called());
    assert_eq!(upstream.called().len(), 13);
}

#[test]
fn a_name_with_a_dead_address_among_others_is_reached() {
    in_own_network("http::addresses::dead_addresses_in_a_network_of_their_own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test above, in a network that is its own"]
async fn dead_addresses_in_a_network_of_their_own() {
    hold(&["8.8.8.8/32", "2001:4860:4860::8888/128"]);
    const ALIVE: [&str; 2] = ["8.8.8.8", "2001:4860:4860::8888"];
    serve_names(move |name, asked| match name {
        "half-dead.test" => vec![ip("2606:4700::1111"), ip(ALIVE[1])],
        "unreachable.test" => vec![ip("1.1.1.1"), ip("2606:4700::1111"), ip(ALIVE[0])],
        "moving.test" if asked == 0 => vec![ip("1.1.1.1")],
        "moving.test" => vec![ip(ALIVE[0])],
        _ => Vec::new(),
    });
    let upstream = Everywhere::listen(80).await;
    for name in ["half-dead.test", "unreachable.test"] {
        for _ in 0..10 {
            let report = execute(&transport(), get(format!("http://{name}/").parse().expect("a URL"))).await;
            assert_eq!(report.result.status, Some(200), "{name}: {report:?}");
        }
    }
    assert_eq!(upstream.called().len(), 20);
    let transport = transport();
    let moving = || get("http://moving.test/".parse().expect("a URL"));
    let report = execute(&transport, moving()).await;
    assert_eq!(failure(&report), (Some(Connect), No, None, None));
    let report = execute(&transport, moving()).await;
    assert_eq!(report.result.status, Some(200), "an address that led nowhere is not asked again: {report:?}");
    let report = execute(&transport, get("http://[::1]/".parse().expect("a URL"))).await;
    assert_eq!((report.result.status, upstream.called().last()), (Some(200), Some(&ip("::1"))));
}
