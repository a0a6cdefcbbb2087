//! A call's own `retry` and `success`: partial settings, laid over those of its upstream.
//!
//! What a call leaves out is its upstream's: `retry_override` lays one over the other.

use farcall_core::retry::{Jitter, MethodSet, OnUnknown, StatusSet};

use super::field::{Fault, Field, mapping};
use super::json::Shape;
use super::{RejectionKind, SuccessOverride};
use crate::media_type;
use crate::quantity::status_range;
use crate::retry_override::{DelayOverride, RetryOverride};

/// The most retries, rounds, or waits for Retry-After that can be asked for.
pub(super) const COUNT_MAX: u32 = 1_000_000;
/// The most entries of a list of statuses or methods.
pub(super) const LIST_MAX: usize = 100;
const ON_UNKNOWN: [(&str, OnUnknown); 2] = [("retry", OnUnknown::Retry), ("stop", OnUnknown::Stop)];

mapping! {
    /// The keys of a `retry` mapping.
    RetryKeys {
        max, wait, base, factor, backoff_factor, max_delay, jitter, statuses, methods, requeue, budget, throttle_max,
        retry_after_max, on_unknown,
    }
}

mapping! {
    /// The keys of a `success` mapping.
    SuccessKeys { statuses, content_type }
}

/// Reads `retry`: a number of retries, or a mapping.
pub(super) fn retry(field: &Field<'_>) -> Result<RetryOverride, Fault> {
    match field.value.shape() {
        Shape::Number => Ok(RetryOverride { max: Some(field.whole(0..=COUNT_MAX)?), ..RetryOverride::default() }),
        Shape::Object => retry_mapping(field),
        Shape::Array | Shape::String | Shape::Boolean | Shape::Null => {
            Err(field.wrong("must be a number of retries, or an object"))
        }
    }
}

/// Reads `on_unknown`.
pub(super) fn on_unknown(field: &Field<'_>) -> Result<OnUnknown, Fault> {
    field.word(&ON_UNKNOWN)
}

/// Reads `success`.
pub(super) fn success(field: &Field<'_>) -> Result<SuccessOverride, Fault> {
    let mut keys = SuccessKeys::default();
    for member in field.members("success")? {
        keys.put(member).map_err(|member| member.unknown(SuccessKeys::KEYS))?;
    }
    Ok(SuccessOverride {
        statuses: keys.statuses.as_ref().map(statuses).transpose()?,
        content_type: keys.content_type.as_ref().map(content_type).transpose()?,
    })
}

fn retry_mapping(field: &Field<'_>) -> Result<RetryOverride, Fault> {
    let mut keys = RetryKeys::default();
    for member in field.members("retry")? {
        keys.put(member).map_err(|member| member.unknown(RetryKeys::KEYS))?;
    }
    if let Some(budget) = &keys.budget {
        return Err(budget.not_available_yet());
    }
    let count = |field: &Option<Field<'_>>| field.as_ref().map(|field| field.whole(0..=COUNT_MAX)).transpose();
    Ok(RetryOverride {
        max: count(&keys.max)?,
        delay: delay(&keys)?,
        max_delay: keys.max_delay.as_ref().map(Field::positive_duration).transpose()?,
        jitter: keys
            .jitter
            .as_ref()
            .map(|field| field.word(&[("full", Jitter::Full), ("none", Jitter::None)]))
            .transpose()?,
        statuses: keys.statuses.as_ref().map(statuses).transpose()?,
        methods: keys.methods.as_ref().map(methods).transpose()?,
        requeue: count(&keys.requeue)?,
        throttle_max: count(&keys.throttle_max)?,
        retry_after_max: keys.retry_after_max.as_ref().map(Field::duration).transpose()?,
        on_unknown: keys.on_unknown.as_ref().map(on_unknown).transpose()?,
    })
}

fn delay(keys: &RetryKeys<'_>) -> Result<Option<DelayOverride>, Fault> {
    let geometric = keys.base.as_ref().or(keys.factor.as_ref());
    match (&keys.wait, &keys.backoff_factor, geometric) {
        (Some(_), Some(other), _) | (Some(_), None, Some(other)) => Err(other.misplaced("excludes `retry.wait`")),
        (None, Some(_), Some(other)) => Err(other.misplaced("excludes `retry.backoff_factor`")),
        (Some(wait), None, None) => Ok(Some(DelayOverride::Constant(wait.duration()?))),
        (None, Some(factor), None) => Ok(Some(DelayOverride::Factor(factor.positive()?))),
        (None, None, Some(_)) => Ok(Some(DelayOverride::Geometric {
            base: keys.base.as_ref().map(Field::positive_duration).transpose()?,
            factor: keys.factor.as_ref().map(Field::positive).transpose()?,
        })),
        (None, None, None) => Ok(None),
    }
}

fn statuses(field: &Field<'_>) -> Result<StatusSet, Fault> {
    let range = |element: &Field<'_>| {
        let text = match element.whole_number() {
            Some(code) => code.to_string().into(),
            None => element.scalar()?,
        };
        status_range::from_text(&text).map_err(|_| {
            element.wrong("must list status codes such as 404 and ranges such as \"500-599\", from 100 to 599")
        })
    };
    Ok(StatusSet::new(list(field)?.iter().map(range).collect::<Result<_, _>>()?))
}

fn methods(field: &Field<'_>) -> Result<MethodSet, Fault> {
    if field.value.string().is_some_and(|text| text == "all") {
        return Ok(MethodSet::All);
    }
    let name = |element: &Field<'_>| {
        let name = element.string()?;
        let is_name =
            http::Method::from_bytes(name.as_bytes()).is_ok() && !name.contains(|c: char| c.is_ascii_lowercase());
        if is_name {
            Ok(name.into_owned())
        } else {
            Err(element.wrong("must list methods such as \"GET\", in upper case"))
        }
    };
    Ok(MethodSet::Only(list(field)?.iter().map(name).collect::<Result<_, _>>()?))
}

fn list<'a>(field: &Field<'a>) -> Result<Vec<Field<'a>>, Fault> {
    let elements = field.elements()?;
    if elements.is_empty() || elements.len() > LIST_MAX {
        return Err(field.wrong(format_args!("must have 1 to {LIST_MAX} entries")));
    }
    Ok(elements)
}

/// A media type without parameters; `null` allows any.
fn content_type(field: &Field<'_>) -> Result<Option<String>, Fault> {
    if field.value.shape() == Shape::Null {
        return Ok(None);
    }
    let text = field.string()?;
    let media_type = media_type::from_text(&text);
    let wrong = || field.wrong("must be a media type such as \"application/json\", without parameters");
    media_type.map(Some).ok_or_else(wrong)
}

/// `on_unknown` stands beside `retry` or inside it, not both.
pub(super) fn either_on_unknown(
    outer: Option<&Field<'_>>,
    retry: Option<&RetryOverride>,
) -> Result<Option<OnUnknown>, Fault> {
    let inner = retry.and_then(|retry| retry.on_unknown);
    match (outer, inner) {
        (Some(field), Some(_)) => {
            Err(Fault { kind: RejectionKind::Invalid, ..field.misplaced("is given in `retry` too") })
        }
        (Some(field), None) => on_unknown(field).map(Some),
        (None, inner) => Ok(inner),
    }
}

#[cfg(test)]
mod tests;
