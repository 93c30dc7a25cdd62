//! What every import of a component is: governed by an action, harmless for a written reason, or refused.
//!
//! The table is the coverage manifest. An interface that is not in it is refused at load, by name; there is no default.

use govrun_verdict::Action;

/// How one imported interface is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Every function that has an effect is decided as one of these actions.
    Governed(&'static [Action]),
    /// No information leaves and no state stays, because of this.
    Harmless(&'static str),
}

/// One interface of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Package and interface without version, such as `wasi:filesystem/types`.
    pub name: &'static str,
    /// Accepted versions: every patch of this `major.minor`, or exactly this one of a draft.
    pub line: &'static str,
    /// How it is treated.
    pub treatment: Treatment,
}

/// What can be done with files.
const FILES: &[Action] = &[Action::FsRead, Action::FsWrite, Action::FsDelete, Action::FsList, Action::FsStat];

/// What can be done with keys.
const KEYS: &[Action] = &[Action::KvGet, Action::KvList, Action::KvSet, Action::KvDelete];

/// What a request is decided as.
const REQUESTS: &[Action] = &[Action::HttpRequest, Action::NetConnect, Action::SecretRead];

/// The coverage manifest.
pub const MANIFEST: &[Interface] = &[
    governed("wasi:filesystem/types", "0.2", FILES),
    harmless("wasi:filesystem/preopens", "0.2", "lists the offered directories; each use of one is decided"),
    governed("wasi:cli/environment", "0.2", &[Action::EnvRead, Action::ArgsRead]),
    harmless("wasi:cli/exit", "0.2", "ends the guest itself"),
    harmless("wasi:cli/stdin", "0.2", "always empty"),
    governed("wasi:cli/stdout", "0.2", &[Action::Stdio]),
    governed("wasi:cli/stderr", "0.2", &[Action::Stdio]),
    harmless("wasi:cli/terminal-input", "0.2", "no terminal is ever handed out"),
    harmless("wasi:cli/terminal-output", "0.2", "no terminal is ever handed out"),
    harmless("wasi:cli/terminal-stdin", "0.2", "answers that there is no terminal"),
    harmless("wasi:cli/terminal-stdout", "0.2", "answers that there is no terminal"),
    harmless("wasi:cli/terminal-stderr", "0.2", "answers that there is no terminal"),
    governed("wasi:clocks/wall-clock", "0.2", &[Action::Clock]),
    governed("wasi:clocks/monotonic-clock", "0.2", &[Action::Clock]),
    governed("wasi:random/random", "0.2", &[Action::Random]),
    governed("wasi:random/insecure", "0.2", &[Action::Random]),
    governed("wasi:random/insecure-seed", "0.2", &[Action::Random]),
    harmless("wasi:io/error", "0.2", "renders errors of streams that were granted"),
    harmless("wasi:io/poll", "0.2", "waits, within the deadline, for things that were granted"),
    harmless("wasi:io/streams", "0.2", "moves bytes through streams that were granted, metered there"),
    governed("wasi:http/outgoing-handler", "0.2", REQUESTS),
    harmless("wasi:http/types", "0.2", "builds requests and reads answers; sending one is decided"),
    harmless("wasi:sockets/instance-network", "0.2", "names the network; each use of it is decided"),
    harmless("wasi:sockets/network", "0.2", "types only"),
    governed("wasi:sockets/ip-name-lookup", "0.2", &[Action::NetDns]),
    harmless("wasi:sockets/tcp-create-socket", "0.2", "a socket without address; its connection is decided"),
    governed("wasi:sockets/tcp", "0.2", &[Action::NetSocket]),
    harmless("wasi:sockets/udp-create-socket", "0.2", "a socket without address; each peer of it is decided"),
    governed("wasi:sockets/udp", "0.2", &[Action::NetSocket]),
    harmless("govrun:host/types", "0.1", "types only"),
    governed("govrun:host/fs", "0.1", FILES),
    governed("govrun:host/net", "0.1", REQUESTS),
    governed("govrun:host/db", "0.1", &[Action::DbQuery, Action::DbExecute]),
    governed("govrun:host/kv", "0.1", KEYS),
    governed("wasi:keyvalue/store", "0.2.0-draft", KEYS),
    governed("wasi:keyvalue/atomics", "0.2.0-draft", &[Action::KvGet, Action::KvSet]),
    governed("wasi:keyvalue/batch", "0.2.0-draft", &[Action::KvGet, Action::KvSet, Action::KvDelete]),
    governed("wasi:config/store", "0.2.0-rc.1", &[Action::EnvRead]),
    governed("govrun:host/model", "0.1", &[Action::ModelCall, Action::HttpRequest, Action::NetConnect]),
    governed("govrun:host/tools", "0.1", &[Action::ToolCall]),
    harmless("govrun:host/verdict", "0.1", "reads back what this call was already told"),
];

const fn governed(name: &'static str, line: &'static str, actions: &'static [Action]) -> Interface {
    Interface { name, line, treatment: Treatment::Governed(actions) }
}

const fn harmless(name: &'static str, line: &'static str, why: &'static str) -> Interface {
    Interface { name, line, treatment: Treatment::Harmless(why) }
}

/// The manifest's entry for an import as a component spells it (`wasi:cli/exit@0.2.6`), or `None`: refuse it.
#[must_use]
pub fn lookup(import: &str) -> Option<&'static Interface> {
    let (name, version) = import.split_once('@')?;
    if let Some(draft) =
        MANIFEST.iter().find(|i| i.name == name && i.line == version && version.contains('-'))
    {
        return Some(draft);
    }
    let mut parts = version.split('.');
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some() || ![major, minor, patch].into_iter().all(numeric) {
        return None;
    }
    MANIFEST.iter().find(|i| i.name == name && i.line.split_once('.') == Some((major, minor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_interfaces_are_found_in_every_patch_of_their_line() {
        for version in ["0.2.0", "0.2.3", "0.2.12"] {
            assert!(lookup(&format!("wasi:filesystem/types@{version}")).is_some());
        }
    }

    #[test]
    fn files_are_governed_however_they_are_asked_for() {
        for import in ["wasi:filesystem/types@0.2.6", "govrun:host/fs@0.1.0"] {
            assert_eq!(lookup(import).map(|i| i.treatment), Some(Treatment::Governed(FILES)), "{import}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for import in [
            "wasi:sockets/tcp@0.3.0",
            "wasi:http/incoming-handler@0.2.3",
            "wasi:filesystem/types@0.3.0",
            "wasi:filesystem/types@0.2.0-rc-2023-11-10",
            "wasi:filesystem/types@0.2",
            "wasi:filesystem/types@0.2.1.0",
            "wasi:filesystem/types",
            "wasi:filesystem/typesx@0.2.0",
            "govrun:host/fs@0.2.0",
            "wasi:keyvalue/store@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasi:keyvalue/watcher@0.2.0-draft",
            "wasi:config/store@0.2.0-draft",
            "evil:thing/x@1.0.0",
            "",
        ] {
            assert!(lookup(import).is_none(), "{import} must be refused");
        }
    }

    #[test]
    fn no_interface_is_listed_twice() {
        let names: std::collections::BTreeSet<_> = MANIFEST.iter().map(|i| (i.name, i.line)).collect();
        assert_eq!(names.len(), MANIFEST.len());
    }
}
