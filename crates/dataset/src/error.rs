//! What can be wrong with people's data, recipes' views and single images, and what to do about each.

use std::io;
use std::path::PathBuf;

use crate::nearest::nearest;
use crate::{ImageSize, Scale};

/// Everything that can be wrong with a dataset, a view or a preprocessing, in the user's words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// `format` names none of the formats.
    #[error("`{name}` is not a dataset format")]
    UnknownFormat {
        /// What the recipe said.
        name: String,
        /// What it could have said.
        known: Vec<&'static str>,
    },
    /// The dataset's folder is not there.
    #[error("dataset folder `{path}` does not exist")]
    FolderMissing {
        /// The dataset's folder that was looked for.
        path: PathBuf,
    },
    /// The folder is there, but it holds no file of the split.
    #[error("split `{split}` is not in `{path}`: expected {expected}")]
    SplitMissing {
        /// The split as the recipe names it.
        split: String,
        /// The folder that was searched.
        path: PathBuf,
        /// The files that would have been the split.
        expected: String,
    },
    /// Numbered files of a split of which some are not there.
    #[error("split `{split}` in `{path}` lacks files of its set: {missing}")]
    ShardsMissing {
        /// The split as the recipe names it.
        split: String,
        /// The folder of the others.
        path: PathBuf,
        /// Names of the files that are not there.
        missing: String,
    },
    /// A name that more than one set of files answers to.
    #[error("split `{split}` in `{path}` is not one set of files: {found}")]
    ShardSets {
        /// The split as the recipe names it.
        split: String,
        /// The folder in which they all lie.
        path: PathBuf,
        /// A file of each.
        found: String,
    },
    /// A shard that is compressed as a whole.
    #[error(
        "`{path}` is compressed: images are read at their place in a shard, which needs the plain file"
    )]
    Compressed {
        /// The shard that was to be opened.
        path: PathBuf,
        /// The command that unpacks it, to be typed before the path.
        unpack: &'static str,
    },
    /// A folder that is not laid out as the format has it.
    #[error("`{path}` {found}")]
    Layout {
        /// The folder, or the file that has no name of the format's.
        path: PathBuf,
        /// What it holds, and what is expected.
        found: String,
    },
    /// Images of kinds that are known and not decoded.
    #[error("split `{split}` holds images of kinds that are not decoded: {found}")]
    Undecoded {
        /// The split as the recipe names it.
        split: String,
        /// The kinds, how many of each, and the first.
        found: String,
    },
    /// The classes of the evaluation split are not those of the train split.
    #[error("the classes of split `{split}` are not those of the train split: {found}")]
    ClassNames {
        /// The split as the recipe names it.
        split: String,
        /// The first that differs.
        found: String,
    },
    /// A key of `[data]` that the format would pass over.
    #[error("`data.{key}` is given, but format `{format}` does not read it")]
    UnreadKey {
        /// The key's name, without `data.`.
        key: &'static str,
        /// What the recipe says for `data.format`.
        format: String,
        /// Our formats that do read it.
        readers: Vec<&'static str>,
    },
    /// What is claimed takes more memory than is plausible; refused before any is taken.
    #[error("{what} take {bytes} bytes, above the limit of {limit}")]
    AboveLimit {
        /// The file, or what the recipe asks for.
        what: String,
        /// Bytes that it would take.
        bytes: u128,
        /// `data.max_bytes`, or what holds where nothing is said.
        limit: u64,
    },
    /// The recipe names no evaluation split.
    #[error("`[data]` names no evaluation split")]
    NoEvalSplit,
    /// A split without a single sample.
    #[error("split `{split}` in `{path}` is empty")]
    EmptySplit {
        /// The split as the recipe names it.
        split: String,
        /// The folder that `data.root` names; empty for `synthetic`.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done: `open`, `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of fixed-size records holds a part of one.
    #[error(
        "`{path}` is {bytes} bytes: expected a multiple of the record length {record}, found {} records and {} bytes more",
        bytes / record,
        bytes % record
    )]
    RecordLength {
        /// The file of records.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
        /// The length of one record.
        record: u64,
    },
    /// A file's header contradicts the format or the file's length.
    #[error("`{path}` is not a {format} file: {found}")]
    Malformed {
        /// The file that was read.
        path: PathBuf,
        /// What it was read as.
        format: &'static str,
        /// What is wrong with it: expected and found.
        found: String,
    },
    /// The file of decoded pixels is not as it was written.
    #[error("the decoded pixels in `{path}` are damaged: {problem}")]
    StoredPixels {
        /// The file of decoded pixels, which can be made again.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A Parquet file that cannot be read, or that the reader refuses. One page holds many images, so this is never a
    /// bad sample.
    #[error("cannot read {}Parquet file `{path}`", group.map_or_else(String::new, |group| format!("row group {group} of ")))]
    Parquet {
        /// The Parquet file, one of the split's.
        path: PathBuf,
        /// The row group, counted from 0, where it is one.
        group: Option<usize>,
        /// What the reader said.
        source: parquet::errors::ParquetError,
    },
    /// A Parquet file without a column that is needed.
    #[error("`{path}` has no {what} column: expected {expected}, found {found}")]
    Column {
        /// The Parquet file that lacks the column.
        path: PathBuf,
        /// `image` or `label`.
        what: &'static str,
        /// The name and type looked for.
        expected: String,
        /// The columns that are there.
        found: String,
    },
    /// Two files of one split do not mean the same by their labels.
    #[error("`{path}` has other classes than `{reference}`: {found}")]
    ShardClasses {
        /// The file whose labels mean something else.
        path: PathBuf,
        /// The file before it that it is compared with.
        reference: PathBuf,
        /// The first that differs.
        found: String,
    },
    /// A label at or above the class count, or below zero.
    #[error("{place}: label `{label}` is out of range, expected 0 to {}", n_classes.saturating_sub(1))]
    LabelRange {
        /// Which sample it is, and where it lies.
        place: String,
        /// The label that is out of range.
        label: i64,
        /// The number of classes.
        n_classes: usize,
    },
    /// A sample without a label, or with one that is no class.
    #[error("{place}: {found}")]
    Label {
        /// Which sample it is, and where its label lies; or a folder of samples.
        place: String,
        /// What is wrong with its label.
        found: String,
    },
    /// One sample's image cannot be had. `place` names it, `source` says why.
    #[error("{place} is a bad sample")]
    BadSample {
        /// Which sample, where: `sample 17 (train.parquet row 17)`.
        place: String,
        /// Why its bytes are no image.
        source: ImageError,
    },
    /// Several samples' images cannot be had.
    #[error("{n_bad} of {n_samples} samples are bad, {}", named(others, *n_bad))]
    BadSamples {
        /// Samples whose images cannot be had.
        n_bad: usize,
        /// Samples of the split, good and bad.
        n_samples: usize,
        /// Where the next few after the first lie, as in [`Self::BadSample`].
        others: Vec<String>,
        /// The first, with the reason.
        #[source]
        first: Box<DatasetError>,
    },
    /// A sample index at or above the length of the split.
    #[error("there is no sample {index}: the split holds {n_samples}")]
    NoSuchSample {
        /// The index asked for.
        index: u32,
        /// The length of the split.
        n_samples: usize,
    },
    /// What a recipe selects of the samples cannot be used, or leaves none.
    #[error("`{key}` {found}")]
    Selection {
        /// `data.subset`, `data.exclude` or `data.sample_weights`; `data` where nothing is left to use.
        key: &'static str,
        /// What is wrong with it, as the rest of a sentence.
        found: String,
    },
    /// A setting of `[data]`, `[views]` or a preprocessing that cannot be obeyed.
    #[error("`{key}` {found}")]
    Setting {
        /// The key in the recipe.
        key: String,
        /// What is wrong with its value, and what is expected.
        found: String,
    },
    /// A mean or a deviation that cannot belong to pixels of this scale.
    #[error("`{key}` holds {value}, but with `scale = \"{}\"` pixels lie in {}", scale.name(), scale.range())]
    WrongScale {
        /// `mean` or `std`.
        key: &'static str,
        /// The first of its numbers that cannot be meant.
        value: f32,
        /// The scale in force.
        scale: Scale,
    },
    /// An augmentation of an unknown name.
    #[error("`{name}` is not an augmentation")]
    UnknownAugment {
        /// What the recipe said.
        name: String,
        /// What it could have said.
        known: Vec<&'static str>,
    },
    /// An augmentation's options do not parse.
    #[error("augmentation `{name}` cannot be read")]
    AugmentOptions {
        /// The augmentation's name in the recipe.
        name: String,
        /// Its options with their defaults.
        takes: &'static str,
        /// Which key or value it was.
        source: serde_json::Error,
    },
    /// More views wanted than the family has.
    #[error("`views.count` is {count}, but this family of views has only {n_views}")]
    TooManyViews {
        /// The count asked for.
        count: u64,
        /// The size of the family.
        n_views: u64,
    },
    /// `count = "all"` of a family without end.
    #[error("`views.count` is `all`, but this family of views has no end")]
    EndlessFamily,
    /// An augmentation that needs a larger image than it got.
    #[error("{place}: `{augment}` cannot be applied to an image of {found}")]
    ViewSize {
        /// Which sample it is: one by its number, or every sample.
        place: String,
        /// Name of the augmentation that was to be applied.
        augment: String,
        /// The size it met.
        found: ImageSize,
    },
    /// Views of different images have different sizes, so no batch can be made of them.
    #[error(
        "`{views}` leaves images of different sizes: {} becomes {}, {} becomes {}",
        left.0, left.1, right.0, right.1
    )]
    ViewSizes {
        /// The views: `views.augment`, `views.clean`, `views.strong.augment`.
        views: &'static str,
        /// A sample, and the size of its view as the model would see it.
        left: (String, ImageSize),
        /// Another sample, whose view has another size.
        right: (String, ImageSize),
    },
    /// Two images of one batch have different sizes.
    #[error("{place} is {found}, but its batch is of {expected}")]
    BatchSize {
        /// Which sample it is, or whose partner.
        place: String,
        /// The size of the first image in the batch.
        expected: ImageSize,
        /// The size of this one.
        found: ImageSize,
    },
    /// A loader's thread panicked: a defect of ours, but the run stops in an orderly way.
    #[error("a loader thread panicked")]
    LoaderPanicked,
}

