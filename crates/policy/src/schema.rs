//! The JSON Schema of a policy file, for editors. It says which keys there are and what form their values have; whether a
//! policy loads is decided by the parser alone, and a test holds the keys of both against each other.

use std::fmt::Write as _;

use govrun_verdict::Action;

use crate::field::FIELD_NAMES;
use crate::when::{COMPARISONS, OPERATORS};

const TEXT: &str = r#"{"type":"string"}"#;
const TEXTS: &str = r##"{"$ref":"#/$defs/texts"}"##;
const BOOL: &str = r#"{"type":"boolean"}"#;
const COUNT: &str = r#"{"type":"integer","minimum":1}"#;
const DURATION: &str = r#"{"type":"string","pattern":"^[0-9]+(ms|s|m|h|d)$"}"#;
const SIZE: &str = r#"{"type":"string","pattern":"^[0-9]+(B|KiB|MiB|GiB)$"}"#;
const DIGEST: &str = r#"{"type":"string","pattern":"^b3:[0-9a-f]{64}$"}"#;
const REASON: &str = r#"{"type":"string","pattern":"^[A-Z][A-Z0-9-]{0,54}[A-Z0-9]$"}"#;
const CONDITIONS: &str = r##"{"$ref":"#/$defs/conditions"}"##;
const ANY: &str = "true";

/// A key and the schema of its value.
type Key = (&'static str, &'static str);

