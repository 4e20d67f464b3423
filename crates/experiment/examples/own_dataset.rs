//! Images of one's own, in a format of one's own, with an augmentation of one's own:
//!
//! ```sh
//! cargo run --release --example own_dataset
//! ```
//!
//! The images lie in NumPy arrays, `train.npy` (N, H, W, C) of u8 and `train_labels.npy` (N,) of i64. The example writes such
//! arrays from the embedded digits first. A cache is named by the teacher and the pixels, not by the files that they came from:
//! logits that were captured from the Parquet files serve these arrays, and the teacher does not run again.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use logitcask_dataset::{
    Augment, AugmentRow, Choice, DataSpec, Dataset, DatasetError, FetchError, Fetched, FormatRow,
    Image, ImageSize, Opened, Role, Source, SplitSpec, Step,
};
use logitcask_experiment::{Capture, Machine, Own, capture, read_checked_with};

/// An array of pixels in memory. One on disk would be read by position, as several threads fetch at once.
struct Npy {
    path: PathBuf,
    size: ImageSize,
    pixels: Vec<u8>,
}

impl Source for Npy {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let n_bytes = self.size.n_bytes();
        let start = index as usize * n_bytes;
        image
            .reshape(self.size)
            .copy_from_slice(&self.pixels[start..start + n_bytes]);
        Ok(Fetched::Pixels)
    }

    fn place(&self, index: u32) -> String {
        format!("`{}` row {index}", self.path.display())
    }
}

fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let path = spec.root.join(format!("{split}.npy"));
    let label_path = spec.root.join(format!("{split}_labels.npy"));
    let (shape, pixels) = read_npy(&path)?;
    let (_, labels) = read_npy(&label_path)?;
    let &[n_samples, height, width, channels] = &shape[..] else {
        return Err(unusable(&path, "is not of shape (N, H, W, C)"));
    };
    let size = ImageSize {
        height,
        width,
        channels,
    };
    let labels: Vec<u32> = labels
        .chunks_exact(8)
        .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    if labels.len() != n_samples || pixels.len() != n_samples * size.n_bytes() {
        return Err(unusable(
            &path,
            "and its labels do not hold as many samples",
        ));
    }
    Ok(Opened {
        n_classes: spec.n_classes.unwrap_or(10),
        labels,
        class_names: Vec::new(),
        uniform_size: Some(size),
        files: [path.clone(), label_path].into(),
        notes: Vec::new(),
        source: Box::new(Npy { path, size, pixels }),
    })
}

/// The shape and the bytes of an array that NumPy's `save` wrote.
fn read_npy(path: &Path) -> Result<(Vec<usize>, Vec<u8>), DatasetError> {
    let bytes = fs::read(path).map_err(|source| DatasetError::Io {
        action: "read",
        path: path.into(),
        source,
    })?;
    let parse = || {
        let header = 10 + usize::from(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?));
        let text = std::str::from_utf8(bytes.get(10..header)?).ok()?;
        let (_, shape) = text.split_once("'shape': (")?;
        let shape = shape.split_once(')')?.0.split(',');
        let shape = shape.filter_map(|n| n.trim().parse().ok()).collect();
        Some((shape, bytes.get(header..)?.to_vec()))
    };
    parse().ok_or_else(|| unusable(path, "is no array that NumPy wrote"))
}

fn unusable(path: &Path, why: &str) -> DatasetError {
    DatasetError::Setting {
        key: "data.root".into(),
        found: format!("leads to `{}`, which {why}", path.display()),
    }
}

/// One random row becomes black.
#[derive(Debug)]
struct EraseRow;

impl Augment for EraseRow {
    fn options(&self) -> String {
        "{}".into()
    }

