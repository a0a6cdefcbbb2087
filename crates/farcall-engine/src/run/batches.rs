//! Batches of submissions that wait for their answers: each is answered whole, when the last of its calls is durable.
//!
//! One call is a batch of one. Only bookkeeping: whether a call is accepted is decided elsewhere.

use farcall_core::id_map::IdMap;
use tokio::sync::oneshot;

use crate::handle::{Accepted, SubmitError};

/// What a batch is answered with: a result for every submission, in their order.
pub(crate) type Answers = Vec<Result<Accepted, SubmitError>>;

/// All batches that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: IdMap<u64, Batch>,
    last: u64,
}

/// A submission's place in its batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    batch: u64,
    index: usize,
}

#[derive(Debug)]
struct Batch {
    answers: Vec<Option<Result<Accepted, SubmitError>>>,
    missing: usize,
    reply: oneshot::Sender<Answers>,
}

impl Batches {
    /// A new batch of so many submissions, and their places in order.
    pub(super) fn open(
        &mut self,
        count: usize,
        reply: oneshot::Sender<Answers>,
    ) -> impl Iterator<Item = Place> + use<> {
        self.last += 1;
        let batch = self.last;
        if count == 0 {
            // Nobody listening any more is no failure.
            let _ = reply.send(Vec::new());
        } else {
            let answers = std::iter::repeat_with(|| None).take(count).collect();
            self.open.insert(batch, Batch { answers, missing: count, reply });
        }
        (0..count).map(move |index| Place { batch, index })
    }

    /// Notes the answer of one submission, and sends all of its batch when it was the last.
    pub(super) fn answer(&mut self, place: Place, answer: Result<Accepted, SubmitError>) {
        let Some(batch) = self.open.get_mut(&place.batch) else { return };
        batch.answers[place.index] = Some(answer);
        batch.missing -= 1;
        if batch.missing == 0
            && let Some(batch) = self.open.remove(&place.batch)
        {
            let _ = batch.reply.send(batch.answers.into_iter().flatten().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use farcall_core::id::CallId;

    use super::*;

    fn accepted(bits: u128) -> Accepted {
        Accepted { id: CallId::from_bits(bits), is_replay: false }
    }

    #[test]
    fn a_batch_is_answered_whole_and_in_the_order_of_its_submissions() {
        let mut batches = Batches::default();
        let (reply, mut answers) = oneshot::channel();
        let places: Vec<Place> = batches.open(3, reply).collect();
        batches.answer(places[2], Ok(accepted(3)));
        batches.answer(places[0], Ok(accepted(1)));
        assert!(answers.try_recv().is_err(), "one is missing");
        batches.answer(places[1], Err(SubmitError::Draining));
        let answers = answers.try_recv().expect("all are there");
        assert!(matches!(&answers[..], [Ok(first), Err(SubmitError::Draining), Ok(third)]
            if (*first, *third) == (accepted(1), accepted(3))));
        assert!(batches.open.is_empty());
    }

    #[test]
    fn an_empty_batch_is_answered_at_once() {
        let (reply, mut answers) = oneshot::channel();
        let mut batches = Batches::default();
        assert_eq!(batches.open(0, reply).count(), 0);
        assert_eq!(answers.try_recv().map(|answers| answers.len()), Ok(0));
        assert!(batches.open.is_empty());
    }
}
