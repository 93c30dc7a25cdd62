//! Secrets that the host puts into requests: the guest names none, sees none, and gets none back.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use govrun_verdict::{HttpTarget, Scheme};
use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::effect::http::{HttpError, parse_target};

/// Shortest secret, in bytes: shorter ones would be found in answers by chance.
pub const MIN_SECRET_BYTES: usize = 8;
/// Longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 4096;
/// Where the template of a header takes the secret.
const SLOT: &str = "{}";

/// A secret. It shows itself to nobody: not in logs, not in errors, and memory forgets it.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// A secret of [`MIN_SECRET_BYTES`] to [`MAX_SECRET_BYTES`] printable ASCII characters.
    ///
    /// # Errors
    /// What is wrong with it, without a word of it.
    pub fn new(value: String) -> Result<Self, SecretError> {
        let value = Zeroizing::new(value);
        if value.len() < MIN_SECRET_BYTES || value.len() > MAX_SECRET_BYTES {
            return Err(SecretError::Length);
        }
        if !value.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SecretError::Character);
        }
        Ok(Self(Arc::new(value)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(withheld)")
    }
}

/// Why a secret, or where it is to go, is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short or too long.
    #[error("a secret has 8 to 4096 bytes")]
    Length,
    /// Something a header must not hold, or an answer could render in another way.
    #[error("a secret consists of printable ASCII characters, without white space")]
    Character,
    /// Not an origin.
    #[error("a secret goes to an origin such as `https://api.example.com`, without path")]
    Origin,
    /// Not a header the host may set.
    #[error("a secret goes into a header such as `authorization`, and not into one of the message's framing")]
    Header,
    /// No slot, or two.
    #[error("the header's value names the secret's place once, as in `Bearer {{}}`")]
    Template,
}

/// A secret that a tool's requests to one origin carry.
#[derive(Debug, Clone)]
pub struct SecretOffer {
    name: Arc<str>,
    scheme: Scheme,
    host: String,
    port: u16,
    header: HeaderName,
    template: String,
    value: Option<Secret>,
}

impl SecretOffer {
    /// The secret `name` goes to `origin`, in `header`, as `template` says; without a `value` such requests are refused.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn new(
        name: &str,
        origin: &str,
        header: &str,
        template: &str,
        value: Option<Secret>,
    ) -> Result<Self, SecretError> {
        let target = parse_target("GET", origin).map_err(|_| SecretError::Origin)?;
        if target.path != "/" || target.query.is_some() || origin.ends_with('/') {
            return Err(SecretError::Origin);
        }
        let header = HeaderName::from_bytes(header.as_bytes()).map_err(|_| SecretError::Header)?;
        if crate::effect::is_host_header(header.as_str()) {
            return Err(SecretError::Header);
        }
        let sound = HeaderValue::from_str(template).is_ok();
        if !sound || template.matches(SLOT).count() != 1 {
            return Err(SecretError::Template);
        }
        let HttpTarget { scheme, host, port, .. } = target;
        Ok(Self { name: name.into(), scheme, host, port, header, template: template.to_owned(), value })
    }

    /// The name policy knows it by.
    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether requests to this target carry it: the same scheme, host and port.
    pub(crate) fn is_for(&self, target: &HttpTarget) -> bool {
        self.scheme == target.scheme && self.host == target.host && self.port == target.port
    }

    /// Put it into the headers, in place of what the guest wrote there; `None` when it could not be read.
    pub(crate) fn put(&self, headers: &mut HeaderMap) -> Option<&Secret> {
        let secret = self.value.as_ref()?;
        let text = Zeroizing::new(self.template.replacen(SLOT, &secret.0, 1));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
        Some(secret)
    }
}

/// What no answer of a call may contain: every secret it has sent, in the forms that a server might write it in.
#[derive(Clone, Default)]
pub(crate) struct Leaks(Arc<Mutex<Vec<Form>>>);

/// One form of one secret. Each of its bytes may be written as itself, percent-encoded, or escaped as in JSON.
#[derive(Clone, PartialEq, Eq)]
struct Form {
    bytes: Zeroizing<Vec<u8>>,
    any_case: bool,
}

/// How far a form matches at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    No,
    /// The text ended before the form did.
    Begun,
    Whole,
}

impl Form {
    fn at(&self, text: &[u8]) -> Match {
        let mut places: SmallVec<[usize; 4]> = SmallVec::from_slice(&[0]);
        let mut begun = false;
        for &byte in self.bytes.iter() {
            let mut next: SmallVec<[usize; 4]> = SmallVec::new();
            for place in places {
                let rest = text.get(place..).unwrap_or_default();
                begun |= self.step(byte, rest, |length| next.push(place + length));
            }
            next.dedup();
            if next.is_empty() {
                return if begun { Match::Begun } else { Match::No };
            }
            places = next;
        }
        Match::Whole
    }

