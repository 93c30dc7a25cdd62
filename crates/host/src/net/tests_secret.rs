//! Secrets show nowhere, go to one origin only, and are found in answers in every form.

use proptest::prelude::*;

use super::*;

const VALUE: &str = "s3cr3t/+\"value\\1234";

fn watching(value: &str) -> Scanner {
    let leaks = Leaks::default();
    assert!(leaks.scanner().is_none(), "nothing to look for");
    leaks.watch(&Secret::new(value.to_owned()).unwrap());
    leaks.scanner().unwrap()
}

fn leaks(body: &[u8], chunk: usize) -> bool {
    let mut scanner = watching(VALUE);
    body.chunks(chunk).any(|part| scanner.body(part).is_err())
}

fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    base64_inside(bytes, 0, alphabet)
}

#[test]
fn every_form_of_a_secret_is_found_however_it_is_cut() {
    let forms: Vec<Vec<u8>> = vec![
        VALUE.as_bytes().to_vec(),
        VALUE.to_uppercase().into_bytes(),
        hex::encode(VALUE).into_bytes(),
        b"s3cr3t%2F%2B%22value%5C1234".to_vec(),
        b"s3cr3t%2f%2b%22value%5c1234".to_vec(),
        VALUE.bytes().flat_map(|b| format!("%{b:02X}").into_bytes()).collect(),
        serde_json::to_string(VALUE).unwrap().into_bytes(),
        b"s3%63r3t%2F+\\u0022value\\1234".to_vec(),
        b"s3cr3t\\/+\\\"value\\\\1234".to_vec(),
        base64(VALUE.as_bytes(), STANDARD),
        base64(format!("user:{VALUE}:x").as_bytes(), STANDARD),
        base64(format!("a{VALUE}").as_bytes(), URL_SAFE),
        base64(format!("ab{VALUE}zz").as_bytes(), STANDARD),
    ];
    for form in forms {
        let body = [b"{\"echo\": \"".as_slice(), &form, b"\"}"].concat();
        for chunk in [1, 2, 3, 7, body.len()] {
            assert!(leaks(&body, chunk), "{} by {chunk}", String::from_utf8_lossy(&form));
        }
    }
}

#[test]
fn what_only_begins_like_a_secret_passes_whole() {
    let mut scanner = watching(VALUE);
    let body = b"s3cr3t/+ s3cr3t/+\"valu s3cr3t";
    let mut passed = Vec::new();
    for byte in body {
        passed.extend(scanner.body(&[*byte]).unwrap());
        assert!(!String::from_utf8_lossy(&passed).ends_with("s3cr3"), "the beginning is held back");
    }
    passed.extend(scanner.end());
    assert_eq!(passed, body);
}

#[test]
fn heads_that_repeat_or_may_hide_a_secret_are_withheld() {
    let scanner = watching(VALUE);
    let head = |name: &'static str, value: &str| {
        scanner.head(&HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )]))
    };
    assert_eq!(head("x-echo", &format!("Bearer {VALUE}")), Err(HttpError::Leak));
    assert_eq!(head("content-encoding", "gzip"), Err(HttpError::Leak));
    assert_eq!(head("content-encoding", "identity"), Ok(()));
    assert_eq!(head("content-type", "text/plain"), Ok(()));
}

#[test]
fn a_secret_shows_itself_nowhere() {
    let secret = Secret::new(VALUE.to_owned()).unwrap();
    let offer =
        SecretOffer::new("api", "https://h.example", "authorization", "Bearer {}", Some(secret.clone()))
            .unwrap();
    let mut headers = HeaderMap::new();
    offer.put(&mut headers).unwrap();
    for shown in [format!("{secret:?}"), format!("{offer:?}"), format!("{headers:?}")] {
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
    assert_eq!(headers["authorization"].as_bytes(), format!("Bearer {VALUE}").as_bytes());
}

#[test]
fn a_secret_goes_to_its_origin_only() {
    let offer = SecretOffer::new("api", "https://h.example:444", "x-key", "{}", None).unwrap();
    let is_for = |url: &str| offer.is_for(&parse_target("GET", url).unwrap());
    assert!(is_for("https://H.example.:444/any?x"));
    for url in [
        "http://h.example:444/",
        "https://h.example/",
        "https://h.example.evil:444/",
        "https://x.h.example:444/",
    ] {
        assert!(!is_for(url), "{url}");
    }
}

#[test]
fn unsound_secrets_and_places_are_errors() {
    assert_eq!(Secret::new("short".into()).unwrap_err(), SecretError::Length);
    assert_eq!(Secret::new("x".repeat(4097)).unwrap_err(), SecretError::Length);
    assert_eq!(Secret::new("with\r\nheader: x".into()).unwrap_err(), SecretError::Character);
    let offer = |origin: &str, header: &str, template: &str| {
        SecretOffer::new("api", origin, header, template, None).map(|_| ()).unwrap_err()
    };
    for origin in
        ["h.example", "https://h.example/", "https://h.example/v1", "https://u@h.example", "ftp://h"]
    {
        assert_eq!(offer(origin, "x", "{}"), SecretError::Origin, "{origin}");
    }
    for header in ["host", "content-length", "a b", "proxy-authorization"] {
        assert_eq!(offer("https://h", header, "{}"), SecretError::Header, "{header}");
    }
    for template in ["Bearer", "{} {}", "x\r\n{}"] {
        assert_eq!(offer("https://h", "x", template), SecretError::Template, "{template}");
    }
}

proptest! {
    #[test]
    fn bytes_without_the_secret_pass_unchanged(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
        let mut scanner = watching(VALUE);
        let mut passed = Vec::new();
        for part in body.chunks(cut) {
            passed.extend(scanner.body(part).unwrap());
        }
        passed.extend(scanner.end());
        prop_assert_eq!(passed, body);
    }

    #[test]
    fn base64_of_anything_around_a_secret_is_found(before in "[ -~]{0,5}", after in "[ -~]{0,5}") {
        let whole = format!("{before}{VALUE}{after}");
        prop_assert!(leaks(&base64(whole.as_bytes(), STANDARD), 5));
        prop_assert!(leaks(&base64(whole.as_bytes(), URL_SAFE), 5));
    }
}
