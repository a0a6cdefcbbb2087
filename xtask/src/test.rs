//! `cargo xtask test`: every check there is, in the order that tells soonest what is wrong.
//!
//! Each step prints a heading and its time; the first that fails ends the run, and the last line names it. What CI
//! runs is exactly this.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{schemathesis, tidy};

/// What one step needs to know.
struct Bench<'a> {
    root: &'a Path,
    /// A missing tool is an error rather than a warning.
    is_ci: bool,
}

/// A heading, and what is done below it.
type Step = (&'static str, fn(&Bench<'_>) -> Result<()>);

/// Seeds of the simulator in every run.
const SEEDS: &str = "1000";

/// The cheapest first.
const STEPS: [Step; 11] = [
    ("C compiler", c_compiler),
    ("Python", python),
    ("tools for faults", fault_tools),
    ("promtool", promtool),
    ("format", format),
    ("tidy", |bench| tidy::run(bench.root)),
    ("no crash points in the program", crash_points),
    ("lints", lints),
    ("tests", tests),
    ("simulator", simulator),
    ("schemathesis", |bench| schemathesis::run(bench.root, &schemathesis::Trial::default())),
];

/// Runs the steps.
pub(crate) fn run(root: &Path) -> Result<()> {
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    run_steps(&Bench { root, is_ci }, &STEPS)
}

fn run_steps(bench: &Bench<'_>, steps: &[Step]) -> Result<()> {
    let begun = Instant::now();
    for (name, step) in steps {
        println!("\n==== {name}");
        let step_begun = Instant::now();
        step(bench).with_context(|| format!("FAILED: {name}"))?;
        println!("---- {name}: ok, {:.1} s", step_begun.elapsed().as_secs_f64());
    }
    println!("\nAll {} steps passed in {:.0} s.", steps.len(), begun.elapsed().as_secs_f64());
    Ok(())
}

/// SQLite and the cryptography are compiled from C.
fn c_compiler(bench: &Bench<'_>) -> Result<()> {
    bench.need("cc", "build-essential")
}

/// Signatures are judged by a program that is not ours to get wrong twice, and the API by schemathesis, which is installed
/// into a place of its own.
fn python(bench: &Bench<'_>) -> Result<()> {
    bench.need("python3", "python3")?;
    let can_install = || answers("python3", &["-m", "ensurepip", "--version"]);
    if !can_install() && is_root() && answers("apt-get", &["--version"]) {
        println!("no venv for python3: installing python3-venv");
        bench.install(&["python3-venv"])?;
    }
    ensure!(can_install(), "python3 has no venv: Debian's package is python3-venv");
    Ok(())
}

/// What the tests of faults use besides root: power cuts, full disks and failing ones, limits of a process, networks.
fn fault_tools(bench: &Bench<'_>) -> Result<()> {
    const TOOLS: [(&str, &str, &str); 5] = [
        ("mkfs.ext4", "-V", "e2fsprogs"),
        ("losetup", "--version", "util-linux"),
        ("mount", "--version", "mount"),
        ("strace", "--version", "strace"),
        ("ip", "-V", "iproute2"),
    ];
    let missing = || TOOLS.iter().filter(|(tool, flag, _)| !answers(tool, &[flag]));
    let packages: Vec<&str> = missing().map(|&(_, _, package)| package).collect();
    if is_root() && !packages.is_empty() && answers("apt-get", &["--version"]) {
        println!("installing {}", packages.join(" "));
        bench.install(&packages)?;
    }
    let without: Vec<&str> = missing().map(|&(tool, _, _)| tool).collect();
    if is_root() && without.is_empty() {
        return Ok(());
    }
    ensure!(!bench.is_ci, "the tests of faults need root and {without:?}");
    eprintln!(
        "WARNING: not root, or without {without:?}: tests of power cuts, failing disks and addresses will CHECK NOTHING"
    );
    Ok(())
}

/// Metrics, alert rules and Prometheus' configuration are judged by Prometheus' own tool.
fn promtool(bench: &Bench<'_>) -> Result<()> {
    if answers("promtool", &["--version"]) || bench.is_ci || is_root() {
        return bench.need("promtool", "prometheus");
    }
    eprintln!("WARNING: no promtool (Debian's package prometheus): the tests of metrics will NOT CHECK their form");
    Ok(())
}

