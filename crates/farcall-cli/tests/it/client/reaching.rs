//! Which server is talked to, what it is shown, and what is said when there is none.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::{NOBODY, Outcome, client, client_with, ended, text};
use crate::rig::command::start;
use crate::rig::program::{Launch, Program};
use crate::rig::recorder::{Recorder, Reply};

#[test]
fn a_directory_is_reached_through_its_socket_also_by_a_long_path() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let deep = dir.path().join("a-name-that-is-long-enough-for-three".repeat(3));
    fs::create_dir(&deep)?;
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&deep, &link)?;
    let _program = Program::serve(&link)?;
    let id = ended(&link, &upstream)?;
    for dir in [&link, &deep] {
        let finished = client(&format!("get {id} -q"), &["--dir", text(dir)])?;
        assert_eq!((finished.code, finished.stdout.trim_end()), (Some(0), &*id), "{}", finished.stderr);
    }
    Ok(())
}

#[test]
fn without_a_word_it_is_the_directory_in_the_users_home() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let home = tempfile::tempdir()?;
    let dir = home.path().join(".farcall");
    fs::create_dir(&dir)?;
    let _program = Program::serve(&dir)?;
    let id = ended(&dir, &upstream)?;
    let finished = client_with(&format!("get {id} -q"), &[], [("HOME", text(home.path()))])?;
    assert_eq!((finished.code, finished.stdout.trim_end()), (Some(0), &*id), "{}", finished.stderr);
    Ok(())
}

#[test]
fn a_url_beats_the_default_and_a_flag_the_variable() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let program = Launch::new(dir.path()).listening().serve()?;
    let id = ended(dir.path(), &upstream)?;
    let (url, nowhere) = (format!("http://{}", program.address()), "http://127.0.0.1:1");
    let get = format!("get {id}");
    let code = |server: &[&str], variable: &str| -> std::io::Result<Option<i32>> {
        Ok(client_with(&get, server, [("FARCALL_SERVER", variable)])?.code)
    };
    assert_eq!(code(&["--server", &url], "")?, Some(0));
    assert_eq!(code(&[], &url)?, Some(0));
    assert_eq!(code(&["--server", &format!("{url}/")], nowhere)?, Some(0));
    assert_eq!(code(&["--dir", text(dir.path())], nowhere)?, Some(0));
    assert_eq!(code(&[], nowhere)?, Some(6));
    Ok(())
}

#[test]
fn a_token_is_shown_where_it_is_asked_for() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), "server: { tokens: [\"hush hush\"] }\n")?;
    let program = Launch::new(dir.path()).listening().serve()?;
    let id = ended(dir.path(), &upstream)?;
    let (url, get) = (format!("http://{}", program.address()), format!("get {id} -q"));

    let refused = client(&get, &["--server", &url])?;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(
        refused.stderr.contains("401 unauthorized") && refused.stderr.contains("FARCALL_TOKEN"),
        "{}",
        refused.stderr
    );
    let wrong = client(&get, &["--server", &url, "--token", "loud"])?;
    assert_eq!(wrong.code, Some(2));
    assert!(!wrong.stderr.contains("loud"), "{}", wrong.stderr);

    assert_eq!(client(&get, &["--server", &url, "--token", "hush hush"])?.code, Some(0));
    let variables = [("FARCALL_SERVER", url.as_str()), ("FARCALL_TOKEN", "hush hush")];
    assert_eq!(client_with(&get, &[], variables)?.code, Some(0));
    assert_eq!(client(&get, &["--dir", text(dir.path())])?.code, Some(0), "the socket asks for none");
    Ok(())
}

#[test]
fn what_names_no_server_is_a_usage_error() -> Outcome {
    for (server, part) in [
        (&["--server", "localhost:8888"][..], "http://localhost:8888"),
        (&["--server", "ftp://localhost"], "http://127.0.0.1:8888"),
        (&["--server", "http://me:hush@localhost"], "--token"),
        (&["--server", "http://localhost", "--dir", "."], "cannot be used with"),
        (&["--token", "hush"], "--server"),
        (&["--listen", "none"], "--server-listen"),
        (&["--config", "farcall.yml"], "--config"),
    ] {
        let finished = client(&format!("get {NOBODY}"), server)?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{server:?}");
        assert!(finished.stderr.contains(part), "{server:?}: {}", finished.stderr);
    }
    Ok(())
}

