//! What the tests share: a clock that can be set, calls and decisions of every shape, and a log with every record type.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod faulty;
pub mod simulated;

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use govrun_audit::*;
use govrun_verdict::*;

pub const T0: u64 = 1_764_000_000_000_000;

/// A clock that goes forward by one microsecond per reading, and can be set.
pub struct TestClock(pub AtomicU64);

impl TestClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(T0)))
    }

    pub fn set(&self, time: u64) {
        self.0.store(time, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Result<Timestamp, ClockError> {
        let now = self.0.fetch_add(1, Ordering::SeqCst);
        if now < EARLIEST.0 { Err(ClockError::TooEarly(now)) } else { Ok(Timestamp(now)) }
    }

    fn monotonic_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst) - EARLIEST.0
    }
}

/// A directory with keys, a trust file and a place for logs.
pub struct Site {
    pub root: tempfile::TempDir,
    pub keys: KeyStore,
    pub trust: Trust,
}

impl Site {
    pub fn new() -> Self {
        Self::named("example.org/govrun")
    }

    pub fn named(origin: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let keys = KeyStore::init(&root.path().join("keys"), origin).unwrap();
        let trust = Trust::load(&root.path().join("keys/trust.toml")).unwrap();
        Self { root, keys, trust }
    }

    pub fn logs(&self) -> PathBuf {
        self.root.path().join("audit")
    }

    pub fn open(&self) -> Log {
        Log::open(&self.logs(), &self.keys, TestClock::new()).unwrap()
    }

    pub fn segment(&self, log: LogId) -> PathBuf {
        self.logs().join(log.to_string()).join("00000001.jsonl")
    }

    /// A copy of logs and keys as they are on disk now: what a kill would leave behind.
    pub fn snapshot(&self) -> Self {
        let root = tempfile::tempdir().unwrap();
        copy_dir(&self.root.path().join("keys"), &root.path().join("keys"));
        if self.logs().exists() {
            copy_dir(&self.logs(), &root.path().join("audit"));
        }
        let keys = KeyStore::load(&root.path().join("keys")).unwrap();
        Self { root, keys, trust: self.trust.clone() }
    }

    /// What a thief finds now: the number of the epoch, and the keys of it and of all that come after.
    pub fn steal(&self, log: LogId) -> Thief {
        let path = self.root.path().join("keys/epochs").join(format!("{log}.seed"));
        let text = std::fs::read_to_string(path).unwrap();
        let line = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        let seed = hex::decode(line("seed ")).unwrap().try_into().unwrap();
        Thief { epoch: line("epoch ").parse().unwrap(), seed }
    }
}

pub struct Thief {
    pub epoch: u64,
    seed: [u8; 32],
}

