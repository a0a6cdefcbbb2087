//! What users type: the commands, their arguments, the flags that all of them know.
//!
//! Under the name `kofaf` the program has Kofaf's command line, and is `farcall serve` behind it.

pub(crate) mod batch;
pub(crate) mod call;
pub(crate) mod client;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::batch::{BATCH_HELP, BatchArgs};
use self::call::{CALL_HELP, CallArgs};
use self::client::{
    CANCEL_HELP, CallsArgs, CompletionsArgs, ExplainArgs, GetArgs, ListArgs, ManArgs, RETRY_HELP, UpstreamsArgs,
    WaitArgs,
};
use crate::print::Output;
use crate::settings::SettingFlags;

const EXAMPLES: &str = "\
Examples:
  farcall demo                      see it work, on this machine alone
  farcall init ~/calls              write a commented configuration
  farcall serve ~/calls             execute call files as they are dropped there
  farcall run ~/calls               execute what waits there, then exit
  farcall batch calls.ndjson --out results.ndjson
  farcall call POST https://api.example.com/orders --json '{\"order_id\": 123}'
  farcall list --dir ~/calls        look at its calls; `farcall list --help` says how else

Not available yet: functions.";

/// Outbound API calls, durable and within every limit.
#[derive(Debug, Parser)]
#[command(name = "farcall", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands that start no server, and have no use for what is said to one.
const CLIENTS: [&str; 9] = ["get", "list", "wait", "cancel", "retry", "explain", "upstreams", "completions", "man"];
/// Flags of every command that these heed as well.
const HEEDED: [&str; 2] = ["output", "quiet"];

/// The whole command line. What a command does not heed is not in its help; given all the same, it is refused there.
pub(crate) fn command_line() -> clap::Command {
    let command = Args::command();
    let global = command.get_arguments().filter(|argument| argument.is_global_set());
    let unheeded = global.filter(|argument| !HEEDED.contains(&argument.get_id().as_str()));
    let unheeded: Vec<_> = unheeded.map(|argument| argument.clone().hide(true)).collect();
    CLIENTS.iter().fold(command, |command, name| command.mut_subcommand(name, |client| client.args(unheeded.clone())))
}

/// Executes the call files dropped in a directory.
#[derive(Debug, Parser)]
#[command(name = "kofaf", version, max_term_width = 100)]
struct KofafArgs {
    #[command(flatten)]
    global: Global,
    /// The working directory [default: ~/.kofaf]
    dir: Option<PathBuf>,
}

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Read this file instead of the one in DIR
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// How results are printed [default: table on a terminal, ndjson otherwise]
    #[arg(long, value_enum, value_name = "FORM", global = true)]
    pub(crate) output: Option<Output>,
    /// How events are logged on stderr
    #[arg(long, value_enum, value_name = "FORM", default_value_t, global = true)]
    pub(crate) log_format: LogFormat,
    /// Print ids only: no progress, no summary, no log but warnings
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

/// One event, one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Watch DIR, serve the API, run until stopped
    #[command(after_help = "Examples:
  farcall serve                                   watch ~/.farcall, API at 127.0.0.1:8888
  farcall serve ~/calls --listen none             files and socket only, no port
  FARCALL_SERVER_TOKENS=secret farcall serve ~/calls --listen 0.0.0.0:8888")]
    Serve(Dir),
    /// Execute everything that waits in DIR, print a summary, exit
    #[command(after_help = "Waits for retries, limits, schedules and callbacks, and takes files that arrive meanwhile.
Exit status: 0 all succeeded, 1 a call failed or a file was rejected, 130 interrupted (the rest stays).")]
    Run(Dir),
    /// Make one call per line of a file, durably, and write one result per line
    #[command(after_help = BATCH_HELP)]
    Batch(BatchArgs),
    /// Make one call now, and print its answer
    #[command(after_help = CALL_HELP)]
    Call(CallArgs),
    /// A tour on this machine alone: a built-in upstream, call files, their responses
    #[command(after_help = "Everything happens in a new directory under the system's temporary one, or in DIR.
On a terminal it goes on watching after the tour, so that you can drop files of your own.")]
    Demo(DemoDir),
    /// Validate the configuration: every mistake with its place and a hint
    #[command(after_help = "Exit status: 0 valid, 2 mistakes. With --output json or ndjson the findings go to stdout.")]
    Check(Dir),
    /// Write a commented farcall.yml
    Init(Dir),
    /// Show a call, its attempts, or its answer
    Get(GetArgs),
    /// List calls, newest first
    List(ListArgs),
    /// Wait until calls have ended
    Wait(WaitArgs),
    /// Cancel calls
    #[command(after_help = CANCEL_HELP)]
    Cancel(CallsArgs),
    /// Make ended calls anew
    #[command(after_help = RETRY_HELP)]
    Retry(CallsArgs),
    /// Say what a call waits for
    Explain(ExplainArgs),
    /// List, show, pause, resume and set upstreams
    Upstreams(UpstreamsArgs),
    /// Write a shell's completion script
    Completions(CompletionsArgs),
    /// Write manual pages
    Man(ManArgs),
    #[command(flatten)]
    Later(Later),
}

