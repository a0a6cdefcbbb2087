//! Configurations as users write them: what right ones mean, and what is said of wrong ones.
//!
//! `config/NAME.yml` is a wrong configuration, `config/NAME.txt` what is said of it, word for word (the directory's
//! path reads DIR). A name that begins with `kofaf` is loaded as `kofaf.yml`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farcall_core::retry::{Backoff, Jitter, MethodSet, OnUnknown, RetryPolicy};
use farcall_engine::config::{
    self, CallbackAction, CommandLine, Config, Diagnostics, Finding, HeaderCaps, Listen, LoadError, LoadOptions,
    Loaded, Override, SETTINGS, Severity, Upstream, load,
};
use tempfile::TempDir;

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The configuration of Kofaf's README, indentation included.
const KOFAF_SAMPLE: &str = r#"  etsy:
    base_url: https://openapi.etsy.com
    rate_second: 10
    rate_hour: 400
    retry: 3
    wait: 2
  shopify:
    base_url: https://korakot.myshopify.com/admin
    rate_second: 2
    callback_success: "curl -X POST https://yoursite.com/post_success/ -d 'id=$file&posted_at=$datetime'"
    callback_fail: "curl -X POST https://yoursite.com/err/ -d 'id=$file&posted_at=$datetime'"

"#;

/// The contract's sample without what later versions bring.
const FARCALL_SAMPLE: &str = r#"
server:    { listen: 127.0.0.1:8888, tokens: ["${file:token}"], drain_timeout: 30s, max_body: 16MiB }
store:     { path: .farcall, min_free: 256MiB }
defaults:  { timeout: 30s }
upstreams:
  etsy:
    base_url: https://openapi.etsy.com
    rate_second: 10
    rate_hour: 400
    limits: ["10/1s", "400/1h", "1000/1d"]
    retry: { max: 4, base: 2s, factor: 3, max_delay: 1h, jitter: none, statuses: [408, "500-599"], methods: [GET, put],
             requeue: 1, throttle_max: 7, retry_after_max: 2h, on_unknown: retry }
    success: { statuses: ["200-299", 304], content_type: application/JSON }
    headers: { Authorization: "Bearer ${file:token}", X-Version: 1.0 }
    tls: { ca: ca.pem }
    proxy: "http://user:${file:token}@10.0.0.1:3128"
    redirects: 20
    addresses: any
    idempotent: false
    concurrency: 8
    smooth: yes
    strict: true
    jitter: 50ms
    deadline: 1h
    connect_timeout: 2.5
    max_response: 1MiB
    max_headers: { bytes: 16KiB }
    idempotency_header: ""
inbox:     { settle: 500ms }
"#;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config")
}

/// A working directory with the files that configurations of these tests refer to.
fn directory(file: &str, text: &str) -> TestResult<TempDir> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join(file), text)?;
    fs::write(dir.path().join("empty"), "\n")?;
    fs::write(dir.path().join("two-lines"), "hunter2\nhunter3\n")?;
    fs::write(dir.path().join("token"), "t0ken\n")?;
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(dir.path().join("ca.pem"), certificate.cert.pem())?;
    Ok(dir)
}

fn loaded(file: &str, text: &str) -> TestResult<Config> {
    let dir = directory(file, text)?;
    Ok(load(dir.path(), &LoadOptions::default())?.config)
}

fn mistakes(dir: &Path, options: &LoadOptions) -> TestResult<Diagnostics> {
    match load(dir, options) {
        Err(LoadError::Invalid(diagnostics)) => Ok(diagnostics),
        Err(other) => Err(other.into()),
        Ok(_) => Err("this configuration is wrong but was accepted".into()),
    }
}

/// What is said of a fixture.
fn said_of(fixture: &Path) -> TestResult<String> {
    let name = fixture.file_name().unwrap_or_default().to_string_lossy();
    let file = if name.starts_with("kofaf") { "kofaf.yml" } else { "farcall.yml" };
    let dir = directory(file, &fs::read_to_string(fixture)?)?;
    let rendered = mistakes(dir.path(), &LoadOptions::default())?.to_string();
    Ok(rendered.replace(&dir.path().display().to_string(), "DIR") + "\n")
}

