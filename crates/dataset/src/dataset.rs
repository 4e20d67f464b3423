//! A split, opened: which samples there are, which of them are used, and how one is fetched and decoded.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use crate::codec;
use crate::exif::Orientation;
use crate::fingerprint::Fingerprint;
use crate::formats::{self, FetchError, Fetched, Opened};
use crate::{
    DataSpec, DatasetError, FormatRow, Image, ImageError, ImageSize, OnBad, Role, SampleWeights,
    Selection, SplitSpec,
};

/// One split of a dataset: labels in memory, images read when they are wanted.
///
/// Samples are numbered from 0 in the order of the files, whatever is selected from them: a bad or excluded sample
/// keeps its index.
pub struct Dataset {
    pub(crate) spec: DataSpec,
    pub(crate) opened: Opened,
    pub(crate) role: Role,
    /// What encoded images are brought to.
    pub(crate) channels: Option<usize>,
    pub(crate) fingerprint: OnceLock<Fingerprint>,
    chosen: Vec<u32>,
    sample_weights: Option<Vec<f32>>,
}

impl Dataset {
    /// Opens the split of `spec` that `role` names, and checks every label.
    ///
    /// # Errors
    /// Whatever is wrong with the folder, the files or the labels. Images are looked at later.
    pub fn open(spec: &DataSpec, role: Role) -> Result<Self, DatasetError> {
        Self::open_with(spec, role, &[])
    }

