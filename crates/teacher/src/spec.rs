//! `[[teacher]]`: what a recipe says about one teacher.

use std::path::{Path, PathBuf};

use logitcask_cache::CacheKey;
use logitcask_dataset::{ChannelOrder, Interpolation, Pillow, PreprocessSpec, Scale};
use serde::{Deserialize, Serialize};

/// One `[[teacher]]` of a recipe. Everything here describes the experiment; the machine is described by
/// [`Device`](crate::Device).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct TeacherSpec {
    /// The ONNX file; empty where `cache` stands for it.
    pub onnx: PathBuf,
    /// One of its caches instead of the file, which says everything else: a folder, its name, or the beginning of its id.
    pub cache: Option<String>,
    /// What a cache says of the teacher, where there is no file to ask: the key that its logits have.
    pub known: Option<CacheKey>,
    /// What to call it; the file's name without its ending, if absent.
    pub name: Option<String>,
    /// How pixels become the teacher's input.
    pub preprocess: PreprocessSpec,
    /// The arithmetic that the logits come from.
    pub precision: Precision,
    /// How rows are stored: the name of one of the cache's encodings.
    pub encoding: String,
    /// The output that holds the logits; needed only where the model has several and none is called `logits`.
    pub output: Option<String>,
    /// What that output holds.
    pub output_is: OutputIs,
    /// A further output, such as a pooled embedding, that is stored beside the logits.
    pub features: Option<String>,
    /// For each class of the dataset, the teacher's index of it. Absent: the same classes in the same order.
    pub classes: Option<Vec<u32>>,
    /// How the input's four dimensions are meant, where their sizes do not tell.
    pub layout: Option<Layout>,
    /// Refuse to capture if the teacher's top-1 accuracy on labelled samples is below this (0 to 1).
    pub min_accuracy: Option<f64>,
    /// Images in one run of the teacher; found by a short trial if absent.
    pub batch_size: Option<usize>,
    /// Samples in one chunk of the cache; the cache's own choice if absent.
    pub chunk_rows: Option<u32>,
}

impl TeacherSpec {
    /// What people call this teacher: `name`, or the file's name without its ending.
    pub fn title(&self) -> String {
        let path = match &self.cache {
            Some(cache) => Path::new(cache),
            None => &self.onnx,
        };
        let stem = || path.file_stem().unwrap_or(path.as_os_str());
        let name = self.name.clone();
        name.unwrap_or_else(|| stem().to_string_lossy().into_owned())
    }
}

/// A teacher as it stands in a recipe: preprocessing is written among the other keys. It is spelt out here rather than
/// flattened, because serde then forgets which keys there are, and could not name the nearest to a misspelt one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    onnx: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mean: Vec<f32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    std: Vec<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    interpolation: Interpolation,
    #[serde(default, skip_serializing_if = "is_default")]
    pillow: Pillow,
    #[serde(default)]
    channel_order: ChannelOrder,
    #[serde(default)]
    scale: Scale,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
    #[serde(default)]
    precision: Precision,
    #[serde(default = "default_encoding")]
    encoding: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(default)]
    output_is: OutputIs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    features: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<Layout>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunk_rows: Option<u32>,
}

impl TryFrom<Written> for TeacherSpec {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match (&written.onnx, &written.cache) {
            (None, None) => {
                return Err("a teacher needs `onnx`, its file, or `cache`, one of its caches");
            }
            (Some(_), Some(_)) => {
                return Err(
                    "`onnx` and `cache` are both given: a cache already says whose logits it holds",
                );
            }
            _ => {}
        }
        let Written {
            mean,
            std,
            size,
            interpolation,
            pillow,
            channel_order,
            scale,
            channels,
            ..
        } = written;
        Ok(TeacherSpec {
            onnx: written.onnx.unwrap_or_default(),
            cache: written.cache,
            known: None,
            name: written.name,
            preprocess: PreprocessSpec {
                mean,
                std,
                size,
                interpolation,
                pillow,
                channel_order,
                scale,
                channels,
            },
            precision: written.precision,
            encoding: written.encoding,
            output: written.output,
            output_is: written.output_is,
            features: written.features,
            classes: written.classes,
            layout: written.layout,
            min_accuracy: written.min_accuracy,
            batch_size: written.batch_size,
            chunk_rows: written.chunk_rows,
        })
    }
}

impl From<TeacherSpec> for Written {
    fn from(spec: TeacherSpec) -> Self {
        let PreprocessSpec {
            mean,
            std,
            size,
            interpolation,
            pillow,
            channel_order,
            scale,
            channels,
        } = spec.preprocess;
        Written {
            onnx: spec.cache.is_none().then_some(spec.onnx),
            cache: spec.cache,
            name: spec.name,
            mean,
            std,
            size,
            interpolation,
            pillow,
            channel_order,
            scale,
            channels,
            precision: spec.precision,
            encoding: spec.encoding,
            output: spec.output,
            output_is: spec.output_is,
            features: spec.features,
            classes: spec.classes,
            layout: spec.layout,
            min_accuracy: spec.min_accuracy,
            batch_size: spec.batch_size,
            chunk_rows: spec.chunk_rows,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Half the bytes of f32, and the softened output moves by less than 1e-6.
fn default_encoding() -> String {
    "f16".to_owned()
}

/// The arithmetic of the teacher, part of the cache's key as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point, products included.
    #[default]
    F32,
    /// 32-bit floating point whose products a GPU rounds to TensorFloat-32: faster, with about three decimal digits.
    Tf32,
    /// 16-bit floating point: a model whose weights are f16, or an f16 engine that TensorRT builds from f32 weights.
    F16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
        })
    }
}

/// What the teacher's output holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputIs {
    /// Raw logits: stored as they are.
    #[default]
    Logits,
    /// Softmax has been applied: the logarithm is taken, and each row centred to mean 0. Where the row's level was is lost.
    Probabilities,
    /// Log-softmax has been applied: each row is centred to mean 0.
    LogProbabilities,
}

impl OutputIs {
    /// The name as it is written in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Probabilities => "probabilities",
            Self::LogProbabilities => "log_probabilities",
        }
    }

    /// Whether the stored rows are the teacher's own logits, level and all.
    pub fn is_absolute(self) -> bool {
        self == Self::Logits
    }
}

impl std::fmt::Display for OutputIs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The order of an input's dimensions, as stated in a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// (B, channels, H, W), PyTorch's order.
    Nchw,
    /// (B, H, W, channels), TensorFlow's order.
    Nhwc,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_teacher_is_read_and_written_alike() {
        let text = "onnx = \"teachers/r56.onnx\"\nmean = [0.5]\nstd = [0.25]\nsize = 24\ninterpolation = \"bicubic\"\npillow = 13\nscale = \"byte\"\nprecision = \"f16\"\nclasses = [1, 0]\n";
        let spec: TeacherSpec = toml::from_str(text).unwrap();
        assert_eq!(
            (spec.title().as_str(), spec.precision, spec.preprocess.scale),
            ("r56", Precision::F16, Scale::Byte)
        );
        let again: TeacherSpec = toml::from_str(&toml::to_string(&spec).unwrap()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{spec:?}"));
    }

    #[test]
    fn a_misspelt_key_is_answered_with_all_keys() {
        let message = toml::from_str::<TeacherSpec>("onnx = \"x\"\nmeans = [0.5]\n")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("unknown field `means`")
                && message.contains("`mean`")
                && message.contains("`output_is`"),
            "{message}"
        );
    }
}
