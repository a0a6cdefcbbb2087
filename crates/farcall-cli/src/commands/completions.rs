//! `farcall completions SHELL`: the script that completes farcall's commands and flags in a shell.
//!
//! It is made from the same table that the command line is read by.

use crate::args::client::CompletionsArgs;
use crate::args::command_line;
use crate::context::Context;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context, args: &CompletionsArgs) -> Result<Exit, Failure> {
    context.refuse_settings("completions")?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "farcall", &mut script);
    let printed = context.screen.bytes(&script);
    printed.map_err(|error| Failure::new(Exit::Usage, error)).map(|()| Exit::Ok)
}
