//! The documents are true: the README's commands do what they say, the tests that SPECIFICATION.md names exist, and
//! `docs/formats/reasons.md` is the registry of reasons. `GOVRUN_UPDATE_DOCS=1 cargo test` rewrites the last.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{binary, crates, files, none, root, text};
use govrun_verdict::{BUILTIN_REASONS, Verdict};

/// One command of a document: its first line's number, its text, and the exit code it promises.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    exit: i32,
}

/// The `sh` blocks of a document. A command goes on over a line that ends in a backslash; `# exit 3` at its end
/// promises another exit code than 0.
fn blocks(document: &str) -> Vec<Vec<Step>> {
    let (mut blocks, mut inside, mut open) = (Vec::new(), false, false);
    for (line, number) in document.lines().zip(1..) {
        if inside && line.trim_end() == "```" {
            inside = false;
        } else if inside {
            let steps: &mut Vec<Step> = blocks.last_mut().unwrap();
            if open {
                let step = steps.last_mut().unwrap();
                (step.command, open) = (format!("{}\n{line}", step.command), line.ends_with('\\'));
            } else if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
                steps.push(Step { line: number, command: line.to_owned(), exit: 0 });
                open = line.ends_with('\\');
            }
        } else if line.trim_end() == "```sh" {
            (inside, open) = (true, false);
            blocks.push(Vec::new());
        }
    }
    blocks.iter_mut().flatten().for_each(promise);
    blocks
}

fn promise(step: &mut Step) {
    if let Some((_, code)) = step.command.rsplit_once("# exit ") {
        step.exit = code.trim().parse().unwrap_or_else(|_| panic!("line {}: `# exit {code}`", step.line));
    }
}

/// The commands as one script, so that a variable that a line exports is there for the next. `cargo run` becomes the
/// binary that is built already; other cargo commands are what is running this test.
fn script(steps: &[Step], govrun: &Path) -> String {
    let mut script = format!(
        "cargo() {{\n\
         case $1 in run) while [ $# -gt 0 ] && [ \"$1\" != -- ]; do shift; done; shift; '{}' \"$@\" ;;\n\
         build|test) : ;;\n*) echo \"cargo $1?\" >&2; return 99 ;; esac\n}}\n",
        govrun.display()
    );
    for Step { line, command, exit } in steps {
        let complain = format!("echo \"line {line}: exit $code, {exit} expected\" >&2; exit 1");
        writeln!(script, "{command}\ncode=$?; [ $code = {exit} ] || {{ {complain}; }}").unwrap();
    }
    script
}

/// A tree with what the commands use, to run them in.
fn copy_of_the_tree(govrun: &Path) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for folder in ["policies", "guest-examples/prebuilt", "wit", "docs"] {
        copy(&root().join(folder), &tree.path().join(folder));
    }
    fs::create_dir_all(tree.path().join("target/release")).unwrap();
    std::os::unix::fs::symlink(govrun, tree.path().join("target/release/govrun")).unwrap();
    tree
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    // One terminal from top to bottom: what one block exports or makes is there for the next.
    let steps: Vec<Step> = blocks(&text("README.md")).into_iter().flatten().collect();
    assert!(steps.iter().any(|step| step.command.contains("govrun")), "no commands found");
    let govrun = binary();
    let tree = copy_of_the_tree(&govrun);
    let output = Command::new("sh")
        .arg("-c")
        .arg(script(&steps, &govrun))
        .current_dir(tree.path())
        .env("HOME", tree.path())
        .env_remove("GOVRUN_STATE")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "README.md, {}\n\n`# exit 3` after a command promises an exit code.",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_document_is_read_as_a_shell_would() {
    let read = blocks("x\n```sh\na \\\n  b\n\n# said\nc  # exit 3\n```\n```toml\nd\n```\n");
    let step = |line, command: &str, exit| Step { line, command: command.to_owned(), exit };
    assert_eq!(read, [vec![step(3, "a \\\n  b", 0), step(7, "c  # exit 3", 3)]]);
    let run = |steps: &[Step]| {
        let script = script(steps, Path::new("false"));
        Command::new("sh").arg("-c").arg(script).output().unwrap().status.success()
    };
    assert!(run(&[
        step(1, "cargo run --release -- x", 1),
        step(2, "export A=1", 0),
        step(3, "test $A = 1", 0)
    ]));
    assert!(!run(&[step(1, "cargo run --release -- x", 0)]));
    assert!(!run(&[step(1, "cargo what", 0)]));
}

