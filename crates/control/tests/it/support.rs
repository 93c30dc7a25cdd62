//! What the tests share.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use govrun_control::{Reserved, Store};
use govrun_verdict::{Budget, BudgetUse, ReasonCode, RuleId, Timestamp};

/// Some time in 2023, in microseconds.
pub(crate) const T0: u64 = 1_700_000_000_000_000;

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir).unwrap()
}

pub(crate) fn usage(name: &str, key: &str, limit: u64, window_ms: u64) -> BudgetUse {
    BudgetUse {
        budget: Arc::new(Budget::rolling(
            name.into(),
            NonZeroU64::new(limit).unwrap(),
            NonZeroU64::new(window_ms).unwrap(),
        )),
        key: key.into(),
        shown: None,
        rule: RuleId::new("rule").unwrap(),
        reason: ReasonCode::new("BUDGET-EXHAUSTED").unwrap(),
    }
}

pub(crate) fn admitted(store: &Store, uses: &[BudgetUse], now: u64) -> bool {
    matches!(store.reserve(uses, Timestamp(now)).unwrap(), Reserved::Admitted { .. })
}
