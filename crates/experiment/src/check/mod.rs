//! A recipe checked whole, before anything is paid: its text and names, then its data, then whether they fit each other.

mod text;

use std::path::{Path, PathBuf};

use logitcask_cache::{CacheKey, Encoding, Found, LogitCache, OpenOptions, check_space};
use logitcask_dataset::{Dataset, DatasetError, Preprocess, Role, ViewFamily};
use logitcask_losses::{LossError, LossSpec};
use logitcask_student::{ImageShape, Network, StudentError};
use logitcask_teacher::{ModelFile, Pixels, TeacherSpec, prepare};

use crate::event::Watch;
use crate::experiment::Experiment;
use crate::failure::{Failure, Kind, Outcome};
use crate::known::know;
use crate::machine::Machine;
use crate::own::Own;
use crate::recipe::Recipe;
use crate::run::{objective, sections, supply};
use crate::teachers;
use crate::want::CacheWant;
use text::{Mistake, Text};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The file of the recipe that was looked at.
    pub file: PathBuf,
    /// Where in it, from 1; absent for what no line says.
    pub line: Option<usize>,
    /// Whether it is well.
    pub state: State,
    /// What was found, and what it comes from.
    pub what: String,
    /// What to do about it, where that can be said.
    pub hint: Option<String>,
}

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Could not be looked at here, and may be well.
    Unknown,
    /// The recipe may be right, but it cannot be obeyed now: a file is not there, the disk is full.
    Failed,
    /// The recipe is wrong.
    Wrong,
}

/// Looks at what a recipe names: keys, names, options and ranges of all sections; its teachers' files; its data; and where all of
/// that is well the sizes of its views, losses against encodings, views and labels, which caches are there, whether the disk holds the
/// others, and where `machine` is given the teachers themselves, with a few images. Nothing is captured. A dataset that is met for the
/// first time has its images digested, which the stages would do as well and then need not.
///
/// Findings come in the order of the recipe's lines. Names may mean something of `own`.
pub fn check(
    path: &Path,
    overrides: &[String],
    own: Own,
    cache_dir: &Path,
    machine: Option<&Machine>,
    watch: &Watch<'_>,
) -> Vec<Finding> {
    let text = match own.check().and_then(|()| Recipe::text(path)) {
        Ok(text) => text,
        Err(failure) => return vec![finding(path, None, &failure)],
    };
    let (parsed, mistakes) = Text::parse(&text);
    let mut checked = Checked {
        path,
        overrides,
        text: parsed,
        findings: Vec::new(),
    };
    let is_toml = mistakes.is_empty();
    mistakes.into_iter().for_each(|it| checked.mistake(it));
    if is_toml {
        let (recipe, mistakes) = checked.text.read();
        let is_right = mistakes.is_empty();
        mistakes.into_iter().for_each(|it| checked.mistake(it));
        let recipe = match is_right && !overrides.is_empty() {
            false => recipe,
            true => match Recipe::load(path, overrides) {
                Ok(recipe) => Some(recipe),
                Err(failure) => {
                    checked.findings.push(finding(path, None, &failure));
                    None
                }
            },
        };
        if let Some(recipe) = recipe {
            checked.recipe(&Recipe { own, ..recipe }, cache_dir, machine, watch);
        }
    }
    let mut findings = checked.findings;
    findings.sort_by_key(|finding| (finding.line.is_none(), finding.line));
    findings.dedup();
    findings
}

/// Reads a recipe and looks at every key, name, option and range of all its sections, those of the other stage too, before
/// anything that it names is opened.
///
/// # Errors
/// All that is wrong, in one failure.
pub fn read_checked(path: &Path, overrides: &[String]) -> Outcome<Recipe> {
    read_checked_with(path, overrides, Own::NONE)
}

