//! Where a redirect leads. Following one is a new request: its target is parsed and decided like any other.

use ::http::HeaderMap;
use govrun_verdict::{HttpTarget, Scheme};

use crate::effect::http::{TargetError, default_port, parse_target};

/// Headers that may go to another origin than the guest named: they say nothing of who asks.
const HARMLESS: [&str; 5] = ["accept", "accept-language", "content-language", "content-type", "user-agent"];

/// The next target, when this answer redirects and may be followed: `None` otherwise. The second value is true when the
/// body is not sent again.
///
/// A body never goes to another origin: such a redirect is the guest's to follow.
///
/// # Errors
/// When `location` does not make an acceptable URL.
pub(crate) fn next_hop(
    from: &HttpTarget,
    status: u16,
    location: Option<&str>,
) -> Option<Result<(HttpTarget, bool), TargetError>> {
    let location = location?;
    let reads = matches!(from.method.as_str(), "GET" | "HEAD");
    let method = match status {
        301..=303 if from.method == "HEAD" => "HEAD",
        303 => "GET",
        301 | 302 if reads || from.method == "POST" => "GET",
        307 | 308 => from.method.as_str(),
        _ => return None,
    };
    let without_body = !matches!(status, 307 | 308);
    match parse_target(method, &absolute(from, location)) {
        Ok(next) if !without_body && !reads && !same_origin(from, &next) => None,
        Ok(next) => Some(Ok((next, without_body))),
        Err(error) => Some(Err(error)),
    }
}

/// Take away what names the caller when the request goes to another origin.
pub(crate) fn strip_for_other_origin(headers: &mut HeaderMap, from: &HttpTarget, to: &HttpTarget) {
    if same_origin(from, to) {
        return;
    }
    let kept = std::mem::take(headers);
    for (name, value) in &kept {
        if HARMLESS.contains(&name.as_str()) {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn same_origin(a: &HttpTarget, b: &HttpTarget) -> bool {
    (a.scheme, &a.host, a.port) == (b.scheme, &b.host, b.port)
}

/// `location` (RFC 9110, 10.2.2) as an absolute URL, without fragment.
fn absolute(from: &HttpTarget, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme.name();
    let has_scheme = location.split_once(':').is_some_and(|(start, _)| {
        !start.is_empty() && start.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
    });
    if has_scheme {
        return location.to_owned();
    }
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    let origin = origin(from);
    if location.starts_with('/') {
        return format!("{origin}{location}");
    }
    if location.is_empty() || location.starts_with('?') {
        return format!("{origin}{}{location}", from.path);
    }
    let folder = from.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{origin}{folder}/{location}")
}

fn origin(target: &HttpTarget) -> String {
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    let scheme: Scheme = target.scheme;
    if target.port == default_port(scheme) {
        format!("{}://{host}", scheme.name())
    } else {
        format!("{}://{host}:{}", scheme.name(), target.port)
    }
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};

    use super::*;

    fn to(method: &str, from: &str, status: u16, location: &str) -> Option<String> {
        let from = parse_target(method, from).unwrap();
        let next = next_hop(&from, status, Some(location))?;
        Some(match next {
            Ok((t, _)) => format!(
                "{} {}{}{}",
                t.method,
                origin(&t),
                t.path,
                t.query.map_or(String::new(), |q| format!("?{q}"))
            ),
            Err(error) => format!("{error}"),
        })
    }

    #[test]
    fn every_form_of_location_is_one_target() {
        for (location, next) in [
            ("https://b.example/x?y#z", "GET https://b.example/x?y"),
            ("//b.example:81/x", "GET http://b.example:81/x"),
            ("/x/../y", "GET http://a.example:8080/y"),
            ("z", "GET http://a.example:8080/d/z"),
            ("../../../z", "GET http://a.example:8080/z"),
            ("?q", "GET http://a.example:8080/d/e?q"),
        ] {
            assert_eq!(
                to("GET", "http://a.example:8080/d/e?old", 302, location).as_deref(),
                Some(next),
                "{location}"
            );
        }
        for location in
            ["file:///etc/passwd", "http://u@h/", "http://0x7f.1/", "http://h\\x/", "javascript:1"]
        {
            let next = to("GET", "http://a.example/", 302, location).unwrap();
            assert!(!next.starts_with("GET"), "{location}: {next}");
        }
    }

    #[test]
    fn methods_and_bodies_follow_the_status() {
        let post = |status, location| to("POST", "http://a.example/", status, location);
        assert_eq!(post(302, "/x").unwrap(), "GET http://a.example/x");
        assert_eq!(post(303, "http://b.example/").unwrap(), "GET http://b.example/");
        assert_eq!(post(307, "/x").unwrap(), "POST http://a.example/x");
        assert_eq!(post(307, "http://b.example/"), None, "a body never goes to another origin");
        assert_eq!(to("PUT", "http://a.example/", 301, "/x"), None);
        assert_eq!(
            to("GET", "http://a.example/", 308, "http://b.example/").unwrap(),
            "GET http://b.example/"
        );
        assert_eq!(to("GET", "http://a.example/", 304, "/x"), None);
    }

    #[test]
    fn credentials_stay_with_their_origin() {
        let headers = || {
            ["authorization", "cookie", "x-api-key", "accept"]
                .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v")))
                .into_iter()
                .collect::<HeaderMap>()
        };
        let target = |url: &str| parse_target("GET", url).unwrap();
        let from = target("https://a.example/");
        let after = |to: &str| {
            let mut kept = headers();
            strip_for_other_origin(&mut kept, &from, &target(to));
            kept.len()
        };
        assert_eq!(after("https://a.example/other"), 4);
        for other in
            ["http://a.example/", "https://a.example:444/", "https://b.example/", "https://x.a.example/"]
        {
            assert_eq!(after(other), 1, "{other}");
        }
    }
}
