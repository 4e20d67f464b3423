//! What a recipe names, opened: datasets, views, and for each teacher the caches that it wants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logitcask_cache::{
    CacheKey, Difference, Encoding, Found, LogitCache, Manifest, OpenOptions, PixelCheck,
};
use logitcask_dataset::{
    Dataset, Fingerprint, ImageSize, Interpolation, Pillow, Preprocess, Role, Scale, Trust,
    ViewFamily, ViewsSpec, input_size, pixel_digests,
};
use logitcask_philox::{Purpose, Stream};
use logitcask_teacher::{ModelFile, TeacherSpec, cache_key};

use crate::exit::{Failure, Outcome};
use crate::progress::{Progress, say};
use crate::recipe::Recipe;

/// The seed of the views where the recipe gives none. It is not the recipe's own seed: ten students of ten seeds are to
/// share one cache.
const VIEWS_SEED: u64 = 1;

/// A recipe with its datasets open.
pub struct Experiment {
    /// The recipe, overrides merged in.
    pub recipe: Recipe,
    /// The training split, in the views that the student is trained on.
    pub train: Split,
    /// The same in the views that the teacher sees: other ones only where `views.inconsistent` says so.
    pub taught: Split,
    /// The training split in the views of `[views.strong]`.
    pub strong: Option<Split>,
    /// The evaluation split in its clean view, if the recipe names one.
    pub eval: Option<Split>,
}

/// A split, what identifies it, and the views of it that are wanted.
#[derive(Clone)]
pub struct Split {
    /// Which one.
    pub role: Role,
    /// The samples.
    pub dataset: Arc<Dataset>,
    /// Digests of images and labels.
    pub fingerprint: Fingerprint,
    /// How a sample is shown.
    pub family: Arc<ViewFamily>,
    /// In how many views.
    pub n_views: u32,
    /// How many of them are captured at a time.
    pub views_per_pass: u32,
    /// Whether these are the views of `[views.strong]`.
    pub is_strong: bool,
    /// What the recipe calls them: `views.augment`, `views.clean`, `views.strong.augment`.
    views: &'static str,
}

impl Experiment {
    /// Opens the datasets and settles the views. The first time a dataset is met its images are digested, with a bar.
    ///
    /// # Errors
    /// If a dataset cannot be read or the views do not fit its images.
    pub fn open(recipe: Recipe) -> Outcome<Self> {
        Self::open_trusting(recipe, Trust::ModificationTimes)
    }

    /// The same, with a say in when digests of an earlier time will do.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_trusting(recipe: Recipe, trust: Trust) -> Outcome<Self> {
        let train = Split::open(&recipe, Role::Train, trust)?;
        let eval = match recipe.data.eval {
            Some(_) => Some(Split::open(&recipe, Role::Eval, trust)?),
            None => None,
        };
        if let Some(eval) = eval
            .as_ref()
            .filter(|eval| eval.dataset.n_classes() != train.dataset.n_classes())
        {
            return Err(Failure::work(format!(
                "the training split has {} classes, the evaluation split {}",
                train.dataset.n_classes(),
                eval.dataset.n_classes()
            ))
            .hint(
                "set `data.n_classes` where labels of the last classes are absent from one of them",
            ));
        }
        let taught = match recipe.views.inconsistent {
            true => train.in_clean_view(&recipe.views)?,
            false => train.clone(),
        };
        let strong = match &recipe.views.strong {
            Some(views) => Some(train.in_strong_views(views)?),
            None => None,
        };
        Ok(Self {
            recipe,
            train,
            taught,
            strong,
            eval,
        })
    }

    /// The caches that a teacher's logits belong into: the evaluation split's clean view first, because it also gates the
    /// long work, then the training split's views, then its strong views.
    ///
    /// # Errors
    /// If the teacher's file cannot be read or its encoding is unknown.
    pub fn wants<'a>(&'a self, teacher: &'a TeacherSpec) -> Outcome<Vec<CacheWant<'a>>> {
        let file = ModelFile::read(&teacher.onnx)?;
        let splits = self.eval.iter().chain([&self.taught]).chain(&self.strong);
        splits
            .map(|split| CacheWant::new(teacher, &file, split))
            .collect()
    }

    /// Refuses views that leave images of different sizes, for each model that is going to see them.
    ///
    /// # Errors
    /// Which views they are, and two samples.
    pub fn check_sizes(&self) -> Outcome {
        for teacher in &self.recipe.teacher {
            let preprocess = Preprocess::new(&teacher.preprocess)?;
            for split in self.eval.iter().chain([&self.taught]).chain(&self.strong) {
                split.input_size(&preprocess)?;
            }
        }
        match &self.recipe.student {
            Some(_) => self.student_size().map(|_| ()),
            None => Ok(()),
        }
    }

    /// The size of the images that the student is shown, in training and in evaluation.
    ///
    /// # Errors
    /// As [`check_sizes`](Self::check_sizes); if training and evaluation show different ones.
    pub fn student_size(&self) -> Outcome<ImageSize> {
        let preprocess = student_preprocess(&self.recipe)?;
        let size = self.train.input_size(&preprocess)?;
        for split in self.strong.iter().chain(&self.eval) {
            let found = split.input_size(&preprocess)?;
            if found != size {
                return Err(Failure::asked(format!(
                    "`{}` shows the student {found}, `{}` {size}",
                    split.views, self.train.views
                ))
                .hint(format!(
                    "bring them to one size; `{}` can end with `{{ name = \"center_crop\", size = {} }}`",
                    split.views, size.height
                )));
            }
        }
        Ok(size)
    }

    /// The training split as evaluation would show it.
    ///
    /// # Errors
    /// If `views.clean` does not fit the images.
    pub fn train_in_clean_view(&self) -> Outcome<Split> {
        self.train.in_clean_view(&self.recipe.views)
    }
}