/// The same, where the recipe's names may mean something of a program's own too.
///
/// # Errors
/// As [`read_checked`]; if one of `own` has a name that another has.
pub fn read_checked_with(path: &Path, overrides: &[String], own: Own) -> Outcome<Recipe> {
    let text = Recipe::text(path)?;
    let (parsed, mistakes) = Text::parse(&text);
    let mut checked = Checked {
        path,
        overrides,
        text: parsed,
        findings: Vec::new(),
    };
    let loaded = Recipe::load_with(path, overrides, own);
    if mistakes.is_empty() {
        let (recipe, mistakes) = checked.text.read();
        mistakes.into_iter().for_each(|it| checked.mistake(it));
        // What is overridden is no mistake any more.
        let recipe = match &loaded {
            Ok(recipe) => {
                checked.findings.clear();
                Some(recipe.clone())
            }
            Err(_) => recipe,
        };
        if let Some(recipe) = recipe {
            checked.names(&Recipe { own, ..recipe });
        }
    }
    checked
        .findings
        .retain(|finding| finding.state == State::Wrong);
    checked.findings.sort_by_key(|finding| finding.line);
    match &checked.findings[..] {
        [] => loaded,
        // Its own message shows the place.
        [_] if loaded.is_err() => loaded,
        [one] => {
            let message = format!("{}: {}", place_of(one), one.what);
            let path = path.to_owned();
            let failure = Failure::from(Kind::Recipe { path, message });
            Err(match &one.hint {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            })
        }
        several => {
            let told = several.iter().map(|it| {
                let hint = it.hint.as_ref().map(|hint| format!(" ({hint})"));
                format!(
                    "\n  {}: {}{}",
                    place_of(it),
                    it.what,
                    hint.unwrap_or_default()
                )
            });
            let message = format!(
                "wrong in {} places:{}",
                several.len(),
                told.collect::<String>()
            );
            let path = path.to_owned();
            let hint = format!(
                "`logitcask check {}` looks at all that it names",
                path.display()
            );
            Err(Failure::from(Kind::Recipe { path, message }).with_hint(hint))
        }
    }
}

/// The key that says whose logits a teacher's are.
fn place_of_teacher(spec: &TeacherSpec, index: usize) -> String {
    let key = match spec.cache {
        Some(_) => "cache",
        None => "onnx",
    };
    format!("teacher.{index}.{key}")
}

fn place_of(finding: &Finding) -> String {
    finding
        .line
        .map_or("with `--set`".to_owned(), |line| format!("line {line}"))
}

fn finding(path: &Path, line: Option<usize>, failure: &Failure) -> Finding {
    let state = match failure.is_request() {
        true => State::Wrong,
        false => State::Failed,
    };
    let mut what = failure.to_string();
    let mut source = std::error::Error::source(failure);
    while let Some(cause) = source {
        what += &format!(": {cause}");
        source = cause.source();
    }
    Finding {
        file: path.to_owned(),
        line,
        state,
        what,
        hint: failure.hint().map(str::to_owned),
    }
}

/// A recipe under examination.
struct Checked<'t> {
    path: &'t Path,
    /// What is not the file's: `train.epochs=2`.
    overrides: &'t [String],
    text: Text<'t>,
    findings: Vec<Finding>,
}