fn with_extension(extension: &str) -> TestResult<BTreeSet<PathBuf>> {
    let paths =
        fs::read_dir(fixtures())?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect())
}

#[test]
fn wrong_configurations_are_explained_word_for_word() -> TestResult {
    let wrong = with_extension("yml")?;
    assert!(wrong.len() >= 50);
    let explained = with_extension("txt")?;
    assert_eq!(explained, wrong.iter().map(|path| path.with_extension("txt")).collect());
    for fixture in wrong {
        let expected = fs::read_to_string(fixture.with_extension("txt"))?;
        assert_eq!(said_of(&fixture)?, expected, "{}", fixture.display());
    }
    Ok(())
}

#[test]
#[ignore = "writes the expected texts anew; look at every difference"]
fn write_expected_texts() -> TestResult {
    for fixture in with_extension("yml")? {
        fs::write(fixture.with_extension("txt"), said_of(&fixture)?)?;
    }
    Ok(())
}

#[test]
fn no_message_shows_a_secret() -> TestResult {
    for path in with_extension("txt")? {
        assert!(!fs::read_to_string(&path)?.contains("hunter"), "{}", path.display());
    }
    Ok(())
}

#[test]
fn kofafs_sample_loads_unchanged() -> TestResult {
    let config = loaded("kofaf.yml", KOFAF_SAMPLE)?;
    assert!(config.is_kofaf);
    let etsy = &config.upstreams["etsy"].policy;
    let limits: Vec<_> = etsy.limits.iter().map(|limit| (limit.count.get(), limit.window.as_secs())).collect();
    assert_eq!(limits, [(10, 1), (400, 3_600)]);
    let constant = Backoff::Constant(Duration::from_secs(2));
    assert_eq!(etsy.retry, RetryPolicy { max: 3, backoff: constant, jitter: Jitter::None, ..RetryPolicy::durable() });
    assert_eq!(etsy.on_unknown, Some(OnUnknown::Retry));
    let shopify = &config.upstreams["shopify"];
    assert_eq!((shopify.policy.retry.clone(), shopify.policy.on_unknown), (RetryPolicy::none(), None));
    assert!(shopify.callback_fail.is_some());
    let Some(CallbackAction::Command(CommandLine { words })) = &shopify.callback_success else { panic!("a command") };
    let site = "https://yoursite.com/post_success/";
    assert_eq!(*words, ["curl", "-X", "POST", site, "-d", "id=$file&posted_at=$datetime"]);
    assert_eq!(config.undeclared.policy.retry, RetryPolicy::none());
    Ok(())
}

#[test]
fn the_contracts_sample_is_understood() -> TestResult {
    let config = loaded("farcall.yml", FARCALL_SAMPLE)?;
    assert_eq!(config.server.tokens, ["t0ken"]);
    assert_eq!(config.inbox.settle, Duration::from_millis(500));
    let etsy = &config.upstreams["etsy"];
    let windows: Vec<_> = etsy.policy.limits.iter().map(|limit| (limit.count.get(), limit.window.as_secs())).collect();
    assert_eq!(windows, [(10, 1), (400, 3_600), (1_000, 86_400)]);
    let retry = &etsy.policy.retry;
    assert_eq!((retry.max, retry.requeue, retry.throttle_max), (4, 1, 7));
    assert_eq!(retry.backoff, Backoff::Geometric { base: Duration::from_secs(2), factor: 3.0 });
    assert_eq!((retry.jitter, retry.statuses.ranges()), (Jitter::None, [(408, 408), (500, 599)].as_slice()));
    assert_eq!(retry.methods, MethodSet::Only(vec!["GET".into(), "PUT".into()]));
    assert_eq!(retry.retry_after_max, Duration::from_secs(7_200));
    assert_eq!(etsy.policy.on_unknown, Some(OnUnknown::Retry));
    assert_eq!(etsy.success.content_type.as_deref(), Some("application/json"));
    assert_eq!(etsy.success.statuses, etsy.policy.success_statuses);
    let headers: Vec<_> = etsy.headers.iter().map(|(name, value)| (name.as_str(), value.as_written())).collect();
    assert_eq!(headers, [("authorization", "Bearer ${file:token}"), ("x-version", "1.0")]);
    assert!(etsy.tls_ca.as_ref().is_some_and(|path| path.is_absolute() && path.ends_with("ca.pem")));
    assert_eq!(etsy.policy.concurrency.map(u32::from), Some(8));
    assert!(etsy.policy.smooth && etsy.policy.strict && !etsy.policy.idempotent);
    assert_eq!((etsy.policy.jitter, etsy.deadline), (Duration::from_millis(50), Some(Duration::from_secs(3_600))));
    assert_eq!((etsy.policy.timeout, etsy.connect_timeout), (Duration::from_secs(30), Duration::from_millis(2_500)));
    assert_eq!((etsy.max_response, etsy.max_headers), (1 << 20, HeaderCaps { bytes: 16 << 10, fields: 100 }));
    assert_eq!(etsy.idempotency_header, "");
    assert_eq!(etsy.policy.redirects, 20);
    let proxy = etsy.proxy.as_ref().map(|proxy| proxy.as_written());
    assert_eq!(proxy, Some("http://user:${file:token}@10.0.0.1:3128"));
    Ok(())
}