impl Split {
    /// A recipe's evaluation split, alone.
    ///
    /// # Errors
    /// If the recipe names none, or it cannot be read.
    pub fn open_eval(recipe: &Recipe) -> Outcome<Self> {
        match recipe.data.eval {
            Some(_) => Self::open(recipe, Role::Eval, Trust::ModificationTimes),
            None => Err(Failure::asked("the recipe names no evaluation split")
                .hint("name one, `--set data.eval=test` say")),
        }
    }

    /// A recipe's training split as evaluation would show it.
    ///
    /// # Errors
    /// If it cannot be read, or `views.clean` does not fit the images.
    pub fn open_train_in_clean_view(recipe: &Recipe) -> Outcome<Self> {
        Self::open(recipe, Role::Train, Trust::ModificationTimes)?.in_clean_view(&recipe.views)
    }

    fn open(recipe: &Recipe, role: Role, trust: Trust) -> Outcome<Self> {
        let mut dataset = Dataset::open(&recipe.data, role)?;
        for note in dataset.notes() {
            say(format!("note: {}: {note}", split_name(recipe, role)));
        }
        let progress = Progress::new("reading images", dataset.len() as u64, "img");
        let fingerprint = dataset.fingerprint_trusting(trust, &|done, _| progress.set(done, ""));
        progress.finish();
        let fingerprint = fingerprint?;
        tell_bad(&dataset, &fingerprint, &split_name(recipe, role))?;
        let size = fingerprint.uniform_size();
        let (family, n_views, views) = match role {
            Role::Train => {
                let (family, n_views) = family(&recipe.views, size)?;
                (family, n_views, "views.augment")
            }
            Role::Eval => (ViewFamily::clean_of(&recipe.views, size)?, 1, "views.clean"),
        };
        if recipe.data.store_pixels {
            if family.reduces() {
                return Err(Failure::asked(
                    "`views.augment` wants JPEGs decoded at a reduced resolution, which stored pixels cannot give",
                )
                .hint("keep `reduced = true` or `data.store_pixels = true`, not both"));
            }
            let progress = Progress::new("storing pixels", dataset.len() as u64, "img");
            let stored = dataset.store_pixels(&|done, _| progress.set(done, ""));
            progress.finish();
            stored?;
        }
        Ok(Self {
            role,
            dataset: Arc::new(dataset),
            fingerprint,
            family: Arc::new(family),
            n_views,
            views_per_pass: recipe.views.views_per_pass,
            is_strong: false,
            views,
        })
    }

