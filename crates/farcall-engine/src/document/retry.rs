//! A call's own `retry` and `success`: partial settings, laid over those of its upstream.
//!
//! What a call leaves out is its upstream's; how retries are made is the core's matter.

use std::time::Duration;

use farcall_core::retry::{Backoff, Jitter, MethodSet, OnUnknown, RetryPolicy, StatusSet};

use super::field::{Fault, Field, mapping};
use super::json::Shape;
use super::{RejectionKind, SuccessOverride};
use crate::quantity;

/// The most retries, rounds, or waits for Retry-After that can be asked for.
const COUNT_MAX: u32 = 1_000_000;
/// The most entries of a list of statuses or methods.
const LIST_MAX: usize = 100;
const ON_UNKNOWN: [(&str, OnUnknown); 2] = [("retry", OnUnknown::Retry), ("stop", OnUnknown::Stop)];

/// What a call's `retry` says; what it leaves out is the upstream's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RetryOverride {
    pub max: Option<u32>,
    pub delay: Option<DelayOverride>,
    pub max_delay: Option<Duration>,
    pub jitter: Option<Jitter>,
    pub statuses: Option<StatusSet>,
    pub methods: Option<MethodSet>,
    pub requeue: Option<u32>,
    pub throttle_max: Option<u32>,
    pub retry_after_max: Option<Duration>,
    pub on_unknown: Option<OnUnknown>,
}

/// The form of delay a call asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DelayOverride {
    /// `wait`.
    Constant(Duration),
    /// `backoff_factor`.
    Factor(f64),
    /// `base`, `factor`, or both.
    Geometric { base: Option<Duration>, factor: Option<f64> },
}

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

impl RetryOverride {
    /// The policy of a call with these settings, to an upstream with that one.
    ///
    /// A delay of another form than the upstream's brings its own jitter: none for `wait` and `backoff_factor`, full
    /// for `base` and `factor`.
    ///
    /// # Example
    /// ```
    /// # use farcall_core::retry::RetryPolicy;
    /// # use farcall_engine::document::RetryOverride;
    /// let own = RetryOverride { max: Some(2), ..RetryOverride::default() };
    /// assert_eq!(own.over(&RetryPolicy::durable()), RetryPolicy { max: 2, ..RetryPolicy::durable() });
    /// ```
    pub fn over(&self, policy: &RetryPolicy) -> RetryPolicy {
        let (backoff, jitter) = match self.delay {
            Some(delay) => delay.over(policy),
            None => (policy.backoff, policy.jitter),
        };
        RetryPolicy {
            max: self.max.unwrap_or(policy.max),
            backoff,
            max_delay: self.max_delay.unwrap_or(policy.max_delay),
            jitter: self.jitter.unwrap_or(jitter),
            statuses: self.statuses.clone().unwrap_or_else(|| policy.statuses.clone()),
            methods: self.methods.clone().unwrap_or_else(|| policy.methods.clone()),
            requeue: self.requeue.unwrap_or(policy.requeue),
            throttle_max: self.throttle_max.unwrap_or(policy.throttle_max),
            retry_after_max: self.retry_after_max.unwrap_or(policy.retry_after_max),
        }
    }
}

impl DelayOverride {
    fn over(self, policy: &RetryPolicy) -> (Backoff, Jitter) {
        match self {
            Self::Constant(wait) => (Backoff::Constant(wait), Jitter::None),
            Self::Factor(factor) => (Backoff::Factor(factor), Jitter::None),
            Self::Geometric { base, factor } => {
                let default = (Duration::from_secs(1), 2.0, Jitter::Full);
                let (own_base, own_factor, jitter) = match policy.backoff {
                    Backoff::Geometric { base, factor } => (base, factor, policy.jitter),
                    Backoff::Constant(_) | Backoff::Factor(_) => default,
                };
                let (base, factor) = (base.unwrap_or(own_base), factor.unwrap_or(own_factor));
                (Backoff::Geometric { base, factor }, jitter)
            }
        }
    }
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
        let text = element.scalar()?;
        quantity::status_range(&text).map_err(|error| element.wrong(format_args!("{error}")))
    };
    Ok(StatusSet::new(list(field)?.iter().map(range).collect::<Result<_, _>>()?))
}

fn methods(field: &Field<'_>) -> Result<MethodSet, Fault> {
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
    let is_token = |part: &str| http::Method::from_bytes(part.as_bytes()).is_ok();
    match text.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(Some(text.to_ascii_lowercase())),
        Some(_) | None => Err(field.wrong("must be a media type such as \"application/json\", without parameters")),
    }
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
