//! Anchored globs for names, paths and hosts. A glob always covers the whole text; matching takes at most
//! `pattern × text` steps and no memory.
//!
//! | kind | wildcards |
//! |---|---|
//! | name (agent, tool, caller, variable, argument) | `*` any run of characters, `?` one character |
//! | path | `*` any run within one segment, `?` one character of it, `**` as a whole segment: zero or more segments |
//! | host | `*` alone: any host; leading `*.`: one or more whole labels; compared without regard to case |
//!
//! Brackets, braces and backslashes are refused when loading: they would look like wildcards and match nothing.

/// Longest glob in bytes.
pub(crate) const MAX_GLOB_BYTES: usize = 1024;

/// Which kind of text a glob is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GlobKind {
    Name,
    Path,
    Host,
}

/// A checked glob.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Glob {
    /// Text without wildcards (of any kind but host).
    Literal(Box<str>),
    /// `text*` of a name: everything that begins with the text.
    Prefix(Box<str>),
    Name(Box<str>),
    /// `/folder/**`: the folder and everything beneath it. Empty for the root.
    Beneath(Box<str>),
    Path(Box<PathGlob>),
    /// Every host.
    AnyHost,
    /// Exactly this host, in lower case.
    Host(Box<str>),
    /// Every host that ends in this, in lower case, which starts with a dot.
    HostBeneath(Box<str>),
}

/// A path with wildcards in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PathGlob {
    pub(crate) segments: Box<[Box<str>]>,
    /// The leading segments without wildcards, such as `/data/in`; may be empty.
    lead: Box<str>,
}

/// The part of a glob that an index can look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anchor<'a> {
    /// The whole text.
    Exact(&'a str),
    /// Names: the text begins with this. Paths: these whole leading segments, such as `/data/in`.
    Start(&'a str),
    /// Hosts: the labels after the wildcard, without the dot.
    End(&'a str),
    Nothing,
}

impl Glob {
    pub(crate) fn new(text: &str, kind: GlobKind) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("an empty text matches nothing");
        }
        if text.len() > MAX_GLOB_BYTES {
            return Err("a glob has at most 1,024 bytes");
        }
        if text.contains(['[', ']', '{', '}', '\\']) {
            return Err(
                "globs know only `*`, `?` and `**`; write several patterns as a list, or use `eq` or `regex`",
            );
        }
        match kind {
            GlobKind::Name => Ok(name_glob(text)),
            GlobKind::Path => path_glob(text),
            GlobKind::Host => host_glob(text),
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Name(pattern) => wild(pattern, text),
            Self::Beneath(folder) => beneath_folder(folder, text),
            Self::Path(path) => path_matches(&path.segments, text),
            Self::AnyHost => !text.is_empty(),
            Self::Host(host) => host.eq_ignore_ascii_case(text),
            Self::HostBeneath(dotted) => beneath(dotted, text),
        }
    }

    pub(crate) fn anchor(&self) -> Anchor<'_> {
        match self {
            Self::Literal(text) | Self::Host(text) => Anchor::Exact(text),
            Self::Prefix(text) => start(text),
            Self::Name(pattern) => start(pattern.split(['*', '?']).next().unwrap_or_default()),
            Self::Beneath(folder) => start(folder),
            Self::Path(path) => start(&path.lead),
            Self::AnyHost => Anchor::Nothing,
            Self::HostBeneath(dotted) => Anchor::End(dotted.strip_prefix('.').unwrap_or(dotted)),
        }
    }
}

fn start(text: &str) -> Anchor<'_> {
    if text.is_empty() { Anchor::Nothing } else { Anchor::Start(text) }
}

fn name_glob(text: &str) -> Glob {
    let wild = ['*', '?'];
    match text.strip_suffix('*') {
        Some(prefix) if !prefix.contains(wild) => Glob::Prefix(prefix.into()),
        Some(_) => Glob::Name(text.into()),
        None if text.contains(wild) => Glob::Name(text.into()),
        None => Glob::Literal(text.into()),
    }
}

fn path_glob(text: &str) -> Result<Glob, &'static str> {
    let Some(relative) = text.strip_prefix('/') else {
        return Err("paths are absolute as the guest sees them; start with `/`");
    };
    if text == "/" {
        return Ok(Glob::Literal(text.into()));
    }
    for segment in relative.split('/') {
        match segment {
            "" => return Err("paths have no empty segment and do not end in `/`"),
            "." | ".." => return Err("paths are normalised: `.` and `..` never occur in them"),
            "**" => {}
            _ if segment.contains("**") => return Err("`**` must be a whole segment, as in `/data/**`"),
            _ => {}
        }
    }
    if !text.contains(['*', '?']) {
        return Ok(Glob::Literal(text.into()));
    }
    if let Some(folder) = text.strip_suffix("/**").filter(|f| !f.contains(['*', '?'])) {
        return Ok(Glob::Beneath(folder.into()));
    }
    let fixed = relative.split('/').take_while(|s| !s.contains(['*', '?']));
    let lead: String = fixed.flat_map(|segment| ["/", segment]).collect();
    let segments = relative.split('/').map(Into::into).collect();
    Ok(Glob::Path(Box::new(PathGlob { segments, lead: lead.into() })))
}

