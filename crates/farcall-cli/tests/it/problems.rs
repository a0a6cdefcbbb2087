//! Every problem of the API, provoked by the commands of `docs/problems.md` as they stand there, run by a shell; what each
//! answers leads to its own section again.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::rig::command::{Finished, Running, spawn, start};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const PAGE: &str = include_str!("../../../../docs/problems.md");
/// What the page's commands call the server.
const ADDRESS: &str = "127.0.0.1:8888";

/// A section of the page.
#[derive(Debug, Clone)]
struct Section {
    code: String,
    status: u16,
    /// Lines of each block of commands.
    blocks: Vec<Vec<String>>,
}

/// A server in a directory of its own, and a shell for the page's commands.
struct Shop {
    home: tempfile::TempDir,
    server: Running,
}

fn sections() -> Vec<Section> {
    let sections = PAGE.split("\n## ").skip(1).map(|text| {
        let (heading, rest) = text.split_once('\n').expect("a section has lines");
        let (code, status) = heading.split_once(" (").expect("a code and a status");
        let blocks = rest.split("```\n").skip(1).step_by(2);
        let commands =
            |block: &str| block.lines().filter_map(|line| Some(line.strip_prefix("$ ")?.to_owned())).collect();
        Section {
            code: code.to_owned(),
            status: status.trim_end_matches(')').parse().expect("a status"),
            blocks: blocks.map(commands).collect(),
        }
    });
    sections.collect()
}

/// Answers at once, but not at `/slow`.
fn upstream() -> std::io::Result<Recorder> {
    Recorder::start(|arrival, _| {
        let reply = Reply::new(200);
        if arrival.path == "/slow" { reply.after(Duration::from_secs(60)) } else { reply }
    })
}

impl Shop {
    /// Runs `farcall` with these words, in the directory of a user who has a `box`.
    fn open(upstream: &Recorder, words: &[&str]) -> std::io::Result<Self> {
        let home = tempfile::tempdir()?;
        let directory = home.path().join("box");
        fs::create_dir(&directory)?;
        let text = format!("upstreams: {{ shop: {{ base_url: \"{}\" }} }}\n", upstream.url());
        fs::write(directory.join("farcall.yml"), text)?;
        let words = words.iter().map(|&word| match word {
            "box" => directory.clone().into_os_string(),
            word => word.into(),
        });
        let server = start(words, [("FARCALL_SERVER_LISTEN", "127.0.0.1:0"), ("FARCALL_LOG", "info")])?;
        let address = until("the server's address", || {
            let log = server.stderr();
            let (_, rest) = log.split_once("listen=")?;
            Some(rest.split_whitespace().next()?.to_owned())
        });
        // The page's address is where this server is not, so that many can be tried side by side.
        let curl =
            format!("connect-to = \"{ADDRESS}:{address}\"\ndump-header = \"{}\"\n", home.path().join("head").display());
        fs::write(home.path().join(".curlrc"), curl)?;
        Ok(Self { home, server })
    }

    /// Runs lines by a shell, the last until it has printed what is wanted: some of the others go on meanwhile.
    fn run(&self, lines: &[String], wanted: &str) -> std::io::Result<Finished> {
        let (last, before) = lines.split_last().expect("a block has a command");
        let before = before.join("\n");
        self.shell(&format!(
            "{before}\nlast() {{ {last}\n}}\nn=0\n\
             until last > printed; grep -q '{wanted}' printed || [ $n -ge 200 ]; do n=$((n+1)); sleep 0.1; done\n\
             cat printed"
        ))
    }

    fn shell(&self, script: &str) -> std::io::Result<Finished> {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(self.home.path());
        let home = self.home.path().to_str().expect("it is text");
        let pid = self.server.pid().to_string();
        spawn(shell, [("CURL_HOME", home), ("server", &pid)])?.finish()
    }

    /// Status and fields of the last answer.
    fn head(&self) -> std::io::Result<String> {
        fs::read_to_string(self.home.path().join("head"))
    }
}

