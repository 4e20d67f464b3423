//! An option as `logitcask list losses` prints it.

use serde::Serialize;
use serde_json::Value;

/// An option as the registry describes it.
#[derive(Clone, Debug, Serialize)]
pub struct OptionRow {
    /// The key; `part.key` stands in the table of a component.
    pub key: String,
    /// The default, as one would type it; `null` where leaving it out means something of its own.
    pub default: String,
    /// Unit or choices, and where the default comes from.
    pub meaning: String,
}

impl OptionRow {
    /// A field of a spec, with its default.
    pub(crate) fn of<T: Serialize>(prefix: &str, key: &str, default: &T, meaning: &str) -> Self {
        Self {
            key: format!("{prefix}{key}"),
            default: in_words(&serde_json::to_value(default).unwrap_or_default()),
            meaning: meaning.trim().to_owned(),
        }
    }
}

/// A value as one would type it: 4 for 4.0, words without quotes.
fn in_words(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(in_words).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Number(number) => match number.as_f64() {
            Some(x) if x.fract() == 0.0 && x.abs() < 1e15 => x.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
