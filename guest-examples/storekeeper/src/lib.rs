//! `storekeeper.steps`: databases, key-value stores, configuration and models, used as a script says. It is the example for
//! the typed interfaces, and what the tests of the host drive.

use govrun::host::db::{Access, Connection, Cursor, Rows, Transaction, Value as Sql};
use govrun::host::kv::Store;
use govrun::host::model::{self, Message, Role};
use govrun::host::types::Error;
use serde_json::{Value, json};
use wasi::config::store as config;
use wasi::keyvalue::{atomics, batch, store as keyvalue};

wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "govrun:storekeeper/storekeeper", generate_all });

struct Storekeeper;

export!(Storekeeper);

impl Guest for Storekeeper {
    fn steps(script: String) -> String {
        let steps: Vec<Vec<Value>> = match serde_json::from_str(&script) {
            Ok(steps) => steps,
            Err(error) => return json!([{ "error": error.to_string() }]).to_string(),
        };
        let mut hands = Hands::default();
        let done: Vec<Value> = steps
            .iter()
            .map(|step| hands.step(step).unwrap_or_else(|error| json!({ "error": error })))
            .collect();
        Value::from(done).to_string()
    }
}

/// What one script holds between its steps.
#[derive(Default)]
struct Hands {
    transaction: Option<Transaction>,
    cursor: Option<Cursor>,
}

type Step = Result<Value, String>;

impl Hands {
    fn step(&mut self, step: &[Value]) -> Step {
        let text = |at: usize| step.get(at).and_then(Value::as_str).unwrap_or_default();
        let number = |at: usize| step.get(at).and_then(Value::as_u64).unwrap_or_default();
        let params: Vec<Sql> =
            step.get(3).and_then(Value::as_array).map(|a| a.iter().map(to_sql).collect()).unwrap_or_default();
        match text(0) {
            "query" => Connection::new(text(1)).query(text(2), &params).map(rows).map_err(told),
            "execute" => Connection::new(text(1)).execute(text(2), &params).map(Value::from).map_err(told),
            "twice" => {
                let statement = Connection::new(text(1)).prepare(text(2));
                statement.query(&params).map_err(told)?;
                statement.query(&params).map(rows).map_err(told)
            }
            "open" => {
                let cursor = Connection::new(text(1)).open(text(2), &params).map_err(told)?;
                let columns = cursor.columns();
                self.cursor = Some(cursor);
                Ok(json!(columns))
            }
            "next" => {
                let cursor = self.cursor.as_ref().ok_or("no cursor")?;
                let read = cursor.next(number(1).try_into().unwrap_or(u32::MAX)).map_err(told)?;
                Ok(read.into_iter().map(row).collect())
            }
            "close" => {
                self.cursor = None;
                Ok(Value::Null)
            }
            "begin" => {
                let access = if text(2) == "rw" { Access::ReadWrite } else { Access::ReadOnly };
                self.transaction = Some(Connection::new(text(1)).begin(access).map_err(told)?);
                Ok(Value::Null)
            }
            "tx-query" => self.open()?.query(text(1), &[]).map(rows).map_err(told),
            "tx-execute" => self.open()?.execute(text(1), &[]).map(Value::from).map_err(told),
            "commit" => self.open()?.commit().map(|()| Value::Null).map_err(told),
            "rollback" => self.open()?.rollback().map(|()| Value::Null).map_err(told),
            "forget" => {
                self.transaction = None;
                Ok(Value::Null)
            }
            "chat" => chat(text(1), text(2), number(3)),
            "tokens-left" => Ok(json!(model::tokens_left(text(1)))),
            _ => keys(step),
        }
    }

    fn open(&self) -> Result<&Transaction, String> {
        self.transaction.as_ref().ok_or_else(|| "no transaction".to_owned())
    }
}

