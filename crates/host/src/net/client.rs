//! Requests of one call, however the guest asks for them: decided, given their credentials, connected, sent, bounded.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use govrun_verdict::{Builtin, HttpTarget, Operation, Scheme};
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use super::body::{AnswerBody, Counted, millis};
use super::live::{Ending, Live};
use super::secret::{Leaks, Secret, SecretOffer};
use super::{Egress, HTTP_1_1, NetError};
use crate::effect::exchange::{self, Driver, PendingHead};
use crate::effect::http::{HttpError, MAX_HEADER_BYTES, MAX_HEADERS};
use crate::grant::Outcome;
use crate::scope::Scope;

/// Bounds of one exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Longest wait for the head of the answer.
    pub(crate) head: Duration,
    /// Longest wait for the next bytes of the answer.
    pub(crate) idle: Duration,
    /// Longest exchange, from the connection to the last byte.
    pub(crate) total: Duration,
    /// Most bytes of the request's body.
    pub(crate) request_bytes: u64,
    /// Most bytes of the answer's body.
    pub(crate) response_bytes: u64,
    /// Most bytes of the answer's status line and headers.
    pub(crate) header_bytes: u64,
}

/// How one call sends requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    scope: Arc<Scope>,
    egress: Arc<Egress>,
    secrets: Arc<[SecretOffer]>,
    leaks: Leaks,
    live: Arc<Live>,
}

/// A request that was decided and is being sent.
pub(crate) struct Started {
    pub(crate) driver: Driver,
    head: PendingHead,
    ending: Arc<Ending>,
    bounds: Bounds,
    until: Instant,
    client: Client,
    target: HttpTarget,
}

/// The head of an answer, with its body still to come.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
    pub(crate) driver: Driver,
}

impl Client {
    pub(crate) fn new(
        scope: Arc<Scope>,
        egress: Arc<Egress>,
        secrets: Arc<[SecretOffer]>,
        live: Arc<Live>,
    ) -> Self {
        Self { scope, egress, secrets, leaks: Leaks::default(), live }
    }

    pub(crate) const fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    pub(crate) const fn egress(&self) -> &Arc<Egress> {
        &self.egress
    }

    pub(crate) const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Decide the request (`http.request`), put its secrets in (`secret.read`), connect (`net.connect`) and begin to send.
    /// `headers` hold none that the host sets itself, but for `content-length` where the body's length is known by it alone.
    ///
    /// # Errors
    /// A refusal, recorded; or why nothing could be sent.
    pub(crate) async fn start<B>(
        &self,
        target: &HttpTarget,
        headers: HeaderMap,
        body: B,
        bounds: &Bounds,
    ) -> Result<Started, NetError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let operation = Operation::HttpRequest(target.clone());
        if !acceptable(&headers) {
            return Err(self.scope.refuse(operation, Builtin::NetHeadersTooLarge).into());
        }
        let Some(slot) = self.live.reserve() else {
            return Err(self.scope.refuse(operation, Builtin::NetConnections).into());
        };
        let ending = Ending::begin(slot, self.scope.admit(operation).await?);
        let sent = self.send(target, headers, body, bounds, &ending).await;
        sent.map_err(|error| {
            ending.finish(Some(error.kind()));
            self.settle(target, error)
        })
    }

    async fn send<B>(
        &self,
        target: &HttpTarget,
        mut headers: HeaderMap,
        body: B,
        bounds: &Bounds,
        ending: &Arc<Ending>,
    ) -> Result<Started, NetError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.add_secrets(target, &mut headers).await?;
        let (host, port) = (&target.host, target.port);
        let dialed = match target.scheme {
            Scheme::Http => self.egress.dial(&self.scope, host, port).await?,
            Scheme::Https => self.egress.dial_tls(&self.scope, host, port, &[HTTP_1_1]).await?,
        };
        // The wait for a person, before this, is not the server's.
        let until = Instant::now() + bounds.total;
        if !ending.add(dialed.grant) {
            return Err(HttpError::Protocol("the call is over".to_owned()).into());
        }
        let body = Counted { inner: body, ending: Arc::clone(ending), most: bounds.request_bytes };
        let request = exchange::request(target, headers, body)?;
        let (driver, head) = exchange::open(dialed.stream, request, bounds.header_bytes).await?;
        Ok(Started {
            driver,
            head,
            ending: Arc::clone(ending),
            bounds: *bounds,
            until,
            client: self.clone(),
            target: target.clone(),
        })
    }

    /// Put in what the registration says for this origin, each after its own decision.
    async fn add_secrets(&self, target: &HttpTarget, headers: &mut HeaderMap) -> Result<(), NetError> {
        for offer in self.secrets.iter().filter(|offer| offer.is_for(target)) {
            let operation = Operation::Secret { name: offer.name().to_string() };
            let grant = self.scope.admit(operation.clone()).await?;
            let Some(secret) = offer.put(headers) else {
                grant.finish(&Outcome::failed("unavailable"));
                return Err(self.scope.refuse(operation, Builtin::SecretUnavailable).into());
            };
            self.leaks.watch(secret);
            grant.finish(&Outcome { note: Some("put into a header of the request"), ..Outcome::ok() });
        }
        // What is packed cannot be looked through, and an earlier secret may come back as well.
        if self.leaks.scanner().is_some() {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Ok(())
    }

    /// A secret that was put into a request elsewhere: no answer of this call may contain it.
    pub(crate) fn watch(&self, secret: &Secret) {
        self.leaks.watch(secret);
    }

    /// Record a refusal of the host's own.
    pub(crate) fn refuse(&self, operation: Operation, reason: Builtin) -> NetError {
        self.scope.refuse(operation, reason).into()
    }

    /// The same error; when the host ended the exchange by a rule of its own, it is recorded and becomes a refusal.
    pub(crate) fn settle(&self, target: &HttpTarget, error: NetError) -> NetError {
        match error.refusal(&self.scope, Operation::HttpRequest(target.clone())) {
            Ok(refusal) => refusal.into(),
            Err(error) => error.into(),
        }
    }
}

