//! Hops: attempts where redirects have led a call, and what an answer that redirects means to the dispatcher.
//!
//! Whether a redirect is followed is decided in the core. Where a hop goes is stored with the call before it is sent,
//! and read from there for every attempt.

use farcall_core::call::{ErrorKind, Method, Via};
use farcall_core::hop::Redirect;
use farcall_core::id::AttemptId;
use farcall_core::time::Now;
use farcall_store::record::CallRecord;
use url::Url;

use super::Run;
use super::attempts::{Attempt, Made, Way, unsent};
use crate::cause::chain;
use crate::document::{Document, UpstreamRef};
use crate::execute::{HttpRequest, Report};
use crate::redirect::{Asked, Next};
use crate::request::hop::{self, Ends};
use crate::upstreams::{Making, declared_name};

impl Run {
    /// What an answer asks for, in the dispatcher's words; nothing when it cannot be followed.
    pub(super) fn redirect(&mut self, now: Now, attempt: AttemptId, next: Next) -> Option<Redirect> {
        let asked = match next {
            Next::Downgrade => return Some(Redirect::Downgrade),
            Next::To(asked) => asked,
        };
        let reference = UpstreamRef::of(&asked.url, &self.config);
        let mut making = Making { dispatcher: &mut self.dispatcher, reader: self.reader.as_mut(), now };
        let upstream = match self.upstreams.resolve_redirect(&reference, &mut making) {
            Ok(upstream) => upstream?,
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot use the upstream of a redirect, which is not followed");
                return None;
            }
        };
        let method = Method::of(asked.method.as_str());
        self.pending.redirects.insert(attempt, asked);
        Some(Redirect::To { upstream, method })
    }
}

impl Attempt {
    /// Sends the request of a hop.
    pub(super) async fn hop(&self, home: &Way, there: &Way) -> Made {
        match self.prepared(home, there).await {
            Ok((request, asked)) => {
                let ends = Ends { home: &home.settings, there: &there.settings };
                let transport = if ends.is_side_door(&asked) { &home.transport } else { &there.transport };
                Made::new(self.send(request, &there.through(transport)).await, Some(asked))
            }
            Err(report) => (*report).into(),
        }
    }

    async fn prepared(&self, home: &Way, there: &Way) -> Result<(HttpRequest, Asked), Box<Report>> {
        let is_gone = |name: String| !self.around.config.upstreams.contains_key(&name);
        if declared_name(&home.reference).is_some_and(is_gone) {
            // Nobody can read its document now. Where its next try begins it waits until that is declared again.
            return Err(Box::new(unsent(
                ErrorKind::Internal,
                "the call's upstream is no longer configured".to_owned(),
            )));
        }
        let (record, stored) = self.stored().await?;
        let kept = self.understood(&stored)?;
        let asked = asked(&record)?;
        let request = self.prepare_hop((&kept.document, kept.via), home, there, asked.clone())?;
        Ok((request, asked))
    }

    fn prepare_hop(
        &self,
        call: (&Document, Via),
        home: &Way,
        there: &Way,
        asked: Asked,
    ) -> Result<HttpRequest, Box<Report>> {
        // The configuration may be another one since: nothing goes where other limits hold than it was charged to.
        let has_moved =
            call.0.upstream != *home.reference || UpstreamRef::of(&asked.url, &self.around.config) != *there.reference;
        if has_moved {
            let message = "by the present configuration the redirect leads to another upstream than it did";
            return Err(Box::new(unsent(ErrorKind::Invalid, message.to_owned())));
        }
        let ends = Ends { home: &home.settings, there: &there.settings };
        hop::build(self.id, call, ends, asked, &self.around.directory)
            .map_err(|error| Box::new(unsent(ErrorKind::Secret, error.to_string())))
    }
}

/// The request that a call's stored hop stands for.
fn asked(record: &CallRecord) -> Result<Asked, Box<Report>> {
    let damaged = || Box::new(unsent(ErrorKind::Internal, "where the redirect leads is gone".to_owned()));
    let hop = record.hop.as_ref().ok_or_else(damaged)?;
    let url = Url::parse(&hop.url).map_err(|_| damaged())?;
    let method = http::Method::from_bytes(hop.method.as_bytes()).map_err(|_| damaged())?;
    Ok(Asked { url, method, has_body: hop.has_body, is_elsewhere: hop.is_elsewhere })
}
