//! The checker of the promises: what the submitters were told, what the upstream saw, what the API says and what the
//! files hold must agree. It shares no code with the program.
//!
//! Comes after everything was healed and has ended. What it looks for has the names of the promises: lost, phantom,
//! revived, repeated, unrecorded, ended twice, torn.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::program::{Program, get};
use super::world::{CALLBACKS, CONCURRENCY, Dropped, Told, World, assert_identity, is_repeatable, number};
use super::{until, until_or};

/// What was seen, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What breaks a promise, each with its name.
    pub(crate) broken: Vec<String>,
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
    pub(crate) files: usize,
    pub(crate) rejected: usize,
    pub(crate) arrivals: usize,
    /// Attempts whose outcome nobody knows.
    pub(crate) unknown: usize,
}

/// The facts, side by side.
struct Checker<'w> {
    world: &'w World,
    /// Arrivals by number: the idempotency keys they carried.
    arrivals: HashMap<u64, Vec<String>>,
    findings: Findings,
}

/// Waits until every call has ended, every file is answered and every callback made. The wait is bounded: what never
/// ends is stuck, and fails here.
pub(crate) fn drain(world: &World, program: &Program) {
    // Also one that a power cut caught, as far as it is there.
    let is_answered = |dropped: &Dropped| !world.dir().join(&dropped.name).exists();
    until("every file's end", || world.dropped.lock().expect("not poisoned").values().all(is_answered).then_some(()));
    let all_ended = || {
        let health = program.health().ok()?;
        assert_identity(&health);
        let live = |state: &str| health["calls"][state].as_u64().unwrap_or(u64::MAX);
        (live("queued") + live("running") + live("retrying") + live("scheduled") == 0).then_some(())
    };
    until_or(all_ended, || {
        let waiting = get(world.dir(), "/v1/calls?state=queued&state=running&state=retrying&state=scheduled");
        format!("every call's end: {:?}; {waiting:?}; {}", program.health(), program.log())
    });
    until("every response file", || (count(world, "requests") >= valid_files(world)).then_some(()));
    // A response comes before its request, or its rejected file.
    let pairs = || (count(world, "requests") + count(world, "rejected"), count(world, "responses"));
    let are_whole = || pairs().0 >= pairs().1;
    until_or(|| are_whole().then_some(()), || format!("every request and rejected file: {:?}", pairs()));
}

/// Compares everything, and fails when a promise is broken.
pub(crate) fn assert_kept(world: &World) -> Findings {
    let findings = check(world);
    assert!(findings.broken.is_empty(), "{} promises broken: {:#?}", findings.broken.len(), findings);
    findings
}

/// What a poller sees at this moment, also before the program has put anything right: whole files only.
pub(crate) fn torn_files(world: &World) -> Vec<String> {
    let folders = ["responses", "requests"];
    let texts = folders.map(|folder| (folder, read_texts(&world.dir().join(folder))));
    let each = texts.iter().flat_map(|(folder, texts)| texts.iter().map(move |(name, text)| (folder, name, text)));
    let is_torn = |text: &str| serde_json::from_str::<Value>(text).is_err();
    let torn = each.filter(|(_, _, text)| is_torn(text));
    torn.map(|(folder, name, text)| format!("torn: {folder}/{name}, {} bytes", text.len())).collect()
}

/// Compares everything.
pub(crate) fn check(world: &World) -> Findings {
    let mut checker = Checker { world, arrivals: arrivals(world), findings: Findings::default() };
    checker.check_submissions();
    checker.check_files();
    checker.check_arrivals();
    checker.check_callbacks();
    let bound = world.deaths() * CONCURRENCY;
    let Findings { unknown, .. } = checker.findings;
    checker.hold(unknown <= bound, || format!("repeated: {unknown} unknown attempts, {bound} can have been out"));
    checker.findings
}

