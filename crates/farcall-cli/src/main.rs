//! The program: finds out what it was started as and hands over.
//!
//! The only place that ends the process. What each command does stands in `commands`, one file per command.

mod commands;

use std::ffi::OsStr;
use std::process::ExitCode;

use farcall_engine::execute::process::launch;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before anything else: a launcher is about to become another program and must have started nothing.
    if args.next().as_deref() == Some(OsStr::new(launch::COMMAND)) {
        return commands::launch::run(args);
    }
    ExitCode::SUCCESS
}
