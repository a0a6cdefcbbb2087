//! A control group of a test's own, with a limit on memory: the old kind (v1) or the new one (v2), whichever the machine has.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::until;
use super::volume::refuse;

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// Removed when dropped; nobody may be in it any more by then.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    is_v1: bool,
}

impl Cgroup {
    /// Room for so much memory, page cache included; nothing where a test can have no group.
    pub(crate) fn with_memory(mib: u32) -> std::io::Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let is_v1 = Path::new(V1).join("memory.limit_in_bytes").exists();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("farcall-test-{}-{number}", std::process::id());
        let group = Self { folder: Path::new(if is_v1 { V1 } else { V2 }).join(name), is_v1 };
        let made = std::fs::create_dir(&group.folder).and_then(|()| group.set_memory(mib));
        match made {
            Ok(()) => Ok(Some(group)),
            Err(error) => {
                refuse(&format!("there is no control group for memory: {error}"));
                Ok(None)
            }
        }
    }

    fn set_memory(&self, mib: u32) -> std::io::Result<()> {
        let file = if self.is_v1 { "memory.limit_in_bytes" } else { "memory.max" };
        std::fs::write(self.folder.join(file), (u64::from(mib) << 20).to_string())
    }

    /// Words before a command that make it start in the group; it keeps its process id.
    pub(crate) fn entering(&self) -> Vec<String> {
        let enter = format!("echo $$ > {} && exec \"$@\"", self.folder.join("cgroup.procs").display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Cgroup {
    /// The kernel may not have forgotten who was just killed.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            until("nobody is in the group", || std::fs::remove_dir(&self.folder).ok());
        }
    }
}
