//! Reading the options of one `[[loss]]` entry, and refusing what nobody has asked for.

use logitcask_suggest::nearest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::LossError;
use crate::allowed::Allowed;

/// The options of one entry. Every read names a key, and reading ends with a refusal of keys
/// that were never named. `part.key` reads `key` in the table `part`.
pub struct Options {
    loss: String,
    given: Map<String, Value>,
    known: Vec<String>,
}

impl Options {
    /// The options of the loss called `loss`.
    pub fn new(loss: &str, given: Map<String, Value>) -> Self {
        Self {
            loss: loss.to_owned(),
            given,
            known: Vec::new(),
        }
    }

    /// The field of a [`Spec`](crate::Spec).
    pub(crate) fn field<T: Serialize + DeserializeOwned>(
        &mut self,
        key: &str,
        default: T,
        allowed: &Allowed<T>,
    ) -> Result<T, LossError> {
        let Some(value) = self.given_at(key) else {
            return Ok(default);
        };
        match serde_json::from_value(value.clone()) {
            Ok(read) if allowed.accepts(&read) => Ok(read),
            // An enum's own words: "unknown variant `x`, expected one of `a`, `b`".
            Err(error) if allowed.expected.is_empty() => {
                let error = error.to_string();
                let expected = error.split("expected ").last().unwrap_or("another word");
                Err(self.bad(key, expected, value))
            }
            _ => Err(self.bad(key, allowed.expected, value)),
        }
    }

    /// A finite number within limits that `expected` puts in words.
    ///
    /// # Errors
    /// [`LossError::BadOption`] for anything else.
    pub fn optional_number(
        &mut self,
        key: &str,
        expected: &str,
        accept: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, LossError> {
        self.take(key, expected, |value| {
            value.as_f64().filter(|x| x.is_finite() && accept(*x))
        })
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`LossError::BadOption`] for anything else.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool, LossError> {
        Ok(self
            .take(key, "true or false", Value::as_bool)?
            .unwrap_or(default))
    }

    /// One of several words.
    ///
    /// # Errors
    /// [`LossError::BadOption`] for anything else.
    pub fn choice<T: Copy>(
        &mut self,
        key: &str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>, LossError> {
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("`{word}`"))
            .collect();
        let find = |value: &Value| {
            let given = value.as_str()?;
            choices
                .iter()
                .find(|(word, _)| *word == given)
                .map(|(_, choice)| *choice)
        };
        self.take(key, &format!("one of {}", words.join(", ")), find)
    }

    /// Whether the entry has this key beside its name.
    pub(crate) fn gives(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Refuses keys that nobody has read.
    pub(crate) fn finish(&self) -> Result<(), LossError> {
        for (key, value) in &self.given {
            let is_table = self
                .known
                .iter()
                .any(|known| known.starts_with(&format!("{key}.")));
            match value {
                Value::Object(table) if is_table => {
                    if let Some(inner) = table.keys().next() {
                        return Err(self.unknown(format!("{key}.{inner}")));
                    }
                }
                _ if is_table => return Err(self.bad(key, "a table", value)),
                _ => return Err(self.unknown(key.clone())),
            }
        }
        Ok(())
    }

    /// An error about `key`.
    pub(crate) fn bad(&self, key: &str, expected: &str, found: impl ToString) -> LossError {
        LossError::BadOption {
            loss: self.loss.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, LossError> {
        let value = self.given_at(key);
        match value {
            None => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.bad(key, expected, value)),
            },
        }
    }

    /// Takes what is given under `key`, and remembers that the key exists.
    fn given_at(&mut self, key: &str) -> Option<Value> {
        if !self.known.iter().any(|known| known == key) {
            self.known.push(key.to_owned());
        }
        match key.split_once('.') {
            None => self.given.remove(key),
            Some((table, inner)) => self
                .given
                .get_mut(table)
                .and_then(Value::as_object_mut)
                .and_then(|table| table.remove(inner)),
        }
    }

    fn unknown(&self, key: String) -> LossError {
        let known = self.known.iter().map(String::as_str);
        let nearest = nearest(&key, known).map(str::to_owned);
        LossError::UnknownOption {
            loss: self.loss.clone(),
            nearest,
            key,
            known: self.known.clone(),
        }
    }
}
