//! A response and its request stay together: whatever comes of the same name meanwhile, and after a crash at any step
//! of whoever came.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;

const NAME: &[u8] = b"order.json";
/// How far the earlier call came before the crash: nothing placed, its response, both.
const STAGES: [usize; 3] = [0, 1, 2];

/// Files a call as far as that, as a process did that was killed then.
fn file_partly(bench: &Bench, call: &Ended, stage: usize) {
    let calls = std::slice::from_ref(call);
    let folders = Folders::open(bench.dir.path()).expect("it can be opened");
    let mut batch = ended::Batch::new(&bench.filing, &folders, calls);
    batch.write();
    if stage > 0 {
        batch.place_responses();
    }
    if stage > 1 {
        batch.place_requests();
    }
}

/// Rejects a file as far as that: the renames that free its name first, then the steps of a batch.
fn reject_partly(bench: &Bench, file: &FileIdentity, steps: usize) {
    let folders = Folders::open(bench.dir.path()).expect("it can be opened");
    let moves = displace::plan(&folders, NAME, Newcomer::Rejected).expect("it can be planned");
    displace::run(&folders, &moves[..steps.min(moves.len())]).expect("it can be done");
    let rejection = rejection();
    let files = [Rejected { file, rejection: &rejection }];
    let mut batch = rejected::Batch::new(&bench.filing, &folders, &files);
    batch.write();
    let rest: [fn(&mut rejected::Batch<'_>, &Filing); 3] = [
        |batch, _| batch.place_responses(),
        |batch, _| batch.place_problems(),
        |batch, filing| batch.move_files(filing),
    ];
    for step in rest.iter().take(steps.saturating_sub(moves.len())) {
        step(&mut batch, &bench.filing);
    }
}

fn assert_pair(tree: &Tree, number: u128, context: &str) {
    let request = format!("request {number}");
    let requests: Vec<&String> = tree
        .iter()
        .filter(|(name, text)| name.starts_with("requests/") && **text == request)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(requests.len(), 1, "{context}: request {number} is there once: {tree:#?}");
    let response = requests[0].replace("requests/", "responses/");
    assert_eq!(tree.get(&response), Some(&response_of(number)), "{context}: the response beside it: {tree:#?}");
}

fn assert_all_in_place(bench: &Bench, numbers: &[u128], context: &str) {
    let tree = bench.tree();
    for &number in numbers {
        assert_pair(&tree, number, context);
    }
    let rejections = tree.values().filter(|text| text.as_bytes() == rejected_response(&rejection())).count();
    let rejected = tree.iter().filter(|(name, text)| name.starts_with("rejected/") && *text == "not a call").count();
    assert_eq!((rejections, rejected), (1, 1), "{context}: {tree:#?}");
    assert_eq!(tree.len(), 2 * numbers.len() + 3, "{context}: {tree:#?}");
}

#[test]
fn a_call_filed_again_keeps_its_pair_together_when_a_file_of_its_name_is_rejected_meanwhile() {
    for stage in STAGES {
        let mut bench = Bench::new();
        file_partly(&bench, &ended(1, NAME), stage);
        bench.restart();
        bench.filing.claim(NAME, id(1));
        let file = bench.drop_in(NAME, "not a call");
        let calls = [ended(1, NAME)];
        let folders = Folders::open(bench.dir.path()).expect("it can be opened");
        let (sender, rejected) = mpsc::channel();
        thread::scope(|scope| {
            let mut batch = ended::Batch::new(&bench.filing, &folders, &calls);
            batch.write();
            scope.spawn(|| sender.send(bench.reject(&file)).expect("the test waits"));
            // Rejected now if it may be; else once the pair is in place.
            let before = rejected.recv_timeout(Duration::from_millis(100)).ok();
            batch.place_responses();
            batch.place_requests();
            drop(batch);
            let outcome = before.unwrap_or_else(|| rejected.recv().expect("nobody holds the name any more"));
            assert_eq!(outcome, RejectedOutcome::Filed);
        });
        assert_all_in_place(&bench, &[1], &format!("stage {stage}"));
    }
}

#[test]
fn a_crash_at_any_step_of_rejecting_a_file_of_a_calls_name_mixes_no_pairs() {
    for stage in STAGES {
        for steps in 0..=5 {
            for is_filed_first in [true, false] {
                let mut bench = Bench::new();
                file_partly(&bench, &ended(1, NAME), stage);
                let file = bench.drop_in(NAME, "not a call");
                reject_partly(&bench, &file, steps);
                bench.restart();
                bench.filing.claim(NAME, id(1));
                if is_filed_first {
                    bench.file(&ended(1, NAME));
                }
                let again = bench.dir.path().join("order.json").exists();
                if again {
                    assert_eq!(bench.reject(&file), RejectedOutcome::Filed);
                }
                if !is_filed_first {
                    bench.file(&ended(1, NAME));
                }
                let context = format!("stage {stage}, {steps} steps, filed first: {is_filed_first}");
                assert_all_in_place(&bench, &[1], &context);
                assert!(bench.tree()["responses/order.json"].contains("rejected"), "{context}: it came last");
            }
        }
    }
}

#[test]
fn a_crash_at_any_step_of_making_way_for_a_later_call_mixes_no_pairs() {
    for stage in STAGES {
        for steps in 0..=2 {
            for order in [[1, 2], [2, 1]] {
                let mut bench = Bench::new();
                file_partly(&bench, &ended(1, NAME), stage);
                let folders = Folders::open(bench.dir.path()).expect("it can be opened");
                let moves = displace::plan(&folders, NAME, Newcomer::Call(id(2))).expect("it can be planned");
                displace::run(&folders, &moves[..steps.min(moves.len())]).expect("it can be done");
                bench.restart();
                bench.filing.claim(NAME, id(1));
                bench.filing.claim(NAME, id(2));
                for number in order {
                    bench.file(&ended(number, NAME));
                }
                let (tree, context) = (bench.tree(), format!("stage {stage}, {steps} steps, filed {order:?}"));
                assert_pair(&tree, 1, &context);
                assert_pair(&tree, 2, &context);
                assert_eq!(tree.len(), 4, "{context}: {tree:#?}");
                assert_eq!(tree["responses/order.json"], response_of(2), "{context}");
            }
        }
    }
}

#[test]
fn calls_of_one_name_in_one_batch_each_keep_their_pair_over_a_crash_between_them() {
    for stage in STAGES {
        for order in [[1, 2], [2, 1]] {
            for placed in 0..=2 {
                let mut bench = Bench::new();
                file_partly(&bench, &ended(1, NAME), stage);
                bench.restart();
                let calls = order.map(|number| ended(number, NAME));
                let folders = Folders::open(bench.dir.path()).expect("it can be opened");
                let mut batch = ended::Batch::new(&bench.filing, &folders, &calls);
                batch.write();
                batch.place_responses();
                batch.place_first_requests(placed);
                drop(batch);
                bench.restart();
                assert!(bench.filing.file(&calls).iter().all(Result::is_ok));
                let (tree, context) = (bench.tree(), format!("stage {stage}, filed {order:?}, {placed} requests"));
                assert_pair(&tree, 1, &context);
                assert_pair(&tree, 2, &context);
                assert_eq!(tree.len(), 4, "{context}: {tree:#?}");
            }
        }
    }
}

#[test]
fn a_call_finds_a_later_calls_lone_request_and_leaves_the_name_to_it() {
    let mut bench = Bench::new();
    bench.file(&ended(2, NAME));
    fs::remove_file(bench.dir.path().join("responses/order.json")).expect("a poller may remove it");
    bench.restart();
    bench.file(&ended(1, NAME));
    let tree = bench.tree();
    assert_pair(&tree, 1, "filed under its id");
    assert_eq!(tree["requests/order.json"], "request 2");
    assert_eq!(tree.len(), 3, "{tree:#?}");
}
