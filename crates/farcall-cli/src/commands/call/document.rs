//! From what was typed to a call document.
//!
//! What the document means, and whether it is one, is the engine's to say.

use std::io::Read;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farcall_engine::quantity::duration;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::args::call::CallArgs;
use crate::exit::{Exit, Failure};

/// What curl sends `-d` as.
const FORM: &str = "application/x-www-form-urlencoded";
const CONTENT_TYPE: &str = "content-type";

/// The document of a call.
///
/// # Errors
/// With exit code 2 for what is no header, no method, no JSON, or no file that can be read.
pub(super) fn of(args: &CallArgs) -> Result<Bytes, Failure> {
    let mut keys = Map::new();
    target(args, &mut keys)?;
    let mut headers = headers(&args.headers)?;
    let mut json = None;
    if let Some(data) = &args.data {
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE.to_owned(), FORM.into());
        }
        let (key, value) = match String::from_utf8(read(data)?) {
            Ok(text) => ("body", text),
            Err(error) => ("body_base64", STANDARD.encode(error.into_bytes())),
        };
        keys.insert(key.to_owned(), value.into());
    } else if let Some(data) = &args.json {
        let text = String::from_utf8(read(data)?).map_err(|_| Failure::usage("--json: it is not UTF-8"))?;
        let parsed = RawValue::from_string(text).context("--json: it is no JSON");
        json = Some(parsed.map_err(|error| Failure::new(Exit::Usage, error))?);
    }
    if !headers.is_empty() {
        keys.insert("headers".to_owned(), headers.into());
    }
    for (key, time) in [("timeout", args.timeout), ("deadline", args.deadline)] {
        if let Some(time) = time {
            keys.insert(key.to_owned(), duration::to_text(time).into());
        }
    }
    keys.extend(args.retry.clone().map(|retry| ("retry".to_owned(), retry)));
    keys.extend(args.idempotency_key.clone().map(|key| ("idempotency_key".to_owned(), key.into())));
    let text = Value::Object(keys).to_string();
    Ok(match json {
        // As it was written, which no value of ours would keep.
        Some(json) => format!("{},\"body\":{}}}", &text[..text.len() - 1], json.get()).into(),
        None => text.into(),
    })
}

fn target(args: &CallArgs, keys: &mut Map<String, Value>) -> Result<(), Failure> {
    let (method, target) = match args.target.as_slice() {
        [target] => (None, target),
        [method, target] => (Some(method), target),
        _ => return Err(Failure::usage("name a URL, or an upstream and a path")),
    };
    if let Some(method) = method {
        let is_token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
        if !is_token {
            return Err(
                Failure::usage(format!("`{method}` is no method")).with_hint("METHOD comes first, then the URL")
            );
        }
        keys.insert("method".to_owned(), method.to_ascii_uppercase().into());
    }
    if target.contains("://") {
        keys.insert("url".to_owned(), with_query(target, &args.query).into());
        return Ok(());
    }
    let end = target.find(['/', '?']).unwrap_or(target.len());
    let (upstream, path) = target.split_at(end);
    if upstream.is_empty() {
        let failure = Failure::usage(format!("`{target}` is neither a URL nor an upstream and a path"));
        return Err(failure.with_hint("write http://localhost:8080/path, or NAME/path for a configured upstream"));
    }
    keys.insert("upstream".to_owned(), upstream.into());
    let path = with_query(path, &args.query);
    if !path.is_empty() {
        keys.insert("end_point".to_owned(), path.into());
    }
    Ok(())
}

/// What was typed for a URL that has no scheme is taken as the name of an upstream; says so when there is none.
pub(super) fn with_hint(args: &CallArgs, failure: Failure) -> Failure {
    let Some(target) = args.target.last().filter(|target| !target.contains("://")) else { return failure };
    if !failure.says("names no configured upstream") {
        return failure;
    }
    let (name, _) = target.split_at(target.find(['/', '?']).unwrap_or(target.len()));
    failure.with_hint(match name.contains([':', '.']) || name == "localhost" {
        true => format!("for a host write http://{target} or https://{target}"),
        false => format!("`{name}` is none of the upstreams; name a directory or a server that has it, or write a URL"),
    })
}

/// The target with more parameters, each kept even when its name comes twice.
fn with_query(target: &str, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return target.to_owned();
    }
    let added = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let separator = match target.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{target}{separator}{added}")
}

