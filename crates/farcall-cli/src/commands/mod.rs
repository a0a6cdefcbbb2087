//! One file per command, named as the user types it.
//!
//! A command turns its arguments into calls on the engine or a server and prints; it decides nothing else.

mod batch;
mod call;
mod cancel;
mod check;
mod completions;
mod demo;
mod explain;
mod get;
mod init;
pub(crate) mod launch;
mod list;
mod man;
mod records;
mod retry;
mod run;
mod serve;
mod steer;
mod upstreams;
mod wait;

use std::ffi::OsString;

use crate::args::{Command, Invocation, LogFormat};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::print::Screen;
use crate::settings::Environment;

/// Does what a command line asks for, and says on stderr why it could not.
pub(crate) fn run(words: &[OsString]) -> Exit {
    let invocation = match Invocation::parse(words) {
        Ok(invocation) => invocation,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    let log_format = invocation.global.log_format;
    let environment = Environment::read();
    let screen = Screen::of(environment.as_ref().unwrap_or(&Environment::default()));
    let done = environment.and_then(|environment| {
        let Invocation { global, command, is_kofaf } = invocation;
        let exit = perform(&Context { global, environment, screen, is_kofaf }, command)?;
        screen.delivered().map(|()| exit)
    });
    done.unwrap_or_else(|failure| {
        match log_format {
            // Whoever reads events by machine reads the last one too.
            LogFormat::Json if logging::is_started() => failure.log(),
            LogFormat::Json | LogFormat::Text => screen.tell(failure.render(screen.stderr_has_color())),
        }
        failure.exit()
    })
}

fn perform(context: &Context, command: Command) -> Result<Exit, Failure> {
    if let Some(trap) = &context.environment.crash {
        farcall_crash::set(trap).map_err(|error| Failure::new(Exit::Usage, error))?;
    }
    match command {
        Command::Serve(dir) => serve::run(context, &dir),
        Command::Run(dir) => run::run(context, &dir),
        Command::Batch(args) => batch::run(context, &args),
        Command::Call(args) => call::run(context, &args),
        Command::Demo(dir) => demo::run(context, &dir),
        Command::Check(dir) => check::run(context, &dir),
        Command::Init(dir) => init::run(context, &dir),
        Command::Get(args) => get::run(context, &args),
        Command::List(args) => list::run(context, &args),
        Command::Wait(args) => wait::run(context, &args),
        Command::Cancel(args) => cancel::run(context, &args),
        Command::Retry(args) => retry::run(context, &args),
        Command::Explain(args) => explain::run(context, &args),
        Command::Upstreams(args) => upstreams::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
        Command::Man(args) => man::run(context, &args),
        Command::Later(later) => Err(Failure::usage(format!("farcall {} is not available yet", later.name()))),
    }
}
