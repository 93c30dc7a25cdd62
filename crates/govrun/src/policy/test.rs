//! `govrun policy test`: the cases beside a policy.

use std::path::Path;

use clap::ValueEnum;
use govrun_policy::{Case, Coverage, Failed, Mutation, Policy, read_cases};
use serde_json::json;

use super::junit::{self, Suite};
use super::{TESTS, beside, load};
use crate::exit::{Exit, Failure};
use crate::text::{plain, print_json};

/// Most ways and mutants that are listed for people.
const MAX_LISTED: usize = 40;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lines {
    /// For people.
    Human,
    /// For machines, in the shape `govrun.policy-test/v1`.
    Json,
    /// For continuous integration.
    Junit,
}

struct Report<'a> {
    folder: &'a Path,
    cases: &'a [Case],
    failed: &'a [Failed],
    coverage: &'a Coverage,
    mutation: Option<&'a Mutation>,
}

/// Run the cases.
pub(crate) fn run(
    folder: &Path,
    mutate: bool,
    min_kill: Option<u8>,
    min_coverage: Option<u8>,
    lines: Lines,
) -> Result<Exit, Failure> {
    let policy: Policy = load(folder)?;
    let files = beside(folder, TESTS)?;
    if files.is_empty() {
        let sentence = format!(
            "there are no cases: `{}` holds no TOML file; write `[[case]]` tables there",
            folder.join(TESTS).display()
        );
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let cases = read_cases(&files, &policy).map_err(|e| Failure::new(Exit::Configuration, e))?;
    let failed = policy.test(&cases);
    let coverage = policy.coverage(&cases);
    // A mutant that fails where the policy itself fails says nothing.
    let mutation = (mutate && failed.is_empty()).then(|| policy.mutate(&cases));
    let report =
        Report { folder, cases: &cases, failed: &failed, coverage: &coverage, mutation: mutation.as_ref() };
    match lines {
        Lines::Human => human(&report),
        Lines::Json => print_json(&as_json(&report))?,
        Lines::Junit => print!("{}", suite(&report).xml()),
    }
    let killed = mutation.as_ref().map_or(100, |m| percent(m.killed(), m.mutants.len()));
    let covered = percent(coverage.covered(), coverage.branches.len());
    let enough = min_kill.is_none_or(|min| killed >= u64::from(min))
        && min_coverage.is_none_or(|min| covered >= u64::from(min));
    Ok(if failed.is_empty() && enough { Exit::Ok } else { Exit::Check })
}

/// Whole percent, rounded down; of nothing, all.
fn percent(part: usize, whole: usize) -> u64 {
    let (part, whole) = (u64::try_from(part).unwrap_or(0), u64::try_from(whole).unwrap_or(u64::MAX));
    part.saturating_mul(100).checked_div(whole).unwrap_or(100)
}

fn human(report: &Report<'_>) {
    for failed in report.failed {
        let Some(case) = report.cases.get(failed.case) else { continue };
        println!("FAIL  {}: {}", case.origin, plain(&case.title));
        failed.differences.iter().for_each(|difference| println!("      {}", plain(difference)));
    }
    let coverage = report.coverage;
    let missing: Vec<_> = coverage.branches.iter().filter(|b| !b.covered).collect();
    for branch in missing.iter().take(MAX_LISTED) {
        println!("not covered  {}: `{}`: {}", branch.at, branch.rule, plain(&branch.way));
    }
    more(missing.len());
    if let Some(mutation) = report.mutation {
        let survivors: Vec<_> = mutation.mutants.iter().filter(|m| !m.killed).collect();
        for mutant in survivors.iter().take(MAX_LISTED) {
            println!("not noticed  {}: `{}`: {}", mutant.at, mutant.rule, plain(&mutant.what));
        }
        more(survivors.len());
        println!(
            "{} of {} mutants noticed ({} %)",
            mutation.killed(),
            mutation.mutants.len(),
            percent(mutation.killed(), mutation.mutants.len())
        );
    }
    println!(
        "{}: {} cases, {} failed; {} of {} rules and {} of {} ways covered",
        report.folder.display(),
        report.cases.len(),
        report.failed.len(),
        coverage.rules,
        coverage.of_rules,
        coverage.covered(),
        coverage.branches.len()
    );
}

fn more(count: usize) {
    if count > MAX_LISTED {
        println!("and {} more", count.saturating_sub(MAX_LISTED));
    }
}

fn as_json(report: &Report<'_>) -> serde_json::Value {
    let failed = |case: usize| report.failed.iter().find(|f| f.case == case);
    json!({
        "schema": "govrun.policy-test/v1",
        "cases": report.cases.iter().enumerate().map(|(at, case)| json!({
            "title": case.title, "at": case.origin.to_string(), "passed": failed(at).is_none(),
            "differences": failed(at).map(|f| f.differences.clone()).unwrap_or_default(),
        })).collect::<Vec<_>>(),
        "coverage": {
            "rules": report.coverage.rules, "of_rules": report.coverage.of_rules,
            "ways": report.coverage.covered(), "of_ways": report.coverage.branches.len(),
            "missing": report.coverage.branches.iter().filter(|b| !b.covered).map(|b| json!({
                "rule": b.rule.to_string(), "at": b.at.to_string(), "way": b.way,
            })).collect::<Vec<_>>(),
        },
        "mutants": report.mutation.map(|m| json!({
            "tried": m.mutants.len(), "noticed": m.killed(), "omitted": m.omitted,
            "survivors": m.mutants.iter().filter(|m| !m.killed).map(|m| json!({
                "rule": m.rule.to_string(), "at": m.at.to_string(), "what": m.what,
            })).collect::<Vec<_>>(),
        })),
    })
}

fn suite(report: &Report<'_>) -> Suite {
    let case = |(at, case): (usize, &Case)| junit::Case {
        name: case.title.clone(),
        place: case.origin.to_string(),
        failure: report.failed.iter().find(|f| f.case == at).map(|f| f.differences.join("\n")),
    };
    Suite {
        name: report.folder.display().to_string(),
        cases: report.cases.iter().enumerate().map(case).collect(),
    }
}
