//! Images that nobody has to have: per class a smooth pattern, per sample noise over it. Deterministic, of any size
//! and class count.

use logitcask_philox::{Purpose, Stream};

use super::opened::{FetchError, Fetched, Opened, Source};
use crate::{DataSpec, DatasetError, Image, ImageSize, SplitSpec};

/// Samples of other splits than `train` are numbered from here, so that no two splits share one.
const EVAL_OFFSET: u64 = 1 << 32;

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let options = spec.synthetic.clone().unwrap_or_default();
    let SplitSpec::Name(name) = split else {
        return Err(DatasetError::Setting {
            key: "data.train".into(),
            found: "lists files, but a synthetic dataset has none: name a split".into(),
        });
    };
    let (n_samples, offset) = match name.as_str() {
        "train" => (options.n_train, 0),
        _ => (options.n_eval, EVAL_OFFSET),
    };
    if n_samples == 0 {
        return Err(DatasetError::EmptySplit {
            split: name.clone(),
            path: spec.root.clone(),
        });
    }
    let n_classes = spec.n_classes.unwrap_or(10);
    let (height, width) = (options.height, options.width);
    if n_classes == 0 || height == 0 || width == 0 {
        return Err(DatasetError::Setting {
            key: "data.synthetic".into(),
            found: "needs at least one class, one row and one column".into(),
        });
    }
    let limit = spec.max_image_pixels();
    if height as u128 * width as u128 > u128::from(limit) {
        return Err(DatasetError::Setting {
            key: "data.synthetic".into(),
            found: format!(
                "wants images of {height} x {width} pixels, above the limit of {limit} pixels (`data.max_image_pixels`)"
            ),
        });
    }
    // A label of four bytes is kept for each, and so is an index.
    let what = || format!("labels and indices of {n_samples} samples");
    spec.check_bytes(what, 8 * u128::from(n_samples))?;
    let size = ImageSize {
        height,
        width,
        channels: spec.channels.unwrap_or(3),
    };
    let source = Synthetic {
        seed: options.seed,
        offset,
        size,
        n_classes: n_classes as u64,
    };
    Ok(Opened {
        labels: (0..n_samples)
            .map(|i| source.stream(i).below(n_classes as u64) as u32)
            .collect(),
        source: Box::new(source),
        class_names: Vec::new(),
        n_classes,
        uniform_size: Some(size),
        files: [].into(),
        notes: Vec::new(),
    })
}

struct Synthetic {
    seed: u64,
    offset: u64,
    size: ImageSize,
    n_classes: u64,
}

impl Synthetic {
    /// The first draw is the label, what follows is noise.
    fn stream(&self, index: u32) -> Stream {
        Stream::new(
            self.seed,
            Purpose::Synthetic,
            [0, self.offset + u64::from(index), 0],
        )
    }
}

impl Source for Synthetic {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let mut noise = self.stream(index);
        let label = noise.below(self.n_classes);
        // A class is a pair of slopes: stripes whose direction and width differ from class to class.
        let mut pattern = Stream::new(self.seed, Purpose::Synthetic, [1, label, 0]);
        let (down, right) = (
            1 + pattern.below(24) as usize,
            1 + pattern.below(24) as usize,
        );
        let shades: [usize; 3] = std::array::from_fn(|_| pattern.below(128) as usize);
        let ImageSize {
            width, channels, ..
        } = self.size;
        for (chunk_index, chunk) in image.reshape(self.size).chunks_mut(8).enumerate() {
            let bits = noise.next_u64().to_le_bytes();
            for (i, (value, noise)) in chunk.iter_mut().zip(bits).enumerate() {
                let at = chunk_index * 8 + i;
                let (pixel, channel) = (at / channels, at % channels);
                let stripe =
                    (pixel / width * down + pixel % width * right + shades[channel % 3]) % 128;
                *value = stripe as u8 + (noise >> 1);
            }
        }
        Ok(Fetched::Pixels)
    }

    fn place(&self, _: u32) -> String {
        "synthetic".into()
    }
}