impl Checked<'_> {
    fn mistake(&mut self, mistake: Mistake) {
        self.findings.push(Finding {
            file: self.path.to_owned(),
            line: Some(mistake.line),
            state: State::Wrong,
            what: mistake.what,
            hint: mistake.hint,
        });
    }

    /// Something went wrong with what stands at `place`. Of one line the first word counts: what follows may follow from it.
    fn wrong(&mut self, place: &str, failure: impl Into<Failure>) {
        let is_set = self.overrides.iter().any(|assignment| {
            let path = assignment.split('=').next().unwrap_or_default().trim();
            let below = place.strip_prefix(path);
            below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
        });
        let line = (!is_set).then(|| self.text.line_of(place));
        let is_told = |finding: &Finding| {
            let is_here = line.is_some() && finding.line == line && place.contains('.');
            is_here && finding.state > State::Unknown
        };
        if !self.findings.iter().any(is_told) {
            self.findings
                .push(finding(self.path, line, &failure.into()));
        }
    }

    fn say(&mut self, place: &str, state: State, what: String, hint: Option<String>) {
        let line = Some(self.text.line_of(place));
        self.findings.push(Finding {
            file: self.path.to_owned(),
            line,
            state,
            what,
            hint,
        });
    }

    fn is_well(&self) -> bool {
        let bad = |finding: &Finding| finding.state > State::Unknown;
        !self.findings.iter().any(bad)
    }

    fn recipe(
        &mut self,
        recipe: &Recipe,
        cache_dir: &Path,
        machine: Option<&Machine>,
        watch: &Watch<'_>,
    ) {
        self.names(recipe);
        let mut recipe = recipe.clone();
        self.models(&mut recipe, cache_dir, watch);
        let recipe = &recipe;
        let n_classes = self.data(recipe);
        // Views and losses of a wrong recipe do not fit each other: that is told when they are right.
        if n_classes.is_none() || !self.is_well() {
            return;
        }
        let experiment = match Experiment::open(recipe.clone(), watch) {
            Ok(experiment) => experiment,
            Err(failure) => {
                let place = match failure.kind() {
                    Kind::Dataset(
                        DatasetError::TooManyViews { .. } | DatasetError::EndlessFamily,
                    ) => "views.count",
                    Kind::Dataset(DatasetError::ViewSize { .. }) => "views",
                    _ => "data",
                };
                return self.wrong(place, failure);
            }
        };
        let (train, eval) = (&experiment.train, &experiment.eval);
        let n_eval = eval
            .as_ref()
            .map_or("no".to_owned(), |eval| eval.dataset.len().to_string());
        let told = format!(
            "data: {} training samples, {} of them selected, {n_eval} evaluation samples, {} classes",
            train.dataset.len(),
            train.dataset.selected().len(),
            train.dataset.n_classes()
        );
        self.say("data", State::Good, told, None);
        if let Err(failure) = experiment.check_sizes() {
            return self.wrong("views", failure);
        }
        if let Err(failure) = teachers::check_mixing(&experiment) {
            self.wrong("ensemble.combine", failure);
        }
        self.fit(&experiment);
        self.caches(&experiment, cache_dir, machine);
    }

    /// What can be said without opening anything.
    fn names(&mut self, recipe: &Recipe) {
        self.views(recipe);
        self.teachers(recipe);
        self.student(recipe);
        self.losses(recipe);
    }

    /// Whether there is a file, or a cache, that says whose logits each teacher's are.
    fn models(&mut self, recipe: &mut Recipe, cache_dir: &Path, watch: &Watch<'_>) {
        for (index, spec) in recipe.teacher.iter_mut().enumerate() {
            let place = place_of_teacher(spec, index);
            if let Err(failure) = know(spec, cache_dir, watch) {
                self.wrong(&place, failure);
            } else if spec.known.is_some() {
                let title = spec.title();
                let told = format!("teacher: `{title}` is known by its caches, without its file");
                self.say(&place, State::Good, told, None);
            } else if let Err(error) = ModelFile::read(&spec.onnx) {
                self.wrong(&place, error);
            }
        }
    }

    fn views(&mut self, recipe: &Recipe) {
        let views = &recipe.views;
        let strong = views
            .strong
            .iter()
            .map(|strong| ("views.strong.augment", &strong.augment));
        let lists = [
            ("views.augment", &views.augment),
            ("views.clean", &views.clean),
        ];
        for (place, list) in lists.into_iter().chain(strong) {
            for (index, spec) in list.iter().enumerate() {
                let alone = std::slice::from_ref(spec);
                let own = recipe.own.augmentations;
                let alone = ViewFamily::new_with(alone, 1, None, own).err();
                match alone {
                    Some(error @ DatasetError::UnknownAugment { .. }) => {
                        self.wrong(&format!("{place}.{index}.name"), error);
                    }
                    Some(error @ DatasetError::AugmentOptions { .. }) => {
                        self.wrong(&format!("{place}.{index}"), error);
                    }
                    // Whether it fits the images is asked when they are there.
                    _ => {}
                }
            }
        }
    }

    fn teachers(&mut self, recipe: &Recipe) {
        for (index, spec) in recipe.teacher.iter().enumerate() {
            let place = |key: &str| format!("teacher.{index}.{key}");
            if let Err(error) = Encoding::parse(&spec.encoding) {
                self.wrong(&place("encoding"), error);
            }
            if let Err(error) = Preprocess::new(&spec.preprocess) {
                self.wrong(&place("mean"), error);
            }
        }
        if let Err(failure) = teachers::check(recipe) {
            let place = match &recipe.ensemble {
                Some(_) => "ensemble",
                None => "teacher.1",
            };
            self.wrong(place, failure);
        }
    }

    fn student(&mut self, recipe: &Recipe) {
        // A recipe that only captures has none of the three.
        if recipe.student.is_none() && recipe.train.is_none() && recipe.loss.is_empty() {
            return;
        }
        if let Err(failure) = sections(recipe) {
            self.wrong("student", failure);
        }
        if let Some(student) = &recipe.student
            && let Err(error) = logitcask_student::find_model(&student.name, recipe.own.students)
        {
            self.wrong("student.name", error);
        }
        if let Some(Err(error)) = recipe.train.as_ref().map(logitcask_student::check_spec) {
            self.setting(error);
        }
    }

    /// A setting's error names its place.
    fn setting(&mut self, error: StudentError) {
        let place = match &error {
            StudentError::Setting { setting, .. } => (*setting).to_string(),
            StudentError::TooFewSamples { .. } => "train.batch_size".to_owned(),
            StudentError::ImageSize { .. } => "student.name".to_owned(),
            _ => "train".to_owned(),
        };
        self.wrong(&place, error);
    }

    /// Opens both splits, and tells how many classes there are if that is known.
    fn data(&mut self, recipe: &Recipe) -> Option<usize> {
        let mut n_classes = None;
        let eval = recipe.data.eval.as_ref().map(|_| Role::Eval);
        for role in [Some(Role::Train), eval].into_iter().flatten() {
            let error = match Dataset::open_with(&recipe.data, role, recipe.own.formats) {
                Ok(dataset) => {
                    n_classes.get_or_insert(dataset.n_classes());
                    continue;
                }
                Err(error) => error,
            };
            let split = match role {
                Role::Train => "data.train",
                Role::Eval => "data.eval",
            };
            let place = match &error {
                DatasetError::UnknownFormat { .. } => "data.format".to_owned(),
                DatasetError::UnreadKey { key, .. } => format!("data.{key}"),
                DatasetError::Selection { key, .. } => (*key).to_owned(),
                DatasetError::Setting { key, .. } => key.clone(),
                DatasetError::FolderMissing { .. } => "data.root".to_owned(),
                _ => split.to_owned(),
            };
            self.wrong(&place, error);
        }
        n_classes
    }

    /// Each loss by itself, and each of its options.
    fn losses(&mut self, recipe: &Recipe) {
        // What depends on the number of classes is asked when it is known.
        let n_classes = recipe.data.n_classes.unwrap_or(1000);
        for (index, spec) in recipe.loss.iter().enumerate() {
            let mut alone = Recipe {
                loss: vec![spec.clone()],
                ..recipe.clone()
            };
            while let Err(failure) = objective(&alone, n_classes) {
                let key = match failure.kind() {
                    Kind::Loss(
                        LossError::UnknownOption { key, .. } | LossError::BadOption { key, .. },
                    ) => key.to_string(),
                    _ => "name".to_owned(),
                };
                self.wrong(&format!("loss.{index}.{key}"), failure);
                let LossSpec { options, .. } = &mut alone.loss[0];
                if options.shift_remove(&key).is_none() {
                    break;
                }
            }
        }
    }

    /// Student, losses and training against the data and the views.
    fn fit(&mut self, experiment: &Experiment) {
        let recipe = &experiment.recipe;
        let Ok((student, spec)) = sections(recipe) else {
            return;
        };
        let n_selected = experiment.train.dataset.selected().len();
        if let Some(batch_size) = Some(spec.batch_size).filter(|size| *size > n_selected) {
            self.setting(StudentError::TooFewSamples {
                n_samples: n_selected,
                batch_size,
            });
        }
        let n_classes = experiment.train.dataset.n_classes();
        let built = experiment.student_size().and_then(|size| {
            let image = ImageShape {
                channels: size.channels,
                height: size.height,
                width: size.width,
            };
            let device = candle_core::Device::Cpu;
            Ok(Network::build(
                &student.name,
                image,
                n_classes,
                recipe.seed,
                &device,
            )?)
        });
        match built {
            Err(failure) => self.wrong("student.name", failure),
            Ok(network) => {
                let (name, n) = (network.name(), network.n_parameters());
                let told = format!("student: `{name}`, {n} parameters");
                self.say("student", State::Good, told, None);
            }
        }
        let unserved = objective(recipe, n_classes)
            .and_then(|objective| Ok(objective.check(&supply(experiment)?)?));
        if let Err(failure) = unserved {
            let place = match failure.kind() {
                Kind::Loss(LossError::Unserved { loss, .. }) => loss_called(recipe, loss),
                _ => "loss".to_owned(),
            };
            self.wrong(&place, failure);
        }
    }

    /// What is cached, what will be captured, and whether there is room for it.
    fn caches(&mut self, experiment: &Experiment, cache_dir: &Path, machine: Option<&Machine>) {
        for (index, spec) in experiment.recipe.teacher.iter().enumerate() {
            let place = place_of_teacher(spec, index);
            let wants = match experiment.wants(spec) {
                Ok(wants) => wants,
                Err(failure) => {
                    self.wrong(&place, failure);
                    continue;
                }
            };
            let mut missing = Vec::new();
            for want in wants {
                match self.cache(&place, &want, cache_dir) {
                    Ok(true) => {}
                    Ok(false) => missing.push(want),
                    Err(failure) => self.wrong(&place, failure),
                }
            }
            match (missing.first(), machine) {
                (Some(want), Some(machine)) => match ask(want, machine) {
                    Ok(told) => self.say(&place, State::Good, told, None),
                    Err(failure) => self.wrong(&place, failure),
                },
                (Some(_), None) => {
                    let told = format!("teacher `{}` was not asked", spec.title());
                    self.say(&place, State::Unknown, told, None);
                }
                (None, _) => {}
            }
        }
    }

    /// Whether every view is there; says what is, and what the rest takes.
    fn cache(&mut self, place: &str, want: &CacheWant<'_>, cache_dir: &Path) -> Outcome<bool> {
        let n_views = want.split.n_views;
        let what = format!("cache: {} of `{}`", want.split.what(), want.teacher.title());
        let n_there = match find(cache_dir, &want.key)? {
            Some(path) => want.views_there(&LogitCache::open(&path, OpenOptions::default())?),
            None => 0,
        };
        if n_there == n_views {
            self.say(place, State::Good, format!("{what}: there"), None);
            return Ok(true);
        }
        let n_images = want.split.dataset.len() as u64 * u64::from(n_views - n_there);
        let told =
            format!("{what}: {n_there} of {n_views} views there, {n_images} images to capture");
        self.say(place, State::Good, told, None);
        let nearest = nearest_folder(cache_dir)?;
        check_space(&nearest, &want.manifest()?, n_images)?;
        Ok(false)
    }
}

