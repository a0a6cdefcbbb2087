//! The tasks that make attempts, one after the other. A task is as large as the largest attempt, and making one for each
//! costs more than handing an attempt to a task that is there.
//!
//! The loop owns those that are idle. A task takes its runner along while it makes an attempt, and gives it back with the
//! report: when the loop is gone, so are they. Those that nobody needed for a while end.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attempts::{Attempt, Target};

/// All that are idle.
#[derive(Debug, Default)]
pub(super) struct Runners {
    idle: Vec<Runner>,
    /// So many were idle at any moment since some were last let go.
    spare: usize,
}

/// The way to a task that makes attempts; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Runner {
    jobs: mpsc::Sender<Box<Job>>,
    /// Cuts off the attempt that it makes.
    abort: CancellationToken,
}

/// An attempt, and who makes it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) attempt: Attempt,
    pub(super) target: Target,
    pub(super) runner: Runner,
}

impl Runners {
    /// One that is idle, or a new one.
    pub(super) fn take(&mut self, tasks: &TaskTracker) -> Runner {
        let runner = self.idle.pop().unwrap_or_else(|| {
            let (sender, jobs) = mpsc::channel(1);
            tasks.spawn(run(jobs));
            Runner { jobs: sender, abort: CancellationToken::new() }
        });
        self.spare = self.spare.min(self.idle.len());
        runner
    }

    /// It has reported and may have another. What would cut that off from the beginning is left behind.
    pub(super) fn put(&mut self, mut runner: Runner) {
        if runner.abort.is_cancelled() {
            runner.abort = CancellationToken::new();
        }
        self.idle.push(runner);
    }

    /// Lets those go that nobody has needed since this was last asked.
    pub(super) fn prune(&mut self) {
        self.idle.drain(..self.spare);
        self.spare = self.idle.len();
    }
}

impl Runner {
    pub(super) const fn abort(&self) -> &CancellationToken {
        &self.abort
    }
}

impl Job {
    /// Has the attempt begun.
    pub(super) fn begin(self) {
        let jobs = self.runner.jobs.clone();
        // An idle task has room for one. It is gone only when the runtime is, and then nobody waits for a report.
        let _ = jobs.try_send(Box::new(self));
    }
}

async fn run(mut jobs: mpsc::Receiver<Box<Job>>) {
    while let Some(job) = jobs.recv().await {
        let Job { attempt, target, runner } = *job;
        attempt.run(target, runner).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the tasks run that can.
    async fn settle() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn runners_are_used_again_and_end_when_they_were_not_needed() {
        let (mut runners, tasks) = (Runners::default(), TaskTracker::new());
        let taken: Vec<Runner> = (0..3).map(|_| runners.take(&tasks)).collect();
        assert_eq!(tasks.len(), 3);
        taken.into_iter().for_each(|runner| runners.put(runner));
        let again = runners.take(&tasks);
        assert_eq!(tasks.len(), 3, "an idle one was taken");
        runners.put(again);
        runners.prune();
        settle().await;
        assert_eq!(tasks.len(), 3, "all were out at once since the start");
        let one = runners.take(&tasks);
        runners.put(one);
        runners.prune();
        settle().await;
        assert_eq!(tasks.len(), 1, "one was enough since");
    }

    #[tokio::test]
    async fn what_cut_an_attempt_off_does_not_cut_off_the_next() {
        let (mut runners, tasks) = (Runners::default(), TaskTracker::new());
        let runner = runners.take(&tasks);
        runner.abort().cancel();
        runners.put(runner);
        assert!(!runners.take(&tasks).abort().is_cancelled());
    }

    #[tokio::test]
    async fn runners_end_with_the_loop() {
        let (mut runners, tasks) = (Runners::default(), TaskTracker::new());
        let runner = runners.take(&tasks);
        runners.put(runner);
        drop(runners);
        tasks.close();
        tasks.wait().await;
    }
}
