//! The program: finds out what it was started as and hands over.
//!
//! The only place that ends the process. What each command does stands in `commands`, one file per command.

mod api;
mod args;
mod client;
mod commands;
mod context;
mod demo;
mod directory;
mod exit;
mod logging;
mod print;
mod progress;
mod reload;
mod session;
mod settings;
mod signals;
mod summary;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use farcall_engine::execute::process::launch;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // Before anything else: a launcher is about to become another program and must have started nothing.
    if words.get(1).map(OsString::as_os_str) == Some(OsStr::new(launch::COMMAND)) {
        return commands::launch::run(words.into_iter().skip(2));
    }
    commands::run(&words).into()
}
