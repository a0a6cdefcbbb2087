//! Runs so many seeds and prints one line: `survived`, or `caught`, the seed and what was found.
//!
//! `cargo xtask sim --planted` runs it on sources with a bug; it has no other use.
#![expect(clippy::print_stdout, reason = "its line is what it is for")]

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000);
    // What a planted bug makes panic is told in the line.
    std::panic::set_hook(Box::new(|_| {}));
    match farcall_sim::run_many(0, count) {
        Ok(_) => println!("survived"),
        Err(failure) => println!("caught {} {}", failure.seed, failure.what.replace('\n', " ")),
    }
}