impl Thief {
    pub fn key(&self, epoch: u64) -> ed25519_dalek::SigningKey {
        let steps = epoch.checked_sub(self.epoch).expect("a key that is not on the machine any more");
        let seed = (0..steps)
            .fold(self.seed, |seed, _| blake3::derive_key("govrun audit ratchet v1 next seed", &seed));
        ed25519_dalek::SigningKey::from_bytes(&blake3::derive_key(
            "govrun audit ratchet v1 signing key",
            &seed,
        ))
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn disclosure(clear: &[&str], openings: bool) -> Arc<Disclosure> {
    let clear: BTreeSet<Arc<str>> = clear.iter().map(|s| Arc::from(*s)).collect();
    Arc::new(Disclosure { clear, openings })
}

pub fn tool() -> Arc<ToolRef> {
    Arc::new(ToolRef { name: "payments.send".into(), component: Digest::of(b"component") })
}

pub fn call(operation: Operation) -> Call {
    Call {
        agent: Arc::new(Agent { name: "finance-1".into(), tenant: Some("acme".into()) }),
        env: "prod".into(),
        session: "s-1".into(),
        tool: tool(),
        caller: None,
        parent: None,
        operation,
    }
}

pub fn payment(amount: &str) -> Operation {
    Operation::ToolCall {
        args: Value::Record(vec![
            ("amount".into(), Value::number(amount)),
            ("to".into(), Value::Text("DE02 \"Müller\"\n".into())),
        ]),
    }
}

pub fn allow(durability: Durability) -> Decision {
    Decision {
        verdict: Verdict::Allow,
        mode: Mode::Enforce,
        reason: ReasonCode::new("PAY-OK").unwrap(),
        message: "never recorded".into(),
        rule: Some(RuleId::new("pay").unwrap()),
        matched: vec![Matched { rule: RuleId::new("pay").unwrap(), unknown: false }],
        shadow: None,
        cohort: None,
        obligations: Obligations::default(),
        budgets: Vec::new(),
        escalate: None,
        notify: Vec::new(),
        severity: Severity::Info,
        durability,
        disclosure: disclosure(&["args.amount"], true),
        epoch: Digest::of(b"policy"),
    }
}

/// A decision with every optional part there.
pub fn full(durability: Durability) -> Decision {
    let n = |n| NonZeroU64::new(n).unwrap();
    let preopen = Preopen { host: "/srv/r".into(), guest: "/data".into(), mode: FsMode::ReadOnly };
    Decision {
        verdict: Verdict::Escalate,
        mode: Mode::Canary,
        shadow: Some(Shadow {
            verdict: Verdict::Block,
            rule: Some(RuleId::new("shadow-1").unwrap()),
            reason: ReasonCode::new("SHADOW").unwrap(),
        }),
        cohort: None,
        obligations: Obligations {
            fuel: Some(n(2_000_000_000)),
            memory_bytes: Some(n(1 << 26)),
            deadline_ms: Some(n(5_000)),
            egress: Egress::None,
            db: DbLimits {
                rows: Some(n(10)),
                bytes: Some(n(11)),
                time_ms: Some(n(12)),
                vm_steps: Some(n(13)),
            },
            mask: Mask::new(["users.email"]),
            sandbox: Some(Arc::new(Profile {
                name: "reporting-ro".into(),
                preopens: Some(vec![preopen]),
                scratch_bytes: Some(n(1 << 25)),
                db_copy: true,
            })),
        },
        escalate: Some(EscalateTo {
            roles: vec!["treasury".into()],
            need: n(1),
            timeout_ms: n(900_000),
            on_timeout: OnTimeout::Block,
            show: vec!["args.amount".into()],
        }),
        notify: vec!["oncall".into()],
        severity: Severity::Critical,
        ..allow(durability)
    }
}

pub fn inputs() -> Inputs<'static> {
    Inputs { now: Timestamp(T0), budgets: &[], bounds: None, cohort: None, facts: None }
}

pub fn record(log: &Log, call: &Call, decision: &Decision) -> Result<DecisionId, AppendError> {
    let inputs = inputs();
    let entry = DecisionEntry { call, decision, inputs: &inputs, decide_ns: 140, trace: None };
    log.decision(&entry).map(|receipt| receipt.id())
}

pub fn record_n(log: &Log, n: usize, durability: Durability) -> Vec<DecisionId> {
    let decision = allow(durability);
    (0..n).map(|i| record(log, &call(payment(&i.to_string())), &decision).unwrap()).collect()
}

pub fn outcome(decision: DecisionId) -> OutcomeEntry {
    OutcomeEntry {
        decision,
        status: OutcomeStatus::Ok,
        bytes_in: 1,
        bytes_out: 2,
        rows: 3,
        fuel: 4,
        duration_us: 5,
        absorbed: Vec::new(),
        disclosure: disclosure(&[], false),
        note: None,
    }
}

/// Whether a log holds every field, or only every record type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Full,
    Compact,
}

