//! The examples in the help text of `farcall call`, each run as it stands there.

use std::fs;
use std::process::{Command, Stdio};

use super::{Outcome, upstream};
use crate::rig::command::farcall;

#[test]
fn every_example_of_the_help_runs() -> Outcome {
    let upstream = upstream()?;
    let help = farcall(["call", "--help"])?.stdout;
    let examples: Vec<&str> = help.lines().map(str::trim).filter(|line| line.starts_with("farcall call ")).collect();
    assert!(examples.len() >= 5, "{help}");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_farcall"));
    let programs = program.parent().expect("a program lies in a folder").display().to_string();
    for (index, example) in examples.iter().enumerate() {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("calls"))?;
        let config = format!("upstreams: {{ shop: {{ base_url: \"{}\" }} }}\n", upstream.url());
        fs::write(folder.path().join("calls/farcall.yml"), config)?;
        fs::write(folder.path().join("note.txt"), "a note")?;
        let words = example.replace("http://localhost:8080", &upstream.url());
        let mut shell = Command::new("sh");
        shell.args(["-c", &words]).current_dir(folder.path()).stdin(Stdio::null()).env("HOME", folder.path());
        shell.env("PATH", format!("{programs}:{}", std::env::var("PATH")?)).env("TMPDIR", folder.path());
        let output = shell.output()?;
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(upstream.arrivals().len(), index + 1, "{words}");
    }
    Ok(())
}
