//! `cargo xtask openapi`: writes `docs/openapi.json`, the API's description as a server with nothing configured has it.
//!
//! The test that compares the two does it: so what is written is what is served.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const TEST: &str = "openapi::the_checked_in_document_is_the_one_that_is_served";

pub(crate) fn run(root: &Path) -> Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--quiet", "--package=farcall-server", "--test=it", "--", "--exact", TEST])
        .env("FARCALL_REWRITE_OPENAPI", "1")
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the document could not be made");
    Ok(())
}
