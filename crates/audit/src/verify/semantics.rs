//! Level L4: what the records say must follow from what they say they were computed from.
//!
//! This crate knows no policy. Whoever does, implements [`Evaluator`]; here its answers are held against approvals, outcomes
//! and budget levels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use govrun_verdict::{DecisionId, LogId, Value};

use super::ledger::Ledger;
use super::report::{Finding, Outcome, Report};
use crate::commit::Opening;
use crate::form::FrameHead;
use crate::form::body::{Body, Decision, Field};
use crate::read::{OpeningsInOrder, Record, Records};
use crate::trust::Trust;

/// Most findings of one kind of gravity that are told one by one.
const MAX_TOLD: usize = 16;

/// One recorded decision, with the guest data it was computed from as far as it is known.
#[derive(Debug)]
pub struct Case<'a> {
    /// Its id.
    pub id: DecisionId,
    /// Type, number and times of its record.
    pub head: FrameHead,
    /// The whole record.
    pub decision: &'a Decision<'a>,
    /// The values of `inputs.fields`, in the same order: as recorded in clear, or from an opening that opens the commitment;
    /// `None` where the record only commits to the value and no opening is left.
    pub values: &'a [Option<Cow<'a, Value>>],
}

impl Case<'_> {
    /// The value of a field.
    ///
    /// # Errors
    /// One sentence, when the field is committed to and has no opening. `Ok(None)`: there is no such field.
    pub fn value(&self, name: &str) -> Result<Option<&Value>, String> {
        let mut fields = self.decision.inputs.fields.iter().zip(self.values);
        match fields.find(|(field, _)| *field.name == *name) {
            None => Ok(None),
            Some((_, Some(value))) => Ok(Some(value)),
            Some((_, None)) => Err(format!("`{name}` is committed to and has no opening")),
        }
    }
}

/// What deciding again comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The same decision.
    Follows,
    /// The same decision, provided that these approvals were given for exactly this call.
    FollowsIfApproved {
        /// Roles of which one must answer.
        roles: Vec<String>,
        /// How many must.
        need: u64,
    },
    /// A refusal of the host's own: no policy decides it, and nothing was permitted.
    HostRefusal,
    /// Another decision.
    Differs(Difference),
    /// It cannot be told, and why.
    Cannot(String),
}

/// What is other in a recorded decision than the policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which part.
    pub what: &'static str,
    /// What the archived policy gives.
    pub expected: String,
    /// What is recorded.
    pub found: String,
}

/// Decides recorded calls again, under the policy that was in force.
pub trait Evaluator: Sync {
    /// Decide one again.
    fn evaluate(&self, case: &Case<'_>) -> Answer;
}

/// Go through all records that were verified, and hold them against each other and the policy.
pub(super) fn judge(dir: &Path, trust: &Trust, evaluator: Option<&dyn Evaluator>, report: &mut Report) {
    let inconclusive = |what: &str| Finding::of(Outcome::Inconclusive, what);
    let Some(evaluator) = evaluator else {
        report.findings.push(inconclusive("verdicts cannot be evaluated again here: no evaluator"));
        return;
    };
    if report.outcome() > Outcome::Inconclusive {
        report
            .findings
            .push(inconclusive("verdicts were not evaluated again, because the records do not hold"));
        return;
    }
    let mut judge = Judge {
        evaluator,
        dir,
        openings: BTreeMap::new(),
        ledger: Ledger::new(trust),
        cannot: 0,
        differs: 0,
        host: 0,
        told: Vec::new(),
    };
    if let Err(what) = judge.all(report) {
        report.findings.push(Finding::of(Outcome::Unusable, what));
        return;
    }
    judge.conclude(report);
}

struct Judge<'a> {
    evaluator: &'a dyn Evaluator,
    dir: &'a Path,
    openings: BTreeMap<LogId, OpeningsInOrder>,
    ledger: Ledger<'a>,
    cannot: u64,
    differs: u64,
    host: u64,
    told: Vec<Finding>,
}