    /// The lengths of what stands for `byte` at the start of `text`; true when the text ends too early to tell.
    fn step(&self, byte: u8, text: &[u8], mut found: impl FnMut(usize)) -> bool {
        let is = |given: u8| given == byte || (self.any_case && given.eq_ignore_ascii_case(&byte));
        let hex = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            u32::from_str_radix(text, 16).ok().and_then(|code| u8::try_from(code).ok())
        };
        let Some(&first) = text.first() else { return true };
        if is(first) {
            found(1);
        }
        match (first, text.get(1)) {
            (b'%' | b'\\', None) => true,
            (b'%', Some(_)) => match text.get(1..3) {
                Some(digits) if hex(digits).is_some_and(is) => {
                    found(3);
                    false
                }
                Some(_) => false,
                None => true,
            },
            (b'\\', Some(b'u')) => match text.get(2..6) {
                Some(digits) if hex(digits).is_some_and(is) => {
                    found(6);
                    false
                }
                Some(_) => false,
                None => true,
            },
            (b'\\', Some(&escaped)) => {
                if is(escaped) {
                    found(2);
                }
                false
            }
            (_, Some(_) | None) => false,
        }
    }

    /// Where the text may hold this form: whole anywhere, or begun so that only what comes next can tell.
    fn find(&self, text: &[u8]) -> (Match, usize) {
        let mut begun = None;
        for place in 0..text.len() {
            match self.at(text.get(place..).unwrap_or_default()) {
                Match::Whole => return (Match::Whole, place),
                Match::Begun if begun.is_none() => begun = Some(place),
                Match::Begun | Match::No => {}
            }
        }
        begun.map_or((Match::No, text.len()), |place| (Match::Begun, place))
    }

    fn is_in(&self, text: &[u8]) -> bool {
        (0..text.len()).any(|place| self.at(text.get(place..).unwrap_or_default()) == Match::Whole)
    }
}

impl Leaks {
    /// From here on the call's answers must not contain `secret`.
    pub(crate) fn watch(&self, secret: &Secret) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for form in forms(secret.0.as_bytes()) {
            if !known.contains(&form) {
                known.push(form);
            }
        }
    }

    /// A scanner for one answer; `None` when no secret was sent yet.
    pub(crate) fn scanner(&self) -> Option<Scanner> {
        let forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if forms.is_empty() {
            return None;
        }
        Some(Scanner { forms: forms.clone(), held: Vec::new() })
    }
}

/// Looks through one answer as it comes. What could be the beginning of a secret is held back until it is clear.
pub(crate) struct Scanner {
    forms: Vec<Form>,
    held: Vec<u8>,
}

impl Scanner {
    /// The head of the answer: no header repeats a secret, and the body is not packed.
    ///
    /// # Errors
    /// [`HttpError::Leak`].
    pub(crate) fn head(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        let plain = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"identity");
        let packed = !headers.get_all(::http::header::CONTENT_ENCODING).iter().all(plain);
        let repeats = |(name, value): (&HeaderName, &HeaderValue)| {
            self.forms.iter().any(|f| f.is_in(name.as_str().as_bytes()) || f.is_in(value.as_bytes()))
        };
        if packed || headers.iter().any(repeats) { Err(HttpError::Leak) } else { Ok(()) }
    }

    /// The next bytes of the body: what can be passed on now.
    ///
    /// # Errors
    /// [`HttpError::Leak`].
    pub(crate) fn body(&mut self, bytes: &[u8]) -> Result<Vec<u8>, HttpError> {
        self.held.extend_from_slice(bytes);
        let mut clear = self.held.len();
        for form in &self.forms {
            match form.find(&self.held) {
                (Match::Whole, _) => {
                    self.held.clear();
                    return Err(HttpError::Leak);
                }
                (Match::Begun | Match::No, place) => clear = clear.min(place),
            }
        }
        let rest = self.held.split_off(clear);
        Ok(std::mem::replace(&mut self.held, rest))
    }

    /// The body is over: what was held back was not a secret.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// As it is and in hexadecimal, both in any case, and in base64 at each of its three positions, in both alphabets.
fn forms(secret: &[u8]) -> Vec<Form> {
    let any = |bytes: Vec<u8>| Form { bytes: Zeroizing::new(bytes), any_case: true };
    let mut all = vec![any(secret.to_vec()), any(hex::encode(secret).into_bytes())];
    for alphabet in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            let bytes = Zeroizing::new(base64_inside(secret, before, alphabet));
            all.push(Form { bytes, any_case: false });
        }
    }
    all
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The base64 digits (RFC 4648) that depend on `secret` alone when `before` bytes, modulo 3, come before it.
fn base64_inside(secret: &[u8], before: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    // The first digits also hold bits of what comes before, the last ones bits of what comes after.
    let first_bit = before * 8;
    let bit = |at: usize| {
        let byte = secret.get((at - first_bit) / 8).copied().unwrap_or(0);
        usize::from(byte >> (7 - (at - first_bit) % 8) & 1)
    };
    let from = first_bit.div_ceil(6);
    let to = (first_bit + secret.len() * 8) / 6;
    let digit = |n: usize| (n * 6..n * 6 + 6).fold(0, |value, at| value << 1 | bit(at));
    (from..to).filter_map(|n| alphabet.get(digit(n)).copied()).collect()
}

#[cfg(test)]
#[path = "tests_secret.rs"]
mod tests;
