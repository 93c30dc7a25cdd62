//! The egress gate against servers, names and addresses that mean harm. Each test names what nobody must reach, and a real
//! listener counts who did.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use govrun_audit::read::Records;
use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store;
use govrun_policy::{Policy, SourceFile, Sources};
use govrun_verdict::{Call, Digest, Operation, ToolRef, Value};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::effect::http::parse_target;
use crate::gate::{Gate, Parts};
use crate::notify::Webhooks;

mod secrets;

/// Everything is allowed but what the floors keep, and the addresses of this machine only where they are named.
const POLICY: &str = r#"
schema = 1
[env.test]
[audit]
clear = ["host", "url", "path", "name"]
[[agent]]
name = "a"
[[rule]]
id = "tools"
match = { action = "tool.call" }
verdict = "allow"
[[rule]]
id = "hosts"
match = { action = "http.request", host = ["good.example", "other.example", "127.0.0.1", "localhost", "*.private.example"] }
verdict = "allow"
[[rule]]
id = "here"
match = { action = "net.connect", host = ["good.example", "other.example", "127.0.0.1"], cidr = ["127.0.0.1/32"] }
verdict = "allow"
[[rule]]
id = "secrets"
match = { action = "secret.read", name = "api" }
verdict = "allow"
"#;

const BOUNDS: Bounds = Bounds {
    head: Duration::from_millis(1500),
    idle: Duration::from_millis(400),
    total: Duration::from_millis(2000),
    request_bytes: 100_000,
    response_bytes: 100_000,
    header_bytes: 8_000,
};

