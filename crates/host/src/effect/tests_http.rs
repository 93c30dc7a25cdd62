//! URLs that parsers disagree about, and servers that misbehave.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::http::{HttpError, HttpLimits, TargetError, check_headers, parse_target, resolve, send};

const LIMITS: HttpLimits =
    HttpLimits { connect_ms: 1000, total_ms: 2000, response_bytes: 1000, header_bytes: 2000 };

#[test]
fn a_url_has_one_spelling() {
    for (url, host, port, path) in [
        ("http://Example.COM.", "example.com", 80, "/"),
        ("HTTPS://a.b:8443?x=1", "a.b", 8443, "/"),
        ("http://127.0.0.1:1/x", "127.0.0.1", 1, "/x"),
        ("http://[0:0:0:0:0:0:0:1]:81/", "::1", 81, "/"),
        ("http://h/a/./b/../c", "h", 80, "/a/c"),
        ("http://h/a/%2e%2E/%61dmin/", "h", 80, "/admin/"),
        ("http://h/../../x/..", "h", 80, "/"),
        ("http://h/a%2fb%c3%a9", "h", 80, "/a%2Fb%C3%A9"),
    ] {
        let target = parse_target("GET", url).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), (host, port, path), "{url}");
    }
}

#[test]
fn ambiguous_urls_are_refused() {
    for url in [
        "h/x",
        "ftp://h/",
        "http:/h",
        "http://",
        "http:///x",
        "http://u@h/",
        "http://u:p@h/",
        "http://h/#f",
        "http://h\\x/",
        "http://h/ x",
        "http://h/\r\nX: y",
        "http://h/%",
        "http://h/%0d%0a",
        "http://h/é",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://256.1.1.1/",
        "http://1.2.3.4.5/",
        "http://h:0/",
        "http://h:/",
        "http://h:65536/",
        "http://h:+80/",
        "http://a:1:2/",
        "http://::1/",
        "http://[::1",
        "http://[::1]x/",
        "http://[fe80::1%25eth0]/",
        "http://a..b/",
        "http://-a/",
        "http://h/..%2fadmin",
        "http://h/..;/admin",
        "http://h/%2e%2e%5cx",
        "http://%31/",
    ] {
        assert!(parse_target("GET", url).is_err(), "{url}");
    }
    for method in ["get", "CONNECT", "TRACE", "", "GET "] {
        assert_eq!(parse_target(method, "http://h/"), Err(TargetError::Method));
    }
}

#[test]
fn framing_headers_are_the_hosts() {
    let check = |n: &str, v: &str| check_headers(&[(n.to_owned(), v.to_owned())]);
    assert_eq!(check("Accept", "text/plain"), Ok(()));
    for name in
        ["Host", "Connection", "transfer-encoding", "Content-Length", "TE", "Proxy-Authorization", "expect"]
    {
        assert!(matches!(check(name, "x"), Err(TargetError::HeaderReserved(_))), "{name}");
    }
    for (name, value) in [("a b", "x"), ("", "x"), ("a", "x\r\ny: z"), ("a:", "x"), ("a", "\0")] {
        assert!(matches!(check(name, value), Err(TargetError::Header(_))), "{name}");
    }
    assert!(check_headers(&vec![("a".to_owned(), String::new()); 64]).is_ok());
    assert!(check_headers(&vec![("a".to_owned(), String::new()); 65]).is_err());
    assert!(check("a", &"x".repeat(65_536)).is_err());
}

/// A server that answers one connection with `answer`, then stays silent with the connection open.
async fn server(answer: String) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        let _ = stream.write_all(answer.as_bytes()).await;
        while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    });
    (address, task)
}

async fn ask(answer: &str, limits: HttpLimits) -> (Result<super::http::HttpResponse, HttpError>, String) {
    let (address, task) = server(answer.to_owned()).await;
    let url = format!("http://pinned.invalid:{}/a/../b?q=1", address.port());
    let target = parse_target("GET", &url).unwrap();
    let headers = [("x-a".to_owned(), "1".to_owned())];
    let result = send(&target, address, &headers, Vec::new(), &limits).await;
    (result, task.await.unwrap())
}

#[tokio::test]
async fn the_decided_request_arrives_at_the_pinned_address() {
    let (result, seen) =
        ask("HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 2\r\n\r\nok", LIMITS).await;
    let response = result.unwrap();
    assert_eq!((response.status, response.body.as_slice()), (302, b"ok".as_slice()));
    assert!(response.headers.contains(&("location".to_owned(), "http://evil/".to_owned())));
    assert!(seen.starts_with("GET /b?q=1 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: pinned.invalid:") && seen.contains("x-a: 1"), "{seen}");
}

#[tokio::test]
async fn oversize_and_slow_answers_are_errors() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001));
    assert_eq!(ask(&long, LIMITS).await.0, Err(HttpError::BodyTooLarge(1000)));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1001)
    );
    assert_eq!(ask(&chunked, LIMITS).await.0, Err(HttpError::BodyTooLarge(1000)));
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(3000));
    assert_eq!(ask(&head, LIMITS).await.0, Err(HttpError::HeadersTooLarge(2000)));
    let started = Instant::now();
    let slow = HttpLimits { total_ms: 100, ..LIMITS };
    assert_eq!(
        ask("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", slow).await.0,
        Err(HttpError::Deadline(100))
    );
    assert!(started.elapsed().as_millis() < 1500);
}

#[tokio::test]
async fn what_was_not_decided_is_not_sent() {
    let target = parse_target("GET", "https://h/").unwrap();
    let address: SocketAddr = "127.0.0.1:443".parse().unwrap();
    assert_eq!(send(&target, address, &[], Vec::new(), &LIMITS).await, Err(HttpError::SchemeUnsupported));
    let target = parse_target("GET", "http://127.0.0.2/").unwrap();
    let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
    assert_eq!(send(&target, address, &[], Vec::new(), &LIMITS).await, Err(HttpError::AddressMismatch));
    assert_eq!(resolve("::1", 1).await.unwrap(), ["::1".parse::<std::net::IpAddr>().unwrap()]);
}
