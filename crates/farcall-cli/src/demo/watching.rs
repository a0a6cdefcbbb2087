//! After the tour: tells of every response file that appears, until somebody stops it.
//!
//! It looks at the directory as any user's program would, and asks the engine nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use super::example::Example;
use super::narrator::Narrator;
use super::tour::brief;

const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The responses that have been told of.
#[derive(Debug)]
pub(crate) struct Watching<'a> {
    narrator: Narrator,
    example: &'a Example,
    known: BTreeSet<OsString>,
}

impl<'a> Watching<'a> {
    pub(crate) fn new(narrator: Narrator, example: &'a Example) -> Self {
        let mut watching = Self { narrator, example, known: BTreeSet::new() };
        watching.known = watching.present();
        watching
    }

    /// Does not end.
    pub(crate) async fn watch(mut self) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            let present = self.present();
            for name in present.difference(&self.known) {
                self.tell(name);
            }
            self.known = present;
        }
    }

    fn present(&self) -> BTreeSet<OsString> {
        let Ok(entries) = fs::read_dir(self.example.directory.join("responses")) else { return self.known.clone() };
        let names = entries.flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".json")).collect()
    }

    fn tell(&self, name: &OsString) {
        let name = name.to_string_lossy();
        let response = self.example.response(&name);
        let shown: String = name.escape_debug().collect();
        self.narrator.appeared(&format!("responses/{shown}"), &response.as_ref().map(brief).unwrap_or_default());
    }
}
