//! Lists of calls: pages, filters, mistakes.

use serde_json::{Value, json};

use crate::farcall::Farcall;

async fn post(farcall: &Farcall, document: &Value) -> String {
    let reply = farcall.post_call("", &document.to_string()).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.header("farcall-call-id").expect("an id").to_owned()
}

fn later(tag: &str) -> Value {
    json!({"url": "http://localhost:1/", "delay": 3600, "tags": [tag], "headers": {"x-key": "secret"}})
}

fn ids(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().expect("an array");
    data.iter().map(|call| call["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn calls_are_listed_newest_first_and_page_by_page() {
    let farcall = Farcall::start().await;
    let empty = farcall.get("/v1/calls").await;
    assert_eq!((empty.status, empty.json()), (200, json!({"data": [], "next_cursor": null, "has_more": false})));
    let mut posted = Vec::new();
    for n in 0..5 {
        posted.push(post(&farcall, &later(if n % 2 == 0 { "even" } else { "odd" })).await);
    }
    posted.reverse();
    let all = farcall.get("/v1/calls").await.json();
    assert_eq!((ids(&all), &all["has_more"]), (posted.clone(), &json!(false)));
    let one = farcall.get(&format!("/v1/calls/{}", posted[0])).await.json();
    assert_eq!(all["data"][0], one, "a call reads the same in a list");
    assert_eq!(all["data"][0]["wait_reason"], "not_before");

    let mut walked = Vec::new();
    let mut path = "/v1/calls?limit=2".to_owned();
    loop {
        let page = farcall.get(&path).await.json();
        walked.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(page["has_more"], false);
            break;
        };
        assert_eq!(page["has_more"], true);
        // What comes meanwhile is newer and disturbs nothing.
        post(&farcall, &later("new")).await;
        path = format!("/v1/calls?limit=2&cursor={cursor}");
    }
    assert_eq!(walked, posted);
    let even = farcall.get("/v1/calls?tag=even&state=scheduled,queued&state=failed&source=api").await.json();
    assert_eq!(ids(&even), [&*posted[0], &*posted[2], &*posted[4]]);
    for none in ["state=failed", "source=inbox", "tag=eve", "upstream=shop", "function=f", "until=2001-01-01T00:00:00Z"]
    {
        let page = farcall.get(&format!("/v1/calls?{none}")).await;
        assert_eq!((page.status, ids(&page.json())), (200, vec![]), "{none}");
    }
    let accepted_at = one["accepted_at"].as_str().expect("a time");
    let since =
        farcall.get(&format!("/v1/calls?since={}&upstream=http%3A%2F%2Flocalhost%3A1", accepted_at)).await.json();
    assert!(ids(&since).contains(&posted[0]), "of an undeclared upstream by its origin: {since}");
}

#[tokio::test]
async fn a_filter_that_cannot_be_is_told_by_name() {
    let farcall = Farcall::start().await;
    for (query, key) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("state=done", "state"),
        ("state=", "state"),
        ("source=mail", "source"),
        ("since=yesterday", "since"),
        ("until=2026-11-20", "until"),
        ("cursor=!", "cursor"),
        ("cursor=", "cursor"),
        ("colour=red", "colour"),
    ] {
        let reply = farcall.get(&format!("/v1/calls?{query}")).await;
        let problem = reply.json();
        assert_eq!(
            (reply.status, &problem["code"], &problem["key"]),
            (422, &json!("invalid_filter"), &json!(key)),
            "{query}"
        );
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
}
