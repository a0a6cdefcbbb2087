//! An upstream that records every arrival and answers as a test says. One thread per connection, plain HTTP/1.1.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::pause;

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    /// How long the answer takes.
    pub(crate) delay: Duration,
}

/// A listening upstream. Its threads end with the test's process.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

type Answer = dyn Fn(&Arrival, usize) -> Reply + Send + Sync;

impl Arrival {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        let json = ("content-type", "application/json".to_owned());
        Self { status, headers: vec![json], body: r#"{"ok":true}"#.to_owned(), delay: Duration::ZERO }
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

impl Recorder {
    /// Answers by the arrival and by how many came before it.
    pub(crate) fn start(answer: impl Fn(&Arrival, usize) -> Reply + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let recorder = Self { address: listener.local_addr()?, arrivals: Arc::default() };
        let (serving, answer) = (recorder.clone(), Arc::new(answer) as Arc<Answer>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (recorder, answer) = (serving.clone(), Arc::clone(&answer));
                std::thread::spawn(move || recorder.serve(stream, &*answer));
            }
        });
        Ok(recorder)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().expect("no connection panics while it records")
    }

    /// The most arrivals in any half-open window of this length, wherever it begins.
    pub(crate) fn worst_window(&self, window: Duration) -> usize {
        let mut times: Vec<Instant> = self.arrivals().iter().map(|arrival| arrival.at).collect();
        times.sort_unstable();
        let mut begin = 0;
        let mut worst = 0;
        for end in 0..times.len() {
            while times[end] - times[begin] >= window {
                begin += 1;
            }
            worst = worst.max(end - begin + 1);
        }
        worst
    }

    fn serve(&self, stream: TcpStream, answer: &Answer) {
        let _ = stream.set_nodelay(true);
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Some(arrival) = read_request(&mut reader) {
            let number = {
                let mut arrivals = self.arrivals();
                arrivals.push(arrival.clone());
                arrivals.len() - 1
            };
            let reply = answer(&arrival, number);
            if !reply.delay.is_zero() {
                pause(reply.delay);
            }
            if write_reply(&mut writer, &reply).is_err() {
                return;
            }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Arrival> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let at = Instant::now();
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Arrival { at, method, path, headers, body })
}

fn write_reply(writer: &mut impl Write, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    writer.write_all(format!("{head}\r\n{}", reply.body).as_bytes())
}
