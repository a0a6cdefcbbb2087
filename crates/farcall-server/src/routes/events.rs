//! GET `/v1/events` and `/v1/calls/{id}/events`: server-sent events.
//!
//! The stream of all calls has one short event for everything that happens and is durable, and for breakers; a client that is too slow is
//! told how many it missed. That of one call has the call itself, as it is now and after each change, and ends with it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use farcall_core::id::CallId;
use farcall_engine::CallView;
use farcall_engine::watch::{Events, Next};
use futures_util::stream::{Stream, unfold};
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::{CallInPath, Face, unknown_call};
use crate::openapi::{Answer, Content, Operation, Parameter};
use crate::problem::{Code, Problem};
use crate::wire::{BreakerEvent, Call, CallEvent};

const EVENT_STREAM: &str = "text/event-stream";
/// A comment is sent this often while nothing happens, so that a broken connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn of_all(State(face): State<Arc<Face>>) -> Response {
    let events = face.handle.events();
    let stream = unfold((face, events), |(face, mut events)| async move {
        let event = match next(&face, &mut events).await? {
            Next::Event(event) => sse(event.what.as_str(), &CallEvent::of(&event)),
            Next::Breaker(event) => sse("breaker", &BreakerEvent::of(&event)),
            Next::Missed(missed) => sse("missed", &json!({ "missed": missed })),
        };
        Some((Ok::<_, Infallible>(event), (face, events)))
    });
    streamed(stream)
}

pub(super) async fn of_call(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let events = face.handle.events();
    let view = face.handle.call(id).await.map_err(|error| Problem::unreadable(&error))?.ok_or_else(unknown_call)?;
    let stream = unfold(Some(Following { face, events, id, view: Some(view) }), |following| async move {
        let mut following = following?;
        let view = following.next().await?;
        let event = sse("call", &Call::of(&view));
        let goes_on = !view.record.progress.state.is_end();
        Some((Ok::<_, Infallible>(event), goes_on.then_some(following)))
    });
    Ok(streamed(stream))
}

/// One call, followed to its end.
struct Following {
    face: Arc<Face>,
    events: Events,
    id: CallId,
    /// As it was at first, until that is told.
    view: Option<CallView>,
}

impl Following {
    async fn next(&mut self) -> Option<CallView> {
        if let Some(view) = self.view.take() {
            return Some(view);
        }
        loop {
            match next(&self.face, &mut self.events).await? {
                Next::Event(event) if event.call != self.id => {}
                Next::Breaker(_) => {}
                // What was missed may have been about it.
                Next::Event(_) | Next::Missed(_) => return self.face.handle.call(self.id).await.ok().flatten(),
            }
        }
    }
}

/// What happens next; nothing when farcall stops.
async fn next(face: &Face, events: &mut Events) -> Option<Next> {
    let mut snapshots = face.handle.snapshots();
    tokio::select! {
        event = events.next() => event,
        _ = snapshots.wait_for(|snapshot| snapshot.is_draining) => None,
    }
}

fn sse(name: &str, data: &impl serde::Serialize) -> Event {
    let json = serde_json::to_string(data).expect("strings, numbers and maps of strings are JSON");
    Event::default().event(name).data(json)
}

fn streamed(stream: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

pub(super) fn operation() -> Operation {
    let events: fn(&mut SchemaGenerator) -> Value = |generator| {
        let missed =
            json!({ "type": "object", "properties": { "missed": { "type": "integer" } }, "required": ["missed"] });
        let call = generator.subschema_for::<CallEvent<'_>>();
        let breaker = generator.subschema_for::<BreakerEvent<'_>>();
        let data = json!({ "anyOf": [call, breaker, missed] });
        one_event(&["accepted", "started", "waiting", "ended", "breaker", "missed"], &data)
    };
    Operation::get("followAll", "Everything that happens to any call, and to breakers")
        .tag("Events")
        .about(
            "Server-sent events, each with a `CallEvent`, once it is durable, or `breaker` with a `BreakerEvent`. A client that is too slow gets `missed` with how many \
             it missed. The schema is that of one event.",
        )
        .answer(Answer::new(200, "A stream that ends when farcall stops", Content::new(EVENT_STREAM, events)))
}

pub(super) fn call_operation() -> Operation {
    let events: fn(&mut SchemaGenerator) -> Value =
        |generator| one_event(&["call"], &generator.subschema_for::<Call<'_>>().into());
    Operation::get("followCall", "One call as it is, and again after each change")
        .tag("Events")
        .about("Server-sent events, each with the `Call`, until it has ended. The schema is that of one event.")
        .parameters([Parameter::call_id()])
        .answer(Answer::new(200, "A stream that ends with the call", Content::new(EVENT_STREAM, events)))
        .fails(&[Code::NotFound, Code::StoreFailed])
}

/// An event of a stream: its name, and what is in its JSON.
fn one_event(names: &[&str], data: &Value) -> Value {
    let data = json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": data });
    let event = json!({ "type": "string", "enum": names });
    json!({ "type": "object", "properties": { "event": event, "data": data }, "required": ["event", "data"] })
}
