//! Callback command lines: split into words once, here, before anything is put in.
//!
//! Refuses what would let a value become a command: a placeholder as the program, or inside the word that a shell
//! executes. Putting values in and running the command is done elsewhere.

use super::diagnostic::Span;
use super::model::{CallbackAction, CommandLine};
use super::reader::Reader;
use super::tree::{Node, Value};
use super::webhook;

const SHELLS: [&str; 11] = ["ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh"];

/// Reads `callback_success` or `callback_fail`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<CallbackAction> {
    match &node.value {
        Value::Text(text) => command_line(reader, node, text).map(CallbackAction::Command),
        Value::Map(_) => webhook::read(reader, node).map(CallbackAction::Webhook),
        _ => {
            reader.mismatch(node, "a command line, or a mapping with a `url`");
            None
        }
    }
}

fn command_line(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<CommandLine> {
    let words = words(reader, node, text)?;
    let accepted = check_program(reader, node.span, &words) && check_shell(reader, node.span, &words);
    accepted.then_some(CommandLine { words })
}

fn words(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<Vec<String>> {
    if text.contains('\0') {
        reader.error(node.span, "a command line cannot hold a NUL");
        return None;
    }
    let Some(words) = shlex::split(text) else {
        let message = match unclosed_quote(text) {
            Some(quote) => format!("this command line has a {quote} that is never closed"),
            None => "this command line ends in a backslash".to_owned(),
        };
        reader.error(node.span, message).hint(
            "it is split by shell quoting rules before $file and the others are put in, so they need no quotes of their own",
        );
        return None;
    };
    if words.is_empty() {
        reader.error(node.span, "this command line is empty");
        return None;
    }
    Some(words)
}

fn check_program(reader: &mut Reader<'_>, place: Span, words: &[String]) -> bool {
    let program = &words[0];
    if ["http://", "https://"].iter().any(|scheme| program.starts_with(scheme)) {
        let message = "a command line begins with the name of a program, not with a URL";
        reader
            .error(place, message)
            .hint(format!("write `{{ url: {program} }}` for farcall to send the outcome there"));
    } else if !CommandLine::placeholders(program).is_empty() {
        reader.error(place, "a placeholder cannot be the program that is run");
    } else if program.is_empty() {
        reader.error(place, "a command line begins with the name of a program");
    } else {
        return true;
    }
    false
}

fn check_shell(reader: &mut Reader<'_>, place: Span, words: &[String]) -> bool {
    let shells = words.iter().enumerate().filter(|(_, word)| is_shell(word));
    let mut scripts = shells.flat_map(|(index, _)| scripts_of(&words[index + 1..]));
    let Some(name) = scripts.find_map(|script| CommandLine::placeholders(script).first().copied()) else {
        return true;
    };
    reader
        .error(place, format!("`${name}` stands in a word that a shell would execute"))
        .label("a value put in here could run commands")
        .hint(format!("use the environment variable there: \"$FARCALL_{}\"", name.to_uppercase()));
    false
}

fn is_shell(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    SHELLS.contains(&name)
}

/// The words of a shell's arguments that it may execute: behind `-c` the first that is no option, and, since some
/// shells take the script in the same word, every option.
fn scripts_of(arguments: &[String]) -> Vec<&String> {
    let mut scripts = Vec::new();
    let mut executes = false;
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let Some(options) = word.strip_prefix(['-', '+']) else {
            scripts.extend(Some(word).filter(|_| executes));
            break;
        };
        scripts.push(word);
        match options {
            "-command" | "-init-command" => executes = true,
            "-rcfile" | "-init-file" => drop(rest.next()),
            long if long.starts_with('-') => {}
            short => {
                executes |= short.contains(['c', 'C']);
                // `-o pipefail`, alone or at the end of a cluster, takes the next word.
                if short.contains(['o', 'O']) {
                    rest.next();
                }
            }
        }
    }
    scripts
}

/// What kind of quote is open at the end of a text.
fn unclosed_quote(text: &str) -> Option<&'static str> {
    let mut open = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (open, character) {
            (Some('\''), '\'') | (Some('"'), '"') => open = None,
            (None, '\'' | '"') => open = Some(character),
            (None | Some('"'), '\\') => {
                characters.next();
            }
            _ => {}
        }
    }
    match open {
        Some('\'') => Some("single quote"),
        Some(_) => Some("double quote"),
        None => None,
    }
}

impl CommandLine {
    /// The words that, behind a `$`, stand for a value of the call that ended.
    pub const PLACEHOLDERS: [&str; 6] = ["file", "datetime", "id", "status", "state", "response"];

    /// The placeholders in a word, in their order. Other `$words` are none.
    pub fn placeholders(word: &str) -> Vec<&str> {
        let after_dollar = word.split('$').skip(1);
        let names = after_dollar.map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        });
        names.filter(|name| Self::PLACEHOLDERS.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_whole_words() {
        let check = |word, expected: &[&str]| assert_eq!(CommandLine::placeholders(word), expected, "{word}");
        check("id=$file&posted_at=$datetime", &["file", "datetime"]);
        check("$files ${file} $FARCALL_FILE $file_old $$", &[]);
        check("$file$file-$id.", &["file", "file", "id"]);
    }

    #[test]
    fn the_script_of_a_shell_is_found_behind_its_options() {
        let check = |line: &str, expected: Option<&str>| {
            let words = shlex::split(line).expect("a command line of this test");
            let scripts = scripts_of(&words[1..]);
            let last = scripts.last().map(|word| word.as_str()).filter(|word| !word.starts_with('-'));
            assert_eq!(last, expected, "{line}");
        };
        check("sh -c 'echo $file'", Some("echo $file"));
        check("sh -c 'echo \"$1\"' _ $file", Some("echo \"$1\""));
        check("bash -euo pipefail -c 'x' _ $file", Some("x"));
        check("bash -c -o pipefail 'x'", Some("x"));
        check("bash --rcfile c -c 'x'", Some("x"));
        check("sh -lc x", Some("x"));
        check("sh -c -- x", Some("x"));
        check("fish --command x", Some("x"));
        check("sh script.sh -c $file", None);
        check("sh -e script.sh", None);
    }

    #[test]
    fn the_open_quote_is_named() {
        assert_eq!(unclosed_quote("echo 'it''s"), Some("single quote"));
        assert_eq!(unclosed_quote(r#"echo "a\" b"#), Some("double quote"));
        assert_eq!(unclosed_quote("echo \\'"), None);
    }
}