    /// The same, where `format` may also name one of a program's `own`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        spec: &DataSpec,
        role: Role,
        own: &'static [FormatRow],
    ) -> Result<Self, DatasetError> {
        let split: &SplitSpec = match role {
            Role::Train => &spec.train,
            Role::Eval => spec.eval.as_ref().ok_or(DatasetError::NoEvalSplit)?,
        };
        if let Some(channels) = spec.channels
            && channels != 1
            && channels != 3
        {
            return Err(DatasetError::Setting {
                key: "data.channels".into(),
                found: format!("is {channels}: images have 1 or 3"),
            });
        }
        let opened = formats::open(spec, split, role, own)?;
        let chosen = match role {
            Role::Train => choose(spec, opened.labels.len())?,
            Role::Eval => (0..opened.labels.len() as u32).collect(),
        };
        let mut dataset = Self {
            spec: spec.clone(),
            opened,
            role,
            channels: spec.channels,
            fingerprint: OnceLock::new(),
            chosen,
            sample_weights: None,
        };
        if let (Role::Train, Some(weights)) = (role, &spec.sample_weights) {
            dataset.sample_weights = Some(weigh(weights, dataset.len())?);
        }
        if dataset.channels.is_none() && dataset.opened.uniform_size.is_none() {
            dataset.channels = dataset.probe_channels()?;
        }
        Ok(dataset)
    }

    /// The number of samples of the whole split, whatever is selected.
    pub fn len(&self) -> usize {
        self.opened.labels.len()
    }

    /// Never true: a split without samples does not open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples to use, ascending: what `limit`, `subset` and `exclude` leave of a train split, without the samples
    /// that the fingerprint found bad.
    pub fn selected(&self) -> Vec<u32> {
        let good = self.chosen.iter().filter(|&&index| !self.is_bad(index));
        good.copied().collect()
    }

    /// Every sample of the split that the fingerprint did not find bad, ascending, whatever is selected.
    pub fn good(&self) -> Vec<u32> {
        let all = 0..self.len() as u32;
        all.filter(|&index| !self.is_bad(index)).collect()
    }

    /// The samples of each file, in order, where files hold many samples; nothing where each image is a file.
    pub fn samples_by_file(&self) -> Vec<Range<u32>> {
        let starts = self.opened.source.file_starts();
        let ends = starts.iter().skip(1).copied().chain([self.len() as u32]);
        let files = starts.iter().zip(ends);
        files.map(|(&start, end)| start..end).collect()
    }

    /// The number of classes.
    pub fn n_classes(&self) -> usize {
        self.opened.n_classes
    }

    /// One name per class, or none at all where nobody told them.
    pub fn class_names(&self) -> &[String] {
        &self.opened.class_names
    }

    /// What somebody who looks at the data should know and nobody has to act upon, a sentence each: what was left out, how
    /// classes were numbered.
    pub fn notes(&self) -> &[String] {
        &self.opened.notes
    }

    /// One label per sample of the whole split.
    pub fn labels(&self) -> &[u32] {
        &self.opened.labels
    }

    /// One weight per sample of the whole split, 0 or more, where the recipe gives any.
    pub fn sample_weights(&self) -> Option<&[f32]> {
        self.sample_weights.as_deref()
    }

    /// Which split this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What it was opened by.
    pub fn spec(&self) -> &DataSpec {
        &self.spec
    }

    /// The size of every image, where all are alike: fixed by the format, or found by [`Self::fingerprint`].
    pub fn uniform_size(&self) -> Option<ImageSize> {
        self.opened
            .uniform_size
            .or_else(|| self.fingerprint.get()?.uniform_size())
    }

    /// Reads sample `index` and decodes it into `into`, whose buffers are reused.
    ///
    /// # Errors
    /// [`DatasetError::BadSample`] with the reason, or [`DatasetError::NoSuchSample`]; a file that cannot be read.
    pub fn decode(&self, index: u32, into: &mut Image) -> Result<(), DatasetError> {
        self.in_range(index)?;
        self.try_decode(index, into)
            .map_err(|error| self.failed(index, error))
    }

    pub(crate) fn try_decode(&self, index: u32, into: &mut Image) -> Result<(), FetchError> {
        match self.opened.source.fetch(index, into)? {
            Fetched::Pixels => Ok(()),
            Fetched::Encoded => Ok(self.decode_fetched(into)?),
        }
    }

    /// Decodes the file in `image.encoded`.
    pub(crate) fn decode_fetched(&self, image: &mut Image) -> Result<(), ImageError> {
        let encoded = std::mem::take(&mut image.encoded);
        let decoded = codec::decode(&encoded, self.reading(), image);
        if let (Ok(()), Some(orientation)) = (&decoded, self.orientation(&encoded)) {
            orientation.apply(image);
        }
        image.encoded = encoded;
        decoded
    }

    pub(crate) fn reading(&self) -> codec::Reading {
        codec::Reading {
            channels: self.channels,
            max_pixels: self.spec.max_image_pixels(),
        }
    }

    /// How an encoded image is to be turned, where the recipe asks for it and the image says so.
    pub(crate) fn orientation(&self, encoded: &[u8]) -> Option<Orientation> {
        self.spec.exif.then(|| Orientation::of(encoded)).flatten()
    }

    /// Fetches sample `index` without decoding it.
    pub(crate) fn fetch(&self, index: u32, into: &mut Image) -> Result<Fetched, DatasetError> {
        self.in_range(index)?;
        let fetched = self.opened.source.fetch(index, into);
        fetched.map_err(|error| self.failed(index, error))
    }

    pub(crate) fn failed(&self, index: u32, error: FetchError) -> DatasetError {
        match error {
            FetchError::Bad(source) => self.bad(index, source),
            FetchError::Stop(error) => error,
        }
    }

    pub(crate) fn bad(&self, index: u32, source: ImageError) -> DatasetError {
        DatasetError::BadSample {
            place: self.place(index),
            source,
        }
    }

    /// Which sample, where: ``sample 17 (`train.parquet` row 17)``.
    pub(crate) fn place(&self, index: u32) -> String {
        format!("sample {index} ({})", self.opened.source.place(index))
    }

    /// Whether the fingerprint found that sample `index` has no image.
    pub(crate) fn is_bad(&self, index: u32) -> bool {
        let fingerprint = self.fingerprint.get();
        fingerprint.is_some_and(|known| known.bad.binary_search(&index).is_ok())
    }

    pub(crate) fn skips_bad(&self) -> bool {
        self.spec.on_bad == OnBad::Skip
    }

    fn in_range(&self, index: u32) -> Result<(), DatasetError> {
        let n_samples = self.len();
        if (index as usize) < n_samples {
            Ok(())
        } else {
            Err(DatasetError::NoSuchSample { index, n_samples })
        }
    }

    /// The channels of the first image that can be read. Only a dataset of one kind is meant; in a mixed one the first
    /// colour image that meets a grey beginning is an error that says what to set.
    fn probe_channels(&self) -> Result<Option<usize>, DatasetError> {
        const TRIED: usize = 16;
        let mut image = Image::new();
        for index in 0..self.len().min(TRIED) as u32 {
            match self.try_decode(index, &mut image) {
                Ok(()) => return Ok(Some(image.size().channels)),
                Err(FetchError::Bad(_)) => {}
                Err(FetchError::Stop(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset")
            .field("spec", &self.spec)
            .field("role", &self.role)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// `subset` without `exclude`, ascending, and of that the first `limit`.
fn choose(spec: &DataSpec, n_samples: usize) -> Result<Vec<u32>, DatasetError> {
    let mut chosen: BTreeSet<u32> = match &spec.subset {
        None => (0..n_samples as u32).collect(),
        Some(selection) => indices("data.subset", selection, n_samples)?
            .into_iter()
            .collect(),
    };
    if let Some(selection) = &spec.exclude {
        for index in indices("data.exclude", selection, n_samples)? {
            chosen.remove(&index);
        }
    }
    let limit = spec.limit.unwrap_or(usize::MAX);
    let chosen: Vec<u32> = chosen.into_iter().take(limit).collect();
    if chosen.is_empty() {
        return Err(DatasetError::Selection {
            key: "data",
            found: "selects no sample: `limit`, `subset` and `exclude` leave nothing".into(),
        });
    }
    Ok(chosen)
}

fn indices(
    key: &'static str,
    selection: &Selection,
    n_samples: usize,
) -> Result<Vec<u32>, DatasetError> {
    let indices = match selection {
        Selection::Indices(indices) => indices.clone(),
        Selection::File(path) => {
            parse_lines(key, path, "no sample index", |line| line.parse().ok())?
        }
    };
    for &index in &indices {
        check_index(key, index, n_samples)?;
    }
    Ok(indices)
}

fn check_index(key: &'static str, index: u32, n_samples: usize) -> Result<(), DatasetError> {
    match (index as usize) < n_samples {
        true => Ok(()),
        false => Err(DatasetError::Selection {
            key,
            found: format!("names sample {index}, but the split holds {n_samples}"),
        }),
    }
}

/// A weight for each sample of the split.
fn weigh(weights: &SampleWeights, n_samples: usize) -> Result<Vec<f32>, DatasetError> {
    const KEY: &str = "data.sample_weights";
    let pairs: Vec<(u32, f32)> = match weights {
        SampleWeights::File(path) => parse_lines(KEY, path, "no index and weight", |line| {
            let (index, weight) = line.split_once(char::is_whitespace)?;
            Some((index.parse().ok()?, weight.trim().parse().ok()?))
        })?,
        SampleWeights::Listed { list, weight } => {
            let listed = indices(KEY, list, n_samples)?;
            listed.into_iter().map(|index| (index, *weight)).collect()
        }
    };
    let mut table = vec![1.0; n_samples];
    for (index, weight) in pairs {
        check_index(KEY, index, n_samples)?;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(DatasetError::Selection {
                key: KEY,
                found: format!("gives sample {index} the weight {weight}: it must be 0 or more"),
            });
        }
        table[index as usize] = weight;
    }
    Ok(table)
}

/// What `parse` makes of each line of a file that is not empty or a comment.
fn parse_lines<T>(
    key: &'static str,
    path: &Path,
    is_not: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, DatasetError> {
    let text = fs::read_to_string(path).map_err(|source| DatasetError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let mut found = Vec::new();
    for (line_index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        found.push(parse(line).ok_or_else(|| DatasetError::Selection {
            key,
            found: format!(
                "is `{}`, whose line {} is {is_not}: `{line}`",
                path.display(),
                line_index + 1
            ),
        })?);
    }
    Ok(found)
}
