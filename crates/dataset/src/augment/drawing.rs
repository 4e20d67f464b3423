//! What an augmentation is: parameters of pixel operations, drawn.

use std::fmt::Debug;

use logitcask_philox::Stream;

use crate::{ImageSize, Mix, Step};

/// Draws the parameters of one augmentation: which [`Step`]s it adds to a view. A view is a function of (seed, sample, view):
/// what is drawn must follow from the [`Choice`] and the size alone.
pub trait Augment: Debug + Send + Sync {
    /// Every option with its value, as canonical JSON: a cache is keyed by it. What a program's own augmentation draws must not
    /// change under the same name and options; where it does, the pixels that a cache remembers of its capture are not the same
    /// any more, and the cache is refused.
    fn options(&self) -> String;

    /// The size of the result, given that of the input;
    /// `None` where that is too small.
    fn output_size(&self, input: ImageSize) -> Option<ImageSize> {
        Some(input)
    }

    /// The number of different, equally likely results, where they can be counted out.
    fn n_elements(&self, input: ImageSize) -> Option<u64>;

    /// Whether its step cuts a window out of the image.
    fn is_window(&self) -> bool {
        false
    }

    /// Whether it lets JPEGs be decoded at a reduced resolution.
    fn reduces(&self) -> bool {
        false
    }

    /// Whether it does the same to every image, with nothing drawn at all.
    fn is_fixed(&self) -> bool {
        false
    }

    /// Whether it mixes in a second image. Then it comes last, adds no steps, and [`Self::mix`] draws.
    fn is_mix(&self) -> bool {
        false
    }

    /// Draws the partner, among all samples of the split, and how it is mixed in; none where it is not.
    fn mix(&self, _stream: &mut Stream, _size: ImageSize, _n_samples: u32) -> Option<Mix> {
        None
    }

    /// Adds the steps of one draw. `input` is large enough: `output_size` said so.
    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>);
}

/// What an augmentation draws from.
pub enum Choice<'a> {
    /// This one of its `n_elements`.
    Element(u64),
    /// A stream of random numbers that no other augmentation draws from.
    Drawn(&'a mut Stream),
}

/// A uniform number between two.
pub(super) fn uniform(stream: &mut Stream, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * stream.uniform()
}
