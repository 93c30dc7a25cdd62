//! `govrun:host/model`: one answer of an offered model. The call is decided with its bound of tokens, then the request to
//! the endpoint like any other request, and the key is put in behind both decisions.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use govrun_verdict::{Builtin, Operation};
use http_body_util::Full;

use super::GuestError;
use super::wit::model;
use crate::grant::Outcome;
use crate::model::{
    MAX_MESSAGES, MAX_QUESTION_BYTES, Message, ModelOffer, Reply, Role, bound, parse, request,
};
use crate::net::{Bounds, NetError};
use crate::runtime::CallState;

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Bounds of a question: models think for a while.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(120),
    idle: Duration::from_secs(60),
    total: Duration::from_secs(180),
    request_bytes: 8 << 20,
    response_bytes: 4 << 20,
    header_bytes: 64 << 10,
};

/// How a question ended without an answer, and what of its bound counts as used.
struct Unanswered {
    error: GuestError,
    kind: &'static str,
    used: u64,
}

impl model::Host for CallState {
    async fn chat(
        &mut self,
        name: String,
        messages: Vec<model::Message>,
        max_tokens: u32,
    ) -> Result<model::Reply, GuestError> {
        let name: String = name.chars().take(MAX_NAME_BYTES).collect();
        let messages: Vec<Message> = messages.into_iter().map(from_guest).collect();
        let tokens = bound(&messages, max_tokens);
        let scope = Arc::clone(self.scope());
        let operation = Operation::Model { model: name.clone(), tokens };
        let Some(offer) = self.models.offer(&name).cloned() else {
            return Err(scope.refuse(operation, Builtin::ModelUnknown).into());
        };
        let bytes = messages.iter().fold(0_usize, |sum, m| sum.saturating_add(m.content.len()));
        let fits = messages.len() <= MAX_MESSAGES && bytes <= MAX_QUESTION_BYTES && max_tokens > 0;
        if !fits || !self.models.reserve(&name, tokens) {
            return Err(scope.refuse(operation, Builtin::ModelTokens).into());
        }
        let grant = match scope.admit(operation).await {
            Ok(grant) => grant,
            Err(refusal) => {
                self.models.settle(&name, tokens, 0);
                return Err(refusal.into());
            }
        };
        match self.ask(&offer, &messages, max_tokens, tokens).await {
            Ok(reply) => {
                // An endpoint that does not say what it used has used the bound.
                let said = reply.usage.map(|u| u.input.saturating_add(u.output));
                self.models.settle(&name, tokens, said.unwrap_or(tokens));
                let note = said.is_none().then_some("the endpoint does not say how many tokens were used");
                let (sent, received) = (length(bytes), length(reply.content.len()));
                let rows = said.unwrap_or(tokens);
                grant.finish(&Outcome { bytes_out: sent, bytes_in: received, rows, note, ..Outcome::ok() });
                Ok(to_guest(reply))
            }
            Err(unanswered) => {
                self.models.settle(&name, tokens, unanswered.used);
                grant.finish(&Outcome { rows: unanswered.used, ..Outcome::failed(unanswered.kind) });
                Err(unanswered.error)
            }
        }
    }

    async fn tokens_left(&mut self, name: String) -> wasmtime::Result<u64> {
        Ok(self.models.left(&name))
    }
}

impl CallState {
    async fn ask(
        &mut self,
        offer: &ModelOffer,
        messages: &[Message],
        max_tokens: u32,
        tokens: u64,
    ) -> Result<Reply, Unanswered> {
        let unasked = |error| Unanswered { error, kind: "not-asked", used: 0 };
        let body = request(&offer.model, messages, max_tokens).map_err(|e| unasked(GuestError::failed(e)))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client = self.wasi.net.client().clone();
        if let Some(key) = &offer.key {
            // The answer must not hold it in any form.
            match key.put(&mut headers) {
                Some(secret) => client.watch(secret),
                None => return Err(unasked(GuestError::failed("the endpoint's key is not there"))),
            }
        }
        let started = client.start(&offer.target, headers, Full::new(Bytes::from(body)), &BOUNDS).await;
        let started = started.map_err(|error| unasked(error.into()))?;
        // A request that was sent may have been answered at the endpoint, and paid for.
        let broken =
            |error: NetError| Unanswered { error: error.into(), kind: "exchange-failed", used: tokens };
        let (status, _, body) = started.head().await.map_err(broken)?.collect().await.map_err(broken)?;
        let failed = |why: &str, used| Unanswered { error: GuestError::failed(why), kind: "no-answer", used };
        if status != 200 {
            return Err(failed(&format!("the endpoint answered with status {status}"), 0));
        }
        parse(&body).map_err(|why| failed(why, tokens))
    }
}

fn from_guest(message: model::Message) -> Message {
    let role = match message.role {
        model::Role::System => Role::System,
        model::Role::User => Role::User,
        model::Role::Assistant => Role::Assistant,
    };
    Message { role, content: message.content }
}

fn to_guest(reply: Reply) -> model::Reply {
    let (input_tokens, output_tokens) = reply.usage.map_or((0, 0), |u| (u.input, u.output));
    model::Reply {
        content: reply.content,
        finish: reply.finish,
        usage: model::Usage { input_tokens, output_tokens },
    }
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