/// Where the loss of this name, or of a component's, stands.
fn loss_called(recipe: &Recipe, loss: &str) -> String {
    let is_it = |spec: &LossSpec| loss.split('.').next() == Some(spec.name.as_str());
    let index = recipe.loss.iter().position(is_it);
    index.map_or("loss".to_owned(), |index| format!("loss.{index}.name"))
}

fn find(cache_dir: &Path, key: &CacheKey) -> Outcome<Option<PathBuf>> {
    Ok(match logitcask_cache::find(cache_dir, key)? {
        Found::Hit(path) | Found::Transcoded(path) => Some(path),
        Found::Miss { .. } => None,
    })
}

/// The folder that is there already of a path: on its disk the rest will be.
fn nearest_folder(path: &Path) -> Outcome<PathBuf> {
    for folder in path.ancestors() {
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        if logitcask_durable::is_folder(folder).map_err(Failure::io("look at", folder))? {
            return Ok(folder.to_owned());
        }
    }
    Ok(PathBuf::from("."))
}

/// Loads the teacher and shows it a few of the images, as a capture would first.
fn ask(want: &CacheWant<'_>, machine: &Machine) -> Outcome<String> {
    want.check_has_file()?;
    let preprocess = Preprocess::new(&want.teacher.preprocess)?;
    let mut teacher = machine.load(want.teacher)?;
    let pixels = Pixels {
        dataset: &want.split.dataset,
        family: &want.split.family,
        preprocess: &preprocess,
    };
    prepare(&mut teacher, pixels)?;
    Ok(format!(
        "teacher: `{}` gives {} logits for each of a few images, the same alone and together (ONNX Runtime {})",
        want.teacher.title(),
        want.split.dataset.n_classes(),
        teacher.runtime().version()
    ))
}
