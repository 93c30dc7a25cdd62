//! Secrets by reference and the tools whose requests carry them: what loads, and what does not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::*;
use govrun_policy::{Policy, SecretSource};

const RULE: &str = "[[rule]]\nid='r'\nmatch={action='secret.read', name='ledger'}\nverdict='allow'\n";

fn tool(rest: &str) -> String {
    format!("[[tool]]\nname='t'\ndigest='b3:{}'\n{rest}\n", "0".repeat(64))
}

#[test]
fn a_tool_carries_secrets_that_are_defined_anywhere_in_the_policy() {
    let uses = "ca='ca.pem'\nsecrets=[{secret='ledger', to='https://ledger.example.com', header='authorization', value='Bearer {}'}]";
    let files = [
        ("govrun.toml", format!("schema = 1\npacks = ['p']\n[env.test]\n{}{RULE}", tool(uses))),
        ("p/s.toml", "[secret.ledger]\nfile='ledger.key'\n[secret.other]\nenv='OTHER_KEY'\n".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let policy = Policy::compile(&sources(&files)).unwrap_or_else(|e| panic!("{e}"));
    let entry = policy.tools().next().unwrap().resolve(Path::new("/policies"));
    assert_eq!(entry.ca.as_deref(), Some(Path::new("/policies/ca.pem")));
    let used = entry.secrets.first().unwrap();
    assert_eq!((&*used.secret.name, used.to.as_str()), ("ledger", "https://ledger.example.com"));
    assert_eq!(used.secret.source, SecretSource::File("/policies/ledger.key".into()));
}

#[test]
fn what_is_wrong_with_a_secret_is_said() {
    let secret = "[secret.ledger]\nenv='LEDGER'\n";
    let uses = |fields: &str| format!("{secret}{}", tool(&format!("secrets=[{{{fields}}}]")));
    for (text, expected) in [
        ("[secret.x]\n".to_owned(), "either `env` or `file`"),
        ("[secret.x]\nenv='A'\nfile='b'\n".to_owned(), "either `env` or `file`"),
        ("[secret.x]\nenv='A B'\n".to_owned(), "name of an environment variable"),
        ("[secret.x]\nvalue='hunter2'\n".to_owned(), "unknown key `value`"),
        ("[secret.'a b']\nenv='A'\n".to_owned(), "`a b` is not a name"),
        (format!("{secret}{secret}"), "duplicate key"),
        (uses("secret='ledgre', to='https://h', header='x', value='{}'"), "there is no secret `ledgre`"),
        (uses("secret='ledger', to='https://h/v1', header='x', value='{}'"), "one origin, without path"),
        (uses("secret='ledger', to='h.example', header='x', value='{}'"), "one origin, without path"),
        (uses("secret='ledger', to='https://*.example', header='x', value='{}'"), "one origin, without path"),
        (uses("secret='ledger', to='https://u@h', header='x', value='{}'"), "one origin, without path"),
        (uses("secret='ledger', to='https://h', header='a b', value='{}'"), "not the name of a header"),
        (uses("secret='ledger', to='https://h', header='x', value='Bearer'"), "secret's place once"),
        (uses("secret='ledger', to='https://h', header='x', value='{} {}'"), "secret's place once"),
        (uses("secret='ledger', to='https://h', header='x'"), "`value`"),
        (
            format!(
                "{secret}{}",
                tool(
                    "secrets=[{secret='ledger',to='https://h',header='x',value='{}'},{secret='ledger',to='https://H',header='X',value='{}'}]"
                )
            ),
            "already",
        ),
    ] {
        let errors = refused(&format!("{text}{RULE}"));
        assert!(errors.contains(expected), "{text}\n---\n{errors}");
    }
}
