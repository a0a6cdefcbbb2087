//! What people set at upstreams that are at work: pauses and patches. Here they are kept, put in place and answered for.
//!
//! A patch is a reload of the file's configuration with the patch over it; a pause is the dispatcher's. Either is
//! answered when it is stored, and when every request that was leaving under the old policy has arrived: so nothing is
//! sent after a pause was answered, and what a patch says holds from its answer on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::Event;
use farcall_core::id::AttemptId;
use farcall_core::time::{Instant, Now};
use farcall_store::record::UpstreamRecord;
use tokio::sync::oneshot;

use super::attempts::Surroundings;
use super::{Run, prune};
use crate::clock;
use crate::config::Config;
use crate::config::patch::Patches;
use crate::document::UpstreamRef;
use crate::handle::{ControlError, Setting, UpstreamView};
use crate::upstreams::{Known, Making, Serves, UpstreamError, limit_key};

/// The longest that an answer waits for requests on their way: longer than the default of `connect_timeout`.
const ARRIVAL_MAX: Duration = Duration::from_secs(6);
/// How often it is looked whether they have arrived.
const ARRIVAL_LOOKS: Duration = Duration::from_millis(5);

/// What is set, and who waits to hear that it holds.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// The configuration as the file says, nothing patched.
    file: Arc<Config>,
    /// By limit key.
    patches: BTreeMap<String, Patches>,
    last_ticket: u64,
    waiting: BTreeMap<u64, Waiting>,
}

pub(super) type Answer = oneshot::Sender<Result<(), ControlError>>;

/// Somebody who waits.
#[derive(Debug)]
struct Waiting {
    answer: Answer,
    is_stored: bool,
    /// These may not have arrived yet.
    on_their_way: Vec<AttemptId>,
    until: Instant,
}

/// What was set before this start, after what the file says by now.
pub(super) struct Restored {
    pub(super) control: Control,
    /// The configuration with the patches over it.
    pub(super) config: Arc<Config>,
    pub(super) paused: BTreeSet<String>,
    /// Upstreams of which a patch is gone, because the file says something else.
    pub(super) changed: Vec<String>,
}

impl Restored {
    pub(super) fn of(records: &[UpstreamRecord], file: &Arc<Config>) -> Self {
        let (mut patches, mut paused) = (BTreeMap::new(), BTreeSet::new());
        for record in records {
            if record.is_paused {
                paused.insert(record.limit_key.clone());
            }
            match Patches::from_text(&record.patches) {
                Ok(found) if found.is_empty() => {}
                Ok(found) => drop(patches.insert(record.limit_key.clone(), found)),
                Err(error) => {
                    tracing::warn!(upstream = record.limit_key, %error, "what was patched here does not read back");
                }
            }
        }
        let changed = give_way(&mut patches, file);
        let config = Arc::new(file.patched(&patches));
        let control = Control { file: Arc::clone(file), patches, ..Control::default() };
        Self { control, config, paused, changed }
    }
}

/// Patches of keys that the file has changed are gone; the limit keys of their upstreams.
fn give_way(patches: &mut BTreeMap<String, Patches>, file: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    for (limit_key, patches) in patches.iter_mut() {
        if patches.give_way(&file.written, limit_key) {
            tracing::info!(upstream = limit_key.as_str(), "the file has changed what was patched here, and holds");
            changed.push(limit_key.clone());
        }
    }
    patches.retain(|_, patches| !patches.is_empty());
    changed
}

impl Control {
    /// The patched keys of an upstream.
    pub(super) fn patched(&self, limit_key: &str) -> Vec<String> {
        self.patches.get(limit_key).into_iter().flat_map(Patches::keys).map(str::to_owned).collect()
    }

    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// When it is to be looked again whether somebody can be answered.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let waits = self.waiting.values().any(|waiting| waiting.is_stored);
        waits.then(|| now + ARRIVAL_LOOKS)
    }
}

impl Run {
    /// The upstream of this name or origin, with its live use.
    pub(super) fn view_upstream(&mut self, name: &str) -> Option<UpstreamView> {
        let id = self.upstream_named(name)?;
        let now = clock::now();
        let standing = self.dispatcher.upstream_standing(id, now.instant);
        let known = self.upstreams.get(id)?;
        let patched = self.control.patched(limit_key(&known.reference));
        let is_paused = self.upstreams.is_paused(limit_key(&known.reference));
        Some(UpstreamView { patched, is_paused, ..UpstreamView::new(known, &standing, now) })
    }

    /// All of them: declared ones by name, then those that calls have brought in, by origin.
    pub(super) fn view_upstreams(&mut self) -> Vec<UpstreamView> {
        let calls = self.upstreams.iter().filter(|(_, known)| known.serves == Serves::Calls);
        let mut names: Vec<(bool, String)> = calls.map(|(_, known)| order(known)).collect();
        names.sort_unstable();
        names.into_iter().filter_map(|(_, name)| self.view_upstream(&name)).collect()
    }

