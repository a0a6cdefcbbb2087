//! `farcall demo [DIR]`: the tour, with a real engine in a real directory against an upstream on loopback.
//!
//! On a terminal it goes on watching afterwards, so that users can drop files of their own; else it ends, and its exit
//! code says whether the tour came out as it should.

use tracing::Level;

use crate::api::{Api, Bound};
use crate::args::DemoDir;
use crate::context::Context;
use crate::demo::example::Example;
use crate::demo::narrator::{Held, Narrator};
use crate::demo::tour::Tour;
use crate::demo::upstream::Upstream;
use crate::demo::watching::Watching;
use crate::exit::{Exit, Failure};
use crate::session::{self, Opened, Session};
use crate::signals::Signals;

pub(crate) fn run(context: &Context, dir: &DemoDir) -> Result<Exit, Failure> {
    if context.global.config.is_some() {
        return Err(Failure::usage("the demo has a configuration of its own; leave --config out"));
    }
    context.start_logging(Level::ERROR, None)?;
    session::block_on(demonstrate(context, dir))
}

async fn demonstrate(context: &Context, dir: &DemoDir) -> Result<Exit, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::new(Exit::Usage, error))?;
    let upstream = Upstream::start().await.map_err(|error| Failure::new(Exit::Usage, error))?;
    let example = Example::create(dir.dir.as_deref(), &context.environment.temporary, upstream.url())?;
    let opened = Opened::open(context, &example.directory)?;
    let bound = Bound::bind(&opened).await?;
    let session = opened.start()?;
    let api = bound.serve(session.handle.clone());
    let mut stage = Stage { narrator: Narrator::new(context.screen), example, upstream, api, session };
    stage.introduce();
    let exit = stage.tour(&mut signals).await?;
    if exit != Exit::Interrupted && context.screen.stdout_is_terminal() {
        stage.watch(&mut signals).await?;
    }
    stage.narrator.say("");
    stage.narrator.fact("left in", stage.example.directory.display());
    tokio::select! {
        ended = stage.close() => ended.map(|()| exit),
        _ = signals.next() => Ok(Exit::Interrupted),
    }
}

/// Everything that is at work during the demo.
struct Stage {
    narrator: Narrator,
    example: Example,
    upstream: Upstream,
    api: Api,
    session: Session,
}

impl Stage {
    fn introduce(&self) {
        let Self { narrator, example, upstream, api, .. } = self;
        narrator.title("farcall demo: the real engine and real files, on this machine alone");
        narrator.fact("directory", example.directory.display());
        narrator.fact("upstream", format_args!("{} (built in; it counts what arrives)", upstream.url()));
        if let Some(address) = api.address {
            narrator.fact("API", format_args!("http://{address}"));
        }
        narrator.fact("farcall.yml", "");
        example.configuration().lines().skip(1).for_each(|line| narrator.quote(line));
    }

    async fn tour(&mut self, signals: &mut Signals) -> Result<Exit, Failure> {
        let tour = Tour::new(self.narrator, &self.example, &self.upstream);
        tokio::select! {
            held = tour.guide() => match held.map_err(|error| Failure::new(Exit::CallFailed, error))? {
                Held::Yes => Ok(Exit::Ok),
                Held::No => Ok(Exit::CallFailed),
            },
            _ = signals.next() => Ok(Exit::Interrupted),
            ended = self.session.ended() => ended.map(|()| Exit::CallFailed),
        }
    }

    /// Until somebody stops it, which is how it is meant to end.
    async fn watch(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        self.invite();
        let watching = Watching::new(self.narrator, &self.example);
        tokio::select! {
            () = watching.watch() => Ok(()),
            _ = signals.next() => Ok(()),
            ended = self.session.ended() => ended,
        }
    }

    fn invite(&self) {
        let Self { narrator, example, api, .. } = self;
        let dir = example.directory.display();
        narrator.say("");
        narrator.title("Your turn. In another terminal:");
        narrator.say(format_args!("cp {dir}/requests/order.json {dir}/mine.json"));
        if let Some(address) = api.address {
            narrator.say(format_args!("curl -s http://{address}/healthz"));
        }
        narrator.say("");
        narrator.say("Watching; Ctrl-C ends it.");
    }

    async fn close(mut self) -> Result<(), Failure> {
        self.session.handle.drain().await;
        let ended = self.session.ended().await;
        self.api.stop().await;
        ended
    }
}
