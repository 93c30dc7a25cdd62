//! What can be said of a call before its arguments are known.

use govrun_verdict::{Call, RuleVerdict};

use crate::manifest::DefaultEffect;
use crate::policy::Policy;
use crate::rollout::Stage;
use crate::rule::Rule;

impl Policy {
    /// Whether some call like this one, with whatever arguments, at whatever time, could end in anything but a block.
    ///
    /// `false` is certain: nothing permits it, or something blocks it without a condition. `true` may still be refused.
    #[must_use]
    pub fn can_permit(&self, call: &Call) -> bool {
        let about = |rule: &&Rule| {
            rule.stage != Stage::Shadow
                && rule.scope.actions.contains(&call.action())
                && rule.scope.holds(call)
        };
        let always =
            |rule: &Rule| rule.stage == Stage::Enforced && rule.when.is_empty() && rule.unless.is_empty();
        let blocked = self
            .rules
            .iter()
            .filter(about)
            .any(|rule| rule.effect.level() == Some(RuleVerdict::Block) && always(rule));
        let permits = |rule: &Rule| match rule.effect.level() {
            Some(RuleVerdict::Allow | RuleVerdict::Sandbox | RuleVerdict::Escalate) => true,
            Some(RuleVerdict::Block) | None => false,
        };
        let by_default = match self.default.effect {
            DefaultEffect::Block => false,
            DefaultEffect::Escalate(_) | DefaultEffect::Sandbox(_) => true,
        };
        !blocked && (by_default || self.rules.iter().filter(about).any(permits))
    }
}
