//! A call's own `hedge`: when an attempt that takes long is repeated, how often, and what that may cost; or `"none"`.
//!
//! It replaces its upstream's as a whole.

use farcall_core::hedge::{EXTRA_MAX, HedgeDelay, HedgePolicy, Hedging};
use farcall_core::share::Share;

use super::field::{Fault, Field, mapping};
use super::json::Shape;
use crate::quantity::share;

mapping! {
    /// The keys of a `hedge` mapping.
    HedgeKeys { after, extra, budget }
}

/// Reads `hedge`.
pub(super) fn hedging(field: &Field<'_>) -> Result<Hedging, Fault> {
    if is_none(field) {
        return Ok(Hedging::Never);
    }
    if field.value.shape() != Shape::Object {
        return Err(field.wrong("must be an object such as {\"after\": \"300ms\", \"extra\": 2}, or \"none\""));
    }
    let mut keys = HedgeKeys::default();
    for member in field.members("hedge")? {
        keys.put(member).map_err(|member| member.unknown(HedgeKeys::KEYS))?;
    }
    let after = keys.after.as_ref().ok_or_else(|| field.wrong("must say `after` how long"))?;
    let after = delay(after)?;
    let budget = match &keys.budget {
        Some(field) => budget(field)?,
        None => match after {
            HedgeDelay::Fixed(_) => None,
            HedgeDelay::Learned(_) => Some(HedgePolicy::LEARNED_BUDGET),
        },
    };
    let extra = keys.extra.as_ref().map(|field| field.whole(1..=EXTRA_MAX)).transpose()?;
    Ok(Hedging::By(HedgePolicy { after, extra: extra.unwrap_or(1), budget, on_failure: false }))
}

fn delay(field: &Field<'_>) -> Result<HedgeDelay, Fault> {
    let text = field.value.string().filter(|text| text.starts_with('p'));
    let Some(text) = text else { return field.positive_duration().map(HedgeDelay::Fixed) };
    let percentile = share::percentile_from_text(&text);
    percentile
        .map(HedgeDelay::Learned)
        .ok_or_else(|| field.wrong("must be a duration, or a percentile from \"p50\" to \"p99.9\""))
}

fn budget(field: &Field<'_>) -> Result<Option<Share>, Fault> {
    if is_none(field) {
        return Ok(None);
    }
    let share = field.value.string().and_then(|text| share::from_text(&text)).filter(|share| share.parts() > 0);
    share.map(Some).ok_or_else(|| field.wrong("must be a share from \"0.01%\" to \"100%\", or \"none\""))
}

fn is_none(field: &Field<'_>) -> bool {
    field.value.string().is_some_and(|text| text == "none")
}
