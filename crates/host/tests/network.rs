//! What leaves the host, through the component `caller`: plain `wasi:http` and `wasi:sockets`, and `govrun:host/net` in
//! pieces. Real listeners count who reaches them; every refusal has its reason in the answer and its record in the log.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use govrun_audit::read::Records;
use govrun_audit::verify::{Level, verify};
use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store;
use govrun_host::component::Inspected;
use govrun_host::net::{Egress, Resolver, Resolving, Secret, SecretOffer, Tls};
use govrun_host::{CallError, Gate, Offers, Parts, Runtime, Tool, Webhooks, Who, engine};
use govrun_policy::{Policy, SourceFile, Sources};

/// The addresses of this machine are granted where they are named; only some names may be asked for.
const POLICY: &str = r#"
schema = 1
[env.test]
[audit]
clear = ["host", "url", "path", "name"]
[[agent]]
name = "a"
[[rule]]
id = "harmless"
match = { action = ["tool.call", "args.read", "env.read", "stdio.write", "clock", "random", "secret.read"] }
verdict = "allow"
limits = { fuel = 20_000_000_000, memory = "64MiB", deadline = "20s" }
[[rule]]
id = "requests"
match = { action = "http.request", host = ["good.example", "other.example", "127.0.0.1", "*.private.example"] }
verdict = "allow"
[[rule]]
id = "here"
match = { action = "net.connect", cidr = ["127.0.0.1/32"] }
verdict = "allow"
[[rule]]
id = "names"
match = { action = "net.dns", host = ["good.example", "alias.example", "*.private.example", "*.ok.example"] }
verdict = "allow"
[[rule]]
id = "sockets"
match = { action = "net.socket", cidr = ["127.0.0.1/32"] }
verdict = "allow"
[[rule]]
id = "no-alias"
match = { action = "net.socket", host = "alias.example" }
verdict = "block"
reason = "NO-ALIAS"
"#;