const AGENT: &[Key] = &[("name", TEXT), ("tenant", TEXT)];
const TOOL_LABELS: &[Key] = &[
    ("tool", TEXT),
    ("effect", r#"{"enum":["read","write","external"]}"#),
    ("authority", TEXTS),
    ("content", TEXTS),
    ("output", r#"{"enum":["trusted","untrusted"]}"#),
];
const LIST: &[Key] = &[("file", TEXT), ("values", TEXTS)];
const SECRET: &[Key] = &[("env", TEXT), ("file", TEXT)];
const NOTIFY: &[Key] = &[("webhook", TEXT)];
const BUDGET: &[Key] = &[
    ("limit", COUNT),
    ("per", TEXT),
    ("kind", r#"{"enum":["rolling","gcra","calendar"]}"#),
    ("key", TEXTS),
    ("burst", COUNT),
    ("zone", TEXT),
    ("scope", r#"{"const":"local"}"#),
    ("on_exceed", ANY),
];
const ESCALATE: &[Key] = &[
    ("to", TEXTS),
    ("need", COUNT),
    ("timeout", DURATION),
    ("on_timeout", r#"{"const":"block"}"#),
    ("show", TEXTS),
];
const ROLLOUT: &[Key] = &[
    ("enforce", r#"{"type":"string","pattern":"^[0-9]{1,3}([.][0-9]{1,2})?%$"}"#),
    ("by", r#"{"enum":["session","agent","call"]}"#),
];
const LABEL: &[Key] =
    &[("on", r##"{"$ref":"#/$defs/match"}"##), ("when", CONDITIONS), ("add", TEXTS), ("remove", TEXTS)];
const LAYER: &[Key] = &[("packs", TEXTS), ("ceiling", BOOL)];
const SESSION: &[Key] = &[("idle", DURATION)];
const RULE: &[Key] = &[
    ("id", r#"{"type":"string","pattern":"^[a-z0-9][a-z0-9._-]{0,63}$"}"#),
    ("match", r##"{"$ref":"#/$defs/match"}"##),
    ("when", CONDITIONS),
    ("unless", CONDITIONS),
    ("verdict", r#"{"enum":["allow","sandbox","escalate","block","throttle"]}"#),
    ("reason", REASON),
    ("message", r#"{"type":"string","maxLength":1024}"#),
    ("sandbox", TEXT),
    ("limit", TEXTS),
    ("limits", r#"{"type":"object"}"#),
    ("escalate", r##"{"$ref":"#/$defs/escalate"}"##),
    ("notify", TEXTS),
    ("severity", r#"{"enum":["info","low","medium","high","critical"]}"#),
    ("tags", r#"{"type":"object"}"#),
    ("mode", r#"{"enum":["enforce","shadow"]}"#),
    ("rollout", r##"{"$ref":"#/$defs/rollout"}"##),
    ("promote_if", r#"{"type":"object"}"#),
    ("durability", r#"{"enum":["os","sealed","disk"]}"#),
];
const ENV: &[Key] = &[
    ("default", r#"{"type":"object"}"#),
    ("on_error", r#"{"const":"closed"}"#),
    ("audit_unavailable", r#"{"const":"closed"}"#),
];
const TIME: &[Key] = &[("in", TEXTS), ("not_in", TEXTS), ("zone", TEXT), ("from", ANY), ("until", ANY)];

/// Every closed table with its place in a file.
const TABLES: &[(&str, &[Key])] = &[
    ("agent", AGENT),
    ("tool_labels", TOOL_LABELS),
    ("list", LIST),
    ("notify", NOTIFY),
    ("budget", BUDGET),
    ("secret", SECRET),
    ("escalate", ESCALATE),
    ("rollout", ROLLOUT),
    ("label", LABEL),
    ("layer", LAYER),
    ("session", SESSION),
    ("rule", RULE),
    ("env", ENV),
    ("time", TIME),
];

/// The JSON Schema (2020-12) of the files of a policy, as `docs/formats/policy.schema.json` has it.
#[must_use]
pub fn json_schema() -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "{{\n\"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n\"title\": \"A govrun policy file\",\n\
         \"type\": \"object\",\n\"properties\": {{\n{}\n}},\n\"$defs\": {{\n{}\n}}\n}}\n",
        root().join(",\n"),
        definitions().join(",\n")
    );
    out
}

/// What the root of a file may have. The parser knows which of it belongs into the manifest only.
fn root() -> Vec<String> {
    let array = |name: &str| format!(r##""{name}": {{"type":"array","items":{{"$ref":"#/$defs/{name}"}}}}"##);
    let named = |name: &str| {
        format!(r##""{name}": {{"type":"object","additionalProperties":{{"$ref":"#/$defs/{name}"}}}}"##)
    };
    let one = |name: &str, schema: &str| format!(r#""{name}": {schema}"#);
    vec![
        one("schema", r#"{"const":1}"#),
        one("packs", TEXTS),
        one("environment", TEXT),
        one("require_lock", BOOL),
        one("require_shadow", BOOL),
        one("require_signatures", COUNT),
        one("session", r##"{"$ref":"#/$defs/session"}"##),
        one("audit", r#"{"type":"object"}"#),
        named("layer"),
        named("env"),
        array("agent"),
        one(
            "tool",
            &format!(r#"{{"type":"array","items":{{"type":"object","properties":{{"digest":{DIGEST}}}}}}}"#),
        ),
        array("tool_labels"),
        named("list"),
        named("notify"),
        named("budget"),
        named("secret"),
        one(
            "sandbox",
            &format!(
                r#"{{"type":"object","additionalProperties":{{"type":"object","properties":{{"memory":{SIZE}}}}}}}"#
            ),
        ),
        array("label"),
        array("rule"),
    ]
}

fn definitions() -> Vec<String> {
    let mut definitions = vec![
        r#""texts": {"anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"},"minItems":1,"uniqueItems":true}]}"#
            .to_owned(),
    ];
    definitions.extend(TABLES.iter().map(|(name, keys)| format!("\"{name}\": {}", closed(keys))));
    let actions: Vec<String> = Action::ALL.into_iter().map(|action| format!("\"{action}\"")).collect();
    definitions.push(format!(
        r#""match": {{"type":"object","required":["action"],"properties":{{"action":{{"anyOf":[{TEXTS},{{"enum":[{}]}}]}}}}}}"#,
        actions.join(",")
    ));
    definitions.push(format!("\"operators\": {}", operators()));
    definitions.push(format!("\"conditions\": {}", conditions()));
    definitions
}

fn closed(keys: &[Key]) -> String {
    let properties: Vec<String> = keys.iter().map(|(key, schema)| format!("\"{key}\":{schema}")).collect();
    format!(r#"{{"type":"object","additionalProperties":false,"properties":{{{}}}}}"#, properties.join(","))
}

fn operators() -> String {
    let names: Vec<String> =
        OPERATORS.into_iter().chain(["has"]).map(|name| format!("\"{name}\":true")).collect();
    format!(
        r#"{{"type":"object","minProperties":1,"additionalProperties":false,"properties":{{{}}}}}"#,
        names.join(",")
    )
}

fn conditions() -> String {
    let operators = r##"{"$ref":"#/$defs/operators"}"##;
    let several = format!(r#"{{"type":"array","minItems":1,"items":{CONDITIONS}}}"#);
    let compared: Vec<String> =
        COMPARISONS.into_iter().map(|name| format!("{{\"required\":[\"{name}\"]}}")).collect();
    let number = format!(r#"{{"type":"object","anyOf":[{}]}}"#, compared.join(","));
    let event = r#"{"type":"object","required":["action","within"]}"#;
    let from = r#"{"type":"object","additionalProperties":false,"required":["from"],"properties":{"from":{"enum":["untrusted","trusted","task"]}}}"#;
    let mut properties: Vec<String> =
        FIELD_NAMES.iter().map(|name| format!("\"{name}\":{operators}")).collect();
    for (key, schema) in [
        ("all", &*several),
        ("any", &*several),
        ("not", CONDITIONS),
        ("time", r##"{"$ref":"#/$defs/time"}"##),
        ("effect", r#"{"type":"object"}"#),
        ("labels", r#"{"type":"object","minProperties":1}"#),
        ("after", event),
        ("count", &*number),
        ("sum", &*number),
        ("first_seen", event),
        ("budget_left", &*number),
        ("authority", from),
        ("content", from),
    ] {
        properties.push(format!("\"{key}\":{schema}"));
    }
    format!(
        r#"{{"type":"object","minProperties":1,"additionalProperties":false,"patternProperties":{{"^args[.]":{operators}}},"properties":{{{}}}}}"#,
        properties.join(",")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Policy, SourceFile, Sources};

    /// The keys that the parser names when it meets one that it does not know.
    fn known(policy: &str) -> BTreeSet<String> {
        let text = format!("schema = 1\n{policy}\n");
        let sources = Sources { files: vec![SourceFile { path: "govrun.toml".into(), text }] };
        let errors = Policy::compile(&sources).unwrap_err();
        let help = errors.errors().iter().filter_map(|e| e.help()).find_map(|help| {
            ["known keys: ", "conditions are about `args.<name>`, ", "operators: "]
                .iter()
                .find_map(|lead| help.strip_prefix(lead))
        });
        let help = help.unwrap_or_else(|| panic!("{errors}"));
        help.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_schema_has_the_keys_that_the_parser_knows() {
        const ODD: &str = "qqqqqqqqqqqq = 1";
        for (name, place) in [
            ("agent", format!("[[agent]]\n{ODD}")),
            ("tool_labels", format!("[[tool_labels]]\n{ODD}")),
            ("list", format!("[list.x]\n{ODD}")),
            ("notify", format!("[notify.x]\n{ODD}")),
            ("budget", format!("[budget.x]\n{ODD}")),
            ("secret", format!("[secret.x]\n{ODD}")),
            ("label", format!("[[label]]\n{ODD}")),
            ("layer", format!("[layer.x]\n{ODD}")),
            ("session", format!("[session]\n{ODD}")),
            ("rule", format!("[[rule]]\n{ODD}")),
            ("rollout", format!("[[rule]]\nrollout = {{ {ODD} }}")),
            (
                "escalate",
                format!("[[rule]]\nmatch = {{ action = '*' }}\nverdict = 'escalate'\nescalate = {{ {ODD} }}"),
            ),
            ("time", format!("[[rule]]\nwhen.time = {{ {ODD} }}")),
        ] {
            let (_, keys) = TABLES.iter().find(|(table, _)| *table == name).unwrap();
            let keys: BTreeSet<String> = keys.iter().map(|(key, _)| (*key).to_owned()).collect();
            assert_eq!(known(&place), keys, "{name}");
        }
        let env: BTreeSet<String> = ENV.iter().map(|(key, _)| (*key).to_owned()).collect();
        let mut parsers = known(&format!("[env.x]\n{ODD}"));
        // It is known in order to be refused with a sentence of its own.
        parsers.remove("on_store_loss");
        assert_eq!(parsers, env);
        let conditions = conditions();
        for key in known(&format!("[[rule]]\nmatch = {{ action = '*' }}\nwhen = {{ {ODD} }}")) {
            assert!(conditions.contains(&format!("\"{key}\":")), "{key}");
        }
        let file = known(ODD);
        let root = root().concat();
        assert!(file.len() > 15 && file.iter().all(|key| root.contains(&format!("\"{key}\": "))), "{file:?}");
    }
}