/// Why the bytes of one sample are no image that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No bytes at all.
    #[error("the image holds no bytes")]
    Empty,
    /// Neither PNG nor JPEG nor WebP.
    #[error("the bytes are no PNG, JPEG or WebP image: they begin with `{0}`")]
    UnknownCodec(String),
    /// The header claims more pixels than are plausible; refused before anything is allocated.
    #[error("the header claims {width} x {height} pixels, above the limit of {limit} pixels")]
    TooLarge {
        /// Columns of pixels that the header claims.
        width: u64,
        /// Rows of pixels that the header claims.
        height: u64,
        /// The greatest number of pixels that is decoded.
        limit: u64,
    },
    /// A file that is too large to be one encoded image; refused before it is read.
    #[error("the encoded image takes {bytes} bytes, above the limit of {limit}")]
    TooManyBytes {
        /// Length of the encoded image in bytes.
        bytes: u64,
        /// `data.max_bytes`, or what holds where nothing is said.
        limit: u64,
    },
    /// A colour image in a dataset of one channel.
    #[error("the image is in colour, but the dataset is of 1 channel")]
    Colour,
    /// An animation: which frame is the sample is not ours to guess.
    #[error("the image is an animation of {0} frames")]
    Animated(u32),
    /// A kind of image that is not decoded.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The PNG decoder refused.
    #[error("not a valid PNG")]
    Png(#[source] png::DecodingError),
    /// The JPEG decoder refused.
    #[error(transparent)]
    Jpeg(logitcask_jpeg::Error),
    /// The WebP decoder refused.
    #[error("not a valid WebP")]
    WebP(#[source] image_webp::DecodingError),
    /// The image is a null in its table, or names a file elsewhere.
    #[error("the row holds no image bytes")]
    Null,
    /// Bytes that end before the image does.
    #[error("the image is cut off: expected {expected} bytes, found {found}")]
    Truncated {
        /// Bytes of a whole image.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
}

/// "the first few of them ... and 7 more".
fn named(others: &[String], n_bad: usize) -> String {
    let unnamed = n_bad.saturating_sub(others.len() + 1);
    let more = match unnamed {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("after the first {}{more}", others.join(", "))
}

impl DatasetError {
    /// Whether it was asked wrongly, by a name or a setting, which no second try mends.
    pub fn is_request(&self) -> bool {
        match self {
            Self::UnknownFormat { .. }
            | Self::UnreadKey { .. }
            | Self::NoEvalSplit
            | Self::NoSuchSample { .. }
            | Self::Selection { .. }
            | Self::Setting { .. }
            | Self::WrongScale { .. }
            | Self::UnknownAugment { .. }
            | Self::AugmentOptions { .. }
            | Self::TooManyViews { .. }
            | Self::EndlessFamily
            | Self::ViewSizes { .. } => true,
            Self::FolderMissing { .. }
            | Self::SplitMissing { .. }
            | Self::ShardsMissing { .. }
            | Self::ShardSets { .. }
            | Self::Compressed { .. }
            | Self::Layout { .. }
            | Self::Undecoded { .. }
            | Self::ClassNames { .. }
            | Self::AboveLimit { .. }
            | Self::EmptySplit { .. }
            | Self::Io { .. }
            | Self::RecordLength { .. }
            | Self::Malformed { .. }
            | Self::StoredPixels { .. }
            | Self::Parquet { .. }
            | Self::Column { .. }
            | Self::ShardClasses { .. }
            | Self::LabelRange { .. }
            | Self::Label { .. }
            | Self::BadSample { .. }
            | Self::BadSamples { .. }
            | Self::ViewSize { .. }
            | Self::BatchSize { .. }
            | Self::LoaderPanicked => false,
        }
    }

    /// The same of a size that only some samples have.
    pub(crate) fn of_sample(mut self, sample: String) -> Self {
        if let Self::ViewSize { place, .. } = &mut self {
            *place = sample;
        }
        self
    }

    /// What to do about it, where that can be said: kept apart from the message, for the person who reads it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownFormat { name, known } | Self::UnknownAugment { name, known } => {
                nearest(name, known.iter().copied())
            }
            Self::FolderMissing { .. } => {
                "put the dataset there, or point `data.root` at it; `logitcask dataset get` downloads the well-known ones".into()
            }
            Self::SplitMissing { .. } => {
                "name a split that is there, or list its files: `train = [\"a\", \"b\"]`".into()
            }
            Self::ShardsMissing { .. } => "fetch them; or list the files that are meant, or set `allow_missing_shards = true` in `[data]`".into(),
            Self::ShardSets { .. } => "keep one of them, or list the files that are meant: `train = [\"a\", \"b\"]`".into(),
            Self::Compressed { path, unpack } => format!("{unpack} {}", path.display()),
            Self::Undecoded { .. } => "convert them to PNG, or set `on_bad = \"skip\"` in `[data]`: they keep their indices and are left out".into(),
            Self::ClassNames { .. } => "a label must mean the same in both splits: give the classes the same names".into(),
            Self::UnreadKey { readers, .. } => {
                let readers: Vec<String> = readers.iter().map(|name| format!("`{name}`")).collect();
                format!("leave it out; it is read by {}", readers.join(", "))
            }
            Self::AboveLimit { .. } => "if that is meant, `data.max_bytes` raises the limit".into(),
            Self::BadSample { source: ImageError::TooLarge { .. }, .. } => "if that is meant, `data.max_image_pixels` raises the limit; `on_bad = \"skip\"` leaves the image out".into(),
            Self::BadSample { source: ImageError::TooManyBytes { .. }, .. } => "if that is meant, `data.max_bytes` raises the limit; `on_bad = \"skip\"` leaves the image out".into(),
            Self::NoEvalSplit => "add `eval = \"test\"` to `[data]`".into(),
            Self::RecordLength { .. } => "the file is cut off or of another format: fetch it again, or correct `data.format`".into(),
            Self::Malformed { .. } | Self::Parquet { .. } => {
                "the file is cut off, damaged or of another format: fetch it again, or correct `data.format`".into()
            }
            Self::StoredPixels { path, .. } => {
                format!("remove the file, and it is written again from the images: rm '{}'", path.display())
            }
            Self::Column { what, .. } => format!("name the column: `{what}_column = \"...\"` in `[data]`"),
            Self::ShardClasses { .. } => "the files are not of one dataset: list those that are, `train = [\"a\", \"b\"]`".into(),
            Self::LabelRange { .. } => "correct `data.n_classes` if it is set; otherwise the file is damaged or of another format".into(),
            Self::BadSample { source: ImageError::Colour, .. } => "set `channels = 3` in `[data]`".into(),
            Self::BadSample { .. } | Self::BadSamples { .. } => "repair or replace the image, or set `on_bad = \"skip\"` in `[data]`: the sample keeps its index and is left out".into(),
            Self::Io { action: "read", .. } => "the disk failed, or the file was cut short or deleted while it was in use: see to that, then start again".into(),
            Self::AugmentOptions { name, takes, .. } => format!("`{name}` takes {takes}"),
            Self::TooManyViews { n_views, .. } => format!("set `count` to at most {n_views}, or to \"all\""),
            Self::EndlessFamily => "give `views.count` a number; only crops at every offset and flips, on images of one size, can be counted out".into(),
            Self::ViewSizes { views, .. } if *views == "views.clean" => {
                "bring every image to one size: `clean = [{ name = \"resize\", size = 256 }, { name = \"center_crop\", size = 224 }]`, say".into()
            }
            Self::ViewSizes { views, .. } => {
                format!("bring every image to one size: begin `{views}` with `random_resized_crop`, or with `resize` and `center_crop`")
            }
            Self::ViewSize { .. } | Self::BatchSize { .. } => {
                "bring every image to one size: begin `augment` with `resize` and `center_crop`, or with `random_resized_crop`; `clean` in `[views]` does it for evaluation".into()
            }
            Self::WrongScale { scale: Scale::Unit, .. } => {
                "add `scale = \"byte\"`, or divide `mean` and `std` by 255".into()
            }
            Self::WrongScale { scale: Scale::Byte, .. } => {
                "leave `scale = \"byte\"` out, or multiply `mean` and `std` by 255".into()
            }
            _ => return None,
        })
    }
}