#[derive(Debug, Default)]
struct Names {
    answers: BTreeMap<&'static str, Vec<&'static str>>,
    asked: Mutex<Vec<String>>,
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        self.asked.lock().unwrap().push(host.to_owned());
        let found =
            self.answers.get(host).cloned().or(host.ends_with(".ok.example").then(|| vec!["127.0.0.1"]));
        let addresses = found.map(|list| list.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect());
        Box::pin(async move { addresses.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

struct World {
    root: tempfile::TempDir,
    runtime: Arc<Runtime>,
    log: Log,
    who: Who,
    tool: Tool,
    names: Arc<Names>,
    executor: tokio::runtime::Runtime,
}

/// What one run of the guest came to.
#[derive(Debug)]
struct Run {
    told: String,
    reason: String,
}

fn world() -> World {
    with_secrets(Vec::new())
}

fn with_secrets(secrets: Vec<SecretOffer>) -> World {
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
    let parts = Parts {
        policy,
        log: log.clone(),
        store,
        clock,
        trust,
        webhooks: Webhooks::new(),
        waits: Box::new(()),
    };
    let gate = Gate::open(parts).unwrap();
    let engine = engine().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-examples/prebuilt/caller.wasm");
    let component = Inspected::load(&engine, None, &path).unwrap().admit().unwrap();
    let answers = BTreeMap::from([
        ("good.example", vec!["127.0.0.1"]),
        ("alias.example", vec!["127.0.0.1"]),
        ("other.example", vec!["127.0.0.1"]),
        ("a.private.example", vec!["10.0.0.1"]),
        ("b.private.example", vec!["127.0.0.1", "169.254.169.254"]),
    ]);
    let names = Arc::new(Names { answers, asked: Mutex::default() });
    let resolver: Arc<dyn Resolver> = Arc::<Names>::clone(&names);
    let egress = Arc::new(Egress::new(resolver, Tls::default()));
    let offers = Offers { egress, secrets: secrets.into(), ..Offers::default() };
    let tool = Tool { name: "caller".into(), component, offers };
    let runtime = Runtime::new(engine, gate, vec![tool.clone()]).unwrap();
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let who = Who { agent, session: "a".into(), hold: None };
    World { root, runtime, log, who, tool, names, executor }
}

impl World {
    fn run(&self, words: &[&str]) -> Run {
        let mut tool = self.tool.clone();
        tool.offers.args =
            std::iter::once("caller").chain(words.iter().copied()).map(str::to_owned).collect();
        match self.executor.block_on(self.runtime.command(&self.who, &tool)) {
            Ok(answer) => Run {
                told: answer.stdout.trim_end().to_owned(),
                reason: answer.last_refusal.map(|r| r.reason.to_string()).unwrap_or_default(),
            },
            Err(CallError::Failed { reason, detail, last_refusal, .. }) => Run {
                told: format!("failed {reason} {detail}"),
                reason: last_refusal.map(|r| r.reason.to_string()).unwrap_or_default(),
            },
            Err(other) => unreachable!("{words:?}: {other}"),
        }
    }

    /// It got nothing, and this is why; the log has it.
    fn refused(&self, words: &[&str], reason: &str) {
        let run = self.run(words);
        assert!(run.told.starts_with("error") || run.told.starts_with("failed"), "{words:?}: {run:?}");
        assert_eq!(run.reason, reason, "{words:?}: {run:?}");
        assert!(self.records().contains(&format!("\"{reason}\"")), "{words:?}: no record of {reason}");
    }

    fn ok(&self, words: &[&str]) -> String {
        let run = self.run(words);
        run.told.strip_prefix("ok ").unwrap_or_else(|| unreachable!("{words:?}: {run:?}")).to_owned()
    }

    fn records(&self) -> String {
        let records = Records::open(&self.root.path().join("audit")).unwrap();
        records.map(|r| String::from_utf8_lossy(&r.unwrap().line).into_owned() + "\n").collect()
    }

    fn asked(&self) -> Vec<String> {
        self.names.asked.lock().unwrap().clone()
    }

    /// Each grant has one outcome, and the log verifies.
    fn end(self) -> String {
        let records = self.records();
        let count = |what: &str| records.lines().filter(|line| line.contains(what)).count();
        assert_eq!(count("\"verdict\":\"allow\""), count("\"bytes_in\""), "grants and outcomes:\n{records}");
        self.log.close().unwrap();
        let trust = Trust::load(&self.root.path().join("keys/trust.toml")).unwrap();
        let report = verify(&self.root.path().join("audit"), &trust, Level::L2);
        assert_eq!(report.exit_code(), 0, "{report}");
        records
    }
}

/// Counts who connects, keeps what they said, and answers.
struct Server {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    seen: Arc<Mutex<String>>,
}

impl Server {
    fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), taken: Arc::default(), seen: Arc::default() };
        let (taken, seen) = (Arc::clone(&server.taken), Arc::clone(&server.seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                taken.fetch_add(1, Ordering::SeqCst);
                let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 64 << 10];
                    let read = stream.read(&mut buffer).unwrap_or(0);
                    seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
                    let _ = stream.write_all(&answer);
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

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

#[test]
fn plain_http_is_decided_by_name_and_by_address() {
    let server = Server::answering(OK);
    let world = world();
    assert_eq!(world.ok(&["get", &server.url("good.example")]), "200 ok");
    assert!(server.seen().starts_with("GET /x HTTP/1.1\r\n"), "{}", server.seen());
    assert!(server.seen().contains(&format!("host: good.example:{}\r\n", server.address.port())));
    assert_eq!(world.ok(&["post", &server.url("good.example"), "20000"]), "200 ok");
    assert_eq!(server.taken(), 2);
    world.refused(&["get", "http://evil.example/"], "DEFAULT-DENY");
    world.refused(&["get", "http://a.private.example/"], "NET-ADDRESS-NOT-GRANTED");
    world.refused(&["get", "http://b.private.example/"], "NET-ADDRESS-NOT-GRANTED");
    assert_eq!(
        world.asked(),
        ["good.example", "good.example", "a.private.example", "b.private.example"],
        "evil.example is not even looked up"
    );
    let records = world.end();
    for action in ["http.request", "net.connect"] {
        assert!(records.contains(action), "{action}");
    }
}

#[test]
fn what_plain_http_says_in_two_ways_is_not_sent() {
    let server = Server::answering(OK);
    let authority = server.address.to_string();
    let port = server.address.port();
    let world = world();
    for (method, scheme, authority, path) in [
        ("GET", "http", format!("user@{authority}"), "/"),
        ("GET", "http", format!("good.example@{authority}"), "/"),
        ("GET", "http", format!("2130706433:{port}"), "/"),
        ("GET", "http", format!("0x7f.1:{port}"), "/"),
        ("GET", "http", format!("0177.0.0.1:{port}"), "/"),
        ("GET", "http", format!("[::ffff:127.0.0.1%25lo]:{port}"), "/"),
        ("GET", "http", "xn--a.example..".to_owned(), "/"),
        ("GET", "http", format!("{authority}0000"), "/"),
        ("GET", "ftp", authority.clone(), "/"),
        ("CONNECT", "http", authority.clone(), "/"),
        ("get", "http", authority.clone(), "/"),
        ("GET", "http", authority.clone(), "/..%2fadmin"),
        ("GET", "http", authority.clone(), "http://evil.example/"),
        ("GET", "http", authority.clone(), "evil.example/"),
        ("GET", "http", authority.clone(), "@evil.example/"),
        ("GET", "http", "b\u{fc}cher.example".to_owned(), "/"),
    ] {
        let run = world.run(&["parts", method, scheme, &authority, path]);
        // Some wasmtime refuses while the request is built, before anybody is asked.
        let early = run.told.contains("is refused") || run.told.contains("not sent");
        assert!(run.told.starts_with("error"), "{method} {scheme} {authority} {path}: {run:?}");
        assert!(early || run.reason == "NET-TARGET-INVALID", "{method} {scheme} {authority} {path}: {run:?}");
    }
    // One spelling for each host: the dot goes, the letters are small.
    assert_eq!(world.ok(&["parts", "GET", "http", &format!("GOOD.example.:{port}"), "/a/../b?q"]), "200 ok");
    assert!(
        server.seen().starts_with("GET /b?q HTTP/1.1\r\n") && server.seen().contains("host: good.example:")
    );
    assert_eq!(server.taken(), 1);
    world.end();
}

#[test]
fn plain_http_sets_no_header_of_the_hosts_and_no_second_length() {
    let server = Server::answering(OK);
    let url = server.url("good.example");
    let world = world();
    for (name, value) in [
        ("host", "evil.example"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "upgrade"),
        ("proxy-authorization", "x"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("upgrade", "h2c"),
        ("x-note", "a\r\nx-smuggled: yes"),
        ("x-note: a\r\nx-smuggled", "yes"),
    ] {
        let run = world.run(&["header", &url, name, value]);
        assert!(run.told.starts_with("error the header is refused"), "{name}: {run:?}");
    }
    for value in ["+5", "5, 6", "-1", "5"] {
        let run = world.run(&["header", &url, "content-length", value]);
        assert!(run.told.starts_with("error"), "a length without a body, {value}: {run:?}");
    }
    let run = world.run(&["lengths", &url]);
    assert!(run.told.starts_with("error"), "{run:?}");
    assert_eq!(server.taken(), 0);
    world.end();
}

#[test]
fn a_flood_of_headers_or_no_time_at_all_ends_the_request_and_nothing_else() {
    let server = Server::answering(OK);
    let world = world();
    world.refused(&["fields", "100"], "NET-HEADERS-TOO-LARGE");
    let flood = world.run(&["fields", "100000"]);
    assert!(flood.told.starts_with("error") || flood.told.starts_with("failed"), "{flood:?}");
    let begun = Instant::now();
    let run = world.run(&["impatient", &server.url("good.example")]);
    assert!(run.told.starts_with("error") && begun.elapsed() < Duration::from_secs(5), "{run:?}");
    assert_eq!(world.ok(&["get", &server.url("good.example")]), "200 ok", "the host works as before");
    world.end();
}

#[test]
fn answers_to_plain_http_are_bounded_and_read_in_one_way() {
    let world = world();
    for (answer, reason) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!".to_owned(),
            "NET-RESPONSE-INVALID",
        ),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(500)), "NET-HEADERS-TOO-LARGE"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_owned(), "NET-BODY-TOO-LARGE"),
    ] {
        let server = Server::answering(answer);
        world.refused(&["get", &server.url("good.example")], reason);
    }
    world.end();
}

