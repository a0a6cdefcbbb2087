//! Quantities as people write them: lengths of time, numbers of bytes, shares, ranges of status codes.
//!
//! Pure parsers of text, one of each, for configurations and call documents alike. They tell what is wrong; the caller
//! says where it stands and what would be right.

pub mod duration;
pub mod share;
pub mod size;
pub mod status_range;
