//! The examples of `docs/gateway.md`, run by a shell as they stand there, each with the output that stands below it.

use std::process::Command;

use super::rig::{Gateway, Outcome, Peer};
use crate::rig::command::spawn;

const PAGE: &str = include_str!("../../../../../docs/gateway.md");

/// The lines of every block that begins like this.
fn blocks(fence: &str) -> Vec<Vec<&'static str>> {
    let fence = format!("\n{fence}\n");
    let blocks = PAGE.split(&fence).skip(1);
    blocks.map(|rest| rest.split("\n```").next().unwrap_or_default().lines().collect()).collect()
}

/// Says what it was asked, but gives a document at `/v2/work`.
fn shop() -> std::io::Result<Peer> {
    Peer::start(|arrived| {
        arrived.body()?;
        if arrived.target() == "/v2/work" {
            return arrived.reply(200, "{\"time\": 200}");
        }
        let method = arrived.head.split(' ').next().unwrap_or_default();
        let said = [method, arrived.target(), &arrived.last_body()].join(" ");
        let said = said.trim_end();
        arrived.reply(200, &format!("{said}\n"))
    })
}

#[test]
fn every_example_of_the_page_prints_what_stands_there() -> Outcome {
    let peer = shop()?;
    let config = blocks("```yaml").concat().join("\n").replace("http://127.0.0.1:9000", &peer.url());
    let gateway = Gateway::open(&config)?;
    let home = tempfile::tempdir()?;
    std::fs::write(home.path().join(".curlrc"), format!("connect-to = \"127.0.0.1:8888:{}\"\n", gateway.address))?;
    let mut examples = 0;
    for block in blocks("```").into_iter().filter(|block| block.first().is_some_and(|line| line.starts_with("$ "))) {
        for example in block.join("\n").split("$ ").skip(1) {
            let (line, expected) = example.split_once('\n').ok_or("a command and what it prints")?;
            let mut shell = Command::new("sh");
            shell.args(["-c", line]).current_dir(home.path());
            let finished = spawn(shell, [("CURL_HOME", home.path().to_str().ok_or("text")?)])?.finish()?;
            assert_eq!(finished.stdout.trim_end(), expected.trim_end(), "{line}: {}", finished.stderr);
            examples += 1;
        }
    }
    assert!(examples >= 6, "{examples}");
    Ok(())
}
