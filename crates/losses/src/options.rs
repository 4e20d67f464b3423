//! Reading the options of one `[[loss]]` entry, and refusing what nobody has asked for.

use serde_json::{Map, Value};

use crate::LossError;

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

    /// A finite number above 0.
    pub(crate) fn positive(&mut self, key: &str, default: f64) -> Result<f64, LossError> {
        self.number(key, default, "a number above 0", |x| x > 0.0)
    }

    /// A finite number, 0 or more.
    pub(crate) fn not_negative(&mut self, key: &str, default: f64) -> Result<f64, LossError> {
        self.number(key, default, "a number, 0 or more", |x| x >= 0.0)
    }

    /// A finite number within limits that `expected` puts in words.
    pub(crate) fn number(
        &mut self,
        key: &str,
        default: f64,
        expected: &str,
        accept: impl Fn(f64) -> bool,
    ) -> Result<f64, LossError> {
        Ok(self
            .optional_number(key, expected, accept)?
            .unwrap_or(default))
    }

    /// Like [`number`](Self::number), None where the key is not given.
    pub(crate) fn optional_number(
        &mut self,
        key: &str,
        expected: &str,
        accept: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, LossError> {
        self.take(key, expected, |value| {
            value.as_f64().filter(|x| x.is_finite() && accept(*x))
        })
    }

    /// A whole number, 0 or more.
    pub(crate) fn count(&mut self, key: &str, default: usize) -> Result<usize, LossError> {
        let read = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        Ok(self
            .take(key, "a whole number, 0 or more", read)?
            .unwrap_or(default))
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool, LossError> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    /// Like [`flag`](Self::flag), None where the key is not given.
    pub(crate) fn optional_flag(&mut self, key: &str) -> Result<Option<bool>, LossError> {
        self.take(key, "true or false", Value::as_bool)
    }

    /// A list of finite numbers above 0.
    pub(crate) fn positive_list(
        &mut self,
        key: &str,
        default: &[f64],
    ) -> Result<Vec<f64>, LossError> {
        let read = |value: &Value| {
            let numbers: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
            numbers.filter(|numbers| numbers.iter().all(|x| x.is_finite() && *x > 0.0))
        };
        Ok(self
            .take(key, "a list of numbers above 0", read)?
            .unwrap_or_else(|| default.to_vec()))
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(
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

    /// The keys that have been read, given or not.
    #[cfg(test)]
    pub(crate) fn known(&self) -> &[String] {
        &self.known
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
        if !self.known.iter().any(|known| known == key) {
            self.known.push(key.to_owned());
        }
        let value = match key.split_once('.') {
            None => self.given.remove(key),
            Some((table, inner)) => self
                .given
                .get_mut(table)
                .and_then(Value::as_object_mut)
                .and_then(|table| table.remove(inner)),
        };
        match value {
            None => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.bad(key, expected, value)),
            },
        }
    }

    fn unknown(&self, key: String) -> LossError {
        let nearest = nearest(&key, self.known.iter().map(String::as_str)).map(str::to_owned);
        LossError::UnknownOption {
            loss: self.loss.clone(),
            nearest,
            key,
            known: self.known.clone(),
        }
    }
}

/// The name most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
