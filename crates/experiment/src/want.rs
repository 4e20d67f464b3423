//! A cache that a recipe wants: of which teacher and split, under which key, with which manifest.

use logitcask_cache::{CacheKey, Encoding, LogitCache, Manifest, PixelCheck, ViewFile};
use logitcask_dataset::{Role, pixel_digests};
use logitcask_philox::{Purpose, Stream};
use logitcask_teacher::{ModelFile, TeacherSpec, cache_key};

use crate::failure::{Failure, Outcome};
use crate::split::Split;

/// One cache that a recipe wants to be there.
pub struct CacheWant<'a> {
    /// The teacher whose logits it holds.
    pub teacher: &'a TeacherSpec,
    /// Of which images, in which views.
    pub split: &'a Split,
    /// How rows are stored.
    pub encoding: Encoding,
    /// What identifies the logits.
    pub key: CacheKey,
}

impl<'a> CacheWant<'a> {
    pub(crate) fn new(
        teacher: &'a TeacherSpec,
        file: Option<&ModelFile>,
        split: &'a Split,
    ) -> Outcome<Self> {
        let encoding = Encoding::parse(&teacher.encoding)?;
        // Agreement and accuracy need every class, and the evaluation split is small.
        let encoding = match (split.role, encoding) {
            (Role::Eval, Encoding::TopK(_)) => Encoding::F16,
            _ => encoding,
        };
        let (images, views) = (hex(&split.fingerprint.images), split.family.identity());
        let key = match (&teacher.known, file) {
            // Of its own images and views a cache that was named is meant itself, transcoded or not.
            (Some(known), _)
                if (&known.images, &known.views) == (&images, &views)
                    && known.encoding == encoding.to_string() =>
            {
                known.clone()
            }
            (Some(known), _) => CacheKey {
                images,
                views,
                encoding: encoding.to_string(),
                transcoded: String::new(),
                ..known.clone()
            },
            (None, Some(file)) => CacheKey {
                encoding: encoding.to_string(),
                ..cache_key(teacher, file, &split.fingerprint, &split.family)?
            },
            (None, None) => {
                let title = teacher.title();
                let told =
                    format!("nothing is known of teacher `{title}`: its cache was not looked at");
                return Err(Failure::work(told));
            }
        };
        Ok(Self {
            teacher,
            split,
            encoding,
            key,
        })
    }

    /// The one cache that a teacher's logits for a split belong into.
    ///
    /// # Errors
    /// As [`Experiment::wants`](crate::Experiment::wants).
    pub fn of_split(teacher: &'a TeacherSpec, split: &'a Split) -> Outcome<Self> {
        Self::new(teacher, read_file(teacher)?.as_ref(), split)
    }

    /// Refuses to ask a teacher of which only caches are here.
    ///
    /// # Errors
    /// If so.
    pub fn check_has_file(&self) -> Outcome {
        if self.teacher.known.is_none() {
            return Ok(());
        }
        Err(Failure::work(format!(
            "teacher `{}` cannot be asked about the {}: its file is not here",
            self.teacher.title(),
            self.split.what()
        ))
        .with_hint("name the file, `onnx = \"...\"` in `[[teacher]]`, or capture where it is and copy the cache here"))
    }

    /// The cache's manifest as this program would write it.
    ///
    /// # Errors
    /// If a sample whose pixels are to be digested cannot be read.
    pub fn manifest(&self) -> Outcome<Manifest> {
        let dataset = &self.split.dataset;
        let n_samples = dataset.len() as u32;
        let mut manifest = Manifest::new(
            &self.teacher.title(),
            self.key.clone(),
            self.encoding,
            n_samples,
            dataset.n_classes(),
        );
        if let Some(chunk_rows) = self.teacher.chunk_rows {
            manifest.chunk_rows = chunk_rows;
        }
        manifest.class_names = dataset.class_names().to_vec();
        manifest.labels = self.split.fingerprint.labels;
        manifest.absolute = self.teacher.output_is.is_absolute();
        manifest.pixel_checks = self.pixel_checks()?;
        let recorded = [
            ("tool", crate::VERSION.to_owned()),
            ("dataset", dataset.spec().format.clone()),
            ("split", self.split.what()),
        ];
        manifest.recorded = recorded
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        Ok(manifest)
    }

    /// Digests of the pixels of 64 (sample, view) pairs of the family, whether or not this capture holds those views: the
    /// manifest never changes, the captured views do. Of a dataset of many files each is looked into, so that none can be
    /// exchanged.
    fn pixel_checks(&self) -> Outcome<Vec<PixelCheck>> {
        const N_CHECKS: usize = 64;
        let good = self.split.dataset.good();
        let n_views = self.split.family.n_views().unwrap_or(1 << 20);
        let mut stream = Stream::new(0, Purpose::PixelCheck, [0; 3]);
        let mut draw = |from: &[u32]| {
            let sample = from[stream.below(from.len() as u64) as usize];
            (sample, stream.below(n_views) as u32)
        };
        let mut pairs: Vec<(u32, u32)> =
            (0..N_CHECKS.min(good.len())).map(|_| draw(&good)).collect();
        for file in self.split.dataset.samples_by_file() {
            let is_probed = pairs.iter().any(|(sample, _)| file.contains(sample));
            let from = good.partition_point(|sample| *sample < file.start);
            let to = good.partition_point(|sample| *sample < file.end);
            if !is_probed && from < to {
                pairs.push(draw(&good[from..to]));
            }
        }
        let digests = pixel_digests(&self.split.dataset, &self.split.family, &pairs)?;
        let checks = pairs.into_iter().zip(digests);
        Ok(checks
            .map(|((sample, view), digest)| PixelCheck {
                sample,
                view,
                digest,
            })
            .collect())
    }
}

/// The teacher's file, where it is needed to know whose logits are wanted.
pub(crate) fn read_file(teacher: &TeacherSpec) -> Outcome<Option<ModelFile>> {
    match teacher.known.is_some() || teacher.cache.is_some() {
        true => Ok(None),
        false => Ok(Some(ModelFile::read(&teacher.onnx)?)),
    }
}

/// `f16`, or `u8, transcoded from f32`.
pub fn encoding_of(cache: &LogitCache) -> String {
    let manifest = cache.manifest();
    let from = manifest.transcoded_from();
    let from = from.map(|from| format!(", transcoded from {from}"));
    format!("{}{}", manifest.encoding, from.unwrap_or_default())
}

/// Lower-case hex of a digest.
pub fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

/// Seconds that the teacher computed for these views of a cache, over all captures.
pub fn teacher_seconds(views: &[ViewFile]) -> f64 {
    views
        .iter()
        .filter_map(|view| view.recorded.get("teacher_seconds")?.parse::<f64>().ok())
        .fold(0.0, |sum, seconds| sum + seconds)
}
