//! What one connection did for the request it carries: bytes out, bytes in, and when.
//!
//! The meter stands between hyper and the stream (inside TLS: it counts plaintext, so handshake bytes are none of the
//! request), and is therefore the one place that knows whether a byte can have left. It is reset for every request.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall_core::attempt::BytesSent;
use farcall_core::time::Instant;
use farcall_crash::{self as crash, Point};

use super::super::Milestones;
use crate::clock;

/// Interim (1xx) answers that may precede an answer.
pub(super) const INTERIM_ANSWERS_MAX: u32 = 100;

/// The account of one connection.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Account>);

/// What a connection is about to carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrying {
    HeadOnly,
    HeadAndBody,
}

#[derive(Default)]
struct Account {
    milestones: Option<Arc<dyn Milestones>>,
    written: u64,
    read: u64,
    interim_answers: u32,
    /// The connection carried a request before and may have been closed since.
    in_doubt: bool,
    /// The request has a body that hyper has not taken to its end.
    body_waits: bool,
    sent: bool,
    /// Somebody else has the request and writes it when it can.
    handed_over: bool,
    /// The other side says that it did nothing with the request.
    refused: bool,
    first_byte_at: Option<Instant>,
    write_error: Option<String>,
}

impl Meter {
    /// A new request begins: everything is counted from here.
    pub(super) fn begin(&self, carrying: Carrying, milestones: Option<Arc<dyn Milestones>>) {
        let mut account = self.account();
        let in_doubt = account.written > 0;
        let body_waits = carrying == Carrying::HeadAndBody;
        *account = Account { milestones, in_doubt, body_waits, ..Account::default() };
    }

    /// Whether nobody has looked yet if this reused connection is still open; true at most once per request.
    pub(super) fn take_doubt(&self) -> bool {
        std::mem::take(&mut self.account().in_doubt)
    }

    /// The request is over; nobody is told anything any more.
    pub(super) fn end(&self) {
        self.account().milestones = None;
    }

    /// The last of the body was taken; what follows the next flush is out.
    pub(super) fn body_taken(&self) {
        self.account().body_waits = false;
    }

    pub(super) fn wrote(&self, bytes: usize) {
        let mut account = self.account();
        let is_first = account.written == 0 && bytes > 0;
        account.written += bytes as u64;
        drop(account);
        if is_first {
            crash::reach(Point::FirstByteSent);
        }
    }

    /// Everything taken so far left our buffers.
    ///
    /// The time is read here, right after the last write and never before it: too late by microseconds is cautious.
    pub(super) fn flushed(&self) {
        let mut account = self.account();
        if account.sent || account.body_waits || account.written == 0 || account.write_error.is_some() {
            return;
        }
        account.sent = true;
        let milestones = account.milestones.clone();
        drop(account);
        crash::reach(Point::RequestSent);
        let Some(milestones) = milestones else { return };
        milestones.sent(clock::instant());
    }

    /// Bytes came. They are an answer only if something was asked.
    pub(super) fn received(&self, bytes: usize) {
        let mut account = self.account();
        account.read += bytes as u64;
        if bytes == 0 || account.written == 0 || account.first_byte_at.is_some() {
            return;
        }
        let at = clock::instant();
        account.first_byte_at = Some(at);
        let milestones = account.milestones.clone();
        drop(account);
        crash::reach(Point::FirstByteReceived);
        let Some(milestones) = milestones else { return };
        milestones.first_byte(at);
    }

    pub(super) fn interim_answer(&self) {
        self.account().interim_answers += 1;
    }

    pub(super) fn write_failed(&self, error: &std::io::Error) {
        self.account().write_error.get_or_insert_with(|| error.to_string());
    }

    /// What broke the writing side, if anything did.
    pub(super) fn write_error(&self) -> Option<String> {
        self.account().write_error.clone()
    }

    pub(super) fn interim_answers(&self) -> u32 {
        self.account().interim_answers
    }

    /// From here on the request may be written at any time.
    pub(super) fn hand_over(&self) {
        self.account().handed_over = true;
    }

    /// What was not written will not be.
    pub(super) fn take_back(&self) {
        self.account().handed_over = false;
    }

    /// The other side says that it did nothing with the request.
    pub(super) fn refuse(&self) {
        self.account().refused = true;
    }

    pub(super) fn has_written(&self) -> bool {
        self.account().written > 0
    }

    /// Whether any byte of the request was handed to the stream, or may still be.
    pub(super) fn bytes_sent(&self) -> BytesSent {
        let account = self.account();
        match account.written > 0 || account.handed_over {
            false => BytesSent::No,
            // Who has begun to answer cannot say that.
            true if account.refused && account.first_byte_at.is_none() => BytesSent::Refused,
            true => BytesSent::Maybe,
        }
    }

    /// The other side sent something although it was not asked.
    pub(super) fn spoke_first(&self) -> bool {
        let account = self.account();
        account.written == 0 && account.read > 0
    }

    pub(super) fn first_byte_at(&self) -> Option<Instant> {
        self.account().first_byte_at
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("written", &self.written).field("read", &self.read).finish_non_exhaustive()
    }
}
