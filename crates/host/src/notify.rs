//! Telling people: a page for a refusal, sent after the record is written and beside the call's path.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use govrun_verdict::{Call, Decision, DecisionId, HttpTarget};
use serde_json::json;

use crate::effect::http::{self, HttpLimits};

/// Most pages that wait to be sent; beyond that a page is dropped and said to be.
const MAX_WAITING: usize = 256;
/// Tries of one page, and the wait before each but the first.
const TRIES: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(250);
/// The same rule, agent and tool pages once in this time; what comes in between is counted in the next page.
const QUIET: Duration = Duration::from_secs(10);
/// Most combinations that are remembered for that.
const MAX_REMEMBERED: usize = 1_024;
const LIMITS: HttpLimits =
    HttpLimits { connect_ms: 2_000, total_ms: 5_000, response_bytes: 64 << 10, header_bytes: 16 << 10 };

/// Where the targets of a policy lead.
pub type Webhooks = BTreeMap<Arc<str>, HttpTarget>;

/// A webhook that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("notify target `{name}`: {what}")]
pub struct WebhookError {
    /// The target.
    pub name: String,
    /// Why, and what to do.
    pub what: String,
}

/// Parse the URL of a target.
///
/// # Errors
/// When it is not an absolute `http` URL.
pub fn webhook(name: &str, url: &str) -> Result<HttpTarget, WebhookError> {
    let wrong = |what: String| WebhookError { name: name.to_owned(), what };
    let target = http::parse_target("POST", url).map_err(|e| wrong(e.to_string()))?;
    match target.scheme {
        govrun_verdict::Scheme::Http => Ok(target),
        govrun_verdict::Scheme::Https => {
            Err(wrong("webhooks over TLS are not supported; use an http receiver on this machine".into()))
        }
    }
}

/// Sends pages from a thread of its own. Dropping it sends what waits first.
pub(crate) struct Pager {
    webhooks: Webhooks,
    queue: Option<SyncSender<Page>>,
    thread: Option<JoinHandle<()>>,
}

struct Page {
    target: Arc<str>,
    to: HttpTarget,
    key: (Arc<str>, String),
    event: serde_json::Value,
}

impl Pager {
    pub(crate) fn start(webhooks: Webhooks) -> std::io::Result<Self> {
        if webhooks.is_empty() {
            return Ok(Self { webhooks, queue: None, thread: None });
        }
        let (queue, pages) = sync_channel(MAX_WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("govrun-pager".into()).spawn(move || {
            runtime.block_on(async { send_all(&pages).await });
        })?;
        Ok(Self { webhooks, queue: Some(queue), thread: Some(thread) })
    }

    /// Tell everybody whom the decision names. Never waits and never fails the call.
    pub(crate) fn tell(&self, call: &Call, decision: &Decision, id: DecisionId) {
        for name in &decision.notify {
            let (Some(to), Some(queue)) = (self.webhooks.get(name), &self.queue) else {
                tracing::warn!(target = %name, decision = %id, "nobody was told: the target has no webhook");
                continue;
            };
            let rule = decision.rule.as_ref().map_or("default", |r| r.as_str());
            let page = Page {
                target: Arc::clone(name),
                to: to.clone(),
                key: (Arc::clone(name), format!("{rule} {} {}", call.agent.name, call.tool.name)),
                event: event(call, decision, id),
            };
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(page) {
                tracing::error!(target = %name, decision = %id, "a page was dropped: too many are waiting");
            }
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the pager ended badly");
        }
    }
}

/// A CloudEvents 1.0 body (JSON event format).
fn event(call: &Call, decision: &Decision, id: DecisionId) -> serde_json::Value {
    json!({
        "specversion": "1.0",
        "id": id.to_string(),
        "source": "govrun",
        "type": "dev.govrun.decision.v1",
        "datacontenttype": "application/json",
        "data": {
            "decision": id.to_string(),
            "verdict": decision.verdict.name(),
            "reason": decision.reason.as_str(),
            "message": decision.message,
            "severity": decision.severity,
            "rule": decision.rule.as_ref().map(|r| r.as_str()),
            "agent": &*call.agent.name,
            "tool": &*call.tool.name,
            "action": call.action().name(),
        },
    })
}

async fn send_all(pages: &Receiver<Page>) {
    let mut told: BTreeMap<(Arc<str>, String), (Instant, u64)> = BTreeMap::new();
    while let Ok(mut page) = pages.recv() {
        let quiet = told.get(&page.key).is_some_and(|(at, _)| at.elapsed() < QUIET);
        if quiet {
            if let Some((_, held_back)) = told.get_mut(&page.key) {
                *held_back = held_back.saturating_add(1);
            }
            continue;
        }
        let held_back = told.remove(&page.key).map_or(0, |(_, n)| n);
        if let Some(data) = page.event.get_mut("data").and_then(serde_json::Value::as_object_mut) {
            data.insert("held_back".into(), held_back.into());
        }
        if told.len() >= MAX_REMEMBERED {
            told.clear();
        }
        deliver(&page).await;
        told.insert(page.key, (Instant::now(), 0));
    }
}

async fn deliver(page: &Page) {
    for attempt in 1..=TRIES {
        if attempt > 1 {
            tokio::time::sleep(BACKOFF.saturating_mul(attempt)).await;
        }
        match post(page).await {
            Ok(status) if (200..300).contains(&status) => {
                tracing::info!(target: "govrun::page", to = %page.target, "told");
                return;
            }
            Ok(status) => tracing::warn!(target: "govrun::page", to = %page.target, status, "not taken"),
            Err(error) => tracing::warn!(target: "govrun::page", to = %page.target, %error, "not delivered"),
        }
    }
    tracing::error!(target: "govrun::page", to = %page.target, "a page was given up");
}

async fn post(page: &Page) -> Result<u16, String> {
    let addresses = http::resolve(&page.to.host, page.to.port).await.map_err(|e| e.to_string())?;
    let ip = addresses.first().ok_or("the name has no address")?;
    let headers = [("content-type".to_owned(), "application/cloudevents+json".to_owned())];
    let body = page.event.to_string().into_bytes();
    let address = SocketAddr::new(*ip, page.to.port);
    http::send(&page.to, address, &headers, body, &LIMITS)
        .await
        .map(|response| response.status)
        .map_err(|e| e.to_string())
}