impl Judge<'_> {
    fn all(&mut self, report: &Report) -> Result<(), String> {
        let verified: BTreeMap<LogId, u64> = report.logs.iter().map(|log| (log.id, log.records)).collect();
        for record in Records::open(self.dir).map_err(|e| e.to_string())? {
            let record = record.map_err(|e| e.to_string())?;
            if verified.get(&record.log).is_some_and(|records| record.head.seq < *records) {
                self.record(&record)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), String> {
        let mut scratch = Vec::new();
        let body = record.body(&mut scratch).map_err(|e| e.to_string())?;
        if let Body::Decision(decision) = &body {
            self.decision(record, decision)?;
        } else {
            self.ledger.record(record, &body);
        }
        Ok(())
    }

    fn decision(&mut self, record: &Record, decision: &Decision<'_>) -> Result<(), String> {
        let id = record.id();
        let opened = if decision.inputs.fields.iter().any(|f| f.clear.is_none()) {
            self.opened(id)?
        } else {
            Vec::new()
        };
        let values: Vec<_> = decision.inputs.fields.iter().map(|field| value(field, &opened)).collect();
        let case = Case { id, head: record.head, decision, values: &values };
        let answer = self.evaluator.evaluate(&case);
        self.ledger.decision(&case, &answer);
        match answer {
            Answer::Follows | Answer::FollowsIfApproved { .. } => {}
            Answer::HostRefusal => self.host += 1,
            Answer::Cannot(why) => {
                self.cannot += 1;
                if self.cannot <= 3 {
                    let what = format!("decision {id} cannot be evaluated again: {why}");
                    self.told.push(Finding::of(Outcome::Inconclusive, what));
                }
            }
            Answer::Differs(difference) => self.differs(id, difference),
        }
        Ok(())
    }

    fn differs(&mut self, id: DecisionId, difference: Difference) {
        self.differs += 1;
        if self.differs <= u64::try_from(MAX_TOLD).unwrap_or(u64::MAX) {
            let Difference { what, expected, found } = difference;
            let what = format!("decision {id} does not follow from its inputs and policy: {what}");
            let mut finding = Finding::of(Outcome::Tampered, what);
            (finding.expected, finding.found) = (Some(expected), Some(found));
            self.told.push(finding);
        }
    }

    fn opened(&mut self, id: DecisionId) -> Result<Vec<Opening<'static>>, String> {
        if !self.openings.contains_key(&id.log) {
            let openings = OpeningsInOrder::open(self.dir, id.log).map_err(|e| e.to_string())?;
            self.openings.insert(id.log, openings);
        }
        match self.openings.get_mut(&id.log) {
            Some(openings) => openings.of(id.seq).map_err(|e| e.to_string()),
            None => Ok(Vec::new()),
        }
    }

    fn conclude(self, report: &mut Report) {
        report.findings.extend(self.told);
        if self.cannot > 3 {
            let what = format!("{} decisions in all cannot be evaluated again", self.cannot);
            report.findings.push(Finding::of(Outcome::Inconclusive, what));
        }
        if self.differs > u64::try_from(MAX_TOLD).unwrap_or(u64::MAX) {
            let what = format!("{} decisions in all do not follow from their inputs", self.differs);
            report.findings.push(Finding::of(Outcome::Tampered, what));
        }
        if self.host > 0 {
            report.not_covered.push(format!(
                "whether the host's own {} refusals (a stopped store, a limit, a withdrawn approval) had their reason",
                self.host
            ));
        }
        self.ledger.conclude(report);
    }
}

/// An opening is believed when it opens the commitment, whatever file it came from.
fn value<'a>(field: &'a Field<'_>, opened: &'a [Opening<'static>]) -> Option<Cow<'a, Value>> {
    if let Some(clear) = &field.clear {
        return Some(Cow::Borrowed(clear.0.as_ref()));
    }
    let commitment = field.commitment.as_ref()?;
    let opening = opened.iter().find(|o| *o.field == *field.name && o.opens(&commitment.0))?;
    Some(Cow::Borrowed(opening.value.0.as_ref()))
}
