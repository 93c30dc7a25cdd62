//! From the guest's URL and headers to a target that means one thing only. What two parsers could read differently
//! is refused instead of repaired.

use std::net::{Ipv4Addr, Ipv6Addr};

use govrun_verdict::{HttpTarget, Scheme};

/// Longest URL a guest may ask for, in bytes.
pub const MAX_URL_BYTES: usize = 8 * 1024;
/// Most headers of one request.
pub const MAX_HEADERS: usize = 64;
/// Most bytes of all header names and values of one request, with four bytes of framing each.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const MAX_HOST_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Framing and routing belong to the host: a guest that set these could smuggle a second request or another host.
const HOST_HEADERS: [&str; 10] = [
    "host",
    "connection",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "expect",
    "http2-settings",
];

/// Why a request is not well formed enough to be decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The method is not one of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS in upper case.
    #[error("the method is not supported")]
    Method,
    /// The URL is longer than [`MAX_URL_BYTES`].
    #[error("the URL is longer than 8 KiB")]
    TooLong,
    /// The URL has a character that RFC 3986 does not permit, or a `%` without two hexadecimal digits.
    #[error("the URL has a character that must be percent-encoded")]
    Character,
    /// The URL is not absolute with scheme `http` or `https`.
    #[error("the URL must start with `http://` or `https://`")]
    Scheme,
    /// The URL carries a user name or password.
    #[error("the URL must not carry user information")]
    UserInfo,
    /// The URL has a fragment.
    #[error("the URL must not have a fragment")]
    Fragment,
    /// The host is empty, not a DNS name, or a number that is not a canonical address.
    #[error("the host is neither a DNS name nor a canonical IP address")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The path hides a dot segment or a control character that servers read differently.
    #[error("the path is ambiguous")]
    Path,
    /// A header name is not a token or its value has a character that is not permitted.
    #[error("header `{0}` is not valid")]
    Header(String),
    /// The header is set by the host alone.
    #[error("header `{0}` is set by the host")]
    HeaderReserved(String),
    /// More than [`MAX_HEADERS`] headers or [`MAX_HEADER_BYTES`] bytes of them.
    #[error("more than 64 headers or 64 KiB of them")]
    HeadersTooLarge,
}

/// Parses a request line strictly: absolute URL, one spelling per host and path.
///
/// Unreserved characters are percent-decoded in the path, so `/%61dmin` is decided (and sent) as `/admin`.
///
/// # Errors
/// See [`TargetError`].
pub fn parse_target(method: &str, url: &str) -> Result<HttpTarget, TargetError> {
    if !METHODS.contains(&method) {
        return Err(TargetError::Method);
    }
    if url.len() > MAX_URL_BYTES {
        return Err(TargetError::TooLong);
    }
    check_characters(url)?;
    let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
    let scheme = parse_scheme(scheme)?;
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query.to_owned())),
        None => (rest, None),
    };
    let (authority, path) = before_query.split_once('/').unwrap_or((before_query, ""));
    let (host, port) = split_authority(authority)?;
    Ok(HttpTarget {
        method: method.to_owned(),
        scheme,
        host: parse_host(host)?,
        port: port.map_or(Ok(default_port(scheme)), parse_port)?,
        path: normalise_path(path)?,
        query,
    })
}

/// The port a URL of this scheme means when it names none.
#[must_use]
pub const fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

fn check_characters(url: &str) -> Result<(), TargetError> {
    let mut bytes = url.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'#' => return Err(TargetError::Fragment),
            b'%' => {
                let hex = [bytes.next(), bytes.next()];
                if !hex.iter().all(|d| d.is_some_and(|d| d.is_ascii_hexdigit())) {
                    return Err(TargetError::Character);
                }
            }
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                return Err(TargetError::Character);
            }
            other if !other.is_ascii_graphic() => return Err(TargetError::Character),
            _ => {}
        }
    }
    Ok(())
}

fn parse_scheme(text: &str) -> Result<Scheme, TargetError> {
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .find(|s| s.name().eq_ignore_ascii_case(text))
        .ok_or(TargetError::Scheme)
}

