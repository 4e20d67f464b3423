//! A recipe's text, read to its end: every error with its line, not only the first.

use std::ops::Range;

use serde::Deserialize;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::problem::{nearest_field, plainly};
use crate::ranges::{self, Takes};
use crate::recipe::Recipe;

/// Where something stands in a recipe's text, and what is wrong with it.
pub(super) struct Mistake {
    /// `loss.0.temperature`; empty where the text is no TOML.
    pub(super) place: String,
    /// The line in the text, from 1.
    pub(super) line: usize,
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

/// The text as a tree that knows its lines.
pub(super) struct Text<'t> {
    text: &'t str,
    tree: Spanned<DeTable<'t>>,
}

impl<'t> Text<'t> {
    /// The tree, and what is no TOML.
    pub(super) fn parse(text: &'t str) -> (Self, Vec<Mistake>) {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let parsed = Self { text, tree };
        let mistakes = errors.iter().map(|error| {
            let line = parsed.line_at(error.span().map_or(0, |span| span.start));
            let typed = text.lines().nth(line - 1).unwrap_or_default();
            Mistake {
                place: String::new(),
                line,
                what: format!("`{}`: {}", typed.trim(), error.message()),
                hint: has_decimal_comma(typed)
                    .then(|| "a number has a decimal point: `0.05`, not `0,05`".to_owned()),
            }
        });
        let mistakes = mistakes.collect();
        (parsed, mistakes)
    }

    /// The line of the value at `place`, or of what it would stand in.
    pub(super) fn line_of(&self, place: &str) -> usize {
        let mut at = 0;
        let mut table = Some(self.tree.get_ref());
        let mut items = None;
        for step in place.split('.') {
            let found = match (table, items) {
                (Some(inner), _) => inner
                    .get_key_value(step)
                    .map(|(key, value)| (key.span(), value)),
                (None, Some(list)) => step
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| DeValue::get(list, index))
                    .map(|value| (value.span(), value)),
                _ => None,
            };
            let Some((span, value)) = found else { break };
            at = span.start;
            table = value.get_ref().as_table();
            items = value.get_ref().is_array().then(|| value.get_ref());
        }
        self.line_at(at)
    }

    fn line_at(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Reads the recipe, and whatever does not fit. What is wrong is taken out or made right in the tree, so that what comes
    /// after it is found as well; `None` where something that has to be there is not.
    pub(super) fn read(&mut self) -> (Option<Recipe>, Vec<Mistake>) {
        let mut mistakes = self.numbers_out_of_range();
        loop {
            let error = match Recipe::deserialize(Deserializer::from(self.tree.clone())) {
                Ok(recipe) => return (Some(recipe), mistakes),
                Err(error) => error,
            };
            let span = error.span().unwrap_or(0..0);
            let line = self.line_at(span.start);
            let found = find(self.tree.get_mut(), &span);
            let place = found
                .as_ref()
                .map_or(String::new(), |found| found.place.clone());
            let known = |mistake: &Mistake| !place.is_empty() && mistake.place == place;
            let is_new = !mistakes.iter().any(known);
            if is_new {
                let named = match place.is_empty() {
                    true => String::new(),
                    false => format!("`{place}`: "),
                };
                mistakes.push(Mistake {
                    line,
                    what: format!("{named}{}", plainly(error.message())),
                    hint: nearest_field(error.message()),
                    place,
                });
            }
            // What stands in for it was no better: there is no more to be found here.
            let stand_in = is_new.then(|| stand_in(error.message())).flatten();
            match (found, stand_in) {
                (Some(found), Some(text)) if found.is_value => found.put(text),
                (Some(found), _) if is_new => found.remove(),
                _ => return (None, mistakes),
            }
        }
    }

    fn numbers_out_of_range(&mut self) -> Vec<Mistake> {
        let Ok(value) = toml::from_str::<toml::Value>(self.text) else {
            return Vec::new();
        };
        let wrong = ranges::problems(&value);
        let mistakes = wrong.into_iter().map(|wrong| {
            let line = self.line_of(&wrong.place);
            if let Some(value) = at_mut(self.tree.get_mut(), &wrong.place) {
                set(value, within(wrong.takes));
            }
            Mistake {
                line,
                what: wrong.problem.message,
                hint: wrong.problem.hint,
                place: wrong.place,
            }
        });
        mistakes.collect()
    }
}

