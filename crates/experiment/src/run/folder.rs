//! The folder of a run: whose it is, and what is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logitcask_durable::Claim;
use logitcask_student::{Checkpoint, EpochRecord, RunRecord, StudentError, TensorBoard, Times};

use super::training::Training;
use crate::claims;
use crate::event::Watch;
use crate::experiment::Experiment;
use crate::failure::{Failure, Outcome};
use crate::recipe::{Recipe, collect_leaves};
use crate::teachers::Teachers;

/// The folder that was asked for, or one named after the recipe, its seed and its digest.
pub(super) fn run_folder(how: &Training<'_>, recipe: &Recipe) -> Outcome<PathBuf> {
    if let Some(out) = how.out {
        return Ok(out.to_owned());
    }
    let path = how.recipe;
    let digest = blake3::hash(recipe.to_toml()?.as_bytes()).to_hex();
    // A recipe that is named without a folder has none in its run's name: a name never begins with a dash.
    let mut words: Vec<String> = [path.parent().and_then(Path::file_name), path.file_stem()]
        .into_iter()
        .flatten()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.push(format!("s{}", recipe.seed));
    words.push(digest[..6].to_owned());
    Ok(Path::new("data/runs").join(words.join("-")))
}

/// BLAKE3 over what decides a run's outcome: the recipe, the weights it starts from, the images and labels, and the
/// caches.
pub(super) fn run_digest(
    recipe: &Recipe,
    experiment: &Experiment,
    caches: &Teachers,
) -> Outcome<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(recipe.to_toml()?.as_bytes());
    if let Some(path) = recipe.student.as_ref().and_then(|s| s.init_from.as_ref()) {
        let cannot = |error| Failure::work(format!("cannot read `{}`: {error}", path.display()));
        hasher.update(&std::fs::read(path).map_err(cannot)?);
    }
    let splits = [Some(&experiment.train), experiment.eval.as_ref()];
    for split in splits.into_iter().flatten() {
        hasher.update(&split.fingerprint.images);
        hasher.update(&split.fingerprint.labels);
    }
    // `subset`, `exclude` and `sample_weights` may name files.
    for sample in experiment.train.dataset.selected() {
        hasher.update(&sample.to_le_bytes());
    }
    for weight in experiment
        .train
        .dataset
        .sample_weights()
        .into_iter()
        .flatten()
    {
        hasher.update(&weight.to_le_bytes());
    }
    // The rows themselves: two caches of one key may hold other ones, where one of them was transcoded.
    for id in caches.ids(experiment) {
        hasher.update(&id);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Makes the folder this run's, and this process's as long as the claim lives: nothing is overwritten before it is clear
/// that what lies there is the same run's.
pub(super) fn prepare(
    run: &Path,
    recipe: &Recipe,
    run_digest: &str,
    how: &Training<'_>,
    watch: &Watch<'_>,
) -> Outcome<Claim> {
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::work(format!("cannot write `{}`: {error}", path.display()))
    };
    logitcask_durable::create_dir_all(run).map_err(|error| cannot(run, error))?;
    let claim = hold(run, how, watch)?;
    if how.fresh {
        forget(run).map_err(|error| cannot(run, error))?;
    }
    refuse_foreign(run, recipe, run_digest)?;
    // Half a checkpoint of a run that was killed while saving.
    logitcask_durable::remove_leftovers(run, |_| true).map_err(|error| cannot(run, error))?;
    let words = run.join(LAST_WORDS);
    logitcask_durable::remove_file(&words).map_err(|error| cannot(&words, error))?;
    let path = run.join(RECIPE);
    let text = recipe.to_sealed_toml()?;
    logitcask_durable::write_atomic(&path, |w| std::io::Write::write_all(w, text.as_bytes()))
        .map_err(|error| cannot(&path, error))?;
    Ok(claim)
}

