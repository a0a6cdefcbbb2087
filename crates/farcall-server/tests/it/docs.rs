//! The page that shows the API: whole, open, and with nothing from elsewhere.

use std::io::Read as _;

use crate::farcall::{Farcall, Setup};

/// The places that a page loads from.
fn sources(html: &str) -> Vec<&str> {
    let attributes = ["src=\"", "href=\""].into_iter().flat_map(|name| html.split(name).skip(1));
    attributes.filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn the_page_loads_what_the_server_has_and_nothing_else() {
    let farcall = Farcall::start().await;
    let page = farcall.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let html = page.text();
    let sources = sources(&html);
    let own: Vec<&&str> = sources.iter().filter(|source| source.starts_with("/docs/")).collect();
    assert_eq!(own.len(), 4, "{sources:?}");
    for source in sources {
        if source == "data:," {
            continue;
        }
        let reply = farcall.get(source).await;
        assert_eq!(reply.status, 200, "{source}");
        assert!(!reply.body.is_empty(), "{source}");
    }
    let policy = page.header("content-security-policy").expect("it has one");
    for rule in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(rule), "{policy}");
    }
    // The policy lets no script or style in that stands in the page itself.
    assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("onclick"), "{html}");
    assert!(html.matches("<script").count() == html.matches("<script src=").count(), "{html}");
    assert_eq!(farcall.get("/docs/other.js").await.json()["code"], "not_found");
    assert_eq!(farcall.get("/docs/../docs.css").await.status, 404);
}

#[tokio::test]
async fn what_is_packed_is_sent_packed_to_those_who_can_unpack_it() {
    let farcall = Farcall::start().await;
    for (file, begins) in [("swagger-ui-bundle.js", "/*! For license"), ("swagger-ui.css", ".swagger-ui")] {
        let plain = farcall.get(&format!("/docs/{file}")).await;
        assert_eq!(plain.header("content-encoding"), None);
        assert!(plain.text().starts_with(begins), "{file}: {}", &plain.text()[..40]);
        let request = format!("GET /docs/{file} HTTP/1.1\nHost: localhost\nAccept-Encoding: gzip, br\n\n");
        let packed = farcall.exchange(&request).await;
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).expect("it is gzip");
        assert!(unpacked == plain.body && packed.body.len() < 500_000, "{file}");
    }
}

#[tokio::test]
async fn the_page_is_open_and_what_it_shows_is_not() {
    let farcall = Setup::new().with(|setup| setup.config.server.tokens = vec!["secret".to_owned()]).start().await;
    assert_eq!(farcall.get("/docs").await.status, 200);
    assert_eq!(farcall.get("/docs/docs.js").await.status, 200);
    assert_eq!(farcall.get("/openapi.json").await.status, 401);
    assert_eq!(farcall.get("/schema").await.status, 401);
}