/// Append every record type that a running log has, in class `os` where the type allows it.
pub fn record_everything(
    site: &Site,
    log: &Log,
    clock: &TestClock,
    approver: &ApproverKey,
    size: Size,
) -> DecisionId {
    log.archive_policy(Digest::of(b"policy"), b"policy").unwrap();
    let previous = Some(Digest::of(b"before"));
    log.policy_load(&PolicyLoadEntry { epoch: Digest::of(b"policy"), previous, env: "prod" }).unwrap();
    let mut call = call(payment("1.50"));
    let asked = if size == Size::Full { full(Durability::Sealed) } else { allow(Durability::Os) };
    let level = BudgetLevel { name: "b".into(), key: "k".into(), used: 1, limit: 2, order: Some(2) };
    let levels = [level.clone(), BudgetLevel { order: None, ..level }];
    let bounds = asked.obligations.clone();
    let past = |label: &str| govrun_verdict::Past {
        labels: vec![label.into()],
        answers: [("count:0123456789abcdef".into(), 3.into())].into(),
    };
    let facts = govrun_verdict::Facts { enforced: past("web"), shadow: Some(past("mail")) };
    let inputs = Inputs {
        now: Timestamp(T0),
        budgets: &levels,
        bounds: Some(&bounds),
        cohort: Some("c-7"),
        facts: Some(&facts),
    };
    let trace = Some(TraceIds { trace: [7; 16], span: [9; 8] });
    let first = DecisionEntry { call: &call, decision: &asked, inputs: &inputs, decide_ns: 99, trace };
    let escalated = log.decision(&first).unwrap().id();
    let binding = [5; 32];
    let roles = [Arc::from("treasury")];
    let ticket = "ap-1";
    let expires = Timestamp(T0 + 900_000_000);
    log.escalation(&EscalationEntry {
        decision: escalated,
        ticket,
        roles: &roles,
        need: 1,
        expires,
        binding,
    })
    .unwrap();
    let signed = approver.sign(ApprovalStatement {
        origin: site.trust.origin.clone(),
        ticket: ticket.into(),
        decision: escalated,
        answer: Answer::Approve,
        binding,
        at: Timestamp(T0 + 5),
    });
    let approved = ApprovalEntry {
        decision: escalated,
        ticket,
        event: ApprovalEvent::Approved,
        binding,
        signed: Some(&signed),
        used_by: None,
    };
    log.approval(&approved).unwrap();
    let mut absorbed = vec![Absorbed { kind: AbsorbedKind::FileWritten, subject: "/data/x".into(), size: 3 }];
    if size == Size::Full {
        let refused = Absorbed { kind: AbsorbedKind::EgressRefused, subject: "evil.example".into(), size: 0 };
        absorbed.resize(MAX_ABSORBED + 2, refused);
    }
    call.caller = Some(tool());
    call.parent = Some(escalated);
    let used =
        if size == Size::Full { record(log, &call, &allow(Durability::Os)).unwrap() } else { escalated };
    log.approval(&ApprovalEntry {
        event: ApprovalEvent::Consumed,
        signed: None,
        used_by: Some(used),
        ..approved
    })
    .unwrap();
    log.outcome(&OutcomeEntry {
        status: OutcomeStatus::Failed("db-busy".into()),
        absorbed,
        disclosure: disclosure(&["path"], true),
        note: Some("a note"),
        ..outcome(used)
    })
    .unwrap();
    about_itself(site, log, size);
    let kinds = if size == Size::Full { operations() } else { Vec::new() };
    for operation in kinds {
        let mut call = call.clone();
        call.operation = operation;
        record(log, &call, &allow(Durability::Os)).unwrap();
    }
    clock.set(T0 - 1_000_000);
    log.outcome(&outcome(escalated)).unwrap();
    used
}

/// The records in which a log speaks about itself.
fn about_itself(site: &Site, log: &Log, size: Size) {
    log.mode_change(&ModeChangeEntry { scope: "rule pay", from: "shadow", to: "enforce", by: "ops" })
        .unwrap();
    log.drill(&DrillEntry { name: "d1", event: DrillEvent::Begun, by: "ops" }).unwrap();
    let gap = GapEntry { from: Timestamp(T0), to: Timestamp(T0 + 9), calls: 3, why: "audit_unavailable" };
    log.gap(&gap).unwrap();
    // A log beside this one, as long as the sign of life is made.
    let beside = site.open();
    log.heartbeat().unwrap();
    let gone = site.logs().join(beside.id().to_string());
    beside.close().unwrap();
    std::fs::remove_dir_all(gone).unwrap();
    // So many epochs that the tree of their keys runs out.
    let rotations = if size == Size::Full { 32 } else { 0 };
    (0..rotations).for_each(|_| log.rotate().unwrap());
}

