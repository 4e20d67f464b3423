//! Which views there are: `[views]` of a recipe, the family that it stands for, and which of its views an epoch shows.

use std::fmt;

use logitcask_philox::{Purpose, Stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::augment::{self, Augment, Choice};
use crate::{AugmentRow, AugmentSpec, DatasetError, ImageSize, Mix, View};

/// How parameters are drawn, as a number: part of the identity, raised when any draw would change.
const DRAW_VERSION: u32 = 1;

/// Families above this size are drawn from a stream instead of being counted out. The order of a counted family is a
/// permutation made anew for every draw, which costs a few nanoseconds per element.
const MAX_COUNTED: u64 = 1 << 16;

/// The `[views]` section of a recipe: which augmented views there are, and how training walks through them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewsSpec {
    /// How many views of each sample are captured.
    pub count: Count,
    /// The augmentations, in order. None: the clean view.
    pub augment: Vec<AugmentSpec>,
    /// What stands in for `augment` in evaluation, and brings images of many sizes to one: `resize`, `center_crop`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clean: Vec<AugmentSpec>,
    /// Which of the captured views an epoch shows.
    pub draw: Draw,
    /// How many views of each sample a batch holds.
    pub views_per_step: u32,
    /// How many views of an image are captured at a time, each from one decoding. More take more memory.
    #[serde(skip_serializing_if = "is_one")]
    pub views_per_pass: u32,
    /// Train clean-image logits against augmented pixels all the same; every report then says so.
    pub inconsistent: bool,
    /// A second family with its own cache, for losses that compare a weak and a strong view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strong: Option<Box<ViewsSpec>>,
    /// The seed of the views. Apart from the recipe's own, so that students of many seeds share one cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Default for ViewsSpec {
    fn default() -> Self {
        Self {
            count: Count::Number(1),
            augment: Vec::new(),
            clean: Vec::new(),
            draw: Draw::Cycle,
            views_per_step: 1,
            views_per_pass: 1,
            inconsistent: false,
            strong: None,
            seed: None,
        }
    }
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// A number of views: `16`, or `"all"` of a family that has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many, from view 0 on.
    Number(u32),
    /// Every one that the family has.
    All,
}

/// Which of the captured views an epoch shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// Each in turn, in an order of the sample's own that changes from round to round.
    #[default]
    Cycle,
    /// Any one, whatever was shown before.
    Uniform,
}

/// The views of a dataset's images: augmentations in order, a seed, and the size of the images if they share one.
///
/// Where the views can be counted out (every offset of a crop, flipped or not) view v of sample i is the v-th element
/// of a permutation of them all, keyed by (seed, i): the first views are always the start of more. Otherwise each
/// augmentation draws from a stream of its own, keyed by (seed, view, sample, position).
#[derive(Debug)]
pub struct ViewFamily {
    augment: Vec<(String, Box<dyn Augment>)>,
    seed: u64,
    n_views: Option<u64>,
}

impl ViewFamily {
    /// `size` is the size of every image of the dataset, or `None` where they differ; it decides whether the family
    /// can be counted out.
    ///
    /// # Errors
    /// An unknown augmentation, or options that it does not take.
    pub fn new(
        augment: &[AugmentSpec],
        seed: u64,
        size: Option<ImageSize>,
    ) -> Result<Self, DatasetError> {
        Self::new_with(augment, seed, size, &[])
    }

