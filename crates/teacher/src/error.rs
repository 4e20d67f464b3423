//! Everything that can be wrong between an ONNX file and its logits.

use std::path::PathBuf;

use logitcask_cache::CacheError;
use logitcask_dataset::DatasetError;

use crate::execution_provider::ExecutionProvider;
use crate::figures::{percent, rounded};
use crate::head_shape::Shape;
use crate::remedy::Remedy;
use crate::spec::{OutputIs, Precision};

/// What went wrong; [`TeacherError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum TeacherError {
    #[error("no ONNX Runtime library found; looked in {}", list(searched))]
    RuntimeNotFound {
        searched: Vec<PathBuf>,
        provider: ExecutionProvider,
    },
    #[error("cannot look for ONNX Runtime's library in `{}`", path.display())]
    RuntimeUnreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{}` could not be loaded as ONNX Runtime", path.display())]
    RuntimeUnloadable {
        path: PathBuf,
        source: ort::LoadDynamicError,
    },
    #[error("`{}` is ONNX Runtime {found}; {needed} or a later 1.x is needed", path.display())]
    RuntimeTooOld {
        path: PathBuf,
        found: String,
        needed: String,
    },
    #[error("`{}` is not the library that was fetched: its SHA-256 is {found}, noted was {noted}", path.display())]
    RuntimeChanged {
        path: PathBuf,
        noted: String,
        found: String,
    },
    #[error("cannot read `{}`", path.display())]
    RuntimeUnread {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("ONNX Runtime is already loaded from `{}`; `{}` cannot be loaded beside it", loaded.display(), wanted.display())]
    RuntimeAlreadyLoaded { loaded: PathBuf, wanted: PathBuf },
    #[error("ONNX Runtime could not start")]
    Environment(#[source] ort::Error),

    #[error("unknown provider `{name}`; there are {}", ExecutionProvider::ALL.map(|provider| format!("`{provider}`")).join(", "))]
    UnknownProvider { name: String },
    #[error("the library `{}` was built without the `{provider}` provider", library.display())]
    ProviderNotBuilt {
        provider: ExecutionProvider,
        library: PathBuf,
    },
    #[error("the `{provider}` provider could not start{}", said(log))]
    ProviderFailed {
        provider: ExecutionProvider,
        log: Vec<String>,
        source: ort::Error,
    },
    #[error("the `{provider}` provider runs none of the teacher's nodes: {placement}")]
    ProviderUnused {
        provider: ExecutionProvider,
        placement: String,
    },

    #[error("`{}` could not be read", path.display())]
    ModelUnreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{}` is not an ONNX model{}", path.display(), looks_like.map(|it| format!("; it looks like {it}")).unwrap_or_default())]
    NotOnnx {
        path: PathBuf,
        looks_like: Option<&'static str>,
    },
    #[error("ONNX Runtime refuses the model `{}`", path.display())]
    ModelRefused { path: PathBuf, source: ort::Error },
    #[error("`{}` keeps weights in `{location}`, which lies outside the model's folder", path.display())]
    ExternalDataClimbsOut { path: PathBuf, location: String },
    #[error("the recipe says precision `{wanted}`, the weights of `{}` are `{found}`", path.display())]
    PrecisionDiffers {
        path: PathBuf,
        wanted: Precision,
        found: Precision,
        provider: ExecutionProvider,
    },

    #[error("the teacher wants {} inputs ({}); a classifier of images has one", names.len(), names.join(", "))]
    SeveralInputs { names: Vec<String> },
    #[error("the teacher's input `{name}` is {found}; images can be given as f32, f16 or u8")]
    InputType { name: String, found: String },
    #[error("the teacher's input `{name}` has shape {shape}, which is no batch of images")]
    InputRank { name: String, shape: String },
    #[error("the teacher's input `{name}` {shape} could be (B, C, H, W) or (B, H, W, C)")]
    LayoutUnclear { name: String, shape: String },
    #[error(
        "the teacher expects images of {expected} (channels x height x width), the preprocessed ones are {found}"
    )]
    ImageSize { expected: String, found: String },
    #[error("the teacher takes images of {wanted} channel{}, the preprocessed ones have {found}", if *wanted == 1 { "" } else { "s" })]
    Channels {
        wanted: usize,
        found: usize,
        n_means: usize,
    },
    #[error("the teacher does not take images as (B, C, H, W), but does as (B, H, W, C): {input}")]
    TakesNhwc { input: String },
    #[error("the teacher takes bytes, and preprocessing made {value} of a pixel")]
    NotBytes { value: f32 },

    #[error("the teacher has no output `{wanted}`; it has {}", quoted(names))]
    NoSuchOutput { wanted: String, names: Vec<String> },
    #[error(
        "the teacher has several outputs ({}), and none is called `logits`",
        quoted(names)
    )]
    OutputUnclear { names: Vec<String> },
    #[error("the output `{name}` has shape {shape}; one row of values per image was expected")]
    OutputShape { name: String, shape: String },
    #[error("the teacher answers with {found} features, and with {expected} before")]
    FeatureLength { found: usize, expected: usize },
    #[error("the features `{name}` are the very output that holds the logits")]
    FeaturesAreLogits { name: String },
    #[error("the output `{name}` is {found}; logits are f32, f16, bf16 or f64")]
    OutputType { name: String, found: String },
    #[error("the teacher gives {teacher} classes, the dataset has {dataset}")]
    ClassCount { teacher: usize, dataset: usize },
    #[error("`classes` names class {class}, the teacher has {n_classes} (0 to {})", n_classes - 1)]
    ClassOutOfRange { class: u32, n_classes: usize },
    #[error("`classes` names class {class} twice, at {first} and at {second}")]
    ClassTwice {
        class: u32,
        first: usize,
        second: usize,
    },
    #[error("the output `{output}` holds {found}, the recipe says {stated}")]
    OutputIsNot {
        output: String,
        found: OutputIs,
        stated: OutputIs,
        before: Option<String>,
    },
    #[error("the output `{output}` holds {shape}{}, made by the node {node}: no logits", times(*factor))]
    NoLogits {
        output: String,
        shape: Shape,
        node: String,
        before: Option<String>,
        factor: f64,
    },
    #[error("every row of the output `{output}` is positive and has the sum {}: probabilities of a softmax times a number, no logits", rounded(*sum))]
    ScaledProbabilities { output: String, sum: f32 },
    #[error(
        "the teacher is constant: the output `{output}` says the same of {n_images} different images"
    )]
    Constant { output: String, n_images: usize },

    #[error(
        "the node {node} was exported in training mode, where an answer depends on the batch or on chance"
    )]
    Training { node: String },
    #[error(
        "the same images asked twice get answers that differ by {difference:.1e} (allowed: {allowed:.1e}){}: the teacher answers by chance",
        fault(node)
    )]
    Chance {
        node: Option<String>,
        difference: f32,
        allowed: f32,
    },
    #[error(
        "an image asked alone gets an answer that differs by {difference:.1e} (allowed: {allowed:.1e}) from its answer in a batch{}",
        fault(node)
    )]
    Batch {
        node: Option<String>,
        difference: f32,
        allowed: f32,
    },
    #[error(
        "the node {node} quantises by the extremes of a whole batch, so that an answer depends on the batch, and the recipe states none"
    )]
    QuantisedByBatch { node: String },
    #[error(
        "a batch of {at_once} images decides the rows of this teacher, and chunks of {chunk_rows} samples cut through batches"
    )]
    ChunkCutsBatch { at_once: usize, chunk_rows: u32 },
    #[error("the teacher answers sample {sample}, view {view} with {value} for {what} {index}")]
    NotFinite {
        sample: u32,
        view: u32,
        what: &'static str,
        index: usize,
        value: f32,
    },

    #[error("out of memory with {rows} images at once")]
    OutOfMemory { rows: usize, source: ort::Error },
    #[error("the teacher failed on a batch of {rows} images")]
    Run { rows: usize, source: ort::Error },
    #[error("there is no part `{text}`; parts are counted from 1, as in `1/8`")]
    NoSuchPart { text: String },
    #[error("the teacher's accuracy is {} on {n_samples} samples, the recipe asks for {}", percent(*accuracy), percent(*wanted))]
    TooInaccurate {
        accuracy: f64,
        wanted: f64,
        n_samples: usize,
        best: Option<Remedy>,
    },

    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl TeacherError {
    /// Whether it was asked wrongly, by a name or a setting, which no second try mends.
    pub fn is_request(&self) -> bool {
        match self {
            Self::UnknownProvider { .. }
            | Self::PrecisionDiffers { .. }
            | Self::NoSuchOutput { .. }
            | Self::OutputUnclear { .. }
            | Self::FeaturesAreLogits { .. }
            | Self::ClassOutOfRange { .. }
            | Self::ClassTwice { .. }
            | Self::ChunkCutsBatch { .. }
            | Self::NoSuchPart { .. } => true,
            Self::Dataset(error) => error.is_request(),
            Self::Cache(error) => error.is_request(),
            Self::RuntimeNotFound { .. }
            | Self::RuntimeUnreadable { .. }
            | Self::RuntimeUnloadable { .. }
            | Self::RuntimeTooOld { .. }
            | Self::RuntimeChanged { .. }
            | Self::RuntimeUnread { .. }
            | Self::RuntimeAlreadyLoaded { .. }
            | Self::Environment(_)
            | Self::ProviderNotBuilt { .. }
            | Self::ProviderFailed { .. }
            | Self::ProviderUnused { .. }
            | Self::ModelUnreadable { .. }
            | Self::NotOnnx { .. }
            | Self::ModelRefused { .. }
            | Self::ExternalDataClimbsOut { .. }
            | Self::SeveralInputs { .. }
            | Self::InputType { .. }
            | Self::InputRank { .. }
            | Self::LayoutUnclear { .. }
            | Self::ImageSize { .. }
            | Self::Channels { .. }
            | Self::TakesNhwc { .. }
            | Self::NotBytes { .. }
            | Self::OutputShape { .. }
            | Self::FeatureLength { .. }
            | Self::OutputType { .. }
            | Self::ClassCount { .. }
            | Self::OutputIsNot { .. }
            | Self::NoLogits { .. }
            | Self::ScaledProbabilities { .. }
            | Self::Constant { .. }
            | Self::Training { .. }
            | Self::Chance { .. }
            | Self::Batch { .. }
            | Self::QuantisedByBatch { .. }
            | Self::NotFinite { .. }
            | Self::OutOfMemory { .. }
            | Self::Run { .. }
            | Self::TooInaccurate { .. } => false,
        }
    }

    /// What to type or change next, where something can be said.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::RuntimeNotFound { provider: ExecutionProvider::Cpu, .. } => "run `make setup`, or point ORT_DYLIB_PATH at a library".into(),
            Self::RuntimeNotFound { .. } | Self::ProviderNotBuilt { .. } => {
                "run `make setup PROVIDER=cuda`, or point ORT_DYLIB_PATH at a library built with it".into()
            }
            Self::RuntimeChanged { path, .. } => format!(
                "remove `{}` and run `make setup`; a library of your own is named by ORT_DYLIB_PATH",
                path.parent().unwrap_or(path).display()
            ),
            Self::RuntimeUnloadable { .. } | Self::RuntimeTooOld { .. } => "run `make setup` for the pinned library, and unset ORT_DYLIB_PATH".into(),
            Self::ProviderFailed { source, .. } => provider_hint(source.message()),
            Self::ProviderUnused { .. } => "`--provider cpu` is the honest choice for this model".into(),
            Self::ModelUnreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "check `onnx` in [[teacher]]; weight files must lie where the model names them, beside it".into()
            }
            Self::NotOnnx { looks_like: Some("a Git LFS pointer"), .. } => "fetch the real file with `git lfs pull`".into(),
            Self::NotOnnx { .. } => "export the teacher with `torch.onnx.export`".into(),
            Self::ModelRefused { .. } => "`python -m onnx.checker FILE` says whether the file is sound; a newer operator set or operators of one's own need another library".into(),
            Self::ExternalDataClimbsOut { .. } => "move the weights beside the model and save it again".into(),
            Self::PrecisionDiffers { found, wanted, provider, .. } => match (wanted, provider) {
                (Precision::Tf32, ExecutionProvider::Cpu) => {
                    "write `precision = \"f32\"`, or add `--provider cuda`: only GPUs round so".into()
                }
                (Precision::F16, ExecutionProvider::Cuda | ExecutionProvider::Cpu) => {
                    format!("write `precision = \"{found}\"`, convert the model to f16 first, or let `--provider tensorrt` build an f16 engine")
                }
                _ => format!("write `precision = \"{found}\"`"),
            },
            Self::LayoutUnclear { .. } => "add `layout = \"nchw\"` (PyTorch) or `layout = \"nhwc\"` (TensorFlow) to [[teacher]]".into(),
            Self::Channels { wanted: 1, n_means: 2.., .. } => {
                "give `mean` and `std` one value each in [[teacher]]; where the images are in colour, add `channels = 1`".into()
            }
            Self::Channels { wanted: 1, .. } => "add `channels = 1` to [[teacher]]: the images are then turned grey".into(),
            Self::Channels { wanted, .. } => {
                format!("give `mean` and `std` {wanted} values each in [[teacher]], or add `channels = {wanted}`: grey is then repeated")
            }
            Self::TakesNhwc { .. } => "add `layout = \"nhwc\"` to [[teacher]]".into(),
            Self::ImageSize { .. } => "set `size` in [[teacher]] to the side that the teacher was trained on, or check `layout`".into(),
            Self::NotBytes { .. } => "set `scale = \"byte\"` with mean 0 and std 1 in [[teacher]]: this teacher normalises by itself".into(),
            Self::NoSuchOutput { .. } | Self::OutputUnclear { .. } => "name one with `output = \"...\"` in [[teacher]]; tensors inside the graph will do too".into(),
            Self::FeaturesAreLogits { .. } => "name another output in `features`, or leave it out".into(),
            Self::OutputShape { .. } => "choose another output with `output = \"...\"` (or `features = \"...\"`) in [[teacher]]: one of shape (B, N), or (B, N, 1, 1)".into(),
            Self::Run { rows, .. } if *rows > 0 => "export the teacher again with a dynamic batch (`dynamic_shapes` of `torch.onnx.export`), and try it in Python's onnxruntime".into(),
            Self::ClassCount { .. } => "select or reorder the teacher's classes with `classes = [...]`, one index per class of the dataset".into(),
            Self::ClassTwice { .. } => "give each class of the dataset a class of the teacher's own".into(),
            Self::NoLogits { shape: Shape::Sorted, .. } => "name the tensor before the sorting with `output = \"...\"`".into(),
            Self::NoLogits { shape, before: Some(before), .. } => {
                let rows = match shape {
                    Shape::Sigmoid => "the pre-sigmoid logits, which is what a head of sigmoids is distilled from",
                    _ => "the logits",
                };
                format!("write `output = \"{before}\"` in [[teacher]]: it holds {rows}")
            }
            Self::NoLogits { .. } | Self::ScaledProbabilities { .. } => {
                "name the tensor before it with `output = \"...\"` (any tensor of the graph will do), or export the teacher again without it".into()
            }
            Self::Constant { .. } => {
                "no student can learn from it: look at the export, whose weights or input may be missing, and at mean, std and scale".into()
            }
            Self::Training { .. } | Self::Chance { .. } => {
                "export the teacher again for inference: `model.eval()` before `torch.onnx.export`, without `training=`".into()
            }
            Self::Batch { .. } => {
                "export the teacher again for inference (`model.eval()`), so that an image's answer depends on that image alone; or with a fixed batch of one".into()
            }
            Self::QuantisedByBatch { .. } => {
                "add `batch_size = 1` to [[teacher]]: a row then depends on its own pixels alone, and the number becomes part of the cache's key; larger batches are faster and tie a row to its neighbours".into()
            }
            Self::ChunkCutsBatch { at_once, .. } => format!("set `chunk_rows` to a multiple of {at_once}, or `batch_size = 1`"),
            Self::OutputIsNot { found: OutputIs::Logits, .. } => "remove `output_is` from [[teacher]]".into(),
            Self::OutputIsNot { found, before, .. } => {
                let before = before.as_deref().unwrap_or("...");
                format!("name the output before the softmax with `output = \"{before}\"`, or write `output_is = \"{found}\"`: the rows' level is lost then")
            }
            Self::NotFinite { sample, .. } => {
                format!("look at the image with `logitcask dataset show {sample}`; a teacher in f16 may overflow where f32 does not")
            }
            Self::OutOfMemory { .. } => "set a smaller `batch_size` in [[teacher]]".into(),
            Self::TooInaccurate { best: Some(best), .. } => best.to_string(),
            Self::TooInaccurate { .. } => {
                "no common normalisation, channel order or order of classes does better: check mean, std, scale, size and whether it is the right model".into()
            }
            Self::Dataset(error) => return error.hint(),
            Self::Cache(error) => return error.hint(),
            _ => return None,
        };
        Some(text)
    }
}

