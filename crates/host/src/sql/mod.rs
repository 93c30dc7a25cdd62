//! What a SQL statement names, for policy to judge by. Nothing is enforced here: the engine of the database is what holds
//! a statement to its decision, and a statement that is not fully understood has no facts, so that every rule about
//! them is unknown and closes.

pub(crate) mod cursor;
mod facts;
mod scan;
mod value;

use std::panic::{AssertUnwindSafe, catch_unwind};

use govrun_verdict::SqlFacts;
use sqlparser::dialect::{Dialect as Grammar, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

pub use self::scan::{first_word, has_word};
pub use self::value::{
    MAX_COLUMNS, MAX_PARAMETERS, MAX_STATEMENT_BYTES, MAX_VALUE_BYTES, SqlError, SqlLimit, SqlLimits,
    SqlOutcome, SqlValue,
};
pub(crate) use self::value::{Meter, check_size};

/// Longest statement that is looked at, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most tokens of a statement that can nest: each may be one more level of the tree.
pub const MAX_NESTING_TOKENS: usize = 1_000;

/// Statements with at most this many nesting tokens are walked on the caller's stack; deeper ones on one of their own.
const SHALLOW: usize = 20;
/// Stack of a deep walk, in bytes: enough for [`MAX_NESTING_TOKENS`] levels of an unoptimised build. Pages that are
/// not touched are never committed.
const DEEP_STACK: usize = 256 << 20;
/// Levels that the parser itself descends.
const PARSER_DEPTH: usize = 50;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL, with `search_path` fixed to `public`.
    Postgres,
}

/// What the statement names, or `None` when that is not certain: no single statement of a known kind, names whose
/// meaning depends on how the engine reads them, or a tree too deep to walk.
///
/// Tables are named as written, folded to lower case, without the schema that an unqualified name has (`main`,
/// `public`); a name of the statement's own `WITH` is no table where it refers to that.
#[must_use]
pub fn classify(dialect: Dialect, statement: &str) -> Option<SqlFacts> {
    if statement.len() > MAX_BYTES || !scan::is_plain(statement) {
        return None;
    }
    let nesting = nesting_tokens(dialect, statement)?;
    if nesting <= SHALLOW {
        // A panic of the parser is its bug, and tells nothing about the statement.
        return catch_unwind(AssertUnwindSafe(|| parse(dialect, statement))).ok().flatten();
    }
    if nesting > MAX_NESTING_TOKENS {
        return None;
    }
    std::thread::scope(|scope| {
        let walk = std::thread::Builder::new()
            .name("govrun-sql".to_owned())
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, || parse(dialect, statement))
            .ok()?;
        walk.join().ok().flatten()
    })
}

fn grammar(dialect: Dialect) -> &'static dyn Grammar {
    match dialect {
        Dialect::Sqlite => &SQLiteDialect {},
        Dialect::Postgres => &PostgreSqlDialect {},
    }
}

fn parse(dialect: Dialect, statement: &str) -> Option<SqlFacts> {
    let parser = Parser::new(grammar(dialect)).with_recursion_limit(PARSER_DEPTH).try_with_sql(statement);
    let statements = parser.and_then(|mut parser| parser.parse_statements()).ok()?;
    match statements.as_slice() {
        [one] => facts::of(dialect, one),
        _ => None,
    }
}

/// How many tokens could be levels of the tree: all but names, literals and what separates them.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is not known to be flat counts as a level")]
fn nesting_tokens(dialect: Dialect, statement: &str) -> Option<usize> {
    let tokens = sqlparser::tokenizer::Tokenizer::new(grammar(dialect), statement).tokenize().ok()?;
    let nests = |token: &&Token| match token {
        Token::Word(word) => word.keyword != sqlparser::keywords::Keyword::NoKeyword,
        Token::Whitespace(_)
        | Token::Comma
        | Token::Period
        | Token::RParen
        | Token::Number(..)
        | Token::SingleQuotedString(_) => false,
        _ => true,
    };
    Some(tokens.iter().filter(nests).count())
}

#[cfg(test)]
mod tests;