    /// Sets something at an upstream; the answer comes when it holds and is stored.
    pub(super) fn set_upstream(&mut self, name: &str, setting: Setting, answer: Answer) {
        let now = clock::now();
        let Some(id) = self.upstream_named(name) else { return drop(answer.send(Err(ControlError::Unknown))) };
        let ticket = self.control.ticket();
        let on_their_way = match setting {
            Setting::Pause => {
                self.upstreams.note_paused(name, true);
                self.dispatcher.pause(id, ticket);
                Ok(self.dispatcher.on_their_way(now, id))
            }
            Setting::Resume => {
                self.upstreams.note_paused(name, false);
                self.dispatcher.resume(now, id, ticket);
                Ok(Vec::new())
            }
            Setting::Patch(patch) => {
                let before = self.control.patches.get(name).cloned().unwrap_or_default();
                let patches = before.with(&patch, &self.control.file.written, name).map_err(ControlError::from);
                patches.and_then(|patches| self.patch(now, (id, name), patches, ticket))
            }
        };
        match on_their_way {
            Ok(on_their_way) => {
                let until = now.instant + ARRIVAL_MAX;
                let waiting = Waiting { answer, is_stored: false, on_their_way, until };
                self.control.waiting.insert(ticket, waiting);
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    /// Puts patches in place; gives the attempts that are leaving under the policy that was.
    fn patch(
        &mut self,
        now: Now,
        (id, name): (UpstreamId, &str),
        patches: Patches,
        ticket: u64,
    ) -> Result<Vec<AttemptId>, ControlError> {
        let mut all = self.control.patches.clone();
        if patches.is_empty() {
            all.remove(name);
        } else {
            all.insert(name.to_owned(), patches);
        }
        let on_their_way = self.dispatcher.on_their_way(now, id);
        self.put_in_place(Arc::new(self.control.file.patched(&all)))?;
        self.control.patches = all;
        self.dispatcher.note_upstream(id, ticket);
        Ok(on_their_way)
    }

    /// Another file: what it says of a patched key takes the place of the patch, if it is something else.
    pub(super) fn reload_file(&mut self, file: Arc<Config>) -> Result<(), UpstreamError> {
        let mut patches = self.control.patches.clone();
        let changed = give_way(&mut patches, &file);
        self.put_in_place(Arc::new(file.patched(&patches)))?;
        (self.control.file, self.control.patches) = (file, patches);
        for limit_key in changed {
            if let Some(id) = self.upstream_named(&limit_key) {
                let ticket = self.control.ticket();
                self.dispatcher.note_upstream(id, ticket);
            }
        }
        Ok(())
    }

    /// Makes another configuration hold, patches and all.
    fn put_in_place(&mut self, config: Arc<Config>) -> Result<(), UpstreamError> {
        let (dispatcher, reader, now) = (&mut self.dispatcher, self.reader.as_mut(), clock::now());
        self.upstreams.reload(Arc::clone(&config), &mut Making { dispatcher, reader, now })?;
        self.documents.clear();
        self.dispatcher.set_retention(now.instant, prune::retention(&config, &self.steady));
        self.config = Arc::clone(&config);
        self.around = Arc::new(Surroundings { config: Arc::clone(&config), ..Surroundings::clone(&self.around) });
        self.live.replace(config);
        if let Some(keeper) = &self.keeper {
            keeper.wake();
        }
        Ok(())
    }

    /// What is set at an upstream, as it is stored.
    pub(super) fn upstream_record(&self, id: UpstreamId) -> UpstreamRecord {
        let known = self.upstreams.get(id).expect("an upstream at which something is set is known");
        let limit_key = limit_key(&known.reference).to_owned();
        let patches = self.control.patches.get(&limit_key).map(Patches::to_text).unwrap_or_default();
        UpstreamRecord { is_paused: self.upstreams.is_paused(&limit_key), patches, limit_key }
    }

    /// What was set under this ticket is durable.
    pub(super) fn upstream_stored(&mut self, ticket: u64) {
        if let Some(waiting) = self.control.waiting.get_mut(&ticket) {
            waiting.is_stored = true;
        }
        self.answer_control(clock::now());
    }

    /// Answers those for whom all that they wait for has come.
    pub(super) fn answer_control(&mut self, now: Now) {
        self.note_departures(now);
        for waiting in self.control.waiting.values_mut().filter(|waiting| waiting.is_stored) {
            waiting.on_their_way.retain(|&attempt| self.dispatcher.is_on_its_way(now, attempt));
        }
        let holds = |_: &u64, waiting: &mut Waiting| {
            waiting.is_stored && (waiting.on_their_way.is_empty() || waiting.until <= now.instant)
        };
        for (_, waiting) in self.control.waiting.extract_if(.., holds) {
            let _ = waiting.answer.send(Ok(()));
        }
    }

    /// Of upstreams without limits nobody is told when requests leave: only now does it matter.
    fn note_departures(&mut self, now: Now) {
        for &attempt in self.control.waiting.values().flat_map(|waiting| &waiting.on_their_way) {
            let departed = self.pending.running.get(&attempt).and_then(|running| running.departure.at());
            if let Some(at) = departed {
                self.dispatcher.handle(now, Event::Sent { attempt, at });
            }
        }
    }

    /// The upstream for calls that has this name or origin.
    fn upstream_named(&self, name: &str) -> Option<UpstreamId> {
        let declared = UpstreamRef::Declared(name.to_owned());
        let found = self.upstreams.find(&declared, Serves::Calls);
        found.or_else(|| self.upstreams.find(&UpstreamRef::Undeclared(name.to_owned()), Serves::Calls))
    }
}

/// Where it stands in a list: declared ones come first.
fn order(known: &Known) -> (bool, String) {
    (matches!(*known.reference, UpstreamRef::Undeclared(_)), limit_key(&known.reference).to_owned())
}
