//! Configured routes: where they lead, while the configuration changes under them, and what metrics call them.

use super::rig::{Gateway, Outcome, Peer, target};

const OK: &str = "HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: 2\n\n{}";

fn config(peer: &Peer, routes: &str) -> String {
    format!("upstreams: {{ api: {{ base_url: \"{}/base\" }} }}\nroutes: {{ {routes} }}\n", peer.url())
}

#[test]
fn a_route_and_all_below_it_lead_to_its_path_at_the_upstream() -> Outcome {
    let peer = Peer::saying(OK)?;
    let routes = "/shop: { upstream: api }, /shop/v2: { upstream: api, path: /next }, /exact/odd~path: { style: proxy, upstream: api, path: /x/ }";
    let gateway = Gateway::open(&config(&peer, routes))?;
    for (asked, expected) in [
        ("/shop", "/base"),
        ("/shop?a=b", "/base?a=b"),
        ("/shop/", "/base/"),
        ("/shop/orders//7?x=%20", "/base/orders//7?x=%20"),
        ("/shop/v2", "/base/next"),
        ("/shop/v2/a", "/base/next/a"),
        ("/shop/v20", "/base/v20"),
        ("/exact/odd~path", "/base/x/"),
    ] {
        assert_eq!(gateway.get(asked)?.status, 200, "{asked}");
        assert_eq!(peer.heads().last().map(|head| target(head).to_owned()).as_deref(), Some(expected), "{asked}");
    }
    let before = peer.heads().len();
    for asked in ["/shopping", "/Shop", "/sho%70", "/exact", "/"] {
        assert!(matches!(gateway.get(asked)?.status, 404 | 501), "{asked}");
    }
    let leaving = gateway.get("/shop/v2/../../../other")?;
    assert_eq!((leaving.problem().0, peer.heads().len()), (400, before));
    Ok(())
}

#[test]
fn routes_come_and_go_while_it_runs() -> Outcome {
    let peer = Peer::saying(OK)?;
    let gateway = Gateway::open(&config(&peer, "/one: { upstream: api }"))?;
    assert_eq!((gateway.get("/one")?.status, gateway.get("/two")?.status), (200, 404));
    gateway.reconfigure(&config(&peer, "/two: { upstream: api }"))?;
    assert_eq!((gateway.get("/one")?.status, gateway.get("/two")?.status), (404, 200));
    let described = gateway.get("/openapi.json")?.json();
    assert!(described["paths"]["/two"]["get"].is_object() && described["paths"]["/one"].is_null());
    Ok(())
}

#[test]
fn metrics_know_routes_by_their_paths_and_nothing_else_of_a_request() -> Outcome {
    let peer = Peer::saying(OK)?;
    let routes = "/shop: { upstream: api }, /api/smart: { style: smart, upstream: api }";
    let gateway = Gateway::open(&config(&peer, routes))?;
    for path in [
        "/shop/orders/7",
        "/shop",
        "/proxy/api/secret?token=x",
        "/proxy/nobody/7",
        "/api/smart?timeout=x",
        "/nowhere/9",
    ] {
        gateway.get(path)?;
    }
    let text = gateway.get("/metrics")?.text();
    for (line, count) in [
        (r#"farcall_http_requests_total{route="/shop",status="200"}"#, 2),
        (r#"farcall_http_requests_total{route="/proxy/{upstream}/{path}",status="200"}"#, 1),
        (r#"farcall_http_requests_total{route="/proxy/{upstream}/{path}",status="404"}"#, 1),
        (r#"farcall_http_requests_total{route="/api/smart",status="400"}"#, 1),
        (r#"farcall_http_requests_total{route="none",status="404"}"#, 1),
        (r#"farcall_calls_accepted_total{source="proxy"}"#, 1),
        (r#"farcall_calls_accepted_total{source="route"}"#, 2),
        (r#"farcall_calls_finished_total{upstream="api",state="succeeded"}"#, 3),
    ] {
        let told: Vec<&str> =
            text.lines().filter(|told| told.starts_with(line.split('{').next().unwrap_or(line))).collect();
        assert!(told.contains(&format!("{line} {count}").as_str()), "{line} {count}: {told:?}");
    }
    for word in ["orders", "secret", "token", "nobody", "nowhere"] {
        assert!(!text.contains(word), "{word}");
    }
    Ok(())
}