/// Backticked words of the last column of the promise's row.
fn named_tests(row: &str) -> Vec<&str> {
    let cell = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap();
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_test_that_the_specification_names_exists() {
    let specification = text("SPECIFICATION.md");
    let rows: Vec<&str> = specification
        .lines()
        .filter(|line| line.starts_with("| ") && line.chars().nth(2).is_some_and(|c| c.is_ascii_digit()))
        .collect();
    assert!(rows.len() >= 10, "the table is not read rightly");
    let mut findings = Vec::new();
    for row in rows {
        let tests = named_tests(row);
        if tests.is_empty() && !row.contains("pending") {
            findings.push(format!("neither a test nor `pending`: {row}"));
        }
        let mut within = "crates".to_owned();
        for test in tests {
            match exists(test, &within) {
                Ok(Some(folder)) => within = folder,
                Ok(None) => {}
                Err(missing) => findings.push(format!("{missing}: {row}")),
            }
        }
    }
    none(&findings, "A promise names the test that holds it: a file, a folder of tests, or a function.");
}

/// Whether the word of the specification leads to a test. A package or a path narrows where the next word is looked
/// for.
fn exists(word: &str, within: &str) -> Result<Option<String>, String> {
    if let Some(name) = word.strip_prefix("govrun-").filter(|name| crates().iter().any(|c| c == name)) {
        return Ok(Some(format!("crates/{name}")));
    }
    if !word.contains('/') {
        let name = word.rsplit("::").next().unwrap();
        return if has_function(within, name) {
            Ok(None)
        } else {
            Err(format!("no test `{name}` in {within}"))
        };
    }
    let (path, function) = word.split_once("::").map_or((word, None), |(path, name)| (path, Some(name)));
    let path = path.trim_end_matches('/');
    let marks = ["#[test]", "#[tokio::test", "proptest!"];
    if !sources(path).iter().any(|source| marks.iter().any(|mark| source.contains(mark))) {
        return Err(format!("no test in {path}"));
    }
    let name = function.and_then(|function| function.rsplit("::").next());
    if let Some(name) = name.filter(|name| !has_function(path, name)) {
        return Err(format!("no test `{name}` in {path}"));
    }
    Ok(Some(path.to_owned()))
}

/// Whether a function of that name is defined in the file or folder.
fn has_function(path: &str, name: &str) -> bool {
    let definition = format!("fn {name}(");
    sources(path).iter().any(|source| source.contains(&definition))
}

/// The text of the file, or of all sources in the folder; nothing if there is neither.
fn sources(path: &str) -> Vec<String> {
    let at = root().join(path);
    if at.is_file() {
        vec![text(path)]
    } else if at.is_dir() {
        files(path, "rs").iter().map(|path| text(path)).collect()
    } else {
        Vec::new()
    }
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert_eq!(exists("govrun-host", "crates"), Ok(Some("crates/host".to_owned())));
    assert_eq!(exists("coverage::tests::everything_else_is_refused", "crates/host"), Ok(None));
    assert!(exists("coverage::tests::nothing_such", "crates/host").is_err());
    assert!(exists("crates/policy/tests/nothing_such.rs", "crates").is_err());
    assert!(exists("crates/verdict/Cargo.toml", "crates").is_err());
}

const REASONS: &str = "docs/formats/reasons.md";

/// The document of the registry.
fn reasons() -> String {
    let mut document = "\
# Reason codes

Every refusal carries a reason code, in its message and in the record of the log. These come from govrun itself; rules
of a policy add their own with `reason = \"...\"`.

<!-- Written from `crates/verdict/src/reason.rs` by `GOVRUN_UPDATE_DOCS=1 cargo test -p govrun-tests`. -->

| code | verdict | what happened | what to do |
|---|---|---|---|
"
    .to_owned();
    for info in BUILTIN_REASONS {
        let verdict = match info.verdict {
            Verdict::Allow => "allow",
            Verdict::Throttle => "throttle",
            Verdict::Sandbox => "sandbox",
            Verdict::Escalate => "escalate",
            Verdict::Block => "block",
        };
        let (sentence, next) = (cell(info.sentence), cell(info.next));
        writeln!(document, "| `{}` | {verdict} | {sentence} | {next} |", info.code).unwrap();
    }
    document
}

/// Text as it stands in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_registry_of_reasons_is_documented() {
    let expected = reasons();
    if std::env::var_os("GOVRUN_UPDATE_DOCS").is_some() {
        fs::write(root().join(REASONS), &expected).unwrap();
    }
    let actual = fs::read_to_string(root().join(REASONS)).unwrap_or_default();
    let update = "run GOVRUN_UPDATE_DOCS=1 cargo test -p govrun-tests --test documents, and commit it";
    assert!(actual == expected, "{REASONS} is not the registry: {update}");
}