#[test]
fn a_proxy_is_for_all_unless_none_and_makes_limits_strict() -> TestResult {
    let text = r#"
defaults: { proxy: "http://user:${file:token}@10.0.0.1:3128", strict: false }
upstreams:
  inherits: { base_url: https://a.example }
  direct: { base_url: https://b.example, proxy: none }
"#;
    let config = loaded("farcall.yml", text)?;
    let proxy = |upstream: &Upstream| upstream.proxy.as_ref().map(|proxy| proxy.as_written().to_owned());
    let written = Some("http://user:${file:token}@10.0.0.1:3128".to_owned());
    let (inherits, direct) = (&config.upstreams["inherits"], &config.upstreams["direct"]);
    assert_eq!([proxy(inherits), proxy(&config.undeclared), proxy(direct)], [written.clone(), written, None]);
    assert_eq!((inherits.policy.strict, direct.policy.strict), (true, false));
    Ok(())
}

#[test]
fn redirects_are_followed_where_it_says_so_and_never_by_default() -> TestResult {
    let text = "defaults: { redirects: 5 }\nupstreams:\n  inherits: { base_url: 'https://a.example' }\n  \
                stays: { base_url: 'https://b.example', redirects: 0 }\n";
    let config = loaded("farcall.yml", text)?;
    let redirects = |name: &str| config.upstreams[name].policy.redirects;
    assert_eq!((redirects("inherits"), redirects("stays"), config.undeclared.policy.redirects), (5, 0, 5));
    assert_eq!(Upstream::default().policy.redirects, 0);
    Ok(())
}

#[test]
fn without_a_file_the_defaults_hold() -> TestResult {
    let dir = tempfile::tempdir()?;
    let config = load(dir.path(), &LoadOptions::default())?.config;
    assert_eq!((config.path.as_ref(), config.is_kofaf, config.upstreams.len()), (None, false, 0));
    assert_eq!(config.undeclared.policy, Upstream::default().policy);
    for text in ["", "# nothing\n", "upstreams:\nserver:\n", "routes: {}\nfunctions:\nretention: {}\n"] {
        assert!(loaded("farcall.yml", text)?.upstreams.is_empty(), "{text}");
    }
    Ok(())
}

#[test]
fn an_upstreams_keys_lie_over_the_defaults_and_retry_is_merged() -> TestResult {
    let config = loaded(
        "farcall.yml",
        "defaults: { timeout: 9, rate_hour: 5, limits: [7/1m], headers: { A: b }, retry: { max: 2, base: 3s, requeue: 1 } }\n\
         upstreams:\n\
         \x20 plain: { base_url: http://plain.test }\n\
         \x20 number: { base_url: http://number.test, retry: 8 }\n\
         \x20 merged: { base_url: http://merged.test, retry: { factor: 4 }, timeout: 1, headers: {}, limits: [1/1d] }\n\
         \x20 constant: { base_url: http://constant.test, wait: 2 }\n",
    )?;
    let retry = |name: &str| {
        let retry = &config.upstreams[name].policy.retry;
        (retry.max, retry.backoff, retry.jitter, retry.requeue)
    };
    let geometric = |factor| Backoff::Geometric { base: Duration::from_secs(3), factor };
    assert_eq!(retry("plain"), (2, geometric(2.0), Jitter::Full, 1));
    assert_eq!(retry("number"), (8, geometric(2.0), Jitter::Full, 1));
    assert_eq!(retry("merged"), (2, geometric(4.0), Jitter::Full, 1));
    assert_eq!(retry("constant"), (2, Backoff::Constant(Duration::from_secs(2)), Jitter::None, 1));
    let merged = &config.upstreams["merged"];
    assert_eq!((merged.policy.timeout.as_secs(), merged.headers.len()), (1, 0));
    let windows: Vec<_> =
        merged.policy.limits.iter().map(|limit| (limit.count.get(), limit.window.as_secs())).collect();
    assert_eq!(windows, [(5, 3_600), (1, 86_400)]);
    assert_eq!((config.undeclared.policy.timeout.as_secs(), config.undeclared.headers.len()), (9, 1));
    Ok(())
}

#[test]
fn the_forms_of_delay_have_their_own_jitter() -> TestResult {
    let check = |keys: &str, expected| -> TestResult {
        let text = format!("upstreams: {{ a: {{ base_url: 'http://a.test', {keys} }} }}");
        assert_eq!(loaded("farcall.yml", &text)?.upstreams["a"].policy.retry.jitter, expected, "{keys}");
        Ok(())
    };
    check("retry: 3", Jitter::Full)?;
    check("retry: { base: 2s }", Jitter::Full)?;
    check("retry: { backoff_factor: 2 }", Jitter::None)?;
    check("retry: { backoff_factor: 2, jitter: full }", Jitter::Full)?;
    check("wait: 2", Jitter::None)?;
    check("retry: { max: 3, wait: 2 }", Jitter::None)?;
    check("wait: 2, retry: { max: 3, jitter: full }", Jitter::Full)
}

#[test]
fn of_several_limits_for_one_window_the_lowest_holds() -> TestResult {
    let config = loaded("farcall.yml", "defaults: { rate_second: 10, limits: ['4/1s', '9/1', '20/1000ms'] }")?;
    let limits: Vec<_> = config.undeclared.policy.limits.iter().map(|limit| limit.count.get()).collect();
    assert_eq!(limits, [4]);
    Ok(())
}

#[test]
fn references_mean_nothing_in_kofaf_yml_nor_in_command_lines() -> TestResult {
    let upstream = "base_url: http://a.test, headers: { X: 'a${env:NO_SUCH}' }";
    let config = loaded("kofaf.yml", &format!("a: {{ {upstream} }}"))?;
    let (_, template) = &config.upstreams["a"].headers[0];
    assert_eq!(template.resolve(Path::new("."))?.expose(), "a${env:NO_SUCH}");
    let config = loaded("farcall.yml", "defaults: { callback_fail: 'echo ${env:NO_SUCH}' }")?;
    let Some(CallbackAction::Command(CommandLine { words })) = config.undeclared.callback_fail else {
        panic!("a command")
    };
    assert_eq!(words, ["echo", "${env:NO_SUCH}"]);
    Ok(())
}

#[test]
fn a_callback_may_be_a_url_with_one_secret_or_several() -> TestResult {
    let dir = directory(
        "farcall.yml",
        "defaults: { callback_fail: { url: 'https://hook.example/x?y=1' } }\n\
         upstreams:\n  a:\n    base_url: https://a.example\n    callback_success:\n      \
         { url: 'https://hook.example', secret: ['${file:new}', whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }\n",
    )?;
    fs::write(dir.path().join("new"), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n")?;
    let config = load(dir.path(), &LoadOptions::default())?.config;
    let upstream = &config.upstreams["a"];
    let (Some(CallbackAction::Webhook(signed)), Some(CallbackAction::Webhook(plain))) =
        (&upstream.callback_success, &upstream.callback_fail)
    else {
        panic!("two webhooks: {upstream:?}")
    };
    assert_eq!((signed.url.as_str(), signed.secrets.len()), ("https://hook.example/", 2));
    assert_eq!(signed.secrets[0].as_written(), "${file:new}");
    assert_eq!((plain.url.as_str(), plain.secrets.len()), ("https://hook.example/x?y=1", 0));
    assert!(!format!("{config:?}").contains("MfKQ"), "a secret is shown to nobody");
    Ok(())
}

#[test]
fn secrets_of_the_defaults_stay_with_declared_upstreams() -> TestResult {
    let text =
        "defaults: { headers: { X-Key: '${file:token}', X-Name: me } }\nupstreams: { a: { base_url: http://a.test } }";
    let dir = directory("farcall.yml", text)?;
    let Loaded { config, warnings } = load(dir.path(), &LoadOptions::default())?;
    assert_eq!(config.upstreams["a"].headers.len(), 2);
    let undeclared: Vec<_> = config.undeclared.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(undeclared, ["x-name"]);
    let warning = warnings.iter().next().ok_or("a warning is due")?;
    assert_eq!((warning.severity, warning.line, warning.column), (Severity::Warning, Some(1), Some(13)));
    Ok(())
}

#[test]
fn overrides_take_the_place_of_the_files_values() -> TestResult {
    let dir = directory("farcall.yml", "server: { listen: nonsense, drain_timeout: 5s }\n")?;
    let given = |section: &str, key: &str, value: &str| Override {
        section: section.into(),
        key: key.into(),
        value: value.into(),
        origin: format!("--{section}-{key}"),
    };
    let overrides = vec![
        given("server", "listen", "127.0.0.1:1"),
        given("server", "listen", "0.0.0.0:9000"),
        given("server", "tokens", "one, ${env:two}"),
        given("store", "min_free", "1024"),
        given("inbox", "settle", "1m30s"),
    ];
    let config = load(dir.path(), &LoadOptions { overrides, ..LoadOptions::default() })?.config;
    assert_eq!(config.server.listen, Listen::Address("0.0.0.0:9000".into()));
    assert_eq!(config.server.tokens, ["one", "${env:two}"]);
    assert_eq!((config.server.drain_timeout.as_secs(), config.store.min_free), (5, 1_024));
    assert_eq!(config.inbox.settle, Duration::from_secs(90));
    for (section, key) in SETTINGS {
        let overrides = vec![given(section, key, ""), given("server", "tokens", "a")];
        let options = LoadOptions { overrides, ..LoadOptions::default() };
        match load(dir.path(), &options) {
            Ok(_) => assert_eq!(key, "nothing accepts an empty value"),
            Err(error) => assert!(!error.to_string().contains("unknown key"), "{error}"),
        }
    }
    Ok(())
}

#[test]
fn a_mistake_in_an_override_names_its_origin() -> TestResult {
    let dir = tempfile::tempdir()?;
    let given = |key: &str, value: &str| {
        let origin = format!("FARCALL_SERVER_{}", key.to_uppercase());
        Override { section: "server".into(), key: key.into(), value: value.into(), origin }
    };
    let overrides = vec![given("drain_timeout", "soon"), given("tokens", "hunter2,"), given("no_such", "1")];
    let diagnostics = mistakes(dir.path(), &LoadOptions { overrides, ..LoadOptions::default() })?;
    let found: Vec<_> = diagnostics.iter().map(|finding| (finding.path.unwrap_or_default(), finding.message)).collect();
    assert_eq!(
        found,
        [
            ("FARCALL_SERVER_DRAIN_TIMEOUT", "soon is not a length of time"),
            ("FARCALL_SERVER_TOKENS", "a token cannot be empty"),
            ("FARCALL_SERVER_NO_SUCH", "unknown key `no_such`"),
        ]
    );
    assert!(!format!("{diagnostics} {diagnostics:?}").contains("hunter2"));
    Ok(())
}

#[test]
fn under_the_name_kofaf_there_is_no_port_unless_asked_for() -> TestResult {
    let dir = tempfile::tempdir()?;
    let options = LoadOptions { kofaf: true, ..LoadOptions::default() };
    let config = load(dir.path(), &options)?.config;
    assert_eq!((config.server.listen, config.is_kofaf), (Listen::None, true));
    let asked = Override {
        section: "server".into(),
        key: "listen".into(),
        value: "127.0.0.1:8888".into(),
        origin: "--listen".into(),
    };
    let config = load(dir.path(), &LoadOptions { overrides: vec![asked], ..options })?.config;
    assert_eq!(config.server.listen, Listen::Address("127.0.0.1:8888".into()));
    Ok(())
}

#[test]
fn both_files_are_a_mistake_unless_one_is_named() -> TestResult {
    let dir = directory("farcall.yml", "")?;
    fs::write(dir.path().join("kofaf.yml"), KOFAF_SAMPLE)?;
    let diagnostics = mistakes(dir.path(), &LoadOptions::default())?;
    let messages: Vec<_> = diagnostics.iter().map(|finding| finding.message.to_owned()).collect();
    assert_eq!(messages, [format!("{} holds both farcall.yml and kofaf.yml", dir.path().display())]);
    let path = Some(dir.path().join("kofaf.yml"));
    let config = load(dir.path(), &LoadOptions { path: path.clone(), ..LoadOptions::default() })?.config;
    assert_eq!((config.is_kofaf, config.path), (true, path));
    Ok(())
}

#[test]
fn a_misspelled_file_name_is_warned_of() -> TestResult {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yaml"), "")?;
    let warnings = load(dir.path(), &LoadOptions::default())?.warnings;
    assert_eq!(warnings.iter().map(|finding| finding.hint).collect::<Vec<_>>(), [Some("rename it to `farcall.yml`")]);
    Ok(())
}

#[test]
fn a_file_that_everyone_can_write_is_refused() -> TestResult {
    let dir = directory("farcall.yml", "")?;
    let path = dir.path().join("farcall.yml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o646))?;
    let Err(LoadError::WritableByEveryone { path: named }) = load(dir.path(), &LoadOptions::default()) else {
        return Err("it was accepted".into());
    };
    assert_eq!(named, path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664))?;
    load(dir.path(), &LoadOptions::default())?;
    Ok(())
}

#[test]
fn what_is_no_readable_file_is_named() -> TestResult {
    let dir = tempfile::tempdir()?;
    for path in [dir.path().join("absent.yml"), dir.path().to_owned()] {
        let options = LoadOptions { path: Some(path.clone()), ..LoadOptions::default() };
        let Err(LoadError::Unreadable { path: named, .. }) = load(dir.path(), &options) else {
            return Err("it was accepted".into());
        };
        assert_eq!(named, path);
    }
    fs::write(dir.path().join("farcall.yml"), vec![b'#'; 1 + usize::try_from(config::CONFIG_BYTES_MAX)?])?;
    assert!(matches!(load(dir.path(), &LoadOptions::default()), Err(LoadError::Unreadable { .. })));
    Ok(())
}

#[test]
fn bytes_that_are_no_text_have_their_place() -> TestResult {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), b"# fine\n# \xff\n")?;
    let diagnostics = mistakes(dir.path(), &LoadOptions::default())?;
    let Some(Finding { line, column, .. }) = diagnostics.iter().next() else { return Err("nothing found".into()) };
    assert_eq!((line, column), (Some(2), Some(3)));
    Ok(())
}

#[test]
fn colour_changes_nothing_but_colour() -> TestResult {
    let dir = directory("farcall.yml", "upstreams: { a: { base_url: 'http://a.test', rate_sec: 1 } }\n")?;
    let diagnostics = mistakes(dir.path(), &LoadOptions::default())?;
    let colored = diagnostics.render(true);
    assert!(colored.contains('\u{1b}') && !diagnostics.render(false).contains('\u{1b}'));
    let mut plain = String::new();
    for (index, part) in colored.split('\u{1b}').enumerate() {
        plain.push_str(if index == 0 { part } else { part.split_once('m').map_or("", |(_, text)| text) });
    }
    assert_eq!(plain, diagnostics.to_string());
    Ok(())
}

proptest::proptest! {
    #[test]
    fn no_text_brings_the_loader_down(
        from in 0..FARCALL_SAMPLE.len(),
        length in 0_usize..40,
        put in "[ \t\n:{}\\[\\],&*<!|>'\"$#0-9a-zé-]{0,12}",
    ) {
        let end = FARCALL_SAMPLE.floor_char_boundary(from.saturating_add(length).min(FARCALL_SAMPLE.len()));
        let mut text = FARCALL_SAMPLE.to_owned();
        text.replace_range(from.min(end)..end, &put);
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("farcall.yml"), text)?;
        if let Err(error) = load(dir.path(), &LoadOptions::default()) {
            proptest::prop_assert!(!error.to_string().is_empty());
        }
    }
}