/// Answers each name in turn: the first look-up gets the first list, later ones the last.
#[derive(Debug, Default)]
struct Names {
    answers: BTreeMap<String, Vec<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    fn with(mut self, name: &str, answers: &[&[&str]]) -> Self {
        let answers =
            answers.iter().map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        self.answers.insert(name.to_owned(), answers);
        self
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        let mut asked = self.asked.lock().unwrap();
        let times = asked.iter().filter(|name| *name == host).count();
        asked.push(host.to_owned());
        let answer = self.answers.get(host).and_then(|lists| lists.get(times).or(lists.last())).cloned();
        Box::pin(async move { answer.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

struct World {
    root: tempfile::TempDir,
    log: Log,
    scope: Arc<Scope>,
    names: Arc<Names>,
    client: Client,
    tool: Option<Grant>,
}

fn world(names: Names, tls: Tls, secrets: Vec<SecretOffer>) -> World {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let keys = KeyStore::init(&at("keys"), "test.govrun.local/log").unwrap();
    let trust = Trust::load(&at("keys/trust.toml")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&at("audit"), &keys, Arc::clone(&clock)).unwrap();
    let files = vec![SourceFile { path: "govrun.toml".into(), text: POLICY.into() }];
    let policy = Arc::new(Policy::compile(&Sources { files }).unwrap_or_else(|e| unreachable!("{e}")));
    let agent = policy.agent("a").unwrap();
    let store = Store::open(&at("state")).unwrap();
    let gate = Gate::open(Parts {
        policy,
        log: log.clone(),
        store,
        clock,
        trust,
        webhooks: Webhooks::new(),
        waits: Box::new(()),
    })
    .unwrap();
    let call = Call {
        agent,
        env: Arc::clone(gate.env()),
        session: "s".into(),
        tool: Arc::new(ToolRef { name: "t.f".into(), component: Digest::of(b"t") }),
        caller: None,
        parent: None,
        operation: Operation::ToolCall { args: Value::Null },
    };
    let tool = gate.admit_now(&call, None).unwrap();
    let scope = Scope::enter(&gate, &call, &tool, None, None);
    let names = Arc::new(names);
    let resolver: Arc<dyn Resolver> = Arc::<Names>::clone(&names);
    let egress = Arc::new(Egress::new(resolver, tls));
    let client = Client::new(Arc::clone(&scope), egress, secrets.into(), Arc::default());
    World { root, log, scope, names, client, tool: Some(tool) }
}

impl World {
    async fn ask(&self, url: &str) -> Result<(u16, HeaderMap, Vec<u8>), NetError> {
        let target = parse_target("GET", url).unwrap();
        self.client
            .start(&target, HeaderMap::new(), Full::new(Bytes::new()), &BOUNDS)
            .await?
            .head()
            .await?
            .collect()
            .await
    }

    /// The reason of the refusal; the record of it has the reason as well.
    async fn refused(&self, url: &str) -> String {
        match self.ask(url).await {
            Err(NetError::Refused(refusal)) => {
                assert!(refusal.decision.is_some(), "{url}: no record");
                let reason = refusal.reason.to_string();
                assert!(
                    self.records().contains(&format!("\"{reason}\"")),
                    "{url}: {reason} is not in the log"
                );
                reason
            }
            other => unreachable!("{url}: {other:?}"),
        }
    }

    fn records(&self) -> String {
        let records = Records::open(&self.root.path().join("audit")).unwrap();
        records.map(|r| String::from_utf8_lossy(&r.unwrap().line).into_owned() + "\n").collect()
    }

    /// Every grant has its outcome once everything is over, and no more.
    fn end(mut self) -> String {
        self.client.live().close();
        drop(self.tool.take());
        let records = self.records();
        let count = |what: &str| records.lines().filter(|line| line.contains(what)).count();
        let permitted = count("\"verdict\":\"allow\"");
        assert!(permitted > 0, "{records}");
        assert_eq!(permitted, count("\"bytes_in\""), "a grant without outcome, or with two:\n{records}");
        self.log.close().unwrap();
        records
    }
}

/// A server that takes every connection, counts it, reads a request's head, and answers it with `answer`.
struct Server {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    seen: Arc<Mutex<String>>,
}

impl Server {
    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::slowly(vec![(0, answer.into())]).await
    }

    /// The same in parts, each after a wait in milliseconds.
    async fn slowly(parts: Vec<(u64, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), taken: Arc::default(), seen: Arc::default() };
        let (taken, seen) = (Arc::clone(&server.taken), Arc::clone(&server.seen));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                taken.fetch_add(1, Ordering::SeqCst);
                let (seen, parts) = (Arc::clone(&seen), parts.clone());
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
                    for (wait, part) in parts {
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                        if stream.write_all(&part).await.is_err() {
                            return;
                        }
                    }
                    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
                });
            }
        });
        server
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/x", self.address.port())
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn here() -> Names {
    Names::default().with("good.example", &[&["127.0.0.1"]]).with("other.example", &[&["127.0.0.1"]])
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_connection_goes_to_the_decided_address() {
    let server = Server::answering(OK).await;
    // Whoever asks twice is led elsewhere.
    let names = Names::default().with("good.example", &[&["127.0.0.1"], &["127.0.0.2"]]);
    let world = world(names, Tls::default(), Vec::new());
    let (status, _, body) = world.ask(&server.url("good.example")).await.unwrap();
    assert_eq!((status, body.as_slice()), (200, b"ok".as_slice()));
    assert_eq!(*world.names.asked.lock().unwrap(), ["good.example"], "asked once");
    assert_eq!(server.taken(), 1);
    assert!(server.seen().starts_with("GET /x HTTP/1.1\r\n"), "{}", server.seen());
    assert!(server.seen().contains(&format!("host: good.example:{}\r\n", server.address.port())));
    let records = world.end();
    assert!(records.contains("127.0.0.1") && !records.contains("127.0.0.2"), "{records}");
}

#[tokio::test]
async fn a_name_rebound_to_a_private_address_between_two_requests_is_refused() {
    let server = Server::answering(OK).await;
    let names = Names::default().with("good.example", &[&["127.0.0.1"], &["127.0.0.2"]]);
    let world = world(names, Tls::default(), Vec::new());
    let url = server.url("good.example");
    world.ask(&url).await.unwrap();
    assert_eq!(world.refused(&url).await, "NET-ADDRESS-NOT-GRANTED");
    assert_eq!(server.taken(), 1);
    world.end();
}

#[tokio::test]
async fn one_private_address_among_public_ones_refuses_the_name() {
    let server = Server::answering(OK).await;
    for list in [["127.0.0.1", "10.0.0.7"], ["169.254.169.254", "127.0.0.1"], ["127.0.0.1", "::1"]] {
        let world = world(Names::default().with("good.example", &[&list]), Tls::default(), Vec::new());
        assert_eq!(world.refused(&server.url("good.example")).await, "NET-ADDRESS-NOT-GRANTED", "{list:?}");
        world.end();
    }
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_any_special_address_is_refused() {
    for ip in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "127.0.0.2",
        "169.254.169.254",
        "168.63.129.16",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:7f00:1::",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:4860::5efe:7f00:1",
    ] {
        let world = world(Names::default().with("x.private.example", &[&[ip]]), Tls::default(), Vec::new());
        assert_eq!(world.refused("http://x.private.example/").await, "NET-ADDRESS-NOT-GRANTED", "{ip}");
        world.end();
    }
}

#[tokio::test]
async fn the_first_address_that_answers_is_used_and_the_other_grant_ends() {
    let server = Server::answering(OK).await;
    let policy_allows_one = Names::default().with("good.example", &[&["127.0.0.1", "127.0.0.1"]]);
    let world = world(policy_allows_one, Tls::default(), Vec::new());
    world.ask(&server.url("good.example")).await.unwrap();
    let records = world.end();
    assert_eq!(records.matches("net.connect").count(), 1, "an address is decided once:\n{records}");
}

#[tokio::test]
async fn a_host_in_another_spelling_is_not_dialed() {
    let server = Server::answering(OK).await;
    let world = world(here(), Tls::default(), Vec::new());
    for host in [
        "GOOD.example",
        "good.example.",
        "127.1",
        "0x7f.0.0.1",
        "[::1]",
        "a b",
        "",
        "good.example\0",
        "bücher.example",
    ] {
        let dialed = world.client.egress().dial(&world.scope, host, server.address.port()).await;
        assert!(matches!(dialed, Err(NetError::Failed(HttpError::Request(_)))), "{host}");
    }
    assert!(matches!(
        world.client.egress().dial(&world.scope, "127.0.0.1", 0).await,
        Err(NetError::Failed(_))
    ));
    assert_eq!(server.taken(), 0);
    assert!(world.names.asked.lock().unwrap().is_empty(), "no name was looked up");
    world.end();
}

#[tokio::test]
async fn answers_that_can_be_read_in_two_ways_are_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
    ] {
        let server = Server::answering(head).await;
        let world = world(here(), Tls::default(), Vec::new());
        assert_eq!(world.refused(&server.url("good.example")).await, "NET-RESPONSE-INVALID", "{head}");
        world.end();
    }
}

