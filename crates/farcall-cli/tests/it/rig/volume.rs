//! File systems of a test's own: ext4 on a loop file whose power can be cut, and tmpfs of a size.
//!
//! They need root and a few tools. A test that cannot have them says so loudly and checks nothing, or fails when CI is
//! `true`. What was mounted and attached is let go when the volume is dropped, also on failure.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::until;

/// Without the flag that would write the log back first: what was not synced is gone (`EXT4_IOC_SHUTDOWN`, flag 2).
const CUT_POWER: &str = "sysopen(my $folder, $ARGV[0], 0) or die \"open: $!\"; my $flag = pack('L', 2); \
    ioctl($folder, 0x8004587D, $flag) or die \"shutdown: $!\";";

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Volume {
    home: tempfile::TempDir,
    /// The loop device, of ext4.
    device: Option<String>,
}

/// Whether all of these can be run, and by root; says so loudly when not.
pub(crate) fn can_use(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() && rustix::process::geteuid().is_root() {
        return true;
    }
    refuse(&format!("it needs root and {tools:?}, of which {missing:?} are missing"))
}

/// Says that a test checks nothing, past the test runner's capture; in CI it fails.
pub(crate) fn refuse(why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "this test cannot run: {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "WARNING: {test} CHECKS NOTHING: {why}");
    false
}

/// Runs a tool and gives what it printed.
fn run(words: &[&str]) -> std::io::Result<String> {
    let output = Command::new(words[0]).args(&words[1..]).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(std::io::Error::other(format!("{words:?} ended with {}: {stderr}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Volume {
    /// An ext4 of this size; nothing where there can be none.
    pub(crate) fn ext4(mib: u32) -> std::io::Result<Option<Self>> {
        if !can_use(&["mkfs.ext4", "e2fsck", "losetup", "mount", "umount", "perl"]) {
            return Ok(None);
        }
        let mut volume = Self::unmounted()?;
        let image = volume.home.path().join("image");
        std::fs::File::create(&image)?.set_len(u64::from(mib) << 20)?;
        run(&["mkfs.ext4", "-q", "-F", path(&image)])?;
        // One device for all of its life, as a disk has over reboots.
        match run(&["losetup", "--find", "--show", path(&image)]) {
            Ok(device) => volume.device = Some(device),
            Err(error) => {
                refuse(&format!("there is no loop device: {error}"));
                return Ok(None);
            }
        }
        volume.mount()?;
        Ok(Some(volume))
    }

    /// A tmpfs of this size; nothing where there can be none.
    pub(crate) fn tmpfs(kib: u32) -> std::io::Result<Option<Self>> {
        if !can_use(&["mount", "umount"]) {
            return Ok(None);
        }
        let volume = Self::unmounted()?;
        mount_tmpfs(kib, &volume.dir())?;
        Ok(Some(volume))
    }

    fn unmounted() -> std::io::Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::create_dir(home.path().join("mnt"))?;
        Ok(Self { home, device: None })
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("mnt")
    }

    /// What was not synced is lost, now.
    pub(crate) fn cut_power(&self) -> std::io::Result<()> {
        run(&["perl", "-e", CUT_POWER, path(&self.dir())]).map(drop)
    }

    /// After a power cut: what is left, as the next boot finds it. Nobody may use the volume any more.
    pub(crate) fn boot(&self) -> std::io::Result<()> {
        self.unmount()?;
        self.mount()?;
        Ok(())
    }

    /// Unmounts, has the file system looked through, and mounts it again.
    pub(crate) fn check(&self) -> std::io::Result<()> {
        self.unmount()?;
        run(&["e2fsck", "-fn", self.device.as_deref().expect("an ext4 has a device")])?;
        self.mount()
    }

    /// Mounts it anew, in use, with these options.
    pub(crate) fn remount(&self, options: &str) -> std::io::Result<()> {
        run(&["mount", "-o", &format!("remount,{options}"), path(&self.dir())]).map(drop)
    }

    fn mount(&self) -> std::io::Result<()> {
        let device = self.device.as_deref().expect("an ext4 has a device");
        run(&["mount", "-t", "ext4", device, path(&self.dir())]).map(drop)
    }

    /// Those who were just killed may hold it for a moment still.
    fn unmount(&self) -> std::io::Result<()> {
        until("nobody uses the volume", || run(&["umount", path(&self.dir())]).ok());
        Ok(())
    }
}

/// A tmpfs over a folder that exists, as long as this lives.
#[derive(Debug)]
pub(crate) struct Cover(PathBuf);

impl Cover {
    /// Nothing where there can be none.
    pub(crate) fn tmpfs(kib: u32, folder: &Path) -> std::io::Result<Option<Self>> {
        if !can_use(&["mount", "umount"]) {
            return Ok(None);
        }
        mount_tmpfs(kib, folder)?;
        Ok(Some(Self(folder.to_owned())))
    }

    pub(crate) fn resize(&self, kib: u32) -> std::io::Result<()> {
        run(&["mount", "-o", &format!("remount,size={kib}k"), path(&self.0)]).map(drop)
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", path(&self.0)]);
    }
}

fn mount_tmpfs(kib: u32, folder: &Path) -> std::io::Result<()> {
    let size = format!("size={kib}k,mode=700");
    run(&["mount", "-t", "tmpfs", "-o", &size, "farcall-test", path(folder)]).map(drop)
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", path(&self.dir())]);
        if let Some(device) = &self.device {
            let _ = run(&["losetup", "--detach", device]);
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a test's paths are text")
}
