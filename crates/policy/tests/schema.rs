//! The schema for editors: checked in as it is generated. `GOVRUN_UPDATE_DOCS=1 cargo test -p govrun-policy --test schema`
//! writes it anew.

use std::path::Path;

#[test]
#[expect(clippy::disallowed_methods, reason = "asks whether to write the file anew")]
fn the_schema_that_is_checked_in_is_the_one_that_is_generated() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/policy.schema.json");
    let schema = govrun_policy::json_schema();
    let parsed: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(parsed["$defs"]["rule"]["properties"]["rollout"].is_object());
    if std::env::var("GOVRUN_UPDATE_DOCS").is_ok() {
        std::fs::write(&file, &schema).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap_or_default(),
        schema,
        "GOVRUN_UPDATE_DOCS=1 writes it anew"
    );
}
