//! A network of a test's own: a name space in which it holds any address of the internet, with a name server of its own.
//!
//! A test starts itself again in there (`unshare`), which takes root. Where that cannot be had the test says loudly that
//! it checked nothing, and fails when `CI` is set.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Runs one ignored test of this program in a network of its own.
#[expect(clippy::print_stderr, reason = "who runs a test must see that it checked nothing")]
pub(crate) fn in_own_network(test: &str) {
    if !is_possible() {
        assert!(std::env::var_os("CI").is_none(), "a network of its own takes root, and `unshare` and `ip`");
        eprintln!("WARNING: {test} CHECKS NOTHING: it takes root, and the programs `unshare` and `ip` (iproute2)");
        return;
    }
    let program = std::env::current_exe().expect("a test is a program");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(program)
        .args(["--ignored", "--exact", test])
        .output()
        .expect("a test can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn is_possible() -> bool {
    let script = "ip link set lo up && mount --bind /dev/null /etc/resolv.conf";
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Gives this machine these addresses.
pub(crate) fn hold(addresses: &[&str]) {
    run("ip", &["link", "set", "lo", "up"]);
    for address in addresses {
        run("ip", &["addr", "add", address, "dev", "lo", "nodad"]);
    }
    wait_for_routes(addresses);
}

/// The kernel adds the route of an IPv6 address some time after the address, and may take those of others away for a
/// moment meanwhile: so all must lead here in one go, for what the tests do, which is to connect.
fn wait_for_routes(addresses: &[&str]) {
    let listener = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a port");
    let port = listener.local_addr().expect("a listener has an address").port();
    let leads_here = |address: &&str| {
        let (address, _) = address.split_once('/').expect("an address and its length");
        let address: IpAddr = address.parse().expect("an address");
        std::net::TcpStream::connect((address, port)).and_then(|_| listener.accept()).is_ok()
    };
    for _ in 0..500 {
        if addresses.iter().all(leads_here) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no way to all of {addresses:?}");
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().expect("the program is there");
    assert!(status.success(), "{program} {args:?}");
}

/// What a name server says of a name when it is asked for the n-th time, counted from 0.
type Zone = dyn Fn(&str, usize) -> Vec<IpAddr> + Send;

/// Answers every question about names from here on.
pub(crate) fn serve_names(zone: impl Fn(&str, usize) -> Vec<IpAddr> + Send + 'static) {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let file = folder.join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("a writable folder");
    run("mount", &["--bind", file.to_str().expect("a plain name"), "/etc/resolv.conf"]);
    let socket = UdpSocket::bind("127.0.0.1:53").expect("nobody else is in this network");
    // Ends with the process, which is this test's own.
    std::thread::spawn(move || answer_all(&socket, &zone));
}

fn answer_all(socket: &UdpSocket, zone: &Zone) {
    let mut asked = std::collections::HashMap::<(String, u16), usize>::new();
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        let (name, kind, end) = read_question(&question[..length]);
        let count = asked.entry((name.clone(), kind)).or_default();
        let addresses = zone(&name, *count);
        *count += 1;
        let answer = answer(&question[..end], kind, &addresses);
        socket.send_to(&answer, from).expect("the asker is in this process");
    }
}

/// Name, type and end of the only question (RFC 1035, section 4.1.2).
fn read_question(message: &[u8]) -> (String, u16, usize) {
    let mut at = 12;
    let mut labels = Vec::new();
    while message[at] != 0 {
        let length = usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..=at + length]).into_owned());
        at += length + 1;
    }
    (labels.join("."), u16::from_be_bytes([message[at + 1], message[at + 2]]), at + 5)
}

/// The addresses of the type asked for, good for no time at all.
fn answer(question: &[u8], kind: u16, addresses: &[IpAddr]) -> Vec<u8> {
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(address), 1) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), 28) => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let code = if addresses.is_empty() { 3 } else { 0 };
    let count = u8::try_from(records.len()).expect("a few addresses");
    let mut message = [&question[..2], &[0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], &question[12..]].concat();
    for data in records {
        let length = u8::try_from(data.len()).expect("4 or 16");
        message.extend([0xc0, 12, 0, u8::try_from(kind).expect("1 or 28"), 0, 1, 0, 0, 0, 0, 0, length]);
        message.extend(data);
    }
    message
}

/// An upstream at every address of this machine that remembers at which one it was called.
#[derive(Debug)]
pub(crate) struct Everywhere {
    called: Arc<Mutex<Vec<IpAddr>>>,
    _listening: JoinSet<()>,
}

impl Everywhere {
    pub(crate) async fn listen(port: u16) -> Self {
        let called = Arc::<Mutex<Vec<IpAddr>>>::default();
        let listener = TcpListener::bind(SocketAddr::from(([0; 8], port))).await.expect("nobody else listens here");
        let mut listening = JoinSet::new();
        let remembered = Arc::clone(&called);
        listening.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let at = stream.local_addr().expect("a connection has an address").ip().to_canonical();
                remembered.lock().expect("nobody panics with it").push(at);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            }
        });
        Self { called, _listening: listening }
    }

    /// Where it was called so far, in order.
    pub(crate) fn called(&self) -> Vec<IpAddr> {
        self.called.lock().expect("nobody panics with it").clone()
    }
}