#[test]
fn many_requests_at_once_wait_for_no_place_and_take_no_more_than_there_are() {
    let server = Server::answering(OK);
    let world = world();
    let run = world.run(&["many", &server.url("good.example"), "80"]);
    assert_eq!(run.reason, "NET-CONNECTIONS", "{run:?}");
    assert!(server.taken() <= 64, "{} connections", server.taken());
    world.end();
}

#[test]
fn a_request_that_the_call_leaves_behind_ends_with_it() {
    let server = Server::answering(OK);
    let world = world();
    assert_eq!(world.ok(&["leave", &server.url("good.example")]), "left");
    std::thread::sleep(Duration::from_millis(100));
    world.end();
}

#[test]
fn writes_of_nothing_cost_nothing() {
    let server = Server::answering(OK);
    let world = world();
    assert_eq!(world.ok(&["empties", &server.url("good.example"), "20000"]), "200 ok");
    assert_eq!(world.ok(&["empty-writes", &server.address.to_string(), "20000"]), "20000 writes of nothing");
    world.end();
}

#[test]
fn connections_are_decided_by_address_and_counted() {
    let server = Server::answering("heard");
    let address = server.address.to_string();
    let world = world();
    assert_eq!(world.ok(&["tcp", &address, "hello"]), "heard");
    assert_eq!(server.seen(), "hello");
    assert_eq!(world.ok(&["keep", &address]), "kept");
    for peer in [
        "127.0.0.2:22",
        "10.0.0.1:80",
        "169.254.169.254:80",
        "0.0.0.0:80",
        "8.8.8.8:53",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[64:ff9b::7f00:1]:80",
        "[2002:7f00:1::1]:80",
        "[fe80::1]:80",
        "[fd00:ec2::254]:80",
    ] {
        let run = world.run(&["tcp", peer, "x"]);
        assert!(run.told.starts_with("error ") && run.told.contains("ccess"), "{peer}: {run:?}");
        assert!(matches!(run.reason.as_str(), "NET-ADDRESS-NOT-GRANTED" | "DEFAULT-DENY"), "{peer}: {run:?}");
    }
    // A zone would choose an interface that nobody decided on.
    let run = world.run(&["tcp", "[fe80::1%1]:80", "x"]);
    assert_eq!(run.reason, "NET-TARGET-INVALID", "{run:?}");
    assert_eq!(server.taken(), 2);
    let records = world.end();
    assert!(records.contains("\"bytes_in\":5") && records.contains("\"bytes_out\":5"), "{records}");
}