    fn in_clean_view(&self, views: &ViewsSpec) -> Outcome<Self> {
        let family = ViewFamily::clean_of(views, self.fingerprint.uniform_size())?;
        Ok(Self {
            family: Arc::new(family),
            n_views: 1,
            views: "views.clean",
            ..self.clone()
        })
    }

    fn in_strong_views(&self, views: &ViewsSpec) -> Outcome<Self> {
        let only_outside = [
            ("strong", views.strong.is_some()),
            ("inconsistent", views.inconsistent),
            ("views_per_step", views.views_per_step != 1),
            ("views_per_pass", views.views_per_pass != 1),
        ];
        if let Some((key, _)) = only_outside.iter().find(|(_, given)| *given) {
            return Err(Failure::asked(format!(
                "`views.strong.{key}` is given, but `{key}` belongs into `[views]` alone"
            )));
        }
        let (family, n_views) = family(views, self.fingerprint.uniform_size())?;
        Ok(Self {
            family: Arc::new(family),
            n_views,
            is_strong: true,
            views: "views.strong.augment",
            ..self.clone()
        })
    }

    /// `train split, 16 views` and the like.
    pub fn what(&self) -> String {
        match (self.role, self.n_views) {
            (Role::Train, n) if self.is_strong => format!("train split, {n} strong views"),
            (Role::Train, 1) => "train split, 1 view".to_owned(),
            (Role::Train, n) => format!("train split, {n} views"),
            (Role::Eval, _) => "evaluation split, clean view".to_owned(),
        }
    }

    /// The size of every view as a model sees it, after its preprocessing.
    ///
    /// # Errors
    /// If the views of different images have different sizes.
    pub fn input_size(&self, preprocess: &Preprocess) -> Outcome<ImageSize> {
        let (dataset, fingerprint) = (&self.dataset, &self.fingerprint);
        let size = input_size(dataset, fingerprint, &self.family, preprocess, self.views);
        size.map_err(|error| Failure::from(error).as_asked())
    }
}

/// Says which samples are left out, by `on_bad = "skip"`: how many, and the first of them with where they lie and why.
fn tell_bad(dataset: &Dataset, fingerprint: &Fingerprint, split: &str) -> Outcome {
    let n_bad = fingerprint.bad.len();
    if n_bad == 0 {
        return Ok(());
    }
    say(format!(
        "note: {n_bad} of the {} samples of {split} cannot be used and are left out (`on_bad = \"skip\"`):",
        dataset.len()
    ));
    let named = dataset.name_bad()?;
    for bad in &named {
        say(format!("  {bad}"));
    }
    if n_bad > named.len() {
        say(format!(
            "  and {} more; `logitcask dataset show RECIPE --json` lists all",
            n_bad - named.len()
        ));
    }
    Ok(())
}

/// As the recipe names it: ``split `train` ``.
fn split_name(recipe: &Recipe, role: Role) -> String {
    let data = &recipe.data;
    let split = match role {
        Role::Train => Some(&data.train),
        Role::Eval => data.eval.as_ref(),
    };
    split.map_or_else(String::new, |split| format!("split `{split}`"))
}

