//! What is refused before the server sees it.

use govrun_verdict::{Mask, SqlFacts};

use super::PostgresOffer;
use crate::sql::{SqlError, has_word};

/// Functions and aggregates that compute from their arguments alone, or tell the time.
const FUNCTIONS: &str = " abs age any_value array_agg array_append array_cat array_length array_position array_remove \
    array_to_string ascii avg bit_and bit_length bit_or bool_and bool_or btrim cardinality cbrt ceil ceiling char_length \
    character_length chr coalesce concat concat_ws corr count cume_dist current_date current_time current_timestamp date \
    date_part date_trunc degrees dense_rank div every exp extract first_value floor format generate_series \
    generate_subscripts greatest initcap json_agg json_array_elements json_array_elements_text json_array_length \
    json_build_array json_build_object json_each json_each_text json_extract_path json_extract_path_text \
    json_object_agg json_object_keys json_typeof jsonb_agg jsonb_array_elements jsonb_array_elements_text \
    jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path \
    jsonb_extract_path_text jsonb_object_agg jsonb_object_keys jsonb_set jsonb_typeof justify_days justify_hours \
    justify_interval lag last_value lead least left length ln localtime localtimestamp log lower lpad ltrim make_date \
    make_interval make_time make_timestamp make_timestamptz max md5 min mod mode now nth_value ntile nullif \
    octet_length overlay percent_rank percentile_cont percentile_disc pi position power radians random rank regexp_count \
    regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr \
    regr_slope repeat replace reverse right round row_number rpad rtrim sign split_part sqrt starts_with stddev \
    stddev_pop stddev_samp string_agg string_to_array strpos substr substring sum to_char to_date to_hex to_json \
    to_jsonb to_number to_timestamp translate trim trunc unnest upper var_pop var_samp variance width_bucket ";

fn is_harmless(function: &str) -> bool {
    FUNCTIONS.split_ascii_whitespace().any(|known| known == function)
}

/// A statement that may reach the server: understood, one of the four kinds, and calling nothing with an effect.
///
/// # Errors
/// [`SqlError::StatementRefused`] and [`SqlError::Masked`].
pub(crate) fn admit(
    offer: &PostgresOffer,
    facts: Option<&SqlFacts>,
    statement: &str,
    mask: &Mask,
) -> Result<(), SqlError> {
    let refused = |why: String| Err(SqlError::StatementRefused(why));
    let Some(facts) = facts else {
        return refused("it is not one plain statement that is fully understood".to_owned());
    };
    if !matches!(facts.class.as_str(), "select" | "insert" | "update" | "delete") {
        return refused(format!("`{}` is not permitted", facts.class));
    }
    if let Some(function) =
        facts.functions.iter().find(|f| !is_harmless(f) && !offer.functions.iter().any(|known| known == *f))
    {
        return refused(format!("the function `{function}` is not permitted"));
    }
    unmasked(facts, statement, mask)
}

/// The server has no way to hide a column from one statement, so a statement beside a mask names every column it reads,
/// and none that is masked.
fn unmasked(facts: &SqlFacts, statement: &str, mask: &Mask) -> Result<(), SqlError> {
    let masked_here = |entry: &str| {
        entry
            .rsplit_once('.')
            .is_some_and(|(table, _)| table == "*" || facts.tables.iter().any(|t| t == table))
    };
    let in_force: Vec<&str> = mask.columns().filter(|entry| masked_here(entry)).collect();
    if in_force.is_empty() {
        return Ok(());
    }
    if let Some(word) = ["natural", "using"].into_iter().find(|word| has_word(statement, word)) {
        return Err(SqlError::Masked(format!("`{word}` is not permitted beside a mask")));
    }
    let named = |column: &String| {
        column == "*"
            || in_force.iter().any(|entry| entry.rsplit_once('.').is_some_and(|(_, masked)| masked == column))
    };
    match facts.columns.iter().find(|column| named(column)) {
        Some(column) => Err(SqlError::Masked(format!("`{column}`"))),
        None => Ok(()),
    }
}

/// How a sandboxed statement is kept from being real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// On the replica, in a read-only transaction.
    Replica,
    /// On the server itself, rolled back: not isolated.
    RolledBack,
}

/// Where a sandboxed statement may run, or `None`: nowhere.
pub(crate) fn isolate(offer: &PostgresOffer, facts: Option<&SqlFacts>) -> Option<Isolation> {
    let facts = facts?;
    if offer.replica.is_some() && facts.class == "select" {
        return Some(Isolation::Replica);
    }
    let listed = facts.tables.iter().all(|t| offer.rollback.iter().any(|known| known == t));
    // A function that policy permits for real may do what no rollback undoes.
    let pure = facts.functions.iter().all(|f| is_harmless(f));
    (!offer.rollback.is_empty() && listed && pure).then_some(Isolation::RolledBack)
}
