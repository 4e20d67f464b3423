//! What is wrong with a recipe's text, in a recipe's words: serde speaks of Rust's types.

use std::path::Path;

use logitcask_suggest::nearest;

use crate::failure::{Failure, Kind};

/// What is wrong with a recipe's text.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn toml(error: toml::de::Error) -> Self {
        let hint = nearest_field(error.message());
        let (told, serde) = (error.to_string(), error.message());
        Self {
            message: told.replace(serde, &plainly(serde)).trim_end().to_owned(),
            hint,
        }
    }

    pub(crate) fn in_file(self, path: &Path) -> Failure {
        let kind = Kind::Recipe {
            path: path.into(),
            message: self.message,
        };
        let failure = Failure::from(kind);
        match self.hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

/// Serde says "unknown field `epoch`, expected one of `epochs`, `batch_size`": offers the nearest of them.
pub(crate) fn nearest_field(message: &str) -> Option<String> {
    let (_, rest) = message
        .split_once("unknown field `")
        .or_else(|| message.split_once("unknown variant `"))?;
    let (unknown, rest) = rest.split_once('`')?;
    let nearest = nearest(unknown, rest.split('`').skip(1).step_by(2))?;
    Some(format!("did you mean `{nearest}`?"))
}

/// What serde says, in words of a recipe: it speaks of Rust's types.
pub(crate) fn plainly(message: &str) -> String {
    let mut message = message.to_owned();
    for (theirs, ours) in [
        ("usize", "a whole number"),
        ("u64", "a whole number"),
        ("u32", "a whole number"),
        ("u16", "a whole number"),
        ("u8", "a whole number"),
        ("i64", "a whole number"),
        ("f64", "a number"),
        ("f32", "a number"),
        ("path string", "text"),
        ("a string", "text"),
        ("a sequence", "a list, as in `[1, 2]`"),
        ("a boolean", "`true` or `false`"),
        ("a map", "a table, as in `{ name = \"...\" }`"),
    ] {
        let expected = format!("expected {theirs}");
        if message.ends_with(&expected) {
            message = message.replace(&expected, &format!("expected {ours}"));
        }
    }
    for (theirs, ours) in [
        ("invalid type: ", "found "),
        ("invalid value: ", "found "),
        ("found string ", "found the text "),
        ("found integer ", "found the number "),
        ("found floating point ", "found the number "),
        ("found boolean ", "found "),
    ] {
        message = message.replace(theirs, ours);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_answered_with_the_nearest_one() {
        let message = "unknown field `epoch`, expected one of `epochs`, `batch_size`";
        assert_eq!(
            nearest_field(message).as_deref(),
            Some("did you mean `epochs`?")
        );
    }
}
