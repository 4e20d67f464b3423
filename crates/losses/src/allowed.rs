//! What an option may be: a test of its value, and the words for an error where it fails.

use serde::Serialize;

use crate::LossError;

/// What an option may be: in words for the error, and as a test.
pub(crate) struct Allowed<T> {
    /// Empty where the type says it all, as an enum does.
    pub(crate) expected: &'static str,
    accept: fn(&T) -> bool,
}

impl<T: Serialize> Allowed<T> {
    pub(crate) fn accepts(&self, value: &T) -> bool {
        (self.accept)(value)
    }

    pub(crate) fn check(&self, loss: &str, key: String, value: &T) -> Result<(), LossError> {
        if self.accepts(value) {
            return Ok(());
        }
        Err(LossError::BadOption {
            loss: loss.to_owned(),
            key,
            expected: self.expected.to_owned(),
            found: serde_json::to_value(value).unwrap_or_default().to_string(),
        })
    }
}

pub(crate) const fn allowed<T>(expected: &'static str, accept: fn(&T) -> bool) -> Allowed<T> {
    Allowed { expected, accept }
}

/// A finite number above 0.
pub(crate) const ABOVE_0: Allowed<f64> = allowed("a number above 0", |x| x.is_finite() && *x > 0.0);
/// The same, or left out.
pub(crate) const ABOVE_0_IF_ANY: Allowed<Option<f64>> = allowed("a number above 0", |x| {
    x.is_none_or(|x| x.is_finite() && x > 0.0)
});
/// A finite number, 0 or more.
pub(crate) const FROM_0: Allowed<f64> =
    allowed("a number, 0 or more", |x| x.is_finite() && *x >= 0.0);
pub(crate) const FLAG: Allowed<bool> = allowed("true or false", |_| true);
pub(crate) const FLAG_IF_ANY: Allowed<Option<bool>> = allowed("true or false", |_| true);
pub(crate) const COUNT: Allowed<usize> = allowed("a whole number, 0 or more", |_| true);

/// One of the words of an enum.
pub(crate) const fn word<T>() -> Allowed<T> {
    allowed("", |_| true)
}
