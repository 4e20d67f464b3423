//! Small stand-ins of real datasets, each in its own format, with images of differing sizes where the format has them;
//! and a teacher of random weights that takes images of any size.
#![allow(dead_code, reason = "each test file uses its part of the stand-ins")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use logitcask_dataset::{DataSpec, Image, ImageSize, SplitSpec};

use crate::common::{Dim, FLOAT, Graph, raw_f32};

/// (height, width) of photos as cameras make them, in turn.
const DIFFERING: &[(usize, usize)] = &[(40, 48), (48, 40), (37, 61), (52, 36)];
/// Of Tiny-ImageNet's.
const TINY: &[(usize, usize)] = &[(64, 64)];

/// How photos lie on the disk.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// `<split>/class00/a.png`.
    Folder,
    /// `<split>.parquet`, in row groups of three.
    Parquet,
    /// `<split>-000000.tar` and `<split>-000001.tar`.
    Tar,
}

/// Photos in colour, the same number of each class.
pub(crate) struct Photos {
    n_classes: usize,
    n_each: usize,
    /// (height, width) in turn.
    sizes: &'static [(usize, usize)],
}

impl Photos {
    /// Of differing sizes.
    pub(crate) fn new(n_classes: usize, n_each: usize) -> Self {
        Self {
            n_classes,
            n_each,
            sizes: DIFFERING,
        }
    }

    pub(crate) fn write(&self, root: &Path, layout: Layout, split: &str) {
        fs::create_dir_all(root).unwrap();
        let photos: Vec<(usize, Vec<u8>)> = (0..self.n_classes * self.n_each)
            .map(|index| {
                let (height, width) = self.sizes[index % self.sizes.len()];
                let size = ImageSize {
                    height,
                    width,
                    channels: 3,
                };
                (index / self.n_each, png_of(index, size))
            })
            .collect();
        match layout {
            Layout::Folder => folder(root, split, &photos),
            Layout::Parquet => parquet(root, split, &photos),
            Layout::Tar => tars(root, split, &photos),
        }
    }
}

/// Writes what `spec` asks for below `root`: its splits, with `n_classes` classes; an image folder of 200 is
/// Tiny-ImageNet's.
pub(crate) fn write(spec: &DataSpec, root: &Path, n_classes: usize) {
    fs::create_dir_all(root).unwrap();
    for (split, is_train) in [(Some(&spec.train), true), (spec.eval.as_ref(), false)] {
        let Some(split) = split else { continue };
        let names = match split {
            SplitSpec::Name(name) => vec![name.clone()],
            SplitSpec::Files(names) => names.clone(),
        };
        for name in names {
            match spec.format.as_str() {
                "cifar10" => cifar(root, &cifar10_file(&name), n_classes, 1),
                "cifar100" => cifar(root, &format!("{name}.bin"), n_classes, 2),
                "stl10" => stl10(root, &name),
                "parquet" => digits(root, &name),
                "image_folder" => {
                    let photos = Photos {
                        n_classes: if is_train { n_classes } else { 4 },
                        n_each: 2,
                        sizes: if n_classes == 200 { TINY } else { DIFFERING },
                    };
                    photos.write(root, Layout::Folder, &name);
                }
                other => panic!("there is no stand-in of `{other}`"),
            }
        }
    }
}

/// Mean and maximum of each channel, and one linear layer of fixed pseudo-random weights.
pub(crate) fn teacher(channels: u64, n_classes: u64) -> Vec<u8> {
    let spread = |n: u64| -> Vec<f32> {
        // Weyl's sequence: even, and without ties.
        (1..=n)
            .map(|i| (i as f64 * 0.618_033_988_749_895).fract() as f32 * 6.0 - 3.0)
            .collect()
    };
    Graph::default()
        .input(
            "input",
            FLOAT,
            &[
                Dim::Any("batch"),
                Dim::Is(channels),
                Dim::Any("height"),
                Dim::Any("width"),
            ],
        )
        .weights(
            "w",
            FLOAT,
            &[2 * channels, n_classes],
            &raw_f32(&spread(2 * channels * n_classes)),
        )
        .weights("b", FLOAT, &[n_classes], &raw_f32(&spread(n_classes)))
        .node("GlobalAveragePool", &["input"], "mean", &[])
        .node("GlobalMaxPool", &["input"], "maximum", &[])
        .node("Concat", &["mean", "maximum"], "pooled", &[("axis", 1)])
        .node("Flatten", &["pooled"], "flat", &[])
        .node("Gemm", &["flat", "w", "b"], "logits", &[])
        .output("logits", FLOAT, &[Dim::Any("batch"), Dim::Is(n_classes)])
        .model(13)
}

