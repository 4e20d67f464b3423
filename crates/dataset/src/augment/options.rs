//! How an augmentation is made from what a recipe says of it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::drawing::Augment;

/// What building an augmentation comes to. The options that the parser refuses are refused in the parser's words.
pub type Built = Result<Box<dyn Augment>, serde_json::Error>;

/// An augmentation's options out of a recipe.
pub(super) fn parse<T: DeserializeOwned>(
    options: Map<String, Value>,
) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::Object(options))
}

/// Options as canonical JSON: the fields in their order, defaults written out.
pub(super) fn canonical<T: Serialize>(options: &T) -> String {
    serde_json::to_string(options).expect("options are numbers and strings under string keys")
}

/// An error about a value, in the shape that the parser reports its own in.
pub(super) fn refuse<T>(message: String) -> Result<T, serde_json::Error> {
    Err(serde::de::Error::custom(message))
}