    /// The same, where augmentations may also be a program's `own`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn new_with(
        augment: &[AugmentSpec],
        seed: u64,
        size: Option<ImageSize>,
        own: &[AugmentRow],
    ) -> Result<Self, DatasetError> {
        let augment = augment
            .iter()
            .map(|spec| Ok((spec.name.clone(), augment::build(spec, own)?)))
            .collect::<Result<Vec<_>, DatasetError>>()?;
        if let Some((name, _)) = augment.iter().rev().skip(1).find(|(_, a)| a.is_mix()) {
            return Err(DatasetError::Setting {
                key: "views.augment".into(),
                found: format!(
                    "has `{name}` before another augmentation: mixing comes last, and once"
                ),
            });
        }
        let mut family = Self {
            augment,
            seed,
            n_views: None,
        };
        if let Some(size) = size {
            family.output_size(size)?;
        }
        family.n_views = family.count(size);
        Ok(family)
    }

    /// The family of one view: the image as it is.
    pub fn clean() -> Self {
        Self {
            augment: Vec::new(),
            seed: 0,
            n_views: Some(1),
        }
    }

    /// The family that evaluation sees: what `views.clean` makes of an image, the same every time.
    ///
    /// # Errors
    /// As [`Self::new`]; and augmentations that draw anything at random.
    pub fn clean_of(
        spec: &ViewsSpec,
        size: Option<ImageSize>,
        own: &[AugmentRow],
    ) -> Result<Self, DatasetError> {
        let mut family = Self::new_with(&spec.clean, 0, size, own)?;
        if let Some((name, _)) = family
            .augment
            .iter()
            .find(|(_, augment)| !augment.is_fixed())
        {
            return Err(DatasetError::Setting {
                key: "views.clean".into(),
                found: format!(
                    "holds `{name}`, which is random: expected `resize` and `center_crop` only"
                ),
            });
        }
        family.n_views = Some(1);
        Ok(family)
    }

    /// Canonical text: equal exactly where the same images have the same views. It is part of a cache's key.
    pub fn identity(&self) -> String {
        if self.augment.is_empty() {
            return "clean".into();
        }
        let mut text = String::new();
        for (name, augment) in &self.augment {
            text.push_str(name);
            text.push_str(&augment.options());
            text.push(' ');
        }
        if self.is_fixed() {
            // The seed has no say in it.
            return format!("{text}draw={DRAW_VERSION}");
        }
        format!("{text}seed={} draw={DRAW_VERSION}", self.seed)
    }

    /// The number of different views of a sample, where they can be counted out.
    pub fn n_views(&self) -> Option<u64> {
        self.n_views
    }

    /// How many views `count` means here.
    ///
    /// # Errors
    /// More than there are, `all` of a family without end, or none.
    pub fn resolve_count(&self, count: &Count) -> Result<u32, DatasetError> {
        match (*count, self.n_views) {
            (Count::Number(0), _) => Err(DatasetError::Setting {
                key: "views.count".into(),
                found: "is 0: expected at least 1, or \"all\"".into(),
            }),
            (Count::Number(count), Some(n_views)) if u64::from(count) > n_views => {
                Err(DatasetError::TooManyViews {
                    count: count.into(),
                    n_views,
                })
            }
            (Count::Number(count), _) => Ok(count),
            (Count::All, Some(n_views)) => Ok(n_views as u32),
            (Count::All, None) => Err(DatasetError::EndlessFamily),
        }
    }

    /// The size of every view of an image of `size`.
    ///
    /// # Errors
    /// An augmentation that the image is too small for.
    pub fn output_size(&self, size: ImageSize) -> Result<ImageSize, DatasetError> {
        self.augment
            .iter()
            .try_fold(size, |found, (name, augment)| {
                augment
                    .output_size(found)
                    .ok_or_else(|| DatasetError::ViewSize {
                        place: "every sample".into(),
                        augment: name.clone(),
                        found,
                    })
            })
    }

    /// Whether views are mixed with those of other samples.
    pub fn mixes(&self) -> bool {
        self.augment
            .last()
            .is_some_and(|(_, augment)| augment.is_mix())
    }

    /// Whether views may look at a part of the image only.
    pub(crate) fn begins_with_window(&self) -> bool {
        self.augment
            .first()
            .is_some_and(|(_, augment)| augment.is_window())
    }

    /// Whether a view asks for JPEGs to be decoded at a reduced resolution, which decoded pixels cannot give any more.
    pub fn reduces(&self) -> bool {
        self.augment.iter().any(|(_, augment)| augment.reduces())
    }

    /// View `view` of sample `sample` of a split of `n_samples`, whose image has `size`: a pure function of these and
    /// the seed.
    ///
    /// # Errors
    /// As [`Self::output_size`].
    pub fn draw(
        &self,
        sample: u32,
        view: u32,
        size: ImageSize,
        n_samples: usize,
    ) -> Result<View, DatasetError> {
        let mut drawn = View::default();
        self.draw_into(sample, view, size, &mut drawn, &mut Vec::new())?;
        drawn.mix = self.draw_mix(sample, view, self.output_size(size)?, n_samples);
        Ok(drawn)
    }

    /// What is mixed into a view that has `size` after its steps.
    pub(crate) fn draw_mix(
        &self,
        sample: u32,
        view: u32,
        size: ImageSize,
        n_samples: usize,
    ) -> Option<Mix> {
        let (_, augment) = self
            .augment
            .last()
            .filter(|(_, augment)| augment.is_mix())?;
        let position = self.augment.len() as u64 - 1;
        let words = [view.into(), sample.into(), position];
        let mut stream = Stream::new(self.seed, Purpose::MixPartner, words);
        augment.mix(&mut stream, size, n_samples as u32)
    }

    /// The steps of [`Self::draw`], into buffers that are reused.
    pub(crate) fn draw_into(
        &self,
        sample: u32,
        view: u32,
        mut size: ImageSize,
        drawn: &mut View,
        order: &mut Vec<u32>,
    ) -> Result<(), DatasetError> {
        drawn.steps.clear();
        drawn.mix = None;
        let mut element = self.element(sample, view, order);
        // Mixed radix, the first augmentation most significant: what is left of the radix after each digit.
        let mut radix = self.n_views.unwrap_or(1);
        for (position, (name, augment)) in self.augment.iter().enumerate() {
            let output = augment
                .output_size(size)
                .ok_or_else(|| DatasetError::ViewSize {
                    place: format!("sample {sample}"),
                    augment: name.clone(),
                    found: size,
                })?;
            match (&mut element, augment.n_elements(size)) {
                (Some(element), Some(n)) => {
                    radix /= n.max(1);
                    augment.draw(Choice::Element(*element / radix), size, &mut drawn.steps);
                    *element %= radix;
                }
                _ => {
                    let words = [view.into(), sample.into(), position as u64];
                    let mut stream = Stream::new(self.seed, Purpose::Augment, words);
                    augment.draw(Choice::Drawn(&mut stream), size, &mut drawn.steps);
                }
            }
            size = output;
        }
        Ok(())
    }

    /// The element of a counted family that a view shows.
    fn element(&self, sample: u32, view: u32, order: &mut Vec<u32>) -> Option<u64> {
        let n_views = self.n_views?;
        if n_views == 1 {
            return Some(0);
        }
        order.clear();
        order.extend(0..n_views as u32);
        Stream::new(self.seed, Purpose::FamilyOrder, [0, sample.into(), 0]).shuffle(order);
        // Beyond the last view there is none; the first one again is as good as any, and `resolve_count` refuses it.
        Some(order[view as usize % order.len()].into())
    }

    fn count(&self, size: Option<ImageSize>) -> Option<u64> {
        if self.is_fixed() {
            return Some(1);
        }
        let mut size = size?;
        let mut n_views: u64 = 1;
        for (_, augment) in &self.augment {
            n_views = n_views.checked_mul(augment.n_elements(size)?)?;
            size = augment.output_size(size)?;
        }
        (n_views <= MAX_COUNTED).then_some(n_views)
    }

    /// Whether nothing in it is random.
    fn is_fixed(&self) -> bool {
        self.augment.iter().all(|(_, augment)| augment.is_fixed())
    }
}

