//! Options as types: one declaration gives the struct, its defaults, its documentation in `logitcask list losses`,
//! and the reading of a recipe's entry.
//!
//! `spec!` exists so that a default, a range and a meaning are each written once.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{LossError, OptionRow, Options};

/// The options of a method, all with defaults. Deserialises from the keys of a `[[loss]]` entry and refuses others.
pub trait Spec: Clone + Default + Serialize + DeserializeOwned {
    /// The method's name in a recipe, which errors carry.
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
                    $crate::OptionRow::of(prefix, stringify!($field), &default.$field, concat!($($meaning),+)),
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
