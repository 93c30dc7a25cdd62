//! The wire form: `POST /chat/completions` of the OpenAI API, without streaming, as its compatible endpoints speak it.

use serde::{Deserialize, Serialize};

/// Longest answer, in bytes of its text.
const MAX_CONTENT_BYTES: usize = 1 << 20;
/// Longest word for why an answer ended.
const MAX_FINISH_BYTES: usize = 64;

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) content: String,
}

/// What a call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// An answer; an endpoint that does not say what it used leaves `usage` empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) content: String,
    pub(crate) finish: String,
    pub(crate) usage: Option<Usage>,
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    messages: &'a [Message],
    max_tokens: u32,
    n: u8,
    stream: bool,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Counted>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Counted {
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// The body of a question.
pub(crate) fn request(model: &str, messages: &[Message], max_tokens: u32) -> Result<Vec<u8>, String> {
    let question = Question { model, messages, max_tokens, n: 1, stream: false };
    serde_json::to_vec(&question).map_err(|e| e.to_string())
}

/// The first answer of a body.
///
/// # Errors
/// One sentence without a word of the body, which is the endpoint's to fill.
pub(crate) fn parse(body: &[u8]) -> Result<Reply, &'static str> {
    let completion: Completion =
        serde_json::from_slice(body).map_err(|_| "the endpoint's answer is not a chat completion")?;
    let usage = completion.usage.map(|u| Usage { input: u.prompt_tokens, output: u.completion_tokens });
    let first = completion.choices.into_iter().next().ok_or("the endpoint's answer has no choice")?;
    let content = first.message.content.unwrap_or_default();
    if content.len() > MAX_CONTENT_BYTES {
        return Err("the endpoint's answer is too long");
    }
    let finish: String = first.finish_reason.unwrap_or_default().chars().take(MAX_FINISH_BYTES).collect();
    Ok(Reply { content, finish, usage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_have_the_form_of_the_api() {
        let message = Message { role: Role::User, content: "say \"hi\"".to_owned() };
        let body = request("m-1", &[message], 5).unwrap();
        let expected = r#"{"model":"m-1","messages":[{"role":"user","content":"say \"hi\""}],"max_tokens":5,"n":1,"stream":false}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        let answer = br#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#;
        let reply = parse(answer).unwrap();
        assert_eq!((reply.content.as_str(), reply.finish.as_str()), ("hi", "stop"));
        assert_eq!(reply.usage, Some(Usage { input: 9, output: 1 }));
        for bad in ["", "{}", "[]", r#"{"choices":[]}"#, r#"{"choices":[{}]}"#, r#"{"error":"no"}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let silent = parse(br#"{"choices":[{"message":{"content":null}}]}"#).unwrap();
        assert_eq!((silent.content.as_str(), silent.usage), ("", None));
    }
}
