//! What the end of a program means to the engine: the one place where an exit becomes an attempt's result.
//!
//! Status 0 is a 200, so that a policy's `success` and the states of calls need no second language. What a program
//! did before it failed is unknown, so bytes may have been sent as soon as it ran.

use std::time::Duration;

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::ErrorKind;

use super::{Exit, ProcessReport};
use crate::execute::Report;

/// The report of an attempt that took this long, from launch to the end.
///
/// A program that we asked to end counts as timed out, even when it ended well: its time was over.
pub fn report(process: &ProcessReport, latency: Duration) -> Report {
    let (error, message) = judge(process).unzip();
    let bytes_sent = match process.exit {
        Exit::SpawnFailed(_) => BytesSent::No,
        Exit::Exited(_) | Exit::Signalled(_) => BytesSent::Maybe,
    };
    let result = AttemptResult {
        status: error.is_none().then_some(200),
        error,
        retry_after: None,
        quota: None,
        redirect: None,
        content_ok: true,
        bytes_sent,
        latency,
        size: process.stdout.total(),
    };
    Report { result, aborted: process.aborted, first_byte_at: None, message, response: None, trace: None }
}

/// What went wrong, if anything, and one sentence about it.
fn judge(process: &ProcessReport) -> Option<(ErrorKind, String)> {
    match &process.exit {
        _ if process.aborted => Some((ErrorKind::Timeout, "stopped before it had ended".to_owned())),
        Exit::Exited(0) => None,
        Exit::Exited(status) => Some((ErrorKind::ProcessExit, last_words(process, *status))),
        Exit::Signalled(signal) => Some((ErrorKind::ProcessSignal, format!("ended by signal {signal}"))),
        Exit::SpawnFailed(reason) => Some((ErrorKind::ProcessExit, reason.clone())),
    }
}

fn last_words(process: &ProcessReport, status: i32) -> String {
    let text = process.stderr.to_trimmed_text();
    if text.is_empty() { format!("exit status {status}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::Tail;
    use super::*;

    fn ended(exit: Exit) -> ProcessReport {
        ProcessReport { exit, aborted: false, stdout: Tail::default(), stderr: Tail::default() }
    }

    fn check(process: &ProcessReport, status: Option<u16>, error: Option<ErrorKind>, message: Option<&str>) {
        let report = report(process, Duration::from_millis(5));
        assert_eq!((report.result.status, report.result.error), (status, error), "{process:?}");
        assert_eq!(report.message.as_deref(), message, "{process:?}");
        assert_eq!(report.result.latency, Duration::from_millis(5));
    }

    #[test]
    fn status_zero_is_a_200_and_every_other_end_an_error() {
        check(&ended(Exit::Exited(0)), Some(200), None, None);
        check(&ended(Exit::Exited(3)), None, Some(ErrorKind::ProcessExit), Some("exit status 3"));
        check(&ended(Exit::Signalled(9)), None, Some(ErrorKind::ProcessSignal), Some("ended by signal 9"));
        let failed = ended(Exit::SpawnFailed("cannot start x: gone".to_owned()));
        check(&failed, None, Some(ErrorKind::ProcessExit), Some("cannot start x: gone"));
    }

    #[tokio::test]
    async fn what_it_wrote_to_stderr_is_the_message() {
        let mut process = ended(Exit::Exited(22));
        process.stderr.fill(&b"curl: (22) 404\n\n"[..]).await;
        check(&process, None, Some(ErrorKind::ProcessExit), Some("curl: (22) 404"));
    }

    #[test]
    fn one_that_was_stopped_has_timed_out_even_when_it_ended_well() {
        let process = ProcessReport { aborted: true, ..ended(Exit::Exited(0)) };
        check(&process, None, Some(ErrorKind::Timeout), Some("stopped before it had ended"));
    }

    #[test]
    fn only_what_never_ran_has_certainly_sent_nothing() {
        let sent = |exit| report(&ended(exit), Duration::ZERO).result.bytes_sent;
        assert_eq!(sent(Exit::SpawnFailed(String::new())), BytesSent::No);
        assert_eq!(sent(Exit::Exited(127)), BytesSent::Maybe);
        assert_eq!(sent(Exit::Signalled(15)), BytesSent::Maybe);
    }
}