/// The directory of a command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Dir {
    /// The working directory [default: ~/.farcall]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DemoDir {
    /// A directory for the tour, empty or new [default: a new temporary one]
    pub(crate) dir: Option<PathBuf>,
}

/// Commands that are known and refused until they exist.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Later {
    #[command(hide = true)]
    Functions(Anything),
}

/// Whatever stands behind a command.
#[derive(Debug, Clone, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<OsString>,
}

/// What was asked for, under whichever name.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) global: Global,
    pub(crate) command: Command,
    /// The program runs as `kofaf`.
    pub(crate) is_kofaf: bool,
}

impl Invocation {
    /// Reads the words of a command line; the first is the program's name.
    ///
    /// # Errors
    /// What is printed instead: a usage error, help or the version.
    pub(crate) fn parse(words: &[OsString]) -> Result<Self, clap::Error> {
        let name = words.first().and_then(|name| Path::new(name).file_name());
        if name.is_some_and(|name| name == "kofaf") {
            let KofafArgs { global, dir } = KofafArgs::try_parse_from(words)?;
            return Ok(Self { global, command: Command::Serve(Dir { dir }), is_kofaf: true });
        }
        let Args { global, command } = Args::from_arg_matches(&command_line().try_get_matches_from(words)?)?;
        Ok(Self { global, command, is_kofaf: false })
    }
}

impl Later {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Functions(_) => "functions",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, clap::Error> {
        Invocation::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_sound() {
        command_line().debug_assert();
        KofafArgs::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_and_behind_the_command() {
        for line in ["farcall --listen none -q serve d", "farcall serve d --server-listen none --quiet"] {
            let invocation = parse(line).expect("it is valid");
            assert_eq!(invocation.global.settings.given[0].value, "none", "{line}");
            assert!(invocation.global.quiet, "{line}");
            assert!(matches!(invocation.command, Command::Serve(Dir { dir: Some(_) })), "{line}");
        }
    }

    #[test]
    fn help_shows_what_a_command_heeds() {
        for (name, heeds) in [("serve", true), ("get", false), ("upstreams", false)] {
            let mut command = command_line();
            command.build();
            let help = command.find_subcommand_mut(name).expect("it is there").render_long_help().to_string();
            assert_eq!(help.contains("--server-listen"), heeds, "{name}");
            assert!(help.contains("--quiet"), "{name}");
        }
        for line in
            ["farcall --listen none get x", "farcall get x --listen none", "farcall upstreams show x --listen none"]
        {
            let invocation = parse(line).expect("it is refused later");
            assert_eq!(invocation.global.settings.given.len(), 1, "{line}");
        }
    }

    #[test]
    fn paragraphs_of_help_are_broken_where_the_terminal_ends_alone() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for (line, next) in help.lines().zip(help.lines().skip(1)) {
                let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ');
                let is_whole = line.ends_with(['.', ':']);
                assert!(is_whole || !is_text(line) || !is_text(next), "{}: {line}\n{next}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&command_line());
    }

    #[test]
    fn under_the_name_kofaf_the_directory_stands_alone() {
        for line in ["kofaf d", "/usr/bin/kofaf d"] {
            let invocation = parse(line).expect("it is valid");
            assert!(invocation.is_kofaf);
            assert!(matches!(invocation.command, Command::Serve(Dir { dir: Some(dir) }) if dir == Path::new("d")));
        }
    }

    #[test]
    fn later_commands_are_known_with_all_they_will_take() {
        for line in ["farcall functions list", "farcall functions --help"] {
            let invocation = parse(line).expect("it is known");
            let Command::Later(later) = invocation.command else { panic!("{line} is available") };
            assert_eq!(Some(later.name()), line.split(' ').nth(1));
        }
    }

    #[test]
    fn every_later_command_is_named_in_the_help() {
        let names = Args::command().get_subcommands().filter(|command| command.is_hide_set()).count();
        assert_eq!(names, 1);
        for command in Args::command().get_subcommands().filter(|command| command.is_hide_set()) {
            assert!(EXAMPLES.contains(command.get_name()), "{}", command.get_name());
        }
    }
}