impl Started {
    /// The head of the answer.
    ///
    /// # Errors
    /// A refusal, recorded; or why there is no answer.
    pub(crate) async fn head(mut self) -> Result<Answer, NetError> {
        let end = (Instant::now() + self.bounds.head).min(self.until);
        let late = HttpError::Deadline(millis(self.bounds.head.min(self.bounds.total)));
        let head = timeout_at(end, self.driver.during(&mut self.head)).await.unwrap_or(Err(late));
        let scanner = self.client.leaks.scanner();
        let checked = head.and_then(|response| {
            scanner.as_ref().map_or(Ok(()), |scanner| scanner.head(response.headers()))?;
            let told = response.body().size_hint().lower();
            if told > self.bounds.response_bytes && self.target.method != "HEAD" {
                return Err(HttpError::BodyTooLarge(self.bounds.response_bytes));
            }
            Ok(response)
        });
        let response = checked.map_err(|error| self.fail(error))?;
        let (parts, inner) = response.into_parts();
        let body = AnswerBody {
            inner: Some(inner),
            scanner,
            ending: self.ending,
            bounds: self.bounds,
            until: self.until,
            timer: None,
            client: self.client,
            target: self.target,
        };
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, driver: self.driver })
    }

    /// The guest went over a bound of its own: the exchange ends.
    pub(crate) fn fail(&self, error: HttpError) -> NetError {
        let error = match error {
            HttpError::Protocol(_) if self.ending.is_over_limit() => {
                HttpError::RequestTooLarge(self.bounds.request_bytes)
            }
            other => other,
        };
        self.ending.finish(Some(error.kind()));
        self.client.settle(&self.target, error.into())
    }
}

impl Answer {
    /// The whole body.
    ///
    /// # Errors
    /// As the body's own.
    pub(crate) async fn collect(mut self) -> Result<(u16, HeaderMap, Vec<u8>), NetError> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.driver.during(self.body.next()).await {
            whole.extend_from_slice(&bytes?);
        }
        Ok((self.status, self.headers, whole))
    }
}

/// Bounded in number and bytes, and with one length at most.
fn acceptable(headers: &HeaderMap) -> bool {
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len().saturating_add(v.len() + 4)).sum();
    headers.len() <= MAX_HEADERS
        && bytes <= MAX_HEADER_BYTES
        && headers.get_all(CONTENT_LENGTH).iter().count() <= 1
}