    /// Counted out: one view for each row, each in its turn.
    fn n_elements(&self, input: ImageSize) -> Option<u64> {
        Some(input.height as u64)
    }

    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        let top = match choice {
            Choice::Element(row) => row as u32,
            Choice::Drawn(stream) => stream.below(input.height as u64) as u32,
        };
        steps.push(Step::Erase {
            top,
            left: 0,
            height: 1,
            width: input.width as u32,
            value: [0; 3],
        });
    }
}

pub(crate) static OWN: Own = Own {
    formats: &[FormatRow {
        name: "npy",
        summary: "NumPy arrays: <split>.npy (N, H, W, C) of u8, <split>_labels.npy (N,) of i64",
        reads: &["root", "n_classes"],
        open,
        shows_classes: false,
        class_names: |_, _| Ok(Vec::new()),
    }],
    augmentations: &[AugmentRow {
        name: "erase_row",
        summary: "one random row becomes black",
        build: |_| Ok(Box::new(EraseRow)),
    }],
    ..Own::NONE
};

fn main() -> Result<(), Box<dyn Error>> {
    run(&PathBuf::from(
        std::env::args().nth(1).unwrap_or("data".into()),
    ))
}

/// With data and caches below `place`.
pub(crate) fn run(place: &Path) -> Result<(), Box<dyn Error>> {
    let root = place.join("datasets/digits-npy");
    fs::create_dir_all(&root)?;
    write_digits(&root)?;

    let cache_dir = place.join("cache");
    let recipe_file = Path::new("pipelines/quick.toml");
    let stop = AtomicBool::new(false);
    let how = Capture {
        cache_dir: &cache_dir,
        machine: &Machine::cpu(2, &cache_dir),
        part: "1/1".parse()?,
        stop: &stop,
    };
    let captured = |overrides: &[String]| -> Result<usize, Box<dyn Error>> {
        let recipe = read_checked_with(recipe_file, overrides, OWN)?;
        capture(recipe, &how, &|_| {})?;
        Ok(fs::read_dir(&cache_dir)?.count())
    };
    let of_parquet = captured(&[])?;
    let arrays = [
        "data.format=npy".to_owned(),
        format!("data.root={}", root.display()),
    ];
    let of_arrays = captured(&arrays)?;
    println!(
        "{} caches were made anew for the arrays",
        of_arrays - of_parquet
    );

    let mut erased = arrays.to_vec();
    erased.push(r#"views.augment=[{ name = "erase_row" }]"#.to_owned());
    erased.push("views.count=all".to_owned());
    let with_erased = captured(&erased)?;
    println!("{} for the views of `erase_row`", with_erased - of_arrays);
    Ok(())
}

/// What `numpy.save` would write.
fn write_digits(root: &Path) -> Result<(), Box<dyn Error>> {
    let mut spec = DataSpec::new("parquet", "data/digits");
    spec.eval = Some("test".into());
    for (role, split) in [(Role::Train, "train"), (Role::Eval, "test")] {
        let dataset = Dataset::open(&spec, role)?;
        let (mut pixels, mut image) = (Vec::new(), Image::new());
        for index in 0..dataset.len() as u32 {
            dataset.decode(index, &mut image)?;
            pixels.extend_from_slice(image.pixels());
        }
        let labels = dataset.labels().iter();
        let labels: Vec<u8> = labels.flat_map(|&l| u64::from(l).to_le_bytes()).collect();
        let (
            n,
            ImageSize {
                height,
                width,
                channels,
            },
        ) = (dataset.len(), image.size());
        let shape = format!("({n}, {height}, {width}, {channels})");
        save(&root.join(format!("{split}.npy")), "|u1", &shape, &pixels)?;
        let path = root.join(format!("{split}_labels.npy"));
        save(&path, "<i8", &format!("({n},)"), &labels)?;
    }
    Ok(())
}

fn save(path: &Path, descr: &str, shape: &str, bytes: &[u8]) -> io::Result<()> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut file = fs::File::create(path)?;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(padded as u16).to_le_bytes())?;
    writeln!(file, "{header:<width$}", width = padded - 1)?;
    file.write_all(bytes)
}
