//! `farcall man`: manual pages made from the same words as the help, one for each command.
//!
//! What is printed is their source, which `man -l -` shows and packages install.

use std::path::Path;

use anyhow::Context as _;
use clap_mangen::Man;

use crate::args::client::ManArgs;
use crate::args::command_line;
use crate::context::Context;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context, args: &ManArgs) -> Result<Exit, Failure> {
    context.refuse_settings("man")?;
    let pages = pages();
    if let Some(directory) = &args.out {
        for (name, page) in &pages {
            write(directory, name, page).map_err(|error| Failure::new(Exit::Usage, error))?;
        }
        return Ok(Exit::Ok);
    }
    let wanted = args.command.iter().fold("farcall".to_owned(), |name, word| format!("{name}-{word}"));
    let Some((_, page)) = pages.iter().find(|(name, _)| *name == wanted) else {
        let failure = Failure::new(Exit::NotFound, anyhow::anyhow!("there is no page {wanted}"));
        return Err(failure.with_hint("`farcall help` lists the commands"));
    };
    let printed = context.screen.bytes(page).context("the page cannot be written");
    printed.map_err(|error| Failure::new(Exit::Usage, error)).map(|()| Exit::Ok)
}

/// All pages by their names, as `farcall-upstreams-set`.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut all = command_line().disable_help_subcommand(true);
    all.build();
    let mut pages = Vec::new();
    add("farcall", &all, &mut pages);
    pages
}

/// Adds the pages of a command and of those within it.
fn add(name: &str, command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) {
    pages.push(page(name.to_owned(), command.clone()));
    for within in command.get_subcommands().filter(|within| !within.is_hide_set()) {
        add(&format!("{name}-{}", within.get_name()), within, pages);
    }
}

fn page(name: String, command: clap::Command) -> (String, Vec<u8>) {
    let mut source = Vec::new();
    Man::new(command).title(name.clone()).render(&mut source).expect("memory can be written to");
    (name, source)
}

fn write(directory: &Path, name: &str, page: &[u8]) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}
