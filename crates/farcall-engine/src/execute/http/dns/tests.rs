//! The resolver against lookups that are scripted: shared, bounded, believed, forgotten, broken down.

use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3_600);

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn origin(name: &str) -> Origin {
    Origin { secure: false, host: Host::Domain(name.to_owned()), port: 80 }
}

/// A resolver that knows one address for every name and counts how often it is asked.
fn counting(believed_for: Duration) -> (Resolver, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let resolver = Resolver::new(believed_for, move |name| {
        counted.fetch_add(1, Ordering::SeqCst);
        if name == "gone" { Err(io::Error::other("no such name")) } else { Ok(ips(&["10.0.0.1"])) }
    });
    (resolver, count)
}

fn check(given: &[&str], expected: &[&str]) {
    assert_eq!(alternate(ips(given))[..], ips(expected), "{given:?}");
}

#[test]
fn families_take_turns_and_the_resolvers_first_choice_stays_first() {
    check(&[], &[]);
    check(&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]);
    check(&["::1", "::2", "::3", "10.0.0.1"], &["::1", "10.0.0.1", "::2", "::3"]);
    check(&["10.0.0.1", "::1", "::2", "::3"], &["10.0.0.1", "::1", "::2", "::3"]);
}

#[test]
fn a_name_with_many_addresses_is_cut() {
    let many = (0..100u8).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    assert_eq!(alternate(many).len(), ADDRESSES_MAX);
}

#[tokio::test]
async fn an_answer_is_believed_for_a_while_and_not_after_it_led_nowhere() {
    let (resolver, count) = counting(LONG);
    let asked = || count.load(Ordering::SeqCst);
    for _ in 0..3 {
        let addresses = resolver.resolve(&origin("a")).await.expect("the name is known");
        assert_eq!(addresses, ["10.0.0.1:80".parse().expect("an address")]);
    }
    assert_eq!(asked(), 1);
    resolver.forget(&origin("a"));
    resolver.resolve(&origin("a")).await.expect("the name is known");
    assert_eq!(asked(), 2);
    let (resolver, count) = counting(Duration::ZERO);
    for _ in 0..3 {
        resolver.resolve(&origin("a")).await.expect("the name is known");
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_was_not_found_is_asked_again() {
    let (resolver, count) = counting(LONG);
    for _ in 0..2 {
        let failure = resolver.resolve(&origin("gone")).await.expect_err("there is no such name");
        assert_eq!((failure.kind, failure.message.contains("no such name")), (ErrorKind::Dns, true));
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn those_who_wait_for_a_name_share_one_lookup_even_when_the_first_gives_up() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (released, count) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let resolver = Resolver::new(LONG, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = released.lock().expect("nobody panics with it").recv();
        Ok(ips(&["10.0.0.1"]))
    });
    let first = tokio::time::timeout(Duration::from_millis(1), resolver.resolve(&origin("a"))).await;
    assert!(first.is_err(), "nothing was released yet");
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let resolver = resolver.clone();
        waiting.spawn(async move { resolver.resolve(&origin("a")).await });
    }
    tokio::task::yield_now().await;
    drop(release);
    while let Some(resolved) = waiting.join_next().await {
        assert_eq!(resolved.expect("nobody panics").expect("the name is known").len(), 1);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn only_so_many_names_are_looked_up_at_a_time() {
    #[derive(Default)]
    struct Busy {
        now: usize,
        most: usize,
    }
    let busy = Arc::new((Mutex::new(Busy::default()), Condvar::new()));
    let watched = Arc::clone(&busy);
    let resolver = Resolver::new(LONG, move |_| {
        let (busy, changed) = &*watched;
        let mut held = busy.lock().expect("nobody panics with it");
        held.now += 1;
        held.most = held.most.max(held.now);
        changed.notify_all();
        // Until all that may be at work are.
        let waited = changed.wait_timeout_while(held, SECOND * 20, |busy| busy.most < LOOKUPS_MAX);
        let (mut held, late) = waited.expect("nobody panics with it");
        assert!(!late.timed_out(), "as many as may be are at work at once");
        held.now -= 1;
        Ok(ips(&["10.0.0.1"]))
    });
    let mut waiting = JoinSet::new();
    for n in 0..LOOKUPS_MAX * 4 {
        let resolver = resolver.clone();
        waiting.spawn(async move { resolver.resolve(&origin(&format!("name-{n}"))).await });
    }
    while let Some(resolved) = waiting.join_next().await {
        resolved.expect("nobody panics").expect("every name is known");
    }
    assert_eq!(busy.0.lock().expect("nobody panics with it").most, LOOKUPS_MAX);
}

#[tokio::test]
async fn a_lookup_that_breaks_down_is_told_and_tried_again() {
    let count = AtomicUsize::new(0);
    let resolver = Resolver::new(LONG, move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("a resolver breaks down"),
        _ => Ok(ips(&["10.0.0.1"])),
    });
    let failure = resolver.resolve(&origin("a")).await.expect_err("the first lookup breaks down");
    assert!(failure.message.contains("broke down"), "{}", failure.message);
    assert!(resolver.resolve(&origin("a")).await.is_ok());
}

#[tokio::test]
async fn no_more_names_are_remembered_than_there_is_room_for() {
    let (resolver, count) = counting(LONG);
    for n in 0..NAMES_MAX + 10 {
        resolver.resolve(&origin(&format!("name-{n}"))).await.expect("every name is known");
    }
    assert_eq!((count.load(Ordering::SeqCst), resolver.shared.names().len()), (NAMES_MAX + 10, NAMES_MAX));
}