/// A picture of its own for each index: slopes and a bright spot.
fn picture(index: usize, size: ImageSize) -> Image {
    let pixels = (0..size.n_bytes())
        .map(|at| {
            let (pixel, channel) = (at / size.channels, at % size.channels);
            let (y, x) = (pixel / size.width, pixel % size.width);
            (y * (index % 7 + 1) + x * (index % 5 + 1) + (channel + 1) * index * 37) as u8
        })
        .collect();
    Image::from_pixels(size, pixels)
}

fn png_of(index: usize, size: ImageSize) -> Vec<u8> {
    logitcask_dataset::png(&picture(index, size)).unwrap()
}

fn folder(root: &Path, split: &str, photos: &[(usize, Vec<u8>)]) {
    for (index, (class, png)) in photos.iter().enumerate() {
        let folder = root.join(split).join(format!("class{class:02}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{index:05}.png")), png).unwrap();
    }
}

fn parquet(root: &Path, split: &str, photos: &[(usize, Vec<u8>)]) {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(
        photos.iter().map(|(_, png)| png),
    ));
    let fields = Fields::from(vec![Field::new("bytes", DataType::Binary, true)]);
    let images: ArrayRef = Arc::new(StructArray::new(fields.clone(), vec![bytes], None));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(
        photos.iter().map(|(class, _)| *class as i64),
    ));
    let schema = Arc::new(Schema::new(vec![
        Field::new("image", DataType::Struct(fields), true),
        Field::new("label", DataType::Int64, true),
    ]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![images, labels]).unwrap();
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(3))
        .build();
    let file = fs::File::create(root.join(format!("{split}.parquet"))).unwrap();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn tars(root: &Path, split: &str, photos: &[(usize, Vec<u8>)]) {
    for (shard, photos) in photos.chunks(photos.len().div_ceil(2)).enumerate() {
        let file = fs::File::create(root.join(format!("{split}-{shard:06}.tar"))).unwrap();
        let mut archive = tar::Builder::new(file);
        let mut add = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes).unwrap();
        };
        for (index, (class, png)) in photos.iter().enumerate() {
            add(format!("{index:05}.png"), png);
            add(format!("{index:05}.cls"), class.to_string().as_bytes());
        }
        archive.finish().unwrap();
    }
}

fn cifar10_file(name: &str) -> String {
    match name {
        "train" => "data_batch_1.bin".to_owned(),
        "test" => "test_batch.bin".to_owned(),
        file => file.to_owned(),
    }
}

fn cifar(root: &Path, file: &str, n_classes: usize, label_bytes: usize) {
    let size = ImageSize {
        height: 32,
        width: 32,
        channels: 3,
    };
    let mut bytes = Vec::new();
    for index in 0..24 {
        // The coarse label first, where there is one.
        let label = (index * 7 % n_classes) as u8;
        bytes.extend(std::iter::repeat_n(label / 5, label_bytes - 1));
        bytes.push(label);
        bytes.extend(picture(index, size).pixels());
    }
    fs::write(root.join(file), bytes).unwrap();
}

fn stl10(root: &Path, split: &str) {
    let size = ImageSize {
        height: 96,
        width: 96,
        channels: 3,
    };
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for index in 0..20 {
        images.extend(picture(index, size).pixels());
        labels.push((index % 10) as u8 + 1);
    }
    fs::write(root.join(format!("{split}_X.bin")), images).unwrap();
    fs::write(root.join(format!("{split}_y.bin")), labels).unwrap();
}

/// Grey images of 8 x 8, as the embedded digits are.
fn digits(root: &Path, split: &str) {
    let size = ImageSize {
        height: 8,
        width: 8,
        channels: 1,
    };
    let photos: Vec<(usize, Vec<u8>)> = (0..24)
        .map(|index| (index % 10, png_of(index, size)))
        .collect();
    parquet(root, split, &photos);
}
