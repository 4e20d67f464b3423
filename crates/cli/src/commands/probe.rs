//! `probe`: how well a frozen student's features serve another dataset, by a linear layer trained on them.

use std::path::Path;

use logitcask_experiment::{Experiment, Failure, Outcome, Recipe, Split, Trained};
use logitcask_student::{Evaluation, ProbeEpoch, probe};
use serde_json::json;

use crate::args::Probe;
use crate::progress::say;
use crate::watch;

pub(crate) fn run(args: &Probe) -> Outcome {
    let trained = Trained::open(&args.run, args.checkpoint.file(), &[])?;
    let recipe = Recipe::load(&args.dataset, &args.overrides)?;
    let asked = |problem: &str| Failure::asked(format!("`{}` {problem}", args.dataset.display()));
    let Some(spec) = recipe.train.clone() else {
        return Err(asked("has no `[train]`: how the linear layer is trained"));
    };
    if recipe.student.is_some() || !recipe.teacher.is_empty() || !recipe.loss.is_empty() {
        return Err(asked("names a student, a teacher or a loss, but the run is the student and a probe has no teacher")
            .with_hint("a probe's recipe has `[data]`, `[views]` and `[train]`; see `pipelines/probe/`"));
    }
    if !recipe.views.augment.is_empty() {
        return Err(asked(
            "augments, but a frozen student sees each image in its clean view, once",
        )
        .with_hint(
            "leave `views.augment` out; `views.clean` brings images to the student's size",
        ));
    }
    let seed = recipe.seed;
    let experiment = Experiment::open(recipe, &watch::shown())?;
    let Some(eval) = &experiment.eval else {
        return Err(asked("names no evaluation split").with_hint("add `eval` to `[data]`"));
    };
    let train = experiment.train_in_clean_view()?;
    let wanted = trained.network.shape().image;
    let found = train.input_size(&trained.preprocess)?;
    if (found.height, found.width, found.channels) != (wanted.height, wanted.width, wanted.channels)
    {
        return Err(Failure::work(format!(
            "the student takes {} x {} pixels of {} channels, the dataset's have {found}",
            wanted.height, wanted.width, wanted.channels
        ))
        .with_hint(format!(
            "bring them to its size: `[views] clean = [{{ name = \"resize\", size = {0} }}, {{ name = \"center_crop\", size = {0} }}]`",
            wanted.height
        )));
    }
    say(format!(
        "`{}` stays as it is; a linear layer learns {} classes from {} images",
        trained.network.name(),
        train.dataset.n_classes(),
        train.dataset.selected().len()
    ));
    let told = |record: ProbeEpoch| {
        say(format!(
            "epoch {:>3}/{}  loss {:.3}  eval {:.2} %",
            record.epoch,
            spec.epochs,
            record.loss,
            100.0 * record.eval.top1
        ));
    };
    let history = probe(
        &trained.network,
        &trained.preprocess,
        &shown(&train),
        &shown(eval),
        &spec,
        seed,
        &told,
    )?;
    let Some(last) = history.last() else {
        return Err(Failure::work("the probe made no epoch"));
    };
    print(&args.run, last, args.json)
}

fn shown(split: &Split) -> Evaluation<'static> {
    Evaluation {
        dataset: split.dataset.clone(),
        family: split.family.clone(),
        teacher: None,
    }
}

fn print(run: &Path, last: &ProbeEpoch, json: bool) -> Outcome {
    if json {
        let line =
            json!({ "run": run, "epochs": last.epoch, "loss": last.loss, "eval": last.eval });
        println!("{line}");
        return Ok(());
    }
    println!(
        "linear probe: top-1 {:.2} % after {} epochs, {} images",
        100.0 * last.eval.top1,
        last.epoch,
        last.eval.n_samples
    );
    Ok(())
}