fn headers(given: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut headers: Map<String, Value> = Map::new();
    for header in given {
        let (name, value) = header
            .split_once(':')
            .or_else(|| header.strip_suffix(';').map(|name| (name, "")))
            .ok_or_else(|| Failure::usage(format!("`{header}` is no header; write `Name: value`")))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let value = match headers.get(&name).and_then(Value::as_str) {
            Some(first) => format!("{first}, {value}"),
            None => value.to_owned(),
        };
        headers.insert(name, value.into());
    }
    Ok(headers)
}

/// The data itself, or what a file or standard input holds.
fn read(data: &str) -> Result<Vec<u8>, Failure> {
    let read = match data.strip_prefix('@').unwrap_or(if data == "-" { "-" } else { "" }) {
        "" if data == "@" => Err(anyhow!("@ names no file")),
        "" => return Ok(data.as_bytes().to_owned()),
        "-" => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map(|_| bytes).context("cannot read standard input")
        }
        path => std::fs::read(path).with_context(|| format!("cannot read {path}")),
    };
    read.map_err(|error| Failure::new(Exit::Usage, error))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        call: CallArgs,
    }

    fn document(words: &[&str]) -> Result<String, String> {
        let line = Line::try_parse_from(["call"].iter().chain(words)).map_err(|error| error.to_string())?;
        let text = of(&line.call).map_err(|failure| failure.render(false))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn what_is_typed_becomes_a_document() {
        let check = |words: &[&str], expected: &str| {
            let text = document(words).expect("it is a call");
            assert_eq!(
                serde_json::from_str::<Value>(&text).expect("it is JSON"),
                serde_json::from_str::<Value>(expected).expect("the test's JSON"),
                "{words:?}"
            );
        };
        check(&["http://h/x"], r#"{"url": "http://h/x"}"#);
        check(&["delete", "http://h"], r#"{"method": "DELETE", "url": "http://h"}"#);
        check(&["shop"], r#"{"upstream": "shop"}"#);
        check(&["shop/a/b?c=d"], r#"{"upstream": "shop", "end_point": "/a/b?c=d"}"#);
        check(&["shop?c=d", "-Q", "c=ä b"], r#"{"upstream": "shop", "end_point": "?c=d&c=%C3%A4+b"}"#);
        check(&["http://h/?", "-Q", "a=", "-Q", "a=b&c"], r#"{"url": "http://h/?a=&a=b%26c"}"#);
        check(
            &["http://h", "-H", "X-A: 1", "-H", "x-a:2", "-H", "X-B;"],
            r#"{"url": "http://h", "headers": {"x-a": "1, 2", "x-b": ""}}"#,
        );
        check(
            &["http://h", "-d", "a=b"],
            r#"{"url": "http://h", "body": "a=b", "headers": {"content-type": "application/x-www-form-urlencoded"}}"#,
        );
        check(
            &["http://h", "-d", "", "-H", "Content-Type: text/plain"],
            r#"{"url": "http://h", "body": "", "headers": {"content-type": "text/plain"}}"#,
        );
        check(
            &["http://h", "--timeout", "1.5", "--deadline", "2m", "--retry", "3", "--idempotency-key", "k"],
            r#"{"url": "http://h", "timeout": "1s500ms", "deadline": "2m", "retry": 3, "idempotency_key": "k"}"#,
        );
    }

    #[test]
    fn json_stays_as_it_was_written() {
        let text = document(&["http://h", "--json", "{\"b\": 1.0,\n \"a\": {}}"]).expect("it is a call");
        assert!(text.ends_with(",\"body\":{\"b\": 1.0,\n \"a\": {}}}"), "{text}");
        let text = document(&["http://h", "--retry", "{\"max\": 1}", "--json", "[]"]).expect("it is a call");
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    }

    #[test]
    fn what_is_no_call_is_refused() {
        for words in [
            &["/x"][..],
            &["GE T", "http://h"],
            &["http://h", "POST"],
            &["http://h", "-H", "nothing"],
            &["http://h", "--json", "{"],
            &["http://h", "-d", "@"],
            &["http://h", "-d", "@/nowhere/at/all"],
            &["http://h", "-d", "a", "--json", "{}"],
            &[],
        ] {
            assert!(document(words).is_err(), "{words:?}");
        }
    }
}
