//! What one operation takes and answers, as a route tells it.
//!
//! Nothing here is looked up or checked; `document` makes JSON of it.

use std::borrow::Cow;

use farcall_engine::document::RejectionKind;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::{Code, What};

/// A schema, made when the document is.
type Schema = fn(&mut SchemaGenerator) -> Value;

/// What follows a call, by operation; each takes its `id`.
const CALL_LINKS: [&str; 7] =
    ["getCall", "listAttempts", "getResponse", "explainCall", "followCall", "cancelCall", "retryCall"];

/// One method of one path.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(super) method: &'static str,
    pub(super) id: Cow<'static, str>,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) tag: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Content>,
    pub(super) answers: Vec<Answer>,
    pub(super) failures: Vec<What>,
    pub(super) is_open: bool,
    /// Its body may be left out.
    pub(super) is_body_optional: bool,
}

/// A parameter in the path, the query or a header.
#[derive(Debug)]
pub(crate) struct Parameter(pub(super) Value);

/// One status that is no failure.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Nothing for all that are not named.
    pub(super) status: Option<u16>,
    pub(super) about: &'static str,
    pub(super) content: Content,
    pub(super) headers: Map<String, Value>,
    pub(super) links: Map<String, Value>,
}

/// What a body is.
#[derive(Debug)]
pub(crate) struct Content {
    pub(super) media_type: &'static str,
    pub(super) schema: Schema,
    pub(super) examples: Vec<(&'static str, Value)>,
}

impl Operation {
    /// `id` names it in links and clients that are generated.
    pub(crate) const fn get(id: &'static str, summary: &'static str) -> Self {
        Self::new("get", id, summary)
    }

    pub(crate) const fn post(id: &'static str, summary: &'static str) -> Self {
        Self::new("post", id, summary)
    }

    pub(crate) const fn patch(id: &'static str, summary: &'static str) -> Self {
        Self::new("patch", id, summary)
    }

    const fn new(method: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            id: Cow::Borrowed(id),
            summary,
            about: "",
            tag: "",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            failures: Vec::new(),
            is_open: false,
            is_body_optional: false,
        }
    }

    /// One of any method, in lower case, whose id may be made of what is configured.
    pub(crate) fn any(method: &'static str, id: impl Into<Cow<'static, str>>, summary: &'static str) -> Self {
        Self { id: id.into(), ..Self::new(method, "", summary) }
    }