fn host_glob(text: &str) -> Result<Glob, &'static str> {
    let host = text.strip_prefix("*.").unwrap_or(text);
    if text == "*" {
        return Ok(Glob::AnyHost);
    }
    if host.contains(['*', '?']) {
        return Err("in a host `*` stands only for whole leading labels, as in `*.example.com`");
    }
    if host.contains(['/', '@', ' ']) || host.chars().any(char::is_control) {
        return Err("a host is a name or an IP address, without scheme, path or user");
    }
    if host.starts_with('.') || host.ends_with('.') || host.contains("..") || host.is_empty() {
        return Err("a host has no empty label and no trailing dot");
    }
    let is_ip6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    if host.contains(':') && !is_ip6 {
        return Err("write the port with `port`, and an IPv6 address without brackets");
    }
    if !host.is_ascii() {
        return Err("write an internationalised host in its ASCII form (`xn--…`)");
    }
    let lower = host.to_ascii_lowercase();
    if text.starts_with("*.") {
        return Ok(Glob::HostBeneath(format!(".{lower}").into()));
    }
    // An address is matched as the canonical text of itself, which is what requests carry.
    Ok(Glob::Host(host.parse::<std::net::IpAddr>().map_or(lower, |ip| ip.to_string()).into()))
}

/// `text` is the folder or beneath it; the root's folder is empty.
fn beneath_folder(folder: &str, text: &str) -> bool {
    let Some(rest) = text.strip_prefix(folder) else { return false };
    rest.starts_with('/') || (rest.is_empty() && !folder.is_empty())
}

/// `text` is one or more labels followed by `dotted`, which starts with a dot.
fn beneath(dotted: &str, text: &str) -> bool {
    let Some(labels) = text.len().checked_sub(dotted.len()) else { return false };
    match (text.get(..labels), text.get(labels..)) {
        (Some(labels), Some(end)) => !labels.is_empty() && end.eq_ignore_ascii_case(dotted),
        _ => false,
    }
}

