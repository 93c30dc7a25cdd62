//! Guest paths: what a decision is about, and what a descriptor really is.
//!
//! The lexical half only names the subject of a decision. Containment is the kernel's and wasmtime-wasi's business, and
//! [`real`] asks the kernel afterwards what was really opened.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path};

/// Longest path that a guest may pass, in bytes.
pub(crate) const MAX_PATH_BYTES: usize = 4096;

/// Why a path is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathError {
    /// Absolute, empty, too long, or with control characters.
    Invalid,
    /// It climbs above the directory it is relative to.
    Escape,
}

/// A relative path without `.`, `..` and empty segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relative {
    parts: Vec<String>,
    trailing_slash: bool,
}

impl Relative {
    /// Normalise what the guest passed.
    pub(crate) fn parse(path: &str) -> Result<Self, PathError> {
        let acceptable = !path.is_empty()
            && path.len() <= MAX_PATH_BYTES
            && !path.starts_with('/')
            && !path.chars().any(char::is_control);
        if !acceptable {
            return Err(PathError::Invalid);
        }
        let mut parts: Vec<String> = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or(PathError::Escape)?;
                }
                name => parts.push(name.to_owned()),
            }
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        Ok(Self { parts, trailing_slash: matches!(last, "" | "." | "..") })
    }

    /// True when the path as given can only mean a directory: it ended in `/`, `.` or `..`.
    pub(crate) const fn names_directory(&self) -> bool {
        self.trailing_slash
    }

    /// Its segments.
    pub(crate) fn parts(&self) -> &[String] {
        &self.parts
    }

    /// The last segment; `None` for the directory itself.
    pub(crate) fn leaf(&self) -> Option<&str> {
        self.parts.last().map(String::as_str)
    }

    /// Everything before the last segment; `None` when that is the directory itself.
    pub(crate) fn parent(&self) -> Option<String> {
        let (_, parent) = self.parts.split_last()?;
        (!parent.is_empty()).then(|| parent.join("/"))
    }

    /// The normalised text, `.` for the directory itself.
    pub(crate) fn text(&self) -> String {
        if self.parts.is_empty() { ".".to_owned() } else { self.parts.join("/") }
    }

    /// The absolute guest path beneath `base`.
    pub(crate) fn beneath(&self, base: &str) -> String {
        self.parts.iter().fold(absolute(base), |path, part| child(&path, part))
    }
}

/// The absolute, normalised form of a guest path that the host itself configured; `..` stops at the root.
pub(crate) fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `name` in the directory `dir`, both already normalised.
pub(crate) fn child(dir: &str, name: &str) -> String {
    if dir.ends_with('/') { format!("{dir}{name}") } else { format!("{dir}/{name}") }
}

/// The segments of `path` beneath the directory `base`, both absolute and normalised.
pub(crate) fn below(base: &str, path: &str) -> Vec<String> {
    let rest = path.strip_prefix(base).unwrap_or_default();
    rest.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A path that is refused for its form, as its record may show it: escaped and cut.
pub(crate) fn refused(base: &str, given: &str) -> String {
    let shown: String = given.chars().take(256).flat_map(char::escape_debug).collect();
    child(base, &shown)
}

/// The guest path of what `file` really is now, or `None` when it is outside of `host_root`, gone, or not nameable.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn real(file: &File, host_root: &Path, guest_root: &str) -> io::Result<Option<String>> {
    // The kernel marks the name of an unlinked object with a suffix that could also be a true name.
    if rustix::fs::fstat(file)?.st_nlink == 0 {
        return Ok(None);
    }
    let host = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(map(&host, host_root, guest_root))
}

fn map(host: &Path, host_root: &Path, guest_root: &str) -> Option<String> {
    let mut guest = absolute(guest_root);
    for component in host.strip_prefix(host_root).ok()?.components() {
        match component {
            Component::Normal(name) => guest = child(&guest, name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(guest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_that_are_never_acceptable() {
        for bad in ["", "/etc", "a\0b", "a\nb", "a\u{1b}[2J", "a\u{9b}b"] {
            assert_eq!(Relative::parse(bad), Err(PathError::Invalid), "{bad:?}");
        }
        assert_eq!(Relative::parse(&"x".repeat(MAX_PATH_BYTES + 1)), Err(PathError::Invalid));
        for out in ["..", "../x", "a/../..", "a/../../b", "./.."] {
            assert_eq!(Relative::parse(out), Err(PathError::Escape), "{out:?}");
        }
    }

    #[test]
    fn normal_forms() {
        for (given, text, leaf, parent, directory) in [
            (".", ".", None, None, true),
            ("a", "a", Some("a"), None, false),
            ("a//./b", "a/b", Some("b"), Some("a"), false),
            ("a/b/", "a/b", Some("b"), Some("a"), true),
            ("a/../b", "b", Some("b"), None, false),
            ("a/b/..", "a", Some("a"), None, true),
            ("..a/...", "..a/...", Some("..."), Some("..a"), false),
        ] {
            let path = Relative::parse(given).unwrap();
            assert_eq!(path.text(), text, "{given}");
            assert_eq!(path.leaf(), leaf, "{given}");
            assert_eq!(path.parent().as_deref(), parent, "{given}");
            assert_eq!(path.names_directory(), directory, "{given}");
        }
    }

    #[test]
    fn host_paths_map_only_beneath_their_root() {
        let root = Path::new("/srv/data");
        assert_eq!(map(Path::new("/srv/data"), root, "/in/").as_deref(), Some("/in"));
        assert_eq!(map(Path::new("/srv/data/a/b"), root, "/").as_deref(), Some("/a/b"));
        for outside in ["/srv/database", "/srv", "/srv/data/../x", "pipe:[1]", "/memfd:x"] {
            assert_eq!(map(Path::new(outside), root, "/in"), None, "{outside}");
        }
    }

    proptest! {
        #[test]
        fn never_leaves_the_base(path in "[a-c./]{0,24}") {
            let Ok(relative) = Relative::parse(&path) else { return Ok(()) };
            let full = relative.beneath("/base/dir");
            prop_assert!(full == "/base/dir" || full.starts_with("/base/dir/"), "{path} -> {full}");
            prop_assert!(!full.split('/').skip(1).any(|s| matches!(s, "" | "." | "..")), "{path} -> {full}");
            // Naming the same thing again changes nothing.
            prop_assert_eq!(Relative::parse(&relative.text()).unwrap().text(), relative.text());
        }

        #[test]
        fn agrees_with_a_walk_that_counts_depth(path in "[ab./]{1,24}") {
            let mut depth = 0_i32;
            let mut below = false;
            for segment in path.split('/') {
                match segment { "" | "." => {}, ".." => depth -= 1, _ => depth += 1 }
                below |= depth < 0;
            }
            let parsed = Relative::parse(&path);
            if path.starts_with('/') {
                prop_assert_eq!(parsed, Err(PathError::Invalid));
            } else {
                prop_assert_eq!(parsed.is_err(), below);
            }
        }

        #[test]
        fn refused_paths_are_shown_without_control_characters(path in ".{0,400}") {
            prop_assert!(!refused("/data", &path).chars().any(char::is_control));
        }
    }
}
