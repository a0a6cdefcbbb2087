//! What the API's description says of the proxy and of the routes that are configured.
//!
//! OpenAPI has no word for any method, so the usual ones are named.

use farcall_engine::config::{Config, Route, Style};
use serde_json::json;

use super::PROXY_ROUTE;
use crate::openapi::{Answer, Content, Operation, Parameter};
use crate::problem::Code;

/// Methods that a description can name, with the id of the proxy's operation.
const METHODS: [(&str, &str); 7] = [
    ("get", "proxyGet"),
    ("put", "proxyPut"),
    ("post", "proxyPost"),
    ("delete", "proxyDelete"),
    ("options", "proxyOptions"),
    ("head", "proxyHead"),
    ("patch", "proxyPatch"),
];

/// Every operation of the gateway, by path.
pub(crate) fn operations(config: &Config) -> Vec<(String, Operation)> {
    let proxy = METHODS.map(|(method, id)| (PROXY_ROUTE.to_owned(), proxied(method, id)));
    let routes = config.routes.iter().flat_map(|(path, route)| of_route(path, route));
    proxy.into_iter().chain(routes).collect()
}

fn proxied(method: &'static str, id: &'static str) -> Operation {
    let upstream = json!({ "type": "string", "minLength": 1 });
    let path = json!({ "type": "string" });
    passing(Operation::any(method, id, "Pass a request on to an upstream"))
        .about(
            "Any method. Path (slashes and all) and query go below the upstream's `base_url` as they are, within its limits and \
             with its headers, retries and hedges; the answer comes back as it is.",
        )
        .parameters([
            Parameter::new("path", "upstream", "The name of a configured upstream", upstream),
            Parameter::new("path", "path", "What is asked for there", path),
        ])
        .fails(&[Code::NotFound])
}

fn of_route(path: &str, route: &Route) -> Vec<(String, Operation)> {
    let operations = match route.style {
        Style::Smart => vec![smart(path)],
        Style::Proxy => METHODS
            .iter()
            .map(|(method, _)| {
                let id = format!("{method} {path}");
                passing(Operation::any(method, id, "Pass a request on"))
                    .about("Whatever lies below the path is passed on, too.")
            })
            .collect(),
    };
    operations.into_iter().map(|operation| (path.to_owned(), operation)).collect()
}

/// What holds for all that is passed on.
fn passing(operation: Operation) -> Operation {
    let timeout = json!({ "type": "string", "pattern": "^[0-9]+$", "examples": ["500"] });
    let about = "How long all of it may take, in milliseconds; 504 when that is over";
    let anything = Content::new("*/*", |_| json!({}));
    let answer = Answer::any("The upstream's answer, whatever its status, as it came", anything);
    operation
        .tag("Gateway")
        .parameters([Parameter::new("header", "Farcall-Timeout", about, timeout)])
        .answer(answer.header("farcall-call-id", "The id of the call", true))
        .fails(&[Code::BodyTooLarge, Code::RequestTimeout, Code::UpgradeUnsupported, Code::UpstreamFailed])
        .fails(&[Code::Busy, Code::Draining, Code::UpstreamTimeout, Code::LoopDetected])
}

fn smart(path: &str) -> Operation {
    let milliseconds = json!({ "type": "string", "pattern": "^[0-9]+$", "examples": ["100"] });
    let document = Content::new("application/json", |_| json!({}));
    let wrong = Content::new(
        "application/json",
        |_| json!({ "type": "object", "properties": { "detail": { "type": "string" } }, "required": ["detail"] }),
    );
    let late = Content::new("application/json", |_| {
        let number = json!({ "type": "number", "description": "Seconds" });
        json!({
            "type": "object",
            "properties": { "detail": { "type": "string" }, "timeout": number, "time_spent": number },
            "required": ["detail", "timeout", "time_spent"],
        })
    });
    let failed = Content::new("application/json", |_| {
        json!({
            "type": "object",
            "properties": { "detail": { "type": "string" }, "attempts": { "type": "integer" } },
            "required": ["detail", "attempts"],
        })
    });
    let about = "How long to wait for it, in milliseconds; 0 asks nobody";
    Operation::any("get", format!("smart {path}"), "The first JSON document that comes in time")
        .tag("Gateway")
        .about("Nothing of the request goes to the upstream. When it is late, or fails, it is asked again; the first success is the answer.")
        .parameters([Parameter::query("timeout", about, milliseconds).required()])
        .answer(Answer::new(200, "What the upstream answered", document).header("farcall-call-id", "The id of the call", true))
        .answer(Answer::new(400, "There is no such timeout", wrong))
        .answer(Answer::new(502, "All attempts failed before the time was over", failed))
        .answer(Answer::new(504, "The time was over", late))
        .fails(&[Code::Busy, Code::Draining])
}