/// One operation of every kind.
pub fn operations() -> Vec<Operation> {
    vec![
        Operation::Fs { op: FsOp::Read, path: "/data/in".into() },
        Operation::HttpRequest(HttpTarget {
            method: "POST".into(),
            scheme: Scheme::Https,
            host: "api.example".into(),
            port: 443,
            path: "/v1".into(),
            query: Some("q=1".into()),
        }),
        Operation::NetConnect { host: "api.example".into(), ip: "192.0.2.1".parse().unwrap(), port: 443 },
        Operation::Db { op: DbOp::Query, db: "orders".into(), statement: "select 1".into(), facts: None },
        Operation::Db {
            op: DbOp::Execute,
            db: "orders".into(),
            statement: "delete from orders".into(),
            facts: Some(Arc::new(SqlFacts {
                class: "delete".into(),
                tables: vec!["orders".into()],
                ..SqlFacts::default()
            })),
        },
        Operation::NetDns { host: "api.example".into() },
        Operation::NetSocket {
            transport: Transport::Udp,
            host: None,
            ip: "192.0.2.1".parse().unwrap(),
            port: 53,
        },
        Operation::Kv { op: KvOp::Set, store: "cache".into(), key: "k".into() },
        Operation::Model { model: "m".into(), tokens: 100 },
        Operation::Secret { name: "api-key".into() },
        Operation::EnvRead { name: "HOME".into() },
        Operation::ArgsRead,
        Operation::Stdio(Stream::Stdout),
        Operation::Clock,
        Operation::Random,
        Operation::ToolCall { args: Value::Null },
    ]
}

pub fn lines(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

/// A closed log that holds every record type of the format, and the directory it is in.
pub fn log_of_everything(size: Size) -> (Site, LogId) {
    let mut site = Site::new();
    let approver = ApproverKey::generate(site.root.path(), "alice").unwrap();
    site.trust.approvers.push(Approver {
        name: "alice".into(),
        key: approver.verifier().clone(),
        roles: vec!["treasury".into()],
    });
    // io_error: the disk stops syncing while the log is open.
    let plan = Arc::new(faulty::Plan::default());
    let disk = Arc::new(faulty::FaultyDisk(Arc::clone(&plan)));
    let clock = TestClock::new();
    let log = Log::open_on(&site.logs(), &site.keys, clock.clone(), disk, Limits::default()).unwrap();
    let id = log.id();
    *plan.fail_sync.lock().unwrap() = Some(0);
    let env = Operation::EnvRead { name: "X".into() };
    record(&log, &call(env), &allow(Durability::Disk)).unwrap_err();
    drop(log);
    // recover: the log was never closed, and a torn line stands at its end.
    let mut bytes = std::fs::read(site.segment(id)).unwrap();
    bytes.extend_from_slice(b"{\"v\":1,\"t\":\"deci");
    std::fs::write(site.segment(id), bytes).unwrap();
    let log = Log::open(&site.logs(), &site.keys, clock.clone()).unwrap();
    assert_eq!(log.id(), id);
    record_everything(&site, &log, &clock, &approver, size);
    log.close().unwrap();
    (site, id)
}

pub fn check(site: &Site, level: verify::Level) -> verify::Report {
    verify::verify(&site.logs(), &site.trust, level)
}

/// Put other bytes into the segment and verify at L2.
pub fn check_bytes(site: &Site, log: LogId, bytes: &[u8]) -> verify::Report {
    std::fs::write(site.segment(log), bytes).unwrap();
    check(site, verify::Level::L2)
}