fn split_authority(authority: &str) -> Result<(&str, Option<&str>), TargetError> {
    if authority.contains('@') {
        return Err(TargetError::UserInfo);
    }
    if authority.starts_with('[') {
        let (host, after) = authority.split_once(']').ok_or(TargetError::Host)?;
        return match (after, after.strip_prefix(':')) {
            ("", _) => Ok((host, None)),
            (_, Some(port)) => Ok((host, Some(port))),
            (_, None) => Err(TargetError::Host),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        Ok(_) | Err(_) => Err(TargetError::Port),
    }
}

/// The host in the one spelling that is decided on: a name in lower case without trailing dot, or a canonical address
/// without brackets.
///
/// # Errors
/// [`TargetError::Host`] when it is neither a DNS name in ASCII nor a canonical address.
pub fn canonical_host(text: &str) -> Result<String, TargetError> {
    match text.parse::<Ipv6Addr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) if text.starts_with('[') => Err(TargetError::Host),
        Err(_) => parse_host(text),
    }
}

/// True for headers that the host sets itself, by their lower-case name.
#[must_use]
pub(crate) fn is_host_header(name: &str) -> bool {
    HOST_HEADERS.contains(&name) || name.starts_with("proxy-")
}

fn parse_host(text: &str) -> Result<String, TargetError> {
    if let Some(v6) = text.strip_prefix('[') {
        return v6.parse::<Ipv6Addr>().map(|ip| ip.to_string()).map_err(|_| TargetError::Host);
    }
    let lower = text.to_ascii_lowercase();
    let host = lower.strip_suffix('.').unwrap_or(&lower);
    if host.len() > MAX_HOST_BYTES || !host.split('.').all(is_label) {
        return Err(TargetError::Host);
    }
    // A last label that looks like a number makes resolvers read the whole name as an address (`127.1`, `0x7f.1`).
    let numeric = host.rsplit('.').next().is_some_and(looks_numeric);
    match host.parse::<Ipv4Addr>() {
        Ok(ip) if ip.to_string() == host => Ok(host.to_owned()),
        Ok(_) | Err(_) if numeric => Err(TargetError::Host),
        Ok(_) | Err(_) => Ok(host.to_owned()),
    }
}

fn is_label(label: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    !label.is_empty()
        && label.len() <= MAX_LABEL_BYTES
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(known)
}

fn looks_numeric(label: &str) -> bool {
    let hex = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || label.bytes().all(|b| b.is_ascii_digit())
}

/// `path` comes without its leading slash.
fn normalise_path(path: &str) -> Result<String, TargetError> {
    let mut kept: Vec<String> = Vec::new();
    let mut segments = path.split('/').peekable();
    while let Some(raw) = segments.next() {
        let segment = normalise_segment(raw)?;
        let last = segments.peek().is_none();
        match segment.as_str() {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push(String::new());
                }
            }
            _ if hides_dots(&segment) => return Err(TargetError::Path),
            _ => kept.push(segment),
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

/// Decodes unreserved characters, writes other escapes in upper case and refuses escaped control characters.
fn normalise_segment(raw: &str) -> Result<String, TargetError> {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16)).ok_or(TargetError::Character);
        let code = digit(chars.next())? * 16 + digit(chars.next())?;
        match char::from_u32(code) {
            Some(d) if d.is_ascii_alphanumeric() || matches!(d, '-' | '.' | '_' | '~') => out.push(d),
            Some(d) if d.is_ascii_control() => return Err(TargetError::Path),
            Some(_) | None => out.push_str(&format!("%{code:02X}")),
        }
    }
    Ok(out)
}

/// `..%2Fadmin` and `..;x/admin` are one segment here and a way up for servers that decode or strip parameters.
fn hides_dots(segment: &str) -> bool {
    let parts = segment.replace("%2F", "/").replace("%5C", "/");
    let split: Vec<&str> = parts.split('/').collect();
    let dots = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
    split.into_iter().any(|part| dots(&part.replace("%3B", ";")))
}

/// Checks the headers of a guest: valid tokens and values, bounded, none of those that the host sets itself.
///
/// # Errors
/// See [`TargetError`].
pub fn check_headers(headers: &[(String, String)]) -> Result<(), TargetError> {
    let bytes: usize = headers.iter().map(|(n, v)| n.len().saturating_add(v.len()).saturating_add(4)).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(TargetError::HeadersTooLarge);
    }
    headers.iter().try_for_each(|(name, value)| check_header(name, value))
}

fn check_header(name: &str, value: &str) -> Result<(), TargetError> {
    let shown = || name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect::<String>();
    let parsed = ::http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| TargetError::Header(shown()))?;
    ::http::HeaderValue::from_str(value).map_err(|_| TargetError::Header(shown()))?;
    let name = parsed.as_str();
    if is_host_header(name) {
        return Err(TargetError::HeaderReserved(name.to_owned()));
    }
    Ok(())
}