fn format(bench: &Bench<'_>) -> Result<()> {
    if bench.has_component("fmt", "rustfmt")? { bench.cargo(&["fmt", "--all", "--check"]) } else { Ok(()) }
}

fn lints(bench: &Bench<'_>) -> Result<()> {
    if !bench.has_component("clippy", "clippy")? {
        return Ok(());
    }
    bench.cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// Crash points belong into test builds only.
fn crash_points(bench: &Bench<'_>) -> Result<()> {
    const TREE: [&str; 8] = [
        "tree",
        "--locked",
        "--package=farcall-cli",
        "--edges=no-dev,features",
        "--invert",
        "farcall-crash",
        "--depth",
        "1",
    ];
    let output = Command::new("cargo").args(TREE).current_dir(bench.root).output().context("cannot run cargo tree")?;
    let tree = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && tree.contains("farcall-crash"), "cargo tree says nothing of farcall-crash");
    ensure!(!tree.contains("armed"), "the program is built with crash points:\n{tree}");
    Ok(())
}

fn tests(bench: &Bench<'_>) -> Result<()> {
    bench.cargo(&["test", "--locked", "--workspace"])
}

/// As a command of its own, as one would replay a seed; the tests have built what it needs.
fn simulator(bench: &Bench<'_>) -> Result<()> {
    bench.cargo(&["run", "--locked", "--quiet", "--package", "xtask", "--", "sim", "--seeds", SEEDS])
}

impl Bench<'_> {
    /// Sees that a program is there, and installs the package that has it where that is possible.
    fn need(&self, program: &str, package: &str) -> Result<()> {
        let advice = || format!("no {program}: run `apt-get install {package}`, or your system's equal, and try again");
        if answers(program, &["--version"]) {
            return Ok(());
        }
        ensure!(is_root() && answers("apt-get", &["--version"]), advice());
        println!("no {program}: installing {package}");
        self.install(&[package])?;
        ensure!(answers(program, &["--version"]), advice());
        Ok(())
    }

    /// Installs packages of Debian and its kin; the caller is root.
    fn install(&self, packages: &[&str]) -> Result<()> {
        self.run("apt-get", &["update"])?;
        self.run("apt-get", &[&["install", "--yes", "--no-install-recommends"], packages].concat())
    }

    /// Whether a component of the toolchain is there; in CI it must be.
    fn has_component(&self, command: &str, component: &str) -> Result<bool> {
        if answers("cargo", &[command, "--version"]) {
            return Ok(true);
        }
        ensure!(!self.is_ci, "{component} is missing: run `rustup component add {component}`");
        eprintln!("WARNING: {component} is missing, so this step CHECKS NOTHING; `rustup component add {component}`");
        Ok(false)
    }

    fn cargo(&self, args: &[&str]) -> Result<()> {
        self.run("cargo", args)
    }

    /// Runs a program in the workspace, its output shown.
    fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        println!("$ {program} {}", args.join(" "));
        let status = Command::new(program)
            .args(args)
            .current_dir(self.root)
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        if !status.success() {
            bail!("{program} ended with {status}");
        }
        Ok(())
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// Whether a program is there and works; its output is not shown.
fn answers(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_ends_the_run_and_is_named() {
        let bench = Bench { root: Path::new("/"), is_ci: true };
        let good: Step = ("good", |bench| bench.run("true", &[]));
        let bad: Step = ("bad", |bench| bench.run("false", &[]));
        let never: Step = ("never", |_| panic!("a failure came before"));
        assert!(run_steps(&bench, &[good, good]).is_ok());
        let error = run_steps(&bench, &[good, bad, never]).expect_err("false fails");
        assert_eq!(format!("{error:#}"), "FAILED: bad: false ended with exit status: 1");
    }

    #[test]
    fn a_program_that_fails_fails_its_step() {
        let bench = Bench { root: Path::new("/"), is_ci: true };
        assert!(bench.run("true", &[]).is_ok());
        let error = bench.run("false", &[]).expect_err("false fails").to_string();
        assert_eq!(error, "false ended with exit status: 1");
        assert!(bench.run("/no/such/program", &[]).is_err());
    }

    #[test]
    fn a_missing_component_is_an_error_in_ci_only() {
        let has = |is_ci| Bench { root: Path::new("/"), is_ci }.has_component("no-such-subcommand", "nothing");
        assert!(has(true).is_err());
        assert!(matches!(has(false), Ok(false)));
    }
}