/// Provokes a problem by one block of its section and judges the answer.
fn provoke(shop: &Shop, section: &Section, block: &[String]) -> Outcome {
    let Section { code, status, .. } = section;
    let printed = shop.run(block, &format!("\"code\":\"{code}\""))?;
    let said = format!("{code}: {} {}", printed.stdout, printed.stderr);
    let head = shop.head()?.to_ascii_lowercase();
    let heads = head.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
    assert!(heads.starts_with(&format!("http/1.1 {status} ")), "{said} {heads}");
    let problem: Value = serde_json::from_str(&printed.stdout).map_err(|error| format!("{error}: {said}"))?;
    assert_eq!(
        (problem["status"].as_u64(), problem["code"].as_str()),
        (Some(u64::from(*status)), Some(code.as_str())),
        "{said}"
    );
    assert!(heads.contains("content-type: application/problem+json"), "{said} {heads}");
    assert!(["title", "detail"].iter().all(|key| problem[key].as_str().is_some_and(|text| text.len() > 8)), "{said}");
    if matches!(status, 429 | 503 | 507) {
        let fields = ["retry-after: ", "ratelimit: \""];
        assert!(fields.iter().all(|field| heads.contains(field)), "{said} {heads}");
    }
    let leads_to = problem["type"].as_str().ok_or("a type")?;
    // Whoever is refused may read why: even a server that stops, or has no store.
    let section = shop.shell(&format!("curl -s {ADDRESS}{leads_to}"))?.stdout;
    assert!(section.starts_with(&format!("{code} ({status})\n")), "{leads_to}: {section}");
    Ok(())
}

/// The words of a section's own server.
fn own_server(block: &[String]) -> Option<Vec<&str>> {
    let words = block.first()?.strip_prefix("farcall ")?.strip_suffix(" & server=$!")?;
    Some(words.split(' ').collect())
}

#[test]
fn every_problem_is_provoked_by_the_commands_of_its_section() -> Outcome {
    let upstream = upstream()?;
    let shop = Shop::open(&upstream, &["serve", "box"])?;
    let mut provoked = 0;
    std::thread::scope(|scope| {
        let mut own = Vec::new();
        for section in sections() {
            assert!(!section.blocks.is_empty() || section.code == "internal", "{} has no command", section.code);
            for block in section.blocks.clone() {
                provoked += 1;
                let (upstream, section) = (&upstream, section.clone());
                if let Some(words) = own_server(&block) {
                    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
                    own.push(scope.spawn(move || {
                        let words: Vec<&str> = words.iter().map(String::as_str).collect();
                        let shop = Shop::open(upstream, &words).expect("a server of its own");
                        provoke(&shop, &section, &block[1..]).expect("provoked");
                    }));
                } else if matches!(section.code.as_str(), "busy" | "request_timeout") {
                    // These take their time, or the room of others.
                    own.push(scope.spawn(move || {
                        let shop = Shop::open(upstream, &["serve", "box"]).expect("a server of its own");
                        provoke(&shop, &section, &block).expect("provoked");
                    }));
                } else {
                    provoke(&shop, &section, &block)?;
                }
            }
        }
        own.into_iter().for_each(|thread| thread.join().expect("it was provoked"));
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert!(provoked > 25, "{provoked}");
    Ok(())
}

/// The table of the API's page, the sections, and the codes in the source say the same.
#[test]
fn every_code_has_its_section_and_its_line_in_the_table() -> Outcome {
    let of_sections: Vec<(u16, String)> =
        sections().into_iter().map(|section| (section.status, section.code)).collect();
    let table = include_str!("../../../../docs/api.md").split_once("## Failures").ok_or("a heading")?.1;
    let mut of_table = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let (Some(status), Some(codes)) = (cells.next().and_then(|cell| cell.parse().ok()), cells.next()) else {
            continue;
        };
        of_table.extend(codes.split('`').skip(1).step_by(2).map(|code| (status, code.to_owned())));
    }
    let in_source = [
        include_str!("../../../farcall-server/src/problem/code.rs"),
        include_str!("../../../farcall-engine/src/document/mod.rs"),
    ];
    let mut named: Vec<&str> = Vec::new();
    for (code, text) in
        of_sections.iter().map(|(_, code)| code).flat_map(|code| in_source.iter().map(move |text| (code, text)))
    {
        if text.contains(&format!("\"{code}\"")) {
            named.push(code);
        }
    }
    let sorted = |mut codes: Vec<(u16, String)>| {
        codes.sort();
        codes
    };
    assert_eq!(sorted(of_sections.clone()), sorted(of_table));
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), of_sections.len(), "a section is of no code: {named:?}");
    let facts = in_source[0].matches("(S::").count();
    let of_documents = ["malformed_document", "invalid_call", "invalid_policy"].len();
    assert_eq!(facts + of_documents, of_sections.len(), "a code has no section");
    Ok(())
}
