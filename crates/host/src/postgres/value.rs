//! Parameters and columns in the forms the server knows.

use std::error::Error;
use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};

use crate::sql::{MAX_VALUE_BYTES, SqlValue};

type Failure = Box<dyn Error + Sync + Send>;

/// A parameter. All but byte strings are sent as text, which the server reads as the type it wants.
#[derive(Debug)]
pub(super) struct Param(pub(super) SqlValue);

impl ToSql for Param {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        let text = match &self.0 {
            SqlValue::Null => return Ok(IsNull::Yes),
            SqlValue::Blob(bytes) => {
                out.put_slice(bytes);
                return Ok(IsNull::No);
            }
            SqlValue::Integer(n) if *ty == Type::BOOL && (*n == 0 || *n == 1) => (*n == 1).to_string(),
            SqlValue::Integer(n) => n.to_string(),
            SqlValue::Real(f) => f.to_string(),
            SqlValue::Text(text) => text.clone(),
        };
        out.put_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self.0 {
            SqlValue::Blob(_) => Format::Binary,
            SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) | SqlValue::Text(_) => Format::Text,
        }
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        self.to_sql(ty, out)
    }
}

/// A column of a row; nothing when it is larger than a value may be.
pub(super) struct Cell(pub(super) Option<SqlValue>);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        if raw.len() > usize::try_from(MAX_VALUE_BYTES)? {
            return Ok(Self(None));
        }
        decode(ty, raw).map(|value| Self(Some(value)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failure> {
        Ok(Self(Some(SqlValue::Null)))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn decode(ty: &Type, raw: &[u8]) -> Result<SqlValue, Failure> {
    Ok(match *ty {
        Type::BOOL => SqlValue::Integer(i64::from(bool::from_sql(ty, raw)?)),
        Type::INT2 => SqlValue::Integer(i16::from_sql(ty, raw)?.into()),
        Type::INT4 => SqlValue::Integer(i32::from_sql(ty, raw)?.into()),
        Type::INT8 => SqlValue::Integer(i64::from_sql(ty, raw)?),
        Type::OID => SqlValue::Integer(u32::from_sql(ty, raw)?.into()),
        Type::FLOAT4 => SqlValue::Real(f32::from_sql(ty, raw)?.into()),
        Type::FLOAT8 => SqlValue::Real(f64::from_sql(ty, raw)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => text(raw)?,
        // One byte of version before the text.
        Type::JSONB => text(raw.get(1..).unwrap_or_default())?,
        Type::BYTEA => SqlValue::Blob(raw.to_vec()),
        Type::UUID => SqlValue::Text(uuid(raw)),
        Type::NUMERIC => SqlValue::Text(numeric(raw).ok_or("a number has an unknown form")?),
        Type::VOID => SqlValue::Null,
        _ => return Err(format!("a column has the type `{ty}`; select it as text: `x::text`").into()),
    })
}

fn text(raw: &[u8]) -> Result<SqlValue, Failure> {
    Ok(SqlValue::Text(std::str::from_utf8(raw)?.to_owned()))
}

fn uuid(raw: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in raw.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `numeric` in its wire form: how many digits to the base 10,000, the weight of the first, sign, decimals, digits.
fn numeric(raw: &[u8]) -> Option<String> {
    let mut words = raw.chunks_exact(2).map(|w| match w {
        [a, b] => u16::from_be_bytes([*a, *b]),
        _ => 0,
    });
    let (count, weight, sign, scale) = (words.next()?, words.next()?, words.next()?, words.next()?);
    match sign {
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        0 | 0x4000 => {}
        _ => return None,
    }
    let digits: Vec<u16> = words.collect();
    if digits.len() != usize::from(count) || digits.iter().any(|d| *d > 9_999) {
        return None;
    }
    let weight = i32::from(weight.cast_signed());
    let digit =
        |at: i32| usize::try_from(weight.checked_sub(at)?).ok().and_then(|index| digits.get(index)).copied();
    let mut text = String::new();
    if sign == 0x4000 {
        text.push('-');
    }
    let whole = weight.max(0);
    for at in (0..=whole).rev() {
        let d = digit(at).unwrap_or(0);
        let _ = if at == whole { write!(text, "{d}") } else { write!(text, "{d:04}") };
    }
    if scale > 0 {
        let groups = i32::from(scale).saturating_add(3) / 4;
        let decimals: String = (1..=groups).map(|at| format!("{:04}", digit(-at).unwrap_or(0))).collect();
        text.push('.');
        text.extend(decimals.chars().take(usize::from(scale)));
    }
    Some(text)
}
