//! Kofaf's README as a script: its configuration, its call file, its promises, by the clock and as the upstream saw it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::rig::program::Program;
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The README's configuration for other hosts: the README's names are not loopback.
fn configuration(etsy: &Recorder, shopify: &Recorder) -> String {
    format!(
        "  etsy:\n    base_url: {}\n    rate_second: 10\n    rate_hour: 400\n    retry: 3\n    wait: 2\n  shopify:\n    \
         base_url: {}/admin\n    rate_second: 2\n    \
         callback_success: \"sh -c 'printf %s\\\\\\\\n \\\"$@\\\" >> success.log' sh 'id=$file&posted_at=$datetime'\"\n    \
         callback_fail: \"sh -c 'printf %s\\\\\\\\n \\\"$@\\\" >> fail.log' sh 'id=$file&posted_at=$datetime'\"\n",
        etsy.url(),
        shopify.url()
    )
}

fn lines(path: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    text.ends_with('\n').then(|| text.lines().map(str::to_owned).collect())
}

#[test]
fn the_readme_is_a_script_that_works() -> Outcome {
    let dir = tempfile::tempdir()?;
    let etsy = Recorder::start(|_, _| Reply::new(200))?;
    let shopify = Recorder::start(|arrival, _| Reply::new(if arrival.path.ends_with("bad") { 404 } else { 201 }))?;
    std::fs::write(dir.path().join("kofaf.yml"), configuration(&etsy, &shopify))?;
    let program = Program::serve(dir.path())?;

    let order = format!(
        "{{\n    \"base_url\": \"{}/admin\",\n    \"end_point\": \"/orders\",\n    \"headers\": {{\n      \
         \"X-API\": \"111222\"\n    }},\n    \"body\": {{\n      \"order_id\": 123,\n      \"customer\": \"abc inc.\"\n    \
         }}\n}}\n",
        shopify.url()
    );
    drop_file(dir.path(), "order_123.json", &order)?;
    let answer = response(dir.path(), "order_123.json");
    assert_eq!((&answer["state"], &answer["status"]), (&"succeeded".into(), &201.into()), "{answer}");
    {
        let arrivals = shopify.arrivals();
        assert_eq!((arrivals[0].method.as_str(), arrivals[0].path.as_str()), ("POST", "/admin/orders"));
        assert_eq!(arrivals[0].header("x-api"), Some("111222"));
    }
    let request =
        until("the request file", || std::fs::read_to_string(dir.path().join("requests/order_123.json")).ok());
    assert_eq!(request, order, "kept byte for byte");
    let told = until("the success callback", || lines(&dir.path().join("success.log")));
    assert!(told[0].starts_with("id=order_123.json&posted_at=20") && told[0].ends_with('Z'), "{told:?}");
    assert_eq!(told[0].len(), "id=order_123.json&posted_at=2021-02-27T22:36:07Z".len());

    let bad = format!(r#"{{"base_url": "{}/admin", "end_point": "/bad"}}"#, shopify.url());
    drop_file(dir.path(), "bad.json", &bad)?;
    assert_eq!(response(dir.path(), "bad.json")["state"], "failed");
    until("the fail callback", || lines(&dir.path().join("fail.log")));
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn the_readmes_own_call_file_has_a_mistake_and_is_told_where() -> Outcome {
    let dir = tempfile::tempdir()?;
    let program = Program::serve(dir.path())?;
    let sample = "{\n    \"base_url\": \"https://korakot.myshopify.com/admin\",\n    \"end_point\": \"/orders\",\n    \
                  \"headers\": {\n      \"X-API\": \"111222\",\n      \"asa\"\n    },\n    \"body\": {\n      \
                  \"order_id\": 123,\n      \"customer\": \"abc inc.\"\n    }\n}\n";
    drop_file(dir.path(), "sample.json", sample)?;
    let answer = response(dir.path(), "sample.json");
    assert_eq!((&answer["state"], &answer["error"]["line"]), (&"rejected".into(), &7.into()), "{answer}");
    assert_eq!(answer["error"]["column"], 5, "{answer}");
    until("the rejected file", || std::fs::read_to_string(dir.path().join("rejected/sample.json")).ok());
    assert!(dir.path().join("rejected/sample.json.problem.json").exists());
    drop(program);
    Ok(())
}

#[test]
fn ten_a_second_hold_over_windows_that_begin_anywhere() -> Outcome {
    let dir = tempfile::tempdir()?;
    let etsy = Recorder::start(|_, number| {
        Reply::new(200).after(Duration::from_millis(u64::try_from(number).unwrap_or(0) * 13 % 90))
    })?;
    let config = format!("etsy:\n  base_url: {}\n  rate_second: 10\n  rate_hour: 35\n  jitter: 3\n", etsy.url());
    std::fs::write(dir.path().join("kofaf.yml"), config)?;
    for number in 0..60 {
        let call = format!(r#"{{"base_url": "{}", "end_point": "/{number}"}}"#, etsy.url());
        drop_file(dir.path(), format!("{number}.json"), &call)?;
    }
    let program = Program::serve(dir.path())?;
    until("the hour's allowance", || (etsy.arrivals().len() == 35).then_some(()));
    let began = etsy.arrivals()[0].at;
    let took = etsy.arrivals()[34].at - began;
    // A restart forgets nothing: 25 calls wait for the hour.
    program.kill()?;
    let program = Program::serve(dir.path())?;
    until("the waiting calls", || (program.health().ok()?["calls"]["queued"].as_u64()? == 25).then_some(()));
    assert_eq!(etsy.arrivals().len(), 35);
    assert!(etsy.worst_window(Duration::from_secs(1)) <= 10, "{}", etsy.worst_window(Duration::from_secs(1)));
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(60), "{took:?}");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn three_retries_come_two_seconds_apart() -> Outcome {
    let dir = tempfile::tempdir()?;
    let etsy = Recorder::start(|_, _| Reply::new(500))?;
    let config = format!("etsy:\n  base_url: {}\n  retry: 3\n  wait: 2\n", etsy.url());
    std::fs::write(dir.path().join("kofaf.yml"), config)?;
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "a.json", &format!(r#"{{"base_url": "{}", "end_point": "/a"}}"#, etsy.url()))?;
    let answer = response(dir.path(), "a.json");
    assert_eq!((&answer["state"], &answer["attempts"], &answer["status"]), (&"failed".into(), &4.into(), &500.into()));
    let times: Vec<_> = etsy.arrivals().iter().map(|arrival| arrival.at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_secs(2)), "{gaps:?}");
    // The last would be eight seconds long if they grew.
    assert!(gaps[2] < Duration::from_secs(6), "{gaps:?}");
    drop(program);
    Ok(())
}

#[test]
fn a_hostile_file_name_starts_nothing_and_adds_no_argument() -> Outcome {
    let dir = tempfile::tempdir()?;
    let shopify = Recorder::start(|_, _| Reply::new(200))?;
    let config = format!(
        "shopify:\n  base_url: {}\n  callback_success: \"sh -c 'printf %s,%s $# \\\"$1\\\" > told.tmp; mv told.tmp told' sh $file\"\n",
        shopify.url()
    );
    std::fs::write(dir.path().join("kofaf.yml"), config)?;
    let program = Program::serve(dir.path())?;
    let before = std::fs::metadata(dir.path())?.ino();
    let call = format!(r#"{{"base_url": "{}"}}"#, shopify.url());
    for name in ["$(touch x);'.json", "-o x.json", "a b\n;touch x.json"] {
        drop_file(dir.path(), name, &call)?;
        assert_eq!(response(dir.path(), name)["state"], "succeeded");
        let told = until("the callback", || std::fs::read_to_string(dir.path().join("told")).ok());
        let shown = if name.starts_with('-') { format!("./{name}") } else { name.to_owned() };
        assert_eq!(told, format!("1,{shown}"));
        std::fs::remove_file(dir.path().join("told"))?;
        assert!(!dir.path().join("x").exists(), "{name:?} ran a command");
    }
    assert_eq!(std::fs::metadata(dir.path())?.ino(), before);
    drop(program);
    Ok(())
}
