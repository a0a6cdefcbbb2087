//! Making room under a plain name: the earlier pair moves aside, under names of its own.
//!
//! A plan is a list of renames, the response last: as long as that stands under the plain name, a crash has left
//! something to do, and it tells which names the rest must get. So a plan made again after a crash goes on where the
//! first one stopped.

use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use farcall_crash::{self as crash, Point};

use super::FileError;
use super::contents;
use super::folders::{Folder, Folders, Placed};
use super::name::{self, Tag};

/// One rename inside a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) folder: Folder,
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

/// For whom the plain name is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomer {
    Call(CallId),
    /// A file that is being rejected.
    Rejected,
}

/// Whose response file stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupant {
    Nobody,
    Call(CallId),
    Rejected(Timestamp),
    /// A file that farcall did not write.
    Stranger(Timestamp),
}

/// Who holds the plain name against a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody, or whoever came earlier.
    Earlier,
    /// The call's own response.
    Own,
    /// Whoever came later.
    Later,
}

/// Who stands under this name in `responses/`.
pub(super) fn occupant(folders: &Folders, name: &[u8]) -> Result<Occupant, FileError> {
    let Some(changed_at) = folders.changed_at(Folder::Responses, name)? else { return Ok(Occupant::Nobody) };
    let head = folders.read(Folder::Responses, name, contents::HEAD_BYTES)?.unwrap_or_default();
    Ok(match contents::author(&head) {
        Some(contents::Author::Call(id)) => Occupant::Call(id),
        Some(contents::Author::Rejection) => Occupant::Rejected(changed_at),
        None => Occupant::Stranger(changed_at),
    })
}

/// Whether a call comes before or after whoever holds the name. Ids sort by acceptance.
pub(super) fn standing(occupant: Occupant, id: CallId) -> Standing {
    match occupant {
        Occupant::Call(other) if other == id => Standing::Own,
        Occupant::Call(other) if other > id => Standing::Later,
        Occupant::Rejected(at) if is_after(at, id) => Standing::Later,
        Occupant::Nobody | Occupant::Call(_) | Occupant::Rejected(_) | Occupant::Stranger(_) => Standing::Earlier,
    }
}

/// The renames that free a plain name in all three folders; none when it is the newcomer's own or a later one's.
pub(super) fn plan(folders: &Folders, name: &[u8], newcomer: Newcomer) -> Result<Vec<Move>, FileError> {
    let occupant = occupant(folders, name)?;
    if let Newcomer::Call(id) = newcomer
        && standing(occupant, id) != Standing::Earlier
    {
        return Ok(Vec::new());
    }
    let mut moves = Vec::new();
    let tag = match occupant {
        Occupant::Nobody => None,
        Occupant::Call(id) => Some(Tag::Call(id)),
        Occupant::Rejected(at) => Some(Tag::Rejected(at)),
        Occupant::Stranger(at) => Some(Tag::Earlier(at)),
    };
    let request_tag = match (occupant, tag) {
        (Occupant::Call(_), Some(tag)) => Some(tag),
        _ => lone_request_tag(folders, name, newcomer)?,
    };
    if let Some(tag) = request_tag {
        moves.push(aside(folders, Folder::Requests, name, tag)?);
    }
    if newcomer == Newcomer::Rejected || !folders.had_no_rejected() {
        plan_rejected(folders, name, occupant, &mut moves)?;
    }
    if let Some(tag) = tag {
        moves.push(aside(folders, Folder::Responses, name, tag)?);
    }
    Ok(moves)
}

/// Does what a plan says. A file that is not there any more needs no new name.
pub(super) fn run(folders: &Folders, moves: &[Move]) -> Result<(), FileError> {
    moves.iter().try_for_each(|step| match folders.rename(step.folder, &step.from, &step.to)? {
        Placed::Done => {
            crash::reach(Point::EarlierMoved);
            Ok(())
        }
        Placed::Gone => Ok(()),
        Placed::Occupied => {
            Err(FileError::of("move an earlier file aside", step.folder.name())(rustix::io::Errno::EXIST))
        }
    })
}

/// One file aside, wherever it came from.
pub(super) fn aside(folders: &Folders, folder: Folder, name: &[u8], tag: Tag) -> Result<Move, FileError> {
    let mut nth = 1;
    loop {
        let to = name::displaced(name, tag, nth);
        if !folders.exists(folder, &to)? {
            return Ok(Move { folder, from: name.to_vec(), to });
        }
        nth += 1;
    }
}

/// What a request file without its response is called; nothing when there is none, or it is not to be moved.
pub(super) fn lone_request_tag(folders: &Folders, name: &[u8], newcomer: Newcomer) -> Result<Option<Tag>, FileError> {
    let Some(changed_at) = folders.changed_at(Folder::Requests, name)? else { return Ok(None) };
    let marked = folders.marked(Folder::Requests, name)?.and_then(|id| id.parse::<CallId>().ok());
    let is_earlier = match (newcomer, marked) {
        (Newcomer::Rejected, _) => true,
        (Newcomer::Call(id), Some(owner)) => owner < id,
        (Newcomer::Call(id), None) => !is_after(changed_at, id),
    };
    let tag = marked.map_or(Tag::Earlier(changed_at), Tag::Call);
    Ok(is_earlier.then_some(tag))
}

/// A rejected file and its problem file, together under one name.
fn plan_rejected(folders: &Folders, name: &[u8], occupant: Occupant, moves: &mut Vec<Move>) -> Result<(), FileError> {
    let problem = name::problem(name);
    let file_at = folders.changed_at(Folder::Rejected, name)?;
    let problem_at = folders.changed_at(Folder::Rejected, &problem)?;
    let Some(own_time) = problem_at.or(file_at) else { return Ok(()) };
    let tag = match occupant {
        Occupant::Rejected(at) => Tag::Rejected(at),
        Occupant::Nobody | Occupant::Call(_) | Occupant::Stranger(_) => Tag::Rejected(own_time),
    };
    let mut nth = 1;
    let (file_to, problem_to) = loop {
        let file_to = name::displaced(name, tag, nth);
        let problem_to = name::problem(&file_to);
        let file_fits = file_at.is_none() || !folders.exists(Folder::Rejected, &file_to)?;
        let problem_fits = problem_at.is_none() || !folders.exists(Folder::Rejected, &problem_to)?;
        if file_fits && problem_fits {
            break (file_to, problem_to);
        }
        nth += 1;
    };
    if file_at.is_some() {
        moves.push(Move { folder: Folder::Rejected, from: name.to_vec(), to: file_to });
    }
    if problem_at.is_some() {
        moves.push(Move { folder: Folder::Rejected, from: problem, to: problem_to });
    }
    Ok(())
}

/// Whether a time lies after a call's acceptance; within the same millisecond it does not.
fn is_after(at: Timestamp, id: CallId) -> bool {
    let accepted_ms = i64::try_from(id.bits() >> 80).unwrap_or(i64::MAX);
    at.as_micros() / 1_000 > accepted_ms
}
