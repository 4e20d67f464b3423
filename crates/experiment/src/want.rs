//! A cache that a recipe wants: its key, where it lies, and whether it is of these very images.

use std::path::{Path, PathBuf};

use logitcask_cache::{
    CacheKey, Difference, Encoding, Found, LogitCache, Manifest, OpenOptions, PixelCheck, ViewFile,
};
use logitcask_dataset::{Role, pixel_digests};
use logitcask_philox::{Purpose, Stream};
use logitcask_teacher::{ModelFile, TeacherSpec, cache_key};

use crate::event::{self, Watch, with_progress};
use crate::failure::{Failure, Outcome};
use crate::split::Split;

/// One cache that a recipe wants to be there.
pub struct CacheWant<'a> {
    /// Whose logits.
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
    /// As [`Experiment::wants`].
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

    /// Opens the cache if it is there with every view that is wanted.
    ///
    /// # Errors
    /// If it is not there, saying which ingredient differs from the nearest one; if views are missing; if it is damaged;
    /// or if today's labels or pixels are not those that the teacher was shown.
    pub fn open(&self, cache_dir: &Path, recipe: &Path, watch: &Watch<'_>) -> Outcome<LogitCache> {
        self.open_by(cache_dir, recipe, OpenOptions::default(), watch)
    }

    /// The same, read in a way of one's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(
        &self,
        cache_dir: &Path,
        recipe: &Path,
        options: OpenOptions,
        watch: &Watch<'_>,
    ) -> Outcome<LogitCache> {
        let make = match self.teacher.known {
            None => format!("logitcask teacher-logits {}", recipe.display()),
            Some(_) => "capture it where the teacher's file is, and copy the cache here".to_owned(),
        };
        let path = match self.find(cache_dir, watch)? {
            Found::Hit(path) | Found::Transcoded(path) => path,
            Found::Miss { nearest } => {
                let mut message = format!(
                    "no cache under `{}` holds the {} of teacher `{}`",
                    cache_dir.display(),
                    self.split.what(),
                    self.teacher.title()
                );
                if let Some((path, differences)) =
                    nearest.filter(|(_, differences)| is_near(differences))
                {
                    message += &format!(
                        "; the nearest, `{}`, differs: {}",
                        path.display(),
                        describe(&differences)
                    );
                }
                return Err(Failure::work(message).with_hint(make));
            }
        };
        let mut cache = LogitCache::open(&path, options)?;
        let n_there = self.views_there(&cache);
        if n_there < self.split.n_views {
            let message = format!(
                "cache `{}` holds {n_there} of the {} views",
                path.display(),
                self.split.n_views
            );
            return Err(Failure::work(message).with_hint(make));
        }
        self.check_labels(&mut cache, &path, watch)?;
        self.check_pixels(&cache, &path)?;
        Ok(cache)
    }

    /// Looks for the cache: one that was captured before one that was transcoded into its encoding. Where only a Parquet archive
    /// of it is there, the cache is made from that, once, and says so.
    ///
    /// # Errors
    /// If the one cache with this key, or its archive, is damaged.
    pub fn find(&self, cache_dir: &Path, watch: &Watch<'_>) -> Outcome<Found> {
        let found = logitcask_cache::find(cache_dir, &self.key)?;
        if matches!(found, Found::Hit(_)) {
            return Ok(found);
        }
        match (logitcask_cache::find_archive(cache_dir, &self.key)?, found) {
            (Some(Found::Hit(archive)), _) => {
                self.unpack(&archive, cache_dir, watch).map(Found::Hit)
            }
            (Some(Found::Transcoded(archive)), Found::Miss { .. }) => self
                .unpack(&archive, cache_dir, watch)
                .map(Found::Transcoded),
            (_, found) => Ok(found),
        }
    }

    fn unpack(&self, archive: &Path, cache_dir: &Path, watch: &Watch<'_>) -> Outcome<PathBuf> {
        event::info(
            watch,
            format!(
                "{}: found as a Parquet archive, `{}`; converting it once, to be mapped from then on",
                self.split.what(),
                archive.display()
            ),
        );
        Ok(with_progress(watch, "converting", "chunks", |progress| {
            logitcask_cache::unpack(archive, cache_dir, progress)
        })?)
    }

    /// How many of the wanted views a cache holds.
    pub fn views_there(&self, cache: &LogitCache) -> u32 {
        cache.view_files_below(self.split.n_views).len() as u32
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

    fn check_labels(&self, cache: &mut LogitCache, path: &Path, watch: &Watch<'_>) -> Outcome {
        if cache.manifest().labels == self.split.fingerprint.labels {
            return Ok(());
        }
        let what = format!(
            "the labels of the {} are not those that cache `{}` was made with",
            self.split.what(),
            path.display()
        );
        let dataset = &self.split.dataset;
        if dataset.spec().relabelled {
            event::info(
                watch,
                format!("{what}; the dataset's are used (`data.relabelled`)"),
            );
            return Ok(cache.relabel(dataset.labels())?);
        }
        Err(Failure::work(what).with_hint(
            "the images are the same, so one of the two labellings is wrong; if it is the cache's, set \
             `data.relabelled = true`: the logits are taken and the dataset's labels used",
        ))
    }

    fn check_pixels(&self, cache: &LogitCache, path: &Path) -> Outcome {
        let wanted = &cache.manifest().pixel_checks;
        if wanted.is_empty() {
            return Err(Failure::work(format!(
                "cache `{}` has no digest of the pixels that its teacher saw, so nobody can tell whether they were these",
                path.display()
            ))
            .with_hint("capture again: every capture of ours keeps some"));
        }
        let pairs: Vec<(u32, u32)> = wanted
            .iter()
            .map(|check| (check.sample, check.view))
            .collect();
        let digests = pixel_digests(&self.split.dataset, &self.split.family, &pairs)?;
        let differing = wanted
            .iter()
            .zip(&digests)
            .find(|(check, digest)| check.digest != **digest);
        match differing {
            None => Ok(()),
            Some((check, _)) => Err(Failure::work(format!(
                "view {} of sample {} does not have the pixels that the teacher of cache `{}` saw (made by {}, this is {})",
                check.view,
                check.sample,
                path.display(),
                cache.manifest().recorded.get("tool").map_or("an unknown version", String::as_str),
                crate::VERSION,
            ))
            .with_hint("capture again with this version, or train with the version that made the cache")),
        }
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

/// Whether a nearest cache is near enough to be mentioned: the caches of the two splits of one recipe differ in images
/// and views alike, and that says nothing.
pub fn is_near(differences: &[Difference]) -> bool {
    let differs = |field: &str| {
        differences
            .iter()
            .any(|difference| difference.field == field)
    };
    differences.len() <= 2 && !(differs("images") && differs("views"))
}

/// "teacher is `12ab34cd56ef...` there, `...` here".
pub fn describe(differences: &[Difference]) -> String {
    const LONGEST: usize = 500;
    let one = |difference: &Difference| {
        let short = |text: &str| match text.len() {
            64 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                format!("{}...", &text[..12])
            }
            n if n > LONGEST => format!("{}...", text.chars().take(LONGEST).collect::<String>()),
            _ => text.to_owned(),
        };
        let (cached, wanted) = (short(&difference.cached), short(&difference.wanted));
        format!("{} is `{cached}` there, `{wanted}` here", difference.field)
    };
    differences.iter().map(one).collect::<Vec<_>>().join("; ")
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