/// The view that sample `sample` shows in `epoch` (from 0), of `count` captured ones.
///
/// [`Draw::Cycle`] shows each once in a round of `count` epochs, in an order of the sample's own; [`Draw::Uniform`]
/// draws one of them, whatever was shown before.
///
/// # Panics
/// If `count` is 0.
pub fn epoch_view(seed: u64, sample: u32, epoch: u32, count: u32, draw: Draw) -> u32 {
    assert!(count > 0, "there is no view to show");
    if count == 1 {
        return 0;
    }
    let stream = |word: u32| Stream::new(seed, Purpose::EpochView, [word.into(), sample.into(), 0]);
    match draw {
        Draw::Uniform => stream(epoch).below(count.into()) as u32,
        Draw::Cycle => {
            let mut order: Vec<u32> = (0..count).collect();
            stream(epoch / count).shuffle(&mut order);
            order[(epoch % count) as usize]
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(count) => count.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(count) => to.serialize_u32(*count),
            Self::All => to.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of views, or \"all\"")
            }

            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Count, E> {
                u64::try_from(n)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(n), &self))
                    .and_then(|n| self.visit_u64(n))
            }

            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Count, E> {
                u32::try_from(n)
                    .map(Count::Number)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(n), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Count, E> {
                match text {
                    "all" => Ok(Count::All),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        from.deserialize_any(Visitor)
    }
}
