//! Exit codes, and failures that carry theirs.

use std::fmt;
use std::process::ExitCode;

/// What the process says to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, or allowed.
    Ok,
    /// 1: the guest or the machine failed.
    Runtime,
    /// 2: the command line or its input makes no sense.
    Usage,
    /// 3: blocked.
    Block,
    /// 4: throttled.
    Throttled,
    /// 5: escalated and not yet approved.
    Escalated,
    /// 6: a check found something.
    Check,
    /// 8: configuration, policy or keys do not load.
    Configuration,
    /// 9: the log or the store cannot be used.
    Dependency,
    /// 130: ended by an interrupt, as shells have it.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Runtime => 1,
            Exit::Usage => 2,
            Exit::Block => 3,
            Exit::Throttled => 4,
            Exit::Escalated => 5,
            Exit::Check => 6,
            Exit::Configuration => 8,
            Exit::Dependency => 9,
            Exit::Interrupted => 130,
        })
    }
}

/// One sentence for a person, with the next step, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    sentence: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, sentence: impl fmt::Display) -> Self {
        Self { exit, sentence: sentence.to_string() }
    }

    pub(crate) const fn code(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}
