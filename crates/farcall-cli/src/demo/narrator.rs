//! How the tour speaks: numbered steps, what is dropped, what came of it, a mark for what was promised and held.
//!
//! It knows how things look, not what they are.

use std::fmt::Display;
use std::time::Duration;

use crate::print::Screen;

/// Between steps, so that one can read; nobody waits for a pipe.
const PAUSE: Duration = Duration::from_millis(900);

/// Tells the tour on stdout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Narrator {
    screen: Screen,
}

/// How a word looks.
#[derive(Debug, Clone, Copy)]
enum Look {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Narrator {
    pub(crate) const fn new(screen: Screen) -> Self {
        Self { screen }
    }

    /// The tour's first line.
    pub(crate) fn title(&self, text: &str) {
        self.screen.result(self.styled(Look::Bold, text));
        self.screen.result("");
    }

    /// A name and what it is.
    pub(crate) fn fact(&self, name: &str, text: impl Display) {
        let line = format!("   {}{text}", self.styled(Look::Dim, &format!("{name:<11}")));
        self.screen.result(line.trim_end());
    }

    /// Begins a step.
    pub(crate) async fn step(&self, number: usize, text: &str) {
        if self.screen.stdout_is_terminal() {
            tokio::time::sleep(PAUSE).await;
        }
        self.screen.result("");
        self.screen.result(self.styled(Look::Bold, &format!("{number}. {text}")));
    }

    /// A sentence within a step.
    pub(crate) fn say(&self, text: impl Display) {
        self.screen.result(format!("   {text}").trim_end());
    }

    /// A file that somebody drops.
    pub(crate) fn dropped(&self, name: &str, text: &str) {
        self.file("→", name, text);
    }

    /// A file that appears.
    pub(crate) fn appeared(&self, name: &str, text: &str) {
        self.file("←", name, text);
    }

    /// A line of a file.
    pub(crate) fn quote(&self, line: &str) {
        self.say(format_args!("  {}", self.styled(Look::Dim, line)));
    }

    /// What was promised, and whether it held.
    pub(crate) fn verdict(&self, held: Held, text: impl Display) {
        let (look, mark) = match held {
            Held::Yes => (Look::Good, "✓"),
            Held::No => (Look::Bad, "✗"),
        };
        self.screen.result(format_args!("   {} {text}", self.styled(look, mark)));
    }

    fn file(&self, arrow: &str, name: &str, text: &str) {
        self.say(format_args!("{arrow} {}", self.styled(Look::Bold, name)));
        text.lines().for_each(|line| self.quote(line));
    }

    fn styled(&self, look: Look, text: &str) -> String {
        if !self.screen.stdout_has_color() {
            return text.to_owned();
        }
        let code = match look {
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Good => "32",
            Look::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Whether something came out as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    No,
}

impl From<bool> for Held {
    fn from(held: bool) -> Self {
        if held { Self::Yes } else { Self::No }
    }
}
