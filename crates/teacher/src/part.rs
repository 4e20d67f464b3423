//! One of several equal parts of a capture, each done by a process of its own, on any machine that sees the folder.

use std::ops::Range;

use crate::error::TeacherError;

/// Part `index` of `count`, counted from 1 as people do. Which chunks belong to it depends on nothing else, so that the
/// processes need not know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: u32,
    count: u32,
}

impl Part {
    /// Part 1 of 1, to which every chunk belongs.
    pub const WHOLE: Part = Part { index: 1, count: 1 };

    /// Part `index` (from 1) of `count`.
    pub fn new(index: u32, count: u32) -> Result<Part, TeacherError> {
        if index == 0 || index > count {
            return Err(TeacherError::NoSuchPart {
                text: format!("{index}/{count}"),
            });
        }
        Ok(Part { index, count })
    }

    /// Whether this is all of it.
    pub fn is_whole(self) -> bool {
        self.count == 1
    }

    /// The part's range of `n` chunks: consecutive, and at most one longer than any other part's.
    pub fn range(self, n: u32) -> Range<u32> {
        let cut = |index: u32| {
            u32::try_from(u64::from(n) * u64::from(index) / u64::from(self.count)).unwrap_or(n)
        };
        cut(self.index - 1)..cut(self.index)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl std::str::FromStr for Part {
    type Err = TeacherError;

    fn from_str(text: &str) -> Result<Part, TeacherError> {
        let wrong = || TeacherError::NoSuchPart {
            text: text.to_owned(),
        };
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        Part::new(number(index)?, number(count)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_chunk_once() {
        for n in [0, 1, 7, 8, 100, u32::MAX] {
            for count in [1, 2, 3, 8, 11] {
                let mut next = 0;
                for index in 1..=count {
                    let range = Part::new(index, count).unwrap().range(n);
                    assert_eq!(range.start, next);
                    assert!(range.len() as u64 <= u64::from(n) / u64::from(count) + 1);
                    next = range.end;
                }
                assert_eq!(next, n);
            }
        }
    }

    #[test]
    fn parts_are_written_as_fractions() {
        assert_eq!("3/8".parse::<Part>().unwrap().to_string(), "3/8");
        for text in ["0/8", "9/8", "3", "a/b", "1/0"] {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
    }
}