    /// What else there is to know, in Markdown.
    pub(crate) const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// The group that it is shown in.
    pub(crate) const fn tag(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    /// It needs no token, ever.
    pub(crate) const fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    pub(crate) fn parameters(mut self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    pub(crate) fn answer(mut self, answer: Answer) -> Self {
        self.answers.push(answer);
        self
    }

    /// What can go wrong beside what can at every request.
    pub(crate) fn fails(mut self, codes: &[Code]) -> Self {
        self.failures.extend(codes.iter().map(|&code| What::Code(code)));
        self
    }

    /// What can be wrong with a document.
    pub(crate) fn mistakes(mut self, mistakes: &[RejectionKind]) -> Self {
        self.failures.extend(mistakes.iter().map(|&kind| What::Document(kind)));
        self
    }

    /// It takes JSON, or lines of it, which may be wrong in these ways.
    pub(crate) fn json_body(mut self, content: Content, mistakes: &[RejectionKind]) -> Self {
        self.body = Some(content);
        self.mistakes(mistakes).fails(&[
            Code::UnsupportedMediaType,
            Code::UnsupportedContentCoding,
            Code::BodyTooLarge,
            Code::RequestTimeout,
            Code::Busy,
        ])
    }

    /// Its body may be left out.
    pub(crate) const fn without_a_body_too(mut self) -> Self {
        self.is_body_optional = true;
        self
    }

    /// It makes a call durable, and answers with it or, if the client wants to wait, with its outcome.
    pub(crate) fn accepts_a_call(self) -> Self {
        use crate::wire::{AcceptedId, Call};
        let call_or_id: Schema = |generator| json!({ "anyOf": [generator.subschema_for::<Call<'_>>(), generator.subschema_for::<AcceptedId>()] });
        let accepted = Answer::new(202, "The call is durable", Content::new("application/json", call_or_id));
        let ended = Answer::json::<Call<'_>>(200, "The call has ended in the time that `Prefer: wait` gave it");
        let headers = |answer: Answer| {
            answer
                .header("Location", "Where the call is", true)
                .header("farcall-call-id", "Its id", true)
                .header("Idempotent-Replayed", "`true` when the key's call was there already", false)
                .header("Preference-Applied", "The wait that was granted", false)
                .call_links("$response.body#/id")
        };
        self.parameters([Parameter::idempotency_key(), Parameter::prefer_wait()])
            .answer(headers(accepted))
            .answer(headers(ended))
            .fails(&[Code::InvalidIdempotencyKey, Code::IdempotencyKeyReused])
            .fails(&[Code::Draining, Code::StoreFailed, Code::StoreFull])
    }
}

impl Parameter {
    pub(crate) fn new(place: &str, name: &str, about: &str, schema: Value) -> Self {
        let is_required = place == "path";
        let mut parameter = json!({ "in": place, "name": name, "required": is_required, "description": about });
        parameter["schema"] = schema;
        Self(parameter)
    }

    pub(crate) fn query(name: &str, about: &str, schema: Value) -> Self {
        Self::new("query", name, about, schema)
    }

    pub(crate) fn required(mut self) -> Self {
        self.0["required"] = true.into();
        self
    }

    /// Several words with commas between.
    pub(crate) fn listed(mut self) -> Self {
        self.0["style"] = "form".into();
        self.0["explode"] = false.into();
        self
    }

    pub(crate) fn call_id() -> Self {
        let id = "^(call_)?[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";
        let schema = json!({ "type": "string", "pattern": id });
        Self::new("path", "id", "The id of a call, with or without `call_`", schema)
    }

    pub(crate) fn upstream() -> Self {
        let about = "The name of a configured upstream; of an undeclared one its origin, percent-encoded";
        Self::new("path", "name", about, json!({ "type": "string", "minLength": 1 }))
    }

    fn idempotency_key() -> Self {
        let schema = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$" });
        let about = "The same key with the same content is the same call; a request under it can safely be repeated";
        Self::new("header", "Idempotency-Key", about, schema)
    }

    pub(crate) fn prefer_wait_for_permit() -> Self {
        let schema = json!({ "type": "string", "examples": ["wait=10"] });
        let about = "`wait=SECONDS`: wait for so long, 600 at most; without it for as long as it takes";
        Self::new("header", "Prefer", about, schema)
    }

    fn prefer_wait() -> Self {
        let schema = json!({ "type": "string", "examples": ["wait=10"] });
        let about = "`wait=SECONDS`: answer when the call has ended, or after so long; at most 600";
        Self::new("header", "Prefer", about, schema)
    }
}

impl Answer {
    pub(crate) fn new(status: u16, about: &'static str, content: Content) -> Self {
        Self { status: Some(status), ..Self::any(about, content) }
    }

    /// Of any status that is not named.
    pub(crate) fn any(about: &'static str, content: Content) -> Self {
        Self { status: None, about, content, headers: Map::new(), links: Map::new() }
    }

    pub(crate) fn json<T: JsonSchema>(status: u16, about: &'static str) -> Self {
        Self::new(status, about, Content::json::<T>())
    }

    /// One of a single call, which a header names.
    pub(crate) fn of_call<T: JsonSchema>(status: u16, about: &'static str) -> Self {
        Self::json::<T>(status, about).header("farcall-call-id", "The id of the call", true)
    }

    pub(crate) fn header(mut self, name: &str, about: &str, is_always_there: bool) -> Self {
        let header = json!({ "description": about, "required": is_always_there, "schema": { "type": "string" } });
        self.headers.insert(name.to_owned(), header);
        self
    }

    /// The operations on a call whose id is found by this expression.
    pub(crate) fn call_links(self, id: &str) -> Self {
        CALL_LINKS.iter().fold(self, |answer, operation| answer.link(operation, "id", id))
    }

    /// An operation that takes a part of this answer.
    pub(crate) fn link(mut self, operation: &str, parameter: &str, expression: &str) -> Self {
        let link = json!({ "operationId": operation, "parameters": { parameter: expression } });
        self.links.insert(operation.to_owned(), link);
        self
    }

    pub(crate) fn example(mut self, name: &'static str, example: Value) -> Self {
        self.content.examples.push((name, example));
        self
    }
}

impl Content {
    pub(crate) const fn new(media_type: &'static str, schema: Schema) -> Self {
        Self { media_type, schema, examples: Vec::new() }
    }

    pub(crate) fn json<T: JsonSchema>() -> Self {
        Self::new("application/json", |generator| generator.subschema_for::<T>().into())
    }

    /// Text that is not described further.
    pub(crate) fn text(media_type: &'static str) -> Self {
        Self::new(media_type, |_| json!({ "type": "string" }))
    }

    pub(crate) fn example(mut self, name: &'static str, example: Value) -> Self {
        self.examples.push((name, example));
        self
    }
}
