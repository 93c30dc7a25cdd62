//! Models at OpenAI-compatible endpoints: what is offered, and how many tokens a call has left.

mod openai;

use std::collections::BTreeMap;

use govrun_verdict::HttpTarget;

use crate::effect::http::{TargetError, parse_target};
use crate::net::{Secret, SecretError, SecretOffer};

pub(crate) use self::openai::{Message, Reply, Role, parse, request};

/// Most messages of one question.
pub const MAX_MESSAGES: usize = 256;
/// Most bytes of all messages of one question.
pub const MAX_QUESTION_BYTES: usize = 1 << 20;
/// What each message counts for beside its text.
const MESSAGE_TOKENS: u64 = 16;

/// A model that a tool is offered.
#[derive(Debug, Clone)]
pub struct ModelOffer {
    /// Where questions go: a POST.
    pub(crate) target: HttpTarget,
    /// The name the endpoint knows it by.
    pub(crate) model: String,
    /// The key the host sends.
    pub(crate) key: Option<SecretOffer>,
    /// Most tokens of all calls within one tool call.
    pub(crate) max_tokens: u64,
}

impl ModelOffer {
    /// The model `model` of the endpoint at this base URL, such as `https://api.example.com/v1`.
    ///
    /// # Errors
    /// When the URL is not one that a request can go to, or the key not one that a header can hold.
    pub fn new(url: &str, model: &str, key: Option<Secret>, max_tokens: u64) -> Result<Self, OfferError> {
        let target = parse_target("POST", &format!("{url}/chat/completions"))?;
        let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
        let origin = format!("{}://{host}:{}", target.scheme.name(), target.port);
        let put = |key| SecretOffer::new(model, &origin, "authorization", "Bearer {}", Some(key));
        let key = key.map(put).transpose()?;
        Ok(Self { target, model: model.to_owned(), key, max_tokens })
    }
}

/// Why a model cannot be offered as it is registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Its URL.
    #[error("its URL cannot be used: {0}")]
    Url(#[from] TargetError),
    /// Its key.
    #[error("its key cannot be used: {0}")]
    Key(#[from] SecretError),
}

/// Offered models by name.
pub type ModelOffers = BTreeMap<String, ModelOffer>;

/// The models of one tool call, and what it has used of each.
#[derive(Debug)]
pub(crate) struct Models {
    offers: ModelOffers,
    used: BTreeMap<String, u64>,
}

impl Models {
    pub(crate) const fn new(offers: ModelOffers) -> Self {
        Self { offers, used: BTreeMap::new() }
    }

    pub(crate) fn offer(&self, name: &str) -> Option<&ModelOffer> {
        self.offers.get(name)
    }

    /// Tokens that are neither used nor reserved.
    pub(crate) fn left(&self, name: &str) -> u64 {
        let used = self.used.get(name).copied().unwrap_or(0);
        self.offers.get(name).map_or(0, |offer| offer.max_tokens.saturating_sub(used))
    }

    /// Set so many aside; false, and nothing set aside, when there are fewer.
    pub(crate) fn reserve(&mut self, name: &str, tokens: u64) -> bool {
        if tokens > self.left(name) {
            return false;
        }
        let used = self.used.entry(name.to_owned()).or_default();
        *used = used.saturating_add(tokens);
        true
    }

    /// Of what was set aside, so many were really used: more than that, if the endpoint says so.
    pub(crate) fn settle(&mut self, name: &str, reserved: u64, really: u64) {
        if let Some(used) = self.used.get_mut(name) {
            *used = used.saturating_sub(reserved).saturating_add(really);
        }
    }
}

/// The most tokens that question and answer can be: no tokenizer makes more tokens than there are bytes.
pub(crate) fn bound(messages: &[Message], max_tokens: u32) -> u64 {
    messages.iter().fold(u64::from(max_tokens), |sum, message| {
        let bytes = u64::try_from(message.content.len()).unwrap_or(u64::MAX);
        sum.saturating_add(bytes).saturating_add(MESSAGE_TOKENS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_and_used_is_gone_and_the_rest_comes_back() {
        let offer = ModelOffer::new("http://127.0.0.1:9/v1", "m", None, 100).unwrap();
        assert_eq!(offer.target.path, "/v1/chat/completions");
        let mut models = Models::new(BTreeMap::from([("m".to_owned(), offer)]));
        assert!(!models.reserve("m", 101) && !models.reserve("other", 1));
        assert!(models.reserve("m", 60) && !models.reserve("m", 41));
        models.settle("m", 60, 10);
        assert_eq!(models.left("m"), 90);
        assert!(models.reserve("m", 90));
        models.settle("m", 90, 500);
        assert_eq!(models.left("m"), 0, "an endpoint that used more leaves nothing, and no overflow");
        let message = |text: &str| Message { role: Role::User, content: text.to_owned() };
        assert_eq!(bound(&[message("abc"), message("")], 10), 10 + 3 + 32);
        assert_eq!(bound(&[message("abc")], u32::MAX), u64::from(u32::MAX) + 19);
    }
}