/// The library that the loader misses tells what is not installed.
fn provider_hint(message: &str) -> String {
    let missing =
        |name: &str| message.contains(name) && message.contains("cannot open shared object");
    if missing("libcuda.so") {
        return "there is no NVIDIA driver on this machine (`libcuda.so.1` comes with it); `--provider cpu` runs without".into();
    }
    if missing("libnvinfer") || missing("libnvonnxparser") {
        return "install TensorRT 10 for CUDA 13 and put it on LD_LIBRARY_PATH (PyPI has no wheel of it), or use `--provider cuda`".into();
    }
    if message.contains("cannot open shared object") {
        return "`make setup PROVIDER=cuda` fetches the CUDA and cuDNN libraries beside ONNX Runtime".into();
    }
    "`logitcask doctor` lists what is missing; `--provider cpu` runs without a GPU".into()
}

fn list(paths: &[PathBuf]) -> String {
    let named: Vec<String> = paths
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    named.join(", ")
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn fault(node: &Option<String>) -> String {
    node.as_ref().map_or(String::new(), |node| {
        format!("; the node at fault is {node}")
    })
}

fn times(factor: f64) -> String {
    match factor {
        1.0 => String::new(),
        _ => format!(" times {}", factor as f32),
    }
}

fn said(log: &[String]) -> String {
    match log.last() {
        Some(line) => format!("; ONNX Runtime says: {}", line.trim()),
        None => String::new(),
    }
}