impl Checker<'_> {
    fn hold(&mut self, kept: bool, broken: impl FnOnce() -> String) {
        if !kept {
            self.findings.broken.push(broken());
        }
    }

    /// Nothing acknowledged is lost, nothing refused is sent.
    fn check_submissions(&mut self) {
        let told = self.world.told.lock().expect("not poisoned").clone();
        for (number, told) in told {
            match told {
                Told::Accepted(id) => {
                    self.findings.accepted += 1;
                    self.check_call(&id, number);
                }
                Told::Refused(_) => {
                    self.findings.refused += 1;
                    let arrived = self.arrivals.contains_key(&number);
                    self.hold(!arrived, || format!("revived: call {number} was refused and arrived"));
                }
                Told::Unknown => {}
            }
        }
    }

    /// A call that was accepted ended once, as it may, and what succeeded has arrived.
    fn check_call(&mut self, id: &str, number: u64) {
        let answer = get(self.world.dir(), &format!("/v1/calls/{id}"));
        let Some(call) = answer.ok().filter(|answer| answer.status == 200) else {
            return self.hold(false, || format!("lost: {id}, call {number}, is not known any more"));
        };
        let state = call.body["state"].as_str().unwrap_or_default().to_owned();
        let may_end = state == "succeeded" || (state == "unknown" && !is_repeatable(number));
        self.hold(may_end, || format!("lost: {id}, call {number}, ended {}", call.body));
        let arrived = self.arrivals.contains_key(&number);
        self.hold(state != "succeeded" || arrived, || format!("lost: {id} succeeded and never arrived"));
        let before = self.world.ends.lock().expect("not poisoned").insert(id.to_owned(), state.clone());
        self.hold(before.as_ref().is_none_or(|before| *before == state), || {
            format!("ended twice: {id} ended {before:?}, and later {state}")
        });
    }

    /// Every file has its one answer, whole, and is kept byte for byte.
    fn check_files(&mut self) {
        let dropped = self.world.dropped.lock().expect("not poisoned").clone();
        self.findings.files = dropped.len();
        let mut requests = BTreeMap::new();
        for (name, text) in self.read_all("requests") {
            let found = number(&text["body"]);
            self.hold(found.is_some_and(|number| requests.insert(number, name.clone()).is_none()), || {
                format!("doubled or torn: requests/{name}")
            });
        }
        let responses: BTreeMap<_, _> = self.read_all("responses").into_iter().collect();
        let rejected = read_texts(&self.world.dir().join("rejected"));
        self.findings.rejected = rejected.len();
        let rejected_texts: Vec<String> = rejected.into_values().collect();
        for (number, dropped) in &dropped {
            self.check_file(*number, dropped, requests.contains_key(number), &rejected_texts);
        }
        for (number, name) in &requests {
            match dropped.get(number) {
                Some(dropped) => self.check_request(name, dropped),
                None => self.hold(false, || format!("phantom: nobody dropped requests/{name}")),
            }
            match responses.get(name) {
                Some(response) => self.check_response(name, response, *number),
                None => self.hold(false, || format!("lost: {name} has no response")),
            }
        }
        self.check_responses(&responses, requests.len());
    }

    /// A file is where its kind belongs. One that a power cut caught in the inbox may be anywhere, or nowhere.
    fn check_file(&mut self, number: u64, dropped: &Dropped, is_answered: bool, rejected: &[String]) {
        let Dropped { name, text, is_valid, .. } = dropped;
        if dropped.is_doubtful {
            return;
        }
        self.hold(!self.world.dir().join(name).exists(), || format!("lost: {name} is still in the inbox"));
        if *is_valid {
            return self.hold(is_answered, || format!("lost: {name} ({number}) is in the requests under no name"));
        }
        let kept = rejected.iter().filter(|kept| *kept == text).count();
        self.hold(kept == 1, || format!("lost: rejected {name} ({number}) is there {kept} times"));
    }

    fn check_request(&mut self, name: &str, dropped: &Dropped) {
        let kept = std::fs::read_to_string(self.world.dir().join("requests").join(name)).unwrap_or_default();
        self.hold(kept == dropped.text, || format!("torn: requests/{name} is not what was dropped"));
    }

    fn check_response(&mut self, name: &str, response: &Value, number_expected: u64) {
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        self.check_call(&id, number_expected);
        if response["state"] == "succeeded" {
            let filler = response["body"]["filler"].as_str().map(str::len);
            let is_whole = number(&response["body"]) == Some(number_expected)
                && filler.map(|bytes| bytes as u64) == response["body"]["bytes"].as_u64();
            self.hold(is_whole, || format!("torn: responses/{name} of call {number_expected}: {response}"));
        }
    }

    /// One response for every request and every rejected file, and no two for one call.
    fn check_responses(&mut self, responses: &BTreeMap<String, Value>, requests: usize) {
        let mut ids = HashSet::new();
        for (name, response) in responses {
            let is_first = response["id"].as_str().is_none_or(|id| ids.insert(id.to_owned()));
            self.hold(is_first, || format!("ended twice: a second response, {name}, of {}", response["id"]));
        }
        let expected = requests + self.findings.rejected;
        self.hold(responses.len() == expected, || {
            format!("ended twice: {} responses, {expected} requests and rejected files", responses.len())
        });
    }

    /// Every arrival was submitted and is recorded, under one key; repeats have attempts that say why.
    fn check_arrivals(&mut self) {
        let submitted: HashSet<u64> = {
            let (told, dropped) = (self.world.told.lock(), self.world.dropped.lock());
            let dropped = dropped.expect("not poisoned");
            let valid = dropped.iter().filter(|(_, dropped)| dropped.is_valid).map(|(&number, _)| number);
            told.expect("not poisoned").keys().copied().chain(valid).collect()
        };
        for (number, keys) in std::mem::take(&mut self.arrivals) {
            self.findings.arrivals += keys.len();
            self.hold(submitted.contains(&number), || format!("phantom: call {number} was never submitted"));
            let one_key = keys.iter().all(|key| *key == keys[0]);
            self.hold(one_key, || format!("repeated: call {number} arrived under several keys: {keys:?}"));
            self.check_attempts(number, &keys);
        }
    }

    fn check_attempts(&mut self, number: u64, arrivals: &[String]) {
        let Ok(answer) = get(self.world.dir(), &format!("/v1/calls/{}/attempts", arrivals[0])) else {
            return self.hold(false, || format!("unrecorded: call {number} arrived and has no attempts"));
        };
        let attempts = answer.body["data"].as_array().cloned().unwrap_or_default();
        let outcomes: Vec<_> = attempts.iter().filter_map(|attempt| attempt["outcome"].as_str()).collect();
        let unknown = outcomes.iter().filter(|&&outcome| outcome == "unknown").count();
        let answered = |attempt: &&Value| attempt["status"].is_u64() && attempt["outcome"] != "unknown";
        let answered = attempts.iter().filter(answered).count();
        self.findings.unknown += unknown;
        let arrived = arrivals.len();
        // What was answered arrived once; what is unknown arrived or did not.
        self.hold((answered..=answered + unknown).contains(&arrived), || {
            format!("unrecorded or repeated: call {number} arrived {arrived} times, its attempts: {outcomes:?}")
        });
        let is_final = unknown == 0 || (unknown == 1 && outcomes.last() == Some(&"unknown"));
        self.hold(is_repeatable(number) || is_final, || {
            format!("repeated: call {number} must not be, its attempts: {outcomes:?}")
        });
    }

    /// Every end of a durable call was called back, with the end it had.
    fn check_callbacks(&mut self) {
        let all = self.world.callbacks().unwrap_or_default();
        let made: HashSet<&(String, String)> = all.iter().collect();
        let (repeats, bound) = (all.len() - made.len(), self.world.deaths() * CALLBACKS);
        self.hold(repeats <= bound, || format!("repeated: {repeats} callbacks, {bound} can have been out"));
        let ends = self.world.ends.lock().expect("not poisoned").clone();
        for (id, state) in ends {
            let was_made = made.contains(&(id.clone(), state.clone()));
            self.hold(was_made, || format!("lost: the callback of {id}, which ended {state}"));
        }
    }

    fn read_all(&mut self, folder: &str) -> Vec<(String, Value)> {
        let mut parsed = Vec::new();
        for (name, text) in read_texts(&self.world.dir().join(folder)) {
            match serde_json::from_str(&text) {
                Ok(value) => parsed.push((name, value)),
                Err(error) => self.hold(false, || format!("torn: {folder}/{name}: {error}")),
            }
        }
        parsed
    }
}

fn arrivals(world: &World) -> HashMap<u64, Vec<String>> {
    let mut by_number: HashMap<u64, Vec<String>> = HashMap::new();
    for arrival in world.upstream.arrivals().iter() {
        let body: Value = serde_json::from_slice(&arrival.body).expect("bodies arrive whole");
        let key = arrival.header("idempotency-key").expect("a POST or PUT carries its call's id").to_owned();
        by_number.entry(number(&body).expect("every body has its number")).or_default().push(key);
    }
    by_number
}

fn read_texts(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_ours = |name: &String| !name.starts_with('.') && !name.ends_with(".problem.json");
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(is_ours);
    names.map(|name| (name.clone(), std::fs::read_to_string(folder.join(&name)).unwrap_or_default())).collect()
}

fn count(world: &World, folder: &str) -> usize {
    read_texts(&world.dir().join(folder)).len()
}

fn valid_files(world: &World) -> usize {
    let dropped = world.dropped.lock().expect("not poisoned");
    dropped.values().filter(|dropped| dropped.is_valid && !dropped.is_doubtful).count()
}