#[tokio::test]
async fn headers_bodies_and_time_are_bounded() {
    let flood: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "y".repeat(9_000);
    let body = "z".repeat(100_001);
    for (answer, reason) in [
        (format!("HTTP/1.1 200 OK\r\n{flood}\r\n"), "NET-HEADERS-TOO-LARGE"),
        (format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n"), "NET-HEADERS-TOO-LARGE"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n{body}"), "NET-BODY-TOO-LARGE"),
        (format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}"), "NET-BODY-TOO-LARGE"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no".to_owned(), "NET-TIMEOUT"),
        ("HTTP/1.1 200 OK\r\nContent-".to_owned(), "NET-TIMEOUT"),
        (String::new(), "NET-TIMEOUT"),
    ] {
        let server = Server::answering(answer.clone()).await;
        let world = world(here(), Tls::default(), Vec::new());
        let told = world.refused(&server.url("good.example")).await;
        assert_eq!(told, reason, "{}", answer.chars().take(60).collect::<String>());
        world.end();
    }
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_the_whole_time() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec();
    let drips = (0..100).map(|_| (100, b"x".to_vec()));
    let server = Server::slowly(std::iter::once((0, head)).chain(drips).collect()).await;
    let world = world(here(), Tls::default(), Vec::new());
    let begun = std::time::Instant::now();
    assert_eq!(world.refused(&server.url("good.example")).await, "NET-TIMEOUT");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.end();
}

#[tokio::test]
async fn a_request_with_too_many_headers_or_two_lengths_is_not_sent() {
    let server = Server::answering(OK).await;
    let world = world(here(), Tls::default(), Vec::new());
    let target = parse_target("GET", &server.url("good.example")).unwrap();
    let flood: HeaderMap = (0..65)
        .map(|n| {
            (HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap(), HeaderValue::from_static("y"))
        })
        .collect();
    let mut lengths = HeaderMap::new();
    lengths.append("content-length", HeaderValue::from_static("1"));
    lengths.append("content-length", HeaderValue::from_static("2"));
    for headers in [flood, lengths] {
        let sent = world.client.start(&target, headers, Full::new(Bytes::new()), &BOUNDS).await;
        let Err(NetError::Refused(refusal)) = sent else { unreachable!("it was sent") };
        assert_eq!(refusal.reason.as_str(), "NET-HEADERS-TOO-LARGE");
    }
    assert_eq!(server.taken(), 0);
    world.end();
}

