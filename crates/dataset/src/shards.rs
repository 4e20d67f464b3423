//! Splits that are many numbered files: whether all of them are there.
//!
//! `train-00000-of-00003.parquet` says how many there are. Of `train-000000.tar` only gaps can be seen: where such a set
//! ends is written nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::files::file_name;
use crate::{DataSpec, DatasetError, SplitSpec};

/// How many missing files are named.
const NAMED: usize = 5;

/// Refuses a set of files that has gaps, unless the recipe allows it, and two sets under one name, always. Files that
/// the recipe lists are taken as it says.
pub(crate) fn check_shards(
    spec: &DataSpec,
    split: &SplitSpec,
    paths: &[PathBuf],
) -> Result<(), DatasetError> {
    let (SplitSpec::Name(_), Some(first)) = (split, paths.first()) else {
        return Ok(());
    };
    let folder = first.parent().unwrap_or(Path::new(""));
    let names: Vec<String> = paths.iter().map(|path| file_name(path)).collect();
    let mut sets: BTreeMap<(&str, &str), Vec<Numbered>> = BTreeMap::new();
    for numbered in names.iter().filter_map(|name| Numbered::parse(name)) {
        // Files of a set that says its number may end in a digest each: `-of-00002-1a2b3c.parquet`.
        let suffix = numbered.of.map_or(numbered.suffix, |_| "");
        let set = (numbered.prefix, suffix);
        sets.entry(set).or_default().push(numbered);
    }
    for set in sets.values() {
        if let Some(found) = two_sets(set) {
            return Err(DatasetError::ShardSets {
                split: split.to_string(),
                path: folder.into(),
                found,
            });
        }
        let missing = Missing::of(set);
        if missing.n > 0 && !spec.allow_missing_shards {
            return Err(DatasetError::ShardsMissing {
                split: split.to_string(),
                path: folder.into(),
                missing: missing.to_string(),
            });
        }
    }
    Ok(())
}

/// `train-00001-of-00003.parquet`: prefix, number, of how many. `train-000001.tar`: prefix, number, suffix.
struct Numbered<'a> {
    name: &'a str,
    prefix: &'a str,
    digits: &'a str,
    number: u64,
    of: Option<(u64, &'a str)>,
    suffix: &'a str,
}

impl<'a> Numbered<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        if let Some((before, after)) = name.rsplit_once("-of-") {
            let (prefix, digits) = split_digits(before)?;
            let n_digits = after.bytes().take_while(u8::is_ascii_digit).count();
            return Some(Self {
                name,
                prefix,
                digits,
                number: digits.parse().ok()?,
                of: Some((after[..n_digits].parse().ok()?, &after[..n_digits])),
                suffix: &after[n_digits..],
            });
        }
        let (stem, _) = name.rsplit_once('.')?;
        let (prefix, digits) = split_digits(stem)?;
        Some(Self {
            name,
            prefix,
            digits,
            number: digits.parse().ok()?,
            of: None,
            suffix: &name[stem.len()..],
        })
    }

    /// The name of another file of this set, as far as it can be known.
    fn sibling(&self, number: u64) -> String {
        let (prefix, suffix, width) = (self.prefix, self.suffix, self.digits.len());
        match self.of {
            Some((_, of)) if suffix.starts_with('.') => {
                format!("`{prefix}{number:0width$}-of-{of}{suffix}`")
            }
            Some((_, of)) => format!("`{prefix}{number:0width$}-of-{of}`"),
            None => format!("`{prefix}{number:0width$}{suffix}`"),
        }
    }
}

/// A name without the digits that it ends in, and these.
fn split_digits(name: &str) -> Option<(&str, &str)> {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (prefix.len() < name.len()).then(|| name.split_at(prefix.len()))
}

/// Two files that cannot be of one set: they count another number of files, or are the same one of them.
fn two_sets(set: &[Numbered]) -> Option<String> {
    let mut seen: BTreeMap<u64, &Numbered> = BTreeMap::new();
    let first = set.first()?;
    for file in set.iter().filter(|file| file.of.is_some()) {
        let twin = seen.insert(file.number, file);
        let other = match file.of == first.of {
            true => twin,
            false => Some(first),
        };
        if let Some(other) = other {
            return Some(format!("`{}` and `{}`", other.name, file.name));
        }
    }
    None
}

/// The files of a set that are not there.
struct Missing {
    n: u64,
    named: Vec<String>,
}

impl Missing {
    fn of(set: &[Numbered]) -> Self {
        let mut missing = Self {
            n: 0,
            named: Vec::new(),
        };
        let numbers: BTreeSet<u64> = set.iter().map(|file| file.number).collect();
        let (Some(&first), Some(&last), Some(file)) =
            (numbers.first(), numbers.last(), set.first())
        else {
            return missing;
        };
        // Sets of known length count from 0, some tools' from 1; the others begin where they begin.
        let (mut next, end) = match file.of {
            Some((n, _)) if first >= 1 && last == n => (1, n.saturating_add(1)),
            Some((n, _)) => (0, n),
            None => (first, last.saturating_add(1)),
        };
        for &number in numbers.range(..end).chain([&end]) {
            missing.n += number.saturating_sub(next);
            let room = NAMED - missing.named.len();
            let names = (next..number).take(room);
            missing
                .named
                .extend(names.map(|number| file.sibling(number)));
            next = number.saturating_add(1);
        }
        missing
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.named.join(", "))?;
        match self.n - self.named.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
