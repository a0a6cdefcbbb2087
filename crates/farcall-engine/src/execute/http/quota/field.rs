//! What the name of a header says that its value is: a limit, what was used of it, what remains, when it is new.
//!
//! Names are taken apart at hyphens. `x` says nothing; what is neither a role nor `ratelimit` says which quota is meant.

use std::time::Duration;

use super::moment::Unit;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A header about a quota.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) role: Role,
    /// Which quota: the words that are left. Statements about the same belong together.
    pub(super) about: Vec<&'a str>,
    /// How long its window is, where the name says so.
    pub(super) window: Option<Duration>,
    /// No word of the name says what the value is.
    is_bare: bool,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Limit,
    Used,
    Remaining,
    Reset(Unit),
    Window(Unit),
}

impl<'a> Field<'a> {
    /// What a name says, which is in lower case; nothing when it is not about a quota.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        if let Some(field) = Self::of_its_own(name) {
            return Some(field);
        }
        let (before, after) = name.split_once("ratelimit").or_else(|| name.split_once("rate-limit"))?;
        let mut field = Self { role: Role::Limit, about: Vec::new(), window: None, is_bare: true };
        before.split('-').filter(|word| !matches!(*word, "" | "x")).for_each(|word| field.about.push(word));
        let unit = unit(after);
        for word in after.split('-').filter(|word| !word.is_empty()) {
            field.hear(word, unit)?;
        }
        Some(field)
    }

    /// Whether its value may be a list with parameters, as the drafts have it.
    pub(super) const fn may_be_structured(&self) -> bool {
        self.is_bare
    }

    /// Names that do not say "rate limit".
    fn of_its_own(name: &'a str) -> Option<Self> {
        let (role, about, window) = match name {
            "x-shopify-shop-api-call-limit" | "http_x_shopify_shop_api_call_limit" => (Role::Limit, "shop", None),
            "sforce-limit-info" => (Role::Limit, "api", Some(DAY)),
            "x-limit-per-second" => (Role::Limit, "second", Some(SECOND)),
            "x-remaining-this-second" => (Role::Remaining, "second", Some(SECOND)),
            "x-limit-per-day" => (Role::Limit, "day", Some(DAY)),
            "x-remaining-today" => (Role::Remaining, "day", Some(DAY)),
            "x-minlimit-remaining" => (Role::Remaining, "minute", Some(MINUTE)),
            "x-appminlimit-remaining" => (Role::Remaining, "app", Some(MINUTE)),
            "x-daylimit-remaining" => (Role::Remaining, "day", Some(DAY)),
            _ => return None,
        };
        Some(Self { role, about: vec![about], window, is_bare: false })
    }

    /// Takes in one word behind "rate limit"; nothing when such a header is about something else.
    fn hear(&mut self, word: &'a str, unit: Unit) -> Option<()> {
        let (role, about) = match word {
            // Policies say nothing of the moment, and places at once are no quota.
            "policy" => return None,
            _ if word.starts_with("concurrent") => return None,
            "time" | "ms" | "milliseconds" | "seconds" | "after" => return Some(()),
            "resettime" => (Some(Role::Reset(unit)), ""),
            "left" => (Some(Role::Remaining), ""),
            "max" | "quota" => (Some(Role::Limit), ""),
            "used" | "usage" | "observed" | "count" => (Some(Role::Used), ""),
            "interval" | "period" | "window" => (Some(Role::Window(unit)), ""),
            "reset" | "resets" => (Some(Role::Reset(unit)), ""),
            _ => ending(word, unit),
        };
        if let Some(role) = role {
            (self.role, self.is_bare) = (role, false);
        }
        if !about.is_empty() {
            self.about.push(about);
            self.window = self.window.or(window(about));
        }
        Some(())
    }
}

/// Words that are written together: `userremaining`, `dailylimit`.
fn ending(word: &str, unit: Unit) -> (Option<Role>, &str) {
    let roles = [("remaining", Role::Remaining), ("limit", Role::Limit), ("reset", Role::Reset(unit))];
    let found = roles.into_iter().find_map(|(ending, role)| Some((role, word.strip_suffix(ending)?)));
    found.map_or((None, word), |(role, about)| (Some(role), about))
}

/// How times are written, as far as a name says so.
fn unit(name: &str) -> Unit {
    let has = |wanted: &str| name.split('-').any(|word| word == wanted);
    match () {
        () if has("ms") || has("milliseconds") => Unit::Milliseconds,
        () if has("after") => Unit::After,
        () => Unit::Any,
    }
}

fn window(word: &str) -> Option<Duration> {
    Some(match word {
        "second" | "secondly" => SECOND,
        "minute" | "min" => MINUTE,
        "hour" | "hourly" => HOUR,
        "day" | "daily" => DAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<(Role, &[&str], Option<Duration>)>) {
        let field = Field::of(name);
        let found = field.as_ref().map(|field| (field.role, &*field.about, field.window));
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn roles_are_found_wherever_they_stand() {
        check("x-ratelimit-remaining", Some((Role::Remaining, &[], None)));
        check("ratelimit-limit", Some((Role::Limit, &[], None)));
        check("x-rate-limit", Some((Role::Limit, &[], None)));
        check("x-ratelimit-reset-requests", Some((Role::Reset(Unit::Any), &["requests"], None)));
        check("anthropic-ratelimit-tokens-reset", Some((Role::Reset(Unit::Any), &["anthropic", "tokens"], None)));
        check("x-ratelimit-reset-after", Some((Role::Reset(Unit::After), &[], None)));
        check("x-rate-limit-time-reset-ms", Some((Role::Reset(Unit::Milliseconds), &[], None)));
        check("x-rate-limit-requests-left", Some((Role::Remaining, &["requests"], None)));
        check("x-ratelimit-userremaining", Some((Role::Remaining, &["user"], None)));
        check("x-ratelimit-period", Some((Role::Window(Unit::Any), &[], None)));
    }

    #[test]
    fn windows_are_named() {
        check("x-ratelimit-remaining-minute", Some((Role::Remaining, &["minute"], Some(MINUTE))));
        check("x-hubspot-ratelimit-daily", Some((Role::Limit, &["hubspot", "daily"], Some(DAY))));
        check("ratelimit-dailylimit", Some((Role::Limit, &["daily"], Some(DAY))));
        check("x-remaining-this-second", Some((Role::Remaining, &["second"], Some(SECOND))));
    }

    #[test]
    fn what_is_about_something_else_is_nothing() {
        for name in [
            "content-length",
            "x-remaining-items",
            "x-limit",
            "x-reset",
            "ratelimit-policy",
            "x-sentry-rate-limit-concurrentremaining",
            "x-pagination-remaining",
        ] {
            check(name, None);
        }
    }
}
