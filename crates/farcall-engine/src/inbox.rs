//! The inbox of a running engine: files found in the working directory become calls, and leave it.
//!
//! A file is removed only when its call is durable, and only if it still is the file that the call came from.

use std::path::Path;

use farcall_store::record::Recovery;

/// Removes the files of calls that are durable and whose file an earlier process did not get to remove.
pub(crate) fn left_behind(directory: &Path, recovery: &Recovery) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    let mut any_was_there = false;
    for identity in recovery.live.iter().chain(&recovery.unfiled).filter_map(|record| record.file.as_ref()) {
        let path = directory.join(std::ffi::OsStr::from_bytes(&identity.name));
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let changed_ns = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
        let is_same =
            (metadata.dev(), metadata.ino(), changed_ns) == (identity.device, identity.inode, identity.changed_ns);
        if is_same {
            std::fs::remove_file(&path)?;
            any_was_there = true;
        }
    }
    if any_was_there {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