fn keys(step: &[Value]) -> Step {
    let text = |at: usize| step.get(at).and_then(Value::as_str).unwrap_or_default();
    let number = |at: usize| step.get(at).and_then(Value::as_u64);
    let shown = |value: Option<Vec<u8>>| json!(value.map(|v| String::from_utf8_lossy(&v).into_owned()));
    let bytes = || text(3).as_bytes().to_vec();
    match text(0) {
        "kv-get" => Store::new(text(1)).get(text(2)).map(shown).map_err(told),
        "kv-set" => Store::new(text(1)).set(text(2), &bytes()).map(|()| Value::Null).map_err(told),
        "kv-fill" => {
            let value = vec![b'x'; number(3).unwrap_or_default().try_into().unwrap_or(usize::MAX)];
            Store::new(text(1)).set(text(2), &value).map(|()| Value::Null).map_err(told)
        }
        "kv-delete" => Store::new(text(1)).delete(text(2)).map(Value::from).map_err(told),
        "kv-list" => Store::new(text(1)).list(text(2), None).map(|p| json!(p.keys)).map_err(told),
        "wasi-get" => bucket(text(1))?.get(text(2)).map(shown).map_err(said),
        "wasi-exists" => bucket(text(1))?.exists(text(2)).map(Value::from).map_err(said),
        "wasi-set" => bucket(text(1))?.set(text(2), &bytes()).map(|()| Value::Null).map_err(said),
        "wasi-delete" => bucket(text(1))?.delete(text(2)).map(|()| Value::Null).map_err(said),
        "wasi-list" => bucket(text(1))?.list_keys(number(2)).map(|p| json!(p.keys)).map_err(said),
        "wasi-increment" => {
            atomics::increment(&bucket(text(1))?, text(2), number(3).unwrap_or(1)).map(Value::from).map_err(said)
        }
        "wasi-many" => {
            let bucket = bucket(text(1))?;
            let pairs = [("many/1".to_owned(), b"1".to_vec()), ("many/2".to_owned(), b"2".to_vec())];
            batch::set_many(&bucket, &pairs).map_err(said)?;
            let names = ["many/1".to_owned(), "many/none".to_owned()];
            let found = batch::get_many(&bucket, &names).map_err(said)?;
            batch::delete_many(&bucket, &names).map_err(said)?;
            Ok(json!(found.iter().map(Option::is_some).collect::<Vec<_>>()))
        }
        "config" => config::get(text(1)).map(Value::from).map_err(|e| format!("{e:?}")),
        "config-all" => config::get_all().map(|all| json!(all)).map_err(|e| format!("{e:?}")),
        other => Err(format!("no step `{other}`")),
    }
}

fn bucket(label: &str) -> Result<keyvalue::Bucket, String> {
    keyvalue::open(label).map_err(said)
}

fn chat(name: &str, question: &str, max_tokens: u64) -> Step {
    let messages = [Message { role: Role::User, content: question.to_owned() }];
    let reply = model::chat(name, &messages, max_tokens.try_into().unwrap_or(u32::MAX)).map_err(told)?;
    let usage = [reply.usage.input_tokens, reply.usage.output_tokens];
    Ok(json!({ "content": reply.content, "finish": reply.finish, "usage": usage }))
}

fn to_sql(value: &Value) -> Sql {
    match value {
        Value::Null => Sql::Null,
        Value::Bool(b) => Sql::Integer(i64::from(*b)),
        Value::Number(n) => n.as_i64().map_or_else(|| Sql::Real(n.as_f64().unwrap_or_default()), Sql::Integer),
        Value::String(s) => Sql::Text(s.clone()),
        Value::Array(_) | Value::Object(_) => Sql::Text(value.to_string()),
    }
}

fn rows(rows: Rows) -> Value {
    rows.rows.into_iter().map(row).collect()
}

fn row(values: Vec<Sql>) -> Value {
    values
        .into_iter()
        .map(|value| match value {
            Sql::Null => Value::Null,
            Sql::Integer(n) => json!(n),
            Sql::Real(f) => json!(f),
            Sql::Text(s) => json!(s),
            Sql::Blob(b) => json!(b),
        })
        .collect()
}

/// The reason code, or the engine's own words.
fn told(error: Error) -> String {
    match error {
        Error::Denied(refusal) => refusal.reason,
        Error::Throttled(it) => it.refusal.reason,
        Error::Escalated(it) => it.refusal.reason,
        Error::Failed(why) => format!("failed: {why}"),
    }
}

fn said(error: keyvalue::Error) -> String {
    match error {
        keyvalue::Error::NoSuchStore => "no-such-store".to_owned(),
        keyvalue::Error::AccessDenied => "access-denied".to_owned(),
        keyvalue::Error::Other(why) => format!("other: {why}"),
    }
}
