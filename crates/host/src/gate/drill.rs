//! What bounds an exercise.

use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_verdict::{Egress, Obligations, Profile};

/// Most bytes that a call of a drill may write into its copy.
const DRILL_SCRATCH_BYTES: u64 = 16 << 20;

/// Where an exercise happens: reads are real, writes land in a copy that is thrown away, nothing leaves the machine.
pub(super) fn drill_bounds() -> Obligations {
    let profile = Profile {
        name: "drill".into(),
        preopens: None,
        scratch_bytes: NonZeroU64::new(DRILL_SCRATCH_BYTES),
        db_copy: true,
    };
    Obligations { egress: Egress::None, sandbox: Some(Arc::new(profile)), ..Obligations::default() }
}