#[tokio::test]
async fn a_body_over_its_bound_ends_the_exchange() {
    let server = Server::answering(Vec::new()).await;
    let world = world(here(), Tls::default(), Vec::new());
    let target = parse_target("POST", &server.url("good.example")).unwrap();
    let body = Full::new(Bytes::from(vec![b'x'; 100_001]));
    let started = world.client.start(&target, HeaderMap::new(), body, &BOUNDS).await.unwrap();
    let Err(NetError::Refused(refusal)) = started.head().await else { unreachable!("it was answered") };
    assert_eq!(refusal.reason.as_str(), "NET-BODY-TOO-LARGE");
    world.end();
}

#[tokio::test]
async fn a_call_has_so_many_connections_and_no_more() {
    let server = Server::answering(OK).await;
    let world = world(here(), Tls::default(), Vec::new());
    let target = parse_target("GET", &server.url("good.example")).unwrap();
    let mut open = Vec::new();
    for _ in 0..live::MAX_CONNECTIONS {
        open.push(
            world.client.start(&target, HeaderMap::new(), Full::new(Bytes::new()), &BOUNDS).await.unwrap(),
        );
    }
    assert_eq!(world.refused(&server.url("good.example")).await, "NET-CONNECTIONS");
    open.pop();
    world.ask(&server.url("good.example")).await.unwrap();
    drop(open);
    let records = world.end();
    assert!(records.contains("abandoned"), "an exchange that was dropped says so");
}

#[tokio::test]
async fn what_is_still_going_on_ends_before_its_call() {
    let server = Server::answering(Vec::new()).await;
    let world = world(here(), Tls::default(), Vec::new());
    let target = parse_target("GET", &server.url("good.example")).unwrap();
    let open = world.client.start(&target, HeaderMap::new(), Full::new(Bytes::new()), &BOUNDS).await.unwrap();
    world.client.live().close();
    assert!(world.records().contains("cancelled"));
    // The task of an exchange may outlive its call by a moment: it gets nothing.
    assert!(matches!(world.ask(&server.url("good.example")).await, Err(NetError::Refused(_))));
    drop(open);
    world.end();
}

/// A server with TLS, and the certificate that makes it believed.
async fn secure_server(host: &str) -> (SocketAddr, Tls, Arc<Mutex<Vec<Option<Vec<u8>>>>>) {
    let signed = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), HTTP_1_1.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let protocols: Arc<Mutex<Vec<Option<Vec<u8>>>>> = Arc::default();
    let chosen = Arc::clone(&protocols);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, chosen) = (acceptor.clone(), Arc::clone(&chosen));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                chosen.lock().unwrap().push(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(OK).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, Tls::with_ca(signed.cert.pem().as_bytes()).unwrap(), protocols)
}

#[tokio::test]
async fn a_certificate_must_be_good_for_the_decided_name() {
    let (address, tls, protocols) = secure_server("good.example").await;
    let world = world(here(), tls, Vec::new());
    let url = |host: &str| format!("https://{host}:{}/", address.port());
    let (status, _, _) = world.ask(&url("good.example")).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(*protocols.lock().unwrap(), [Some(HTTP_1_1.to_vec())], "HTTP/1.1 is what is spoken");
    // The same server under another name, and under its address.
    assert_eq!(world.refused(&url("other.example")).await, "NET-TLS");
    assert_eq!(world.refused(&url("127.0.0.1")).await, "NET-TLS");
    assert_eq!(protocols.lock().unwrap().len(), 1, "no request was sent");
    world.end();
}

#[tokio::test]
async fn an_unknown_authority_and_a_server_without_tls_are_refused() {
    let (address, _, protocols) = secure_server("good.example").await;
    let plain = Server::answering(OK).await;
    let world = world(here(), Tls::default(), Vec::new());
    for port in [address.port(), plain.address.port()] {
        assert_eq!(world.refused(&format!("https://good.example:{port}/")).await, "NET-TLS");
    }
    assert!(protocols.lock().unwrap().is_empty() && !plain.seen().contains("GET"), "no request was sent");
    world.end();
}