#[test]
fn nothing_can_call_in() {
    let world = world();
    for words in [
        &["tcp-bind", "127.0.0.1:0"][..],
        &["tcp-bind", "0.0.0.0:8080"],
        &["tcp-bind", "[::1]:0"],
        &["udp-bind", "127.0.0.1:0"],
        &["udp-bind", "0.0.0.0:5353"],
        &["listen"],
    ] {
        world.refused(words, "NET-INBOUND");
    }
    assert_eq!(world.ok(&["tcp-bind", "0.0.0.0:0"]), "bound", "what every socket that connects has");
    world.end();
}

/// Whoever sends to it, after a moment; empty when nobody did.
fn heard(socket: &UdpSocket) -> Vec<String> {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok((read, _)) = socket.recv_from(&mut buffer) {
        all.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
    }
    all
}

#[test]
fn every_peer_of_a_datagram_is_decided_also_without_and_after_connecting() {
    let good = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bad = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (good_at, bad_at) = (good.local_addr().unwrap().to_string(), bad.local_addr().unwrap().to_string());
    let world = world();
    assert_eq!(world.ok(&["udp-send", &good_at, "plain"]), "2 sent");
    assert_eq!(world.ok(&["udp-connect", &good_at, "connected"]), "1 sent");
    world.refused(&["udp-send", &bad_at, "plain"], "NET-ADDRESS-NOT-GRANTED");
    world.refused(&["udp-connect", &bad_at, "connected"], "NET-ADDRESS-NOT-GRANTED");
    world.refused(&["udp-switch", &good_at, &bad_at], "NET-ADDRESS-NOT-GRANTED");
    world.refused(&["udp-send", "8.8.8.8:53", "secret"], "DEFAULT-DENY");
    assert_eq!(heard(&good), ["plain", "plain", "connected"]);
    assert!(heard(&bad).is_empty(), "the other peer heard something");
    world.end();
}

#[test]
fn nobody_is_heard_who_was_not_decided() {
    let good = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = good.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (_, guest) = good.recv_from(&mut [0; 64]).unwrap();
        let guest = SocketAddr::new("127.0.0.1".parse().unwrap(), guest.port());
        stranger.send_to(b"stranger", guest).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        good.send_to(b"answer", guest).unwrap();
    });
    let world = world();
    assert_eq!(world.ok(&["udp-hear", &at]), "answer");
    answering.join().unwrap();
    world.end();
}

#[test]
fn a_name_is_decided_before_anybody_is_asked() {
    let world = world();
    assert_eq!(world.ok(&["lookup", "Good.Example."]), "127.0.0.1");
    assert_eq!(world.ok(&["lookup", "127.0.0.1"]), "127.0.0.1", "an address is its own answer");
    world.refused(&["lookup", "c2VjcmV0.attacker.example"], "DEFAULT-DENY");
    for name in
        ["a b", "", "b\u{fc}cher.example", "0x7f.1", "127.1", "good.example\nevil.example", "a..b", "[::1]"]
    {
        world.refused(&["lookup", name], "NET-TARGET-INVALID");
    }
    assert_eq!(world.asked(), ["good.example"], "nobody else was asked for");
    let records = world.end();
    assert!(records.contains("net.dns"), "{records}");
}