/// An entry of a table that an error points at.
struct Entry<'a, 't> {
    table: &'a mut DeTable<'t>,
    key: String,
    place: String,
    /// The error points at the value, not at the key.
    is_value: bool,
}

impl Entry<'_, '_> {
    fn remove(self) {
        self.table.remove(self.key.as_str());
    }

    fn put(self, text: &'static str) {
        if let Some(value) = self.table.get_mut(self.key.as_str()) {
            set(value, text);
        }
    }
}

/// The innermost entry whose key or value, or an element of it, has this span.
fn find<'a, 't>(table: &'a mut DeTable<'t>, span: &Range<usize>) -> Option<Entry<'a, 't>> {
    let is_at = |value: &Spanned<DeValue<'t>>| value.span() == *span;
    let hit = table.iter().find_map(|(key, value)| {
        let in_list = value.get_ref().as_array().is_some_and(|items| {
            items
                .iter()
                .any(|item| is_at(item) && !item.get_ref().is_table())
        });
        let is_value = is_at(value) || in_list;
        (key.span() == *span || is_value).then(|| (key.get_ref().to_string(), is_value))
    });
    if let Some((key, is_value)) = hit {
        let place = key.clone();
        return Some(Entry {
            table,
            key,
            place,
            is_value,
        });
    }
    for (key, value) in table.iter_mut() {
        let below = |place: String| format!("{}.{place}", key.get_ref());
        let found = match value.get_mut() {
            DeValue::Table(inner) => find(inner, span).map(|entry| (String::new(), entry)),
            DeValue::Array(items) => items.iter_mut().enumerate().find_map(|(index, item)| {
                let DeValue::Table(inner) = item.get_mut() else {
                    return None;
                };
                find(inner, span).map(|entry| (format!("{index}."), entry))
            }),
            _ => None,
        };
        if let Some((index, entry)) = found {
            let place = below(format!("{index}{}", entry.place));
            return Some(Entry { place, ..entry });
        }
    }
    None
}

/// The value at `place`.
fn at_mut<'a, 't>(table: &'a mut DeTable<'t>, place: &str) -> Option<&'a mut Spanned<DeValue<'t>>> {
    let (step, rest) = match place.split_once('.') {
        Some((step, rest)) => (step, Some(rest)),
        None => (place, None),
    };
    let mut value = table.get_mut(step)?;
    let mut rest = rest;
    while let Some(path) = rest {
        match value.get_mut() {
            DeValue::Table(inner) => return at_mut(inner, path),
            DeValue::Array(items) => {
                let (index, below) = match path.split_once('.') {
                    Some((index, below)) => (index, Some(below)),
                    None => (path, None),
                };
                value = items.get_mut(index.parse::<usize>().ok()?)?;
                rest = below;
            }
            _ => return None,
        }
    }
    Some(value)
}

fn set(value: &mut Spanned<DeValue<'_>>, text: &'static str) {
    if let Ok(parsed) = DeValue::parse(text) {
        *value.get_mut() = parsed.into_inner();
    }
}

/// A number that would do.
fn within(takes: Option<Takes>) -> &'static str {
    match takes {
        Some(Takes::Whole(12.., _)) => "12",
        Some(Takes::Whole(..)) => "2",
        _ => "0.5",
    }
}

/// A value of the type that serde has expected; `None` where that is no plain one.
fn stand_in(message: &str) -> Option<&'static str> {
    let (_, expected) = message.rsplit_once("expected ")?;
    let of = |words: &[&str]| words.iter().any(|word| expected.starts_with(word));
    if of(&[
        "u8",
        "u16",
        "u32",
        "u64",
        "usize",
        "i64",
        "i32",
        "a nonzero",
    ]) {
        return Some("1");
    }
    if of(&["f32", "f64"]) {
        return Some("0.5");
    }
    if of(&["a boolean"]) {
        return Some("false");
    }
    if of(&["a string", "path string"]) {
        return Some("\"\"");
    }
    of(&["a sequence"]).then_some("[]")
}

/// Whether a value has a comma for a decimal point: `lr = 0,05`.
fn has_decimal_comma(line: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    line.split('=').skip(1).any(|value| {
        let mut parts = value
            .split([',', ' ', '}'])
            .skip_while(|part| part.is_empty());
        let (whole, fraction) = (parts.next(), parts.next());
        let is_close = value.trim_start().chars().nth(whole.map_or(0, str::len)) == Some(',');
        is_close && whole.is_some_and(digits) && fraction.is_some_and(digits)
    })
}