/// The family of `[views]` or `[views.strong]`, and how many of its views are wanted.
fn family(views: &ViewsSpec, size: Option<ImageSize>) -> Outcome<(ViewFamily, u32)> {
    let seed = views.seed.unwrap_or(VIEWS_SEED);
    let family = ViewFamily::new(&views.augment, seed, size)?;
    let n_views = family.resolve_count(&views.count)?;
    Ok((family, n_views))
}

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
    fn new(teacher: &'a TeacherSpec, file: &ModelFile, split: &'a Split) -> Outcome<Self> {
        let encoding =
            Encoding::parse(&teacher.encoding).map_err(|error| Failure::from(error).as_asked())?;
        // Agreement and accuracy need every class, and the evaluation split is small.
        let encoding = match (split.role, encoding) {
            (Role::Eval, Encoding::TopK(_)) => Encoding::F16,
            _ => encoding,
        };
        let mut key = cache_key(teacher, file, &split.fingerprint, &split.family)?;
        key.encoding = encoding.to_string();
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
        Self::new(teacher, &ModelFile::read(&teacher.onnx)?, split)
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
    pub fn open(&self, cache_dir: &Path, recipe: &Path) -> Outcome<LogitCache> {
        self.open_by(cache_dir, recipe, OpenOptions::default())
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
    ) -> Outcome<LogitCache> {
        let make = format!("make teacher-logits RECIPE={}", recipe.display());
        let path = match self.find(cache_dir)? {
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
                return Err(Failure::work(message).hint(make));
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
            return Err(Failure::work(message).hint(make));
        }
        self.check_labels(&mut cache, &path)?;
        self.check_pixels(&cache, &path)?;
        Ok(cache)
    }

    /// Looks for the cache: one that was captured before one that was transcoded into its encoding. Where only a Parquet archive
    /// of it is there, the cache is made from that, once, and says so.
    ///
    /// # Errors
    /// If the one cache with this key, or its archive, is damaged.
    pub fn find(&self, cache_dir: &Path) -> Outcome<Found> {
        let found = logitcask_cache::find(cache_dir, &self.key)?;
        if matches!(found, Found::Hit(_)) {
            return Ok(found);
        }
        match (logitcask_cache::find_archive(cache_dir, &self.key)?, found) {
            (Some(Found::Hit(archive)), _) => self.unpack(&archive, cache_dir).map(Found::Hit),
            (Some(Found::Transcoded(archive)), Found::Miss { .. }) => {
                self.unpack(&archive, cache_dir).map(Found::Transcoded)
            }
            (_, found) => Ok(found),
        }
    }

    fn unpack(&self, archive: &Path, cache_dir: &Path) -> Outcome<PathBuf> {
        say(format!(
            "{}: found as a Parquet archive, `{}`; converting it once, to be mapped from then on",
            self.split.what(),
            archive.display()
        ));
        let progress = Progress::new("converting", 0, "chunks");
        let path = logitcask_cache::unpack(archive, cache_dir, &|done, total| {
            progress.set_total(total);
            progress.set(done, "");
        })?;
        progress.finish();
        Ok(path)
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

    fn check_labels(&self, cache: &mut LogitCache, path: &Path) -> Outcome {
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
            say(format!(
                "{what}; the dataset's are used (`data.relabelled`)"
            ));
            return Ok(cache.relabel(dataset.labels())?);
        }
        Err(Failure::work(what).hint(
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
            .hint("capture again: every capture of ours keeps some"));
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
            .hint("capture again with this version, or train with the version that made the cache")),
        }
    }
}

/// `f16`, or `u8, transcoded from f32`.
pub(crate) fn encoding_of(cache: &LogitCache) -> String {
    let manifest = cache.manifest();
    let from = manifest.transcoded_from();
    let from = from.map(|from| format!(", transcoded from {from}"));
    format!("{}{}", manifest.encoding, from.unwrap_or_default())
}

/// Whether a nearest cache is near enough to be mentioned: the caches of the two splits of one recipe differ in images
/// and views alike, and that says nothing.
pub(crate) fn is_near(differences: &[Difference]) -> bool {
    let differs = |field: &str| {
        differences
            .iter()
            .any(|difference| difference.field == field)
    };
    differences.len() <= 2 && !(differs("images") && differs("views"))
}

/// "teacher is `12ab34cd56ef...` there, `...` here".
pub(crate) fn describe(differences: &[Difference]) -> String {
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

/// The student's normalisation: its own, or the first teacher's.
///
/// # Errors
/// If mean and standard deviation do not go together.
pub fn student_preprocess(recipe: &Recipe) -> Outcome<Preprocess> {
    let student = recipe.student.as_ref();
    let teacher = recipe.teacher.first().map(|teacher| &teacher.preprocess);
    let mut spec = teacher.cloned().unwrap_or_default();
    // The teacher's resolution is its own affair.
    spec.size = None;
    spec.interpolation = Interpolation::default();
    spec.pillow = Pillow::default();
    if let Some(mean) = student.and_then(|student| student.mean.clone()) {
        // A teacher may take bytes; numbers below 1 say that this student does not.
        if mean.iter().any(|mean| *mean != 0.0 && mean.abs() <= 1.0) {
            spec.scale = Scale::Unit;
        }
        spec.mean = mean;
    }
    if let Some(std) = student.and_then(|student| student.std.clone()) {
        spec.std = std;
    }
    Ok(Preprocess::new(&spec)?)
}

/// Lower-case hex of a digest.
pub(crate) fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}