#[test]
fn labels_are_a_narrow_channel_at_most() {
    let world = world();
    let run = world.run(&["lookups", "300", "ok.example"]);
    assert_eq!((run.told.as_str(), run.reason.as_str()), ("ok 256 of 300 resolved", "LIMIT-HOST-CALLS"));
    assert_eq!(world.asked().len(), 256);
    world.end();
}

#[test]
fn the_names_that_led_to_an_address_are_part_of_the_decision() {
    let server = Server::answering("heard");
    let port = server.address.port().to_string();
    let world = world();
    assert_eq!(world.ok(&["dial", "good.example", &port]), "heard");
    world.refused(&["dial", "alias.example", &port], "NO-ALIAS");
    world.refused(&["dial", "a.private.example", &port], "NET-ADDRESS-NOT-GRANTED");
    assert_eq!(server.taken(), 1);
    let records = world.end();
    let socket = records.lines().find(|line| line.contains("net.socket") && line.contains("good.example"));
    assert!(socket.is_some(), "the record has the name:\n{records}");
}

#[test]
fn redirects_are_followed_only_where_asked_and_each_hop_is_decided() {
    let last = Server::answering(OK);
    let to = |location: String| {
        Server::answering(format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ))
    };
    let world = world();
    let first = to(last.url("other.example"));
    let url = first.url("good.example");
    assert_eq!(world.ok(&["fetch", &url, "0"]), "302");
    assert_eq!(last.taken(), 0, "not followed unless asked");
    assert_eq!(world.ok(&["fetch", &url, "1"]), "200 ok");
    assert!(first.seen().contains("x-token: mine") && last.seen().contains("accept: text/plain"));
    assert!(!last.seen().contains("x-token"), "what names the caller stays: {}", last.seen());
    for (location, reason) in [
        ("http://a.private.example/".to_owned(), "NET-ADDRESS-NOT-GRANTED"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "DEFAULT-DENY"),
        ("http://evil.example/".to_owned(), "DEFAULT-DENY"),
        (format!("http://0x7f.1:{}/", last.address.port()), "NET-TARGET-INVALID"),
        (format!("http://user@127.0.0.1:{}/", last.address.port()), "NET-TARGET-INVALID"),
        ("file:///etc/passwd".to_owned(), "NET-TARGET-INVALID"),
    ] {
        let hop = to(location.clone());
        world.refused(&["fetch", &hop.url("good.example"), "5"], reason);
    }
    // Back to itself, again and again.
    let circle = to("/x".to_owned());
    world.refused(&["fetch", &circle.url("good.example"), "3"], "NET-REDIRECTS");
    assert_eq!(circle.taken(), 4, "the first and three more");
    assert_eq!(last.taken(), 1);
    world.end();
}

#[test]
fn bodies_go_and_come_in_pieces_within_their_bounds() {
    let body = "r".repeat(5_500);
    let server = Server::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 5500\r\nConnection: close\r\n\r\n{body}"
    ));
    let world = world();
    let told = world.ok(&["pieces", &server.url("good.example"), "20", "50000"]);
    assert!(told.starts_with("200 5500 bytes in "), "{told}");
    assert!(server.seen().contains("transfer-encoding: chunked"), "{}", server.seen());
    world.refused(&["pieces", &server.url("good.example"), "1", "2000000"], "NET-BODY-TOO-LARGE");
    world.refused(&["lying", &server.url("good.example")], "NET-BODY-TOO-LARGE");
    assert!(!server.seen().contains("smuggled"), "{}", server.seen());
    let records = world.end();
    assert!(records.contains("\"bytes_out\":1000000"), "{records}");
}

#[test]
fn a_plain_component_carries_a_secret_that_it_never_sees() {
    let secret = "s3cr3t-value-1234";
    let echo = Server::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{secret}"
    ));
    let server = Server::answering(OK);
    let offer = |server: &Server| {
        let value = Some(Secret::new(secret.to_owned()).unwrap());
        let origin = format!("http://good.example:{}", server.address.port());
        SecretOffer::new("api", &origin, "authorization", "Bearer {}", value).unwrap()
    };
    let world = with_secrets(vec![offer(&server), offer(&echo)]);
    assert_eq!(world.ok(&["get", &server.url("good.example")]), "200 ok");
    assert!(server.seen().contains(&format!("authorization: Bearer {secret}\r\n")));
    world.ok(&["get", &server.url("other.example")]);
    assert_eq!(server.seen().matches(secret).count(), 1, "only for its origin");
    let run = world.run(&["get", &echo.url("good.example")]);
    assert_eq!(run.reason, "SECRET-LEAK", "{run:?}");
    assert!(!run.told.contains("s3cr3t"), "{run:?}");
    let records = world.end();
    assert!(!records.contains(secret), "{records}");
}
