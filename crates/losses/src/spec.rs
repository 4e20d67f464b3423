//! Options as types: one declaration gives the struct, its defaults, its documentation in `logitcask list losses`,
//! and the reading of a recipe's entry.
//!
//! `spec!` exists so that a default, a range and a meaning are each written once.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{LossError, OptionRow, Options};

/// The options of a method, all with defaults. Deserialises from the keys of a `[[loss]]` entry and refuses others.
pub trait Spec: Clone + Default + Serialize + DeserializeOwned {
    /// The method's name.
    const LOSS: &'static str;

    /// What `logitcask list losses` prints, each key after `prefix`.
    fn rows(prefix: &str) -> Vec<OptionRow>;

    /// Takes the keys of this spec out of an entry; what is not given has its default.
    ///
    /// # Errors
    /// [`LossError::BadOption`] for a value of the wrong type or out of range.
    fn read(options: &mut Options, prefix: &str) -> Result<Self, LossError>;

    /// Whether every option is in its range.
    ///
    /// # Errors
    /// [`LossError::BadOption`] for the first that is not.
    fn check(&self, prefix: &str) -> Result<(), LossError>;
}

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

/// Declares a [`Spec`]: `field: type = default, allowed;` under the words that describe it, then `in part: type;` for
/// the tables of components.
macro_rules! spec {
    (
        $(#[$about:meta])*
        $name:ident of $loss:literal {
            $( $(#[doc = $meaning:literal])+ $field:ident: $type:ty = $default:expr, $allowed:expr; )*
            $( in $(#[doc = $of_part:literal])+ $part:ident: $part_type:ty; )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $( $(#[doc = $meaning])+ pub $field: $type, )*
            $( $(#[doc = $of_part])+ pub $part: $part_type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* $( $part: Default::default(), )* }
            }
        }

        impl $crate::spec::Spec for $name {
            const LOSS: &'static str = $loss;

            #[allow(unused_mut, unused_variables, reason = "a method without options or without tables")]
            fn rows(prefix: &str) -> Vec<$crate::OptionRow> {
                let default = Self::default();
                let mut rows = vec![$(
                    $crate::spec::row(prefix, stringify!($field), &default.$field, concat!($($meaning),+)),
                )*];
                $( rows.extend(<$part_type as $crate::spec::Spec>::rows(concat!(stringify!($part), "."))); )*
                rows
            }

            #[allow(unused_variables, reason = "a method without options")]
            fn read(options: &mut $crate::Options, prefix: &str) -> Result<Self, $crate::LossError> {
                let default = Self::default();
                Ok(Self {
                    $( $field: options.field(&format!("{prefix}{}", stringify!($field)), default.$field, &$allowed)?, )*
                    $( $part: <$part_type as $crate::spec::Spec>::read(options, concat!(stringify!($part), "."))?, )*
                })
            }

            #[allow(unused_variables, reason = "a method without options")]
            fn check(&self, prefix: &str) -> Result<(), $crate::LossError> {
                $( $allowed.check($loss, format!("{prefix}{}", stringify!($field)), &self.$field)?; )*
                $( $crate::spec::Spec::check(&self.$part, concat!(stringify!($part), "."))?; )*
                Ok(())
            }
        }
    };
}
pub(crate) use spec;

/// A field as the registry describes it.
pub(crate) fn row<T: Serialize>(prefix: &str, key: &str, default: &T, meaning: &str) -> OptionRow {
    OptionRow {
        key: format!("{prefix}{key}"),
        default: in_words(&serde_json::to_value(default).unwrap_or_default()),
        meaning: meaning.trim().to_owned(),
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