/// Two processes in one folder would overwrite each other. One that lives may be about to end, the orphan of a sweep that
/// was killed, say: it is given a while.
fn hold(run: &Path, how: &Training<'_>, watch: &Watch<'_>) -> Outcome<Claim> {
    let claimed = claims::claim(&run.join(CLAIM), Duration::from_secs(5), how.stop, watch);
    claimed.map_err(|error| {
        let remedy = error.hint().unwrap_or_default();
        let elsewhere = "another run beside it goes into another folder, with `--out`";
        Failure::from(error).with_hint(format!("{remedy}; {elsewhere}"))
    })
}

/// What is claimed in a run's folder: all of it.
const CLAIM: &str = ".run";

/// The recipe as it was obeyed, in the run's folder.
pub const RECIPE: &str = "recipe.toml";

/// Why the run stopped, where its numbers left the finite ones: for `doctor`.
pub const LAST_WORDS: &str = "stopped.txt";

pub(super) fn last_words(run: &Path, error: &StudentError) -> Outcome {
    let path = run.join(LAST_WORDS);
    let text = format!("{error}\n{}\n", error.hint().unwrap_or_default());
    let text = logitcask_durable::seal_comment(&text);
    logitcask_durable::write_atomic(&path, |w| std::io::Write::write_all(w, text.as_bytes()))
        .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))
}

fn forget(run: &Path) -> std::io::Result<()> {
    for path in logitcask_durable::entries(run)? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let ours = [
            RunRecord::FILE,
            EpochRecord::FILE,
            Times::FILE,
            TensorBoard::FILE,
            LAST_WORDS,
        ];
        if ours.contains(&name.as_str()) || name.ends_with(".safetensors") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A checkpoint or record of another run is refused, and what differs is named.
fn refuse_foreign(run: &Path, recipe: &Recipe, run_digest: &str) -> Outcome {
    let checkpoint = Checkpoint::read(&run.join(Checkpoint::LAST))?;
    let is_foreign = |checkpoint: &Checkpoint| checkpoint.position.run_digest != run_digest;
    if !checkpoint.as_ref().is_some_and(is_foreign) {
        return Ok(());
    }
    let path = run.join(RECIPE);
    let there = logitcask_durable::absent_is_none(std::fs::read_to_string(&path));
    let differences = match there.map_err(Failure::io("read", &path))? {
        Some(text) => differences(&text, &recipe.to_toml()?),
        None => Vec::new(),
    };
    let what = match differences.is_empty() {
        true => "the recipe is the same, so the images, the labels or the caches differ".to_owned(),
        false => differences.join(", "),
    };
    Err(
        Failure::work(format!("`{}` holds another run: {what}", run.display()))
            .with_hint("choose another folder with `--out`, or pass `--fresh` to replace it"),
    )
}

/// `train.epochs is 3 there, 4 here` for each value that differs between two recipes.
fn differences(there: &str, here: &str) -> Vec<String> {
    let leaves = |text: &str| {
        let mut found = BTreeMap::new();
        if let Ok(recipe) = toml::from_str::<toml::Value>(text) {
            collect_leaves(&recipe, String::new(), &mut found);
        }
        found
    };
    let (there, here) = (leaves(there), leaves(here));
    let keys: std::collections::BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let value = |side: &BTreeMap<String, String>, key: &String| {
        side.get(key)
            .cloned()
            .unwrap_or_else(|| "absent".to_owned())
    };
    keys.into_iter()
        .filter(|key| there.get(*key) != here.get(*key))
        .map(|key| {
            format!(
                "`{key}` is {} there, {} here",
                value(&there, key),
                value(&here, key)
            )
        })
        .collect()
}

/// The record of this very run, if it was finished before.
pub(super) fn finished(run: &Path, run_digest: &str) -> Outcome<Option<RunRecord>> {
    let record = RunRecord::read(run)?;
    let same = |record: &RunRecord| {
        record
            .recorded
            .get("run_digest")
            .is_some_and(|digest| digest == run_digest)
    };
    match record {
        Some(record) if !same(&record) => Err(Failure::work(format!(
            "`{}` holds a finished run of another recipe, dataset or cache",
            run.display()
        ))
        .with_hint("choose another folder with `--out`, or pass `--fresh` to replace it")),
        other => Ok(other),
    }
}
