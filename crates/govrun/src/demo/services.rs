//! The world of the demo: a ledger and a page receiver on loopback, which remember what they were sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most bytes of one request's body.
const MAX_BODY: usize = 64 * 1024;

/// A small HTTP service.
pub(super) struct Service {
    pub(super) port: u16,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Listen on a free port of loopback and answer every request with 200 and `answer`.
    pub(super) fn start(answer: &'static str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&bodies);
        std::thread::Builder::new().name("demo-service".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(body) = serve(&stream, answer) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                }
            }
        })?;
        Ok(Self { port, bodies })
    }

    /// The bodies it was sent so far.
    pub(super) fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: &TcpStream, answer: &str) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut length = 0_usize;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length.min(MAX_BODY)];
    reader.read_exact(&mut body)?;
    let mut out = stream;
    write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len())?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