#[test]
fn without_a_server_the_exit_code_is_6_and_what_was_tried_is_named() -> Outcome {
    let dir = tempfile::tempdir()?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (dir, url) = (text(dir.path()), format!("http://{closed}"));
    for command in ["get", "wait", "cancel", "retry", "explain"] {
        let finished = client(&format!("{command} {NOBODY}"), &["--dir", dir])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(6), ""), "{command}");
        for part in [".farcall/farcall.sock", "farcall serve", dir] {
            assert!(finished.stderr.contains(part), "{command}: {}", finished.stderr);
        }
    }
    for command in ["list", "upstreams", "upstreams show etsy"] {
        let finished = client(command, &["--server", &url])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(6), ""), "{command}");
        assert!(finished.stderr.contains(&url), "{command}: {}", finished.stderr);
    }
    Ok(())
}

#[test]
fn something_else_that_listens_there_is_told_as_such() -> Outcome {
    let other = Recorder::start(|_, _| Reply { body: "<h1>hello</h1>".to_owned(), ..Reply::new(404) })?;
    let finished = client(&format!("get {NOBODY}"), &["--server", &other.url()])?;
    assert_eq!(finished.code, Some(6));
    assert!(finished.stderr.contains("404 Not Found, and not as farcall does"), "{}", finished.stderr);

    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", silent.local_addr()?);
    let closing = std::thread::spawn(move || silent.accept().map(drop));
    let finished = client("upstreams set etsy rate_second=5", &["--server", &url])?;
    assert_eq!(finished.code, Some(6));
    assert!(finished.stderr.contains(&url), "{}", finished.stderr);
    closing.join().expect("it does not panic")?;
    Ok(())
}

/// Answers every connection with one call, by TLS; gives the address.
fn secured(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Result<String, Box<dyn std::error::Error>> {
    let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("https://localhost:{}", listener.local_addr()?.port());
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok(mut connection) = rustls::ServerConnection::new(Arc::clone(&config)) else { return };
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            let body = format!(r#"{{"id":"{NOBODY}"}}"#);
            let _ = tls.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let _ = write!(tls, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            connection.send_close_notify();
            let _ = connection.complete_io(&mut stream);
        }
    });
    Ok(address)
}

#[test]
fn https_servers_are_believed_as_the_platform_believes_them() -> Outcome {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let directory = tempfile::tempdir()?;
    let roots = directory.path().join("roots.pem");
    fs::write(&roots, certificate.cert.pem())?;
    let url = secured(&certificate)?;
    let get = |roots: &Path| {
        start(["get", NOBODY, "--server", &url], [("SSL_CERT_FILE", text(roots)), ("SSL_CERT_DIR", "/nowhere")])?
            .finish()
    };
    let believed = get(&roots)?;
    assert_eq!((believed.code, believed.stdout.as_str()), (Some(0), &*format!("{{\"id\":\"{NOBODY}\"}}\n")));

    let others = directory.path().join("others.pem");
    fs::write(&others, rcgen::generate_simple_self_signed(["other".to_owned()])?.cert.pem())?;
    let refused = get(&others)?;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(6), ""), "{}", refused.stderr);
    assert!(refused.stderr.contains(&url) && refused.stderr.contains("certificate"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn a_server_without_its_scheme_is_told_how_to_write_it() -> Outcome {
    for named in ["127.0.0.1:8888", "localhost:8888", "calls.example.com"] {
        let finished = client("list", &["--server", named])?;
        assert_eq!(finished.code, Some(2), "{named}: {}", finished.stderr);
        assert!(finished.stderr.contains(&format!("http://{named}")), "{named}: {}", finished.stderr);
    }
    Ok(())
}
