//! Everything about a run that its seed decides beforehand.
//!
//! What chance decides on the way comes from the same dice.

use std::time::Duration;

use farcall_core::dispatcher::Memory;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::retention::Retention;
use farcall_core::time::Instant;

use crate::account::Account;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::hedging;
use crate::policies::{self, Forms};
use crate::pruning;
use crate::upstream::Network;
use crate::workload::{self, CallPlan};

/// The plan of one run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) start: Instant,
    /// The wall clock shows this much more than the boot clock, at first.
    pub(crate) wall_ahead: Duration,
    pub(crate) forms: Forms,
    /// Place 0 is that of callbacks that run a command, the last ones are those of webhooks; places are upstream ids at
    /// every start.
    pub(crate) upstreams: Vec<UpstreamPlan>,
    pub(crate) calls: Vec<CallPlan>,
    pub(crate) faults: Faults,
    /// Small enough that lanes are loaded and left to the store all the time.
    pub(crate) memory: Memory,
    /// Nothing when nothing is ever pruned.
    pub(crate) retention: Option<Retention>,
}

/// An upstream as it is at first.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamPlan {
    /// Its name, and what its limits are counted by.
    pub(crate) key: String,
    pub(crate) policy: UpstreamPolicy,
    pub(crate) network: Network,
    /// It counts for itself, and tells.
    pub(crate) account: Option<Account>,
    /// The place of the upstream whose quota it shares: these are callbacks with URLs that belong to that one.
    shares: Option<usize>,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let forms = Forms::draw(dice);
        let count = dice.count(1, 6);
        let receivers: Vec<u32> = (1..=count).filter(|_| forms.webhooks && dice.percent(60)).collect();
        let webhooks = (count + 1..).take(receivers.len());
        let targets: Vec<u32> = std::iter::once(0).chain(webhooks).collect();
        let (mut calls, span) = workload::draw(dice, count, &targets[1..]);
        let changes_limits = dice.percent(40);
        let mut upstreams = vec![UpstreamPlan::new(dice, 0, policies::callbacks(), false)];
        for place in 1..=count {
            let policy = policies::draw(dice, forms, &targets);
            upstreams.push(UpstreamPlan::new(dice, place, policy, changes_limits));
        }
        for upstream in upstreams.iter_mut().skip(1).filter(|_| forms.redirects) {
            let always = dice.count(1, count);
            let places = (1..=count).filter(|&place| place == always || dice.percent(60)).collect();
            upstream.network.redirect_to(places, dice.count(0, 60));
        }
        if dice.percent(15) {
            upstreams[1].network.turn_hostile(dice);
        }
        for receiver in receivers {
            upstreams.push(upstreams[receiver as usize].callbacks(receiver as usize));
        }
        let windows = upstreams.iter().flat_map(|upstream| &upstream.policy.limits).map(|limit| limit.window);
        let longest = windows.max().unwrap_or(Duration::from_secs(10));
        let mut faults = Faults::draw(dice, count, span, longest);
        faults.changes_limits = changes_limits;
        let mut memory = memory(dice);
        let retention = pruning::draw(dice);
        match dice.count(0, 15) {
            0 => {
                workload::crowd(dice, &mut calls, span);
                memory.lane_max = memory.lane_max.min(4).max(memory.lane_min);
                faults.read_max = span / dice.count(5, 50);
            }
            1 => {
                workload::pile_up(dice, &mut calls, span);
                memory = Memory::default();
            }
            _ => {}
        }
        let of_calls = 1..=count as usize;
        hedging::lay_over(dice, &mut upstreams[of_calls], &mut calls);
        let start = Instant::from_micros(0) + dice.up_to(Duration::from_secs(1_000_000));
        let wall_ahead = Duration::from_secs(1_700_000_000) + dice.up_to(Duration::from_secs(100_000_000));
        if dice.percent(35) {
            for upstream in upstreams.iter_mut().skip(1).filter(|upstream| upstream.shares.is_none()) {
                upstream.account = dice.percent(70).then(|| Account::draw(dice));
            }
        }
        draw_breakers(dice, &mut upstreams);
        Self { start, wall_ahead, forms, upstreams, calls, faults, memory, retention }
    }

    /// The place of the upstream whose limits hold for what goes to this one.
    pub(crate) fn quota(&self, place: usize) -> usize {
        self.upstreams[place].shares.unwrap_or(place)
    }

    /// The place of the upstream whose calls are counted by this limit key.
    pub(crate) fn place_of(&self, key: &str) -> Option<usize> {
        self.upstreams.iter().position(|upstream| upstream.key == key)
    }

    /// The upstream that these callbacks went to: that of commands, or that of webhooks to this limit key.
    pub(crate) fn place_of_callback(&self, key: &str) -> Option<usize> {
        let is_meant = |upstream: &UpstreamPlan| upstream.key == key && upstream.shares.is_some();
        let webhooks = self.upstreams.iter().position(is_meant);
        webhooks.or_else(|| (self.upstreams[0].key == key).then_some(0))
    }

    /// Whether callbacks to this upstream go to a URL.
    pub(crate) fn is_webhook(&self, place: usize) -> bool {
        self.upstreams[place].shares.is_some()
    }
}

/// Last of all, so that whatever else a seed decides does not change with them.
fn draw_breakers(dice: &mut Dice, upstreams: &mut [UpstreamPlan]) {
    if !dice.percent(40) {
        return;
    }
    let calls = upstreams.iter_mut().skip(1).filter(|upstream| upstream.shares.is_none());
    for upstream in calls {
        upstream.policy.breaker = dice.percent(60).then(|| policies::breaker(dice));
    }
}

fn memory(dice: &mut Dice) -> Memory {
    let lane_min = dice.count(1, 4) as usize;
    let lane_max = lane_min + dice.count(0, 8) as usize;
    Memory { calls_max: dice.spread_count(1, 100) as usize, lane_max, lane_min }
}

impl UpstreamPlan {
    fn new(dice: &mut Dice, place: u32, policy: UpstreamPolicy, may_change: bool) -> Self {
        let network = Network::draw(dice, &policy, may_change);
        let key = if place == 0 { "callbacks".to_owned() } else { format!("upstream{place}") };
        Self { key, policy, network, account: None, shares: None }
    }

    /// Callbacks to the same server. Its own limits are none: those of the other hold.
    fn callbacks(&self, place: usize) -> Self {
        Self { policy: policies::callbacks(), account: None, shares: Some(place), ..self.clone() }
    }
}