/// Greedy matching with one point to fall back to: the last `*`.
fn wild(pattern: &str, text: &str) -> bool {
    let (mut p, mut t) = (pattern.chars(), text.chars());
    let mut fallback = None;
    loop {
        let here = t.clone();
        match (p.next(), t.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                t = here;
                fallback = Some((p.clone(), t.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => {
                let Some((after_star, from)) = &mut fallback else { return false };
                if from.next().is_none() {
                    return false;
                }
                (p, t) = (after_star.clone(), from.clone());
            }
        }
    }
}

/// The same over segments, with `**` for the `*`.
fn path_matches(pattern: &[Box<str>], text: &str) -> bool {
    let Some(relative) = text.strip_prefix('/') else { return false };
    let (mut p, mut t) = (pattern.iter(), relative.split('/'));
    if relative.is_empty() {
        // The root has no segments.
        t.next();
    }
    let mut fallback = None;
    loop {
        let here = t.clone();
        match (p.next(), t.next()) {
            (None, None) => return true,
            (Some(segment), _) if &**segment == "**" => {
                t = here;
                fallback = Some((p.clone(), t.clone()));
            }
            (Some(segment), Some(name)) if wild(segment, name) => {}
            _ => {
                let Some((after_star, from)) = &mut fallback else { return false };
                if from.next().is_none() {
                    return false;
                }
                (p, t) = (after_star.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(kind: GlobKind, glob: &str, yes: &[&str], no: &[&str]) {
        let compiled = Glob::new(glob, kind).unwrap();
        for text in yes {
            assert!(compiled.matches(text), "`{glob}` must match {text:?}");
        }
        for text in no {
            assert!(!compiled.matches(text), "`{glob}` must not match {text:?}");
        }
    }

    #[test]
    fn names_are_anchored_at_both_ends() {
        check(GlobKind::Name, "fin-*", &["fin-", "fin-1", "fin-a.b/c"], &["fin", "xfin-1", ""]);
        check(GlobKind::Name, "*.send", &["a.send", ".send"], &["send", "a.send2"]);
        check(GlobKind::Name, "a?c*e", &["abce", "abcxe", "abccee"], &["ace", "abced"]);
        check(GlobKind::Name, "payments.send", &["payments.send"], &["payments.sender", "xpayments.send"]);
    }

    #[test]
    fn a_star_stays_in_its_segment_and_two_cross() {
        check(GlobKind::Path, "/data/*", &["/data/a"], &["/data", "/data/a/b", "/database", "/data2/a"]);
        check(GlobKind::Path, "/data/**", &["/data", "/data/a", "/data/a/b"], &["/database", "/", "/dat"]);
        check(GlobKind::Path, "/**", &["/", "/a", "/a/b"], &["", "a"]);
        check(GlobKind::Path, "/a/**/z", &["/a/z", "/a/b/z", "/a/z/z"], &["/a", "/a/zz", "/a/z/y"]);
        check(GlobKind::Path, "/a/*.csv", &["/a/x.csv", "/a/.csv"], &["/a/b/x.csv", "/a/x.csv.exe"]);
    }

    #[test]
    fn a_host_wildcard_stands_for_whole_labels() {
        let no = ["example.com", "evilexample.com", ".example.com", "a.example.com.evil.org", ""];
        check(GlobKind::Host, "*.example.com", &["a.example.com", "b.a.EXAMPLE.com"], &no);
        check(
            GlobKind::Host,
            "Api.Example.com",
            &["api.example.com", "API.EXAMPLE.COM"],
            &["xapi.example.com"],
        );
        check(GlobKind::Host, "*", &["a", "a.b", "10.0.0.1", "::1"], &[""]);
        check(GlobKind::Host, "0:0::1", &["::1"], &["::2"]);
    }

    #[test]
    fn what_looks_like_a_wildcard_and_is_none_is_refused() {
        for (kind, glob) in [
            (GlobKind::Name, ""),
            (GlobKind::Name, "a{b,c}"),
            (GlobKind::Name, "[ab]"),
            (GlobKind::Path, "data/*"),
            (GlobKind::Path, "/data/"),
            (GlobKind::Path, "/data/../etc"),
            (GlobKind::Path, "/data/a**"),
            (GlobKind::Host, "api.*"),
            (GlobKind::Host, "*example.com"),
            (GlobKind::Host, "https://example.com"),
            (GlobKind::Host, "example.com:443"),
            (GlobKind::Host, "example.com."),
            (GlobKind::Host, "*."),
            (GlobKind::Host, "bücher.example"),
        ] {
            assert!(Glob::new(glob, kind).is_err(), "{kind:?} `{glob}` must be refused");
        }
    }

    #[test]
    fn hostile_texts_cost_no_more_than_pattern_times_text() {
        let glob = Glob::new(&"*a".repeat(500), GlobKind::Name).unwrap();
        assert!(!glob.matches(&"a".repeat(499)));
        let glob = Glob::new(&"/**/a".repeat(200), GlobKind::Path).unwrap();
        assert!(!glob.matches(&format!("{}/b", "/a".repeat(5_000))));
    }

    /// The obvious exponential definition.
    fn slow(p: &[u8], t: &[u8]) -> bool {
        match (p.split_first(), t.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => slow(rest, t) || t.split_first().is_some_and(|(_, t)| slow(p, t)),
            (Some((b'?', rest)), Some((_, t))) => slow(rest, t),
            (Some((a, rest)), Some((b, t))) => a == b && slow(rest, t),
            _ => false,
        }
    }

    fn slow_path(p: &[&str], t: &[&str]) -> bool {
        match (p.split_first(), t.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                slow_path(rest, t) || t.split_first().is_some_and(|(_, t)| slow_path(p, t))
            }
            (Some((a, rest)), Some((b, t))) => slow(a.as_bytes(), b.as_bytes()) && slow_path(rest, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn greedy_matching_is_exact(p in "[ab*?]{1,8}", t in "[ab]{0,8}") {
            let glob = Glob::new(&p, GlobKind::Name).unwrap();
            prop_assert_eq!(glob.matches(&t), slow(p.as_bytes(), t.as_bytes()));
        }

        #[test]
        fn greedy_path_matching_is_exact(
            p in proptest::collection::vec(prop_oneof![Just("**"), Just("*"), Just("a"), Just("b*")], 1..6),
            t in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("ba")], 0..6),
        ) {
            let glob = Glob::new(&format!("/{}", p.join("/")), GlobKind::Path).unwrap();
            prop_assert_eq!(glob.matches(&format!("/{}", t.join("/"))), slow_path(&p, &t));
        }

        #[test]
        fn an_anchor_never_excludes_what_matches(p in "/[ab*?/]{1,8}", t in "/[ab/]{0,8}") {
            if let Ok(glob) = Glob::new(&p, GlobKind::Path)
                && glob.matches(&t)
            {
                match glob.anchor() {
                    Anchor::Exact(whole) => prop_assert_eq!(whole, &t),
                    Anchor::Start(lead) => {
                        let beneath = format!("{}/", lead);
                        prop_assert!(t == lead || t.starts_with(&beneath), "{} {}", lead, t);
                    }
                    Anchor::End(_) | Anchor::Nothing => {}
                }
            }
        }
    }
}
