//! `evaluate`: what a finished run's checkpoints are worth on a split, in all and class by class, for people and for
//! programs.

use std::path::PathBuf;

use logitcask_experiment::{
    Failure, Logits, Outcome, Recipe, Rows, Split, Trained, eval_caches, rows, without_dropout,
};
use logitcask_student::{Metrics, Tally, TeacherRows};
use serde::Serialize;

use crate::args::{Evaluate, Which};
use crate::progress::say;
use crate::watch::shown;

pub(crate) fn run(args: &Evaluate) -> Outcome {
    let best = args.run.join(Which::Best.file());
    let has_best = logitcask_durable::exists(&best).map_err(Failure::io("look for", &best))?;
    let which = match args.checkpoint {
        Some(which) => vec![which],
        // Within its first epoch a run has no best one.
        None if !has_best => vec![Which::Last],
        None => vec![Which::Last, Which::Best],
    };
    let trained = which
        .iter()
        .map(|which| Trained::open(&args.run, which.file(), &args.overrides))
        .collect::<Outcome<Vec<_>>>()?;
    let recipe = elsewhere(&trained[0].recipe, args)?;
    let split = Split::open_eval(&recipe, &shown())?;
    let caches = eval_caches(&recipe, &split, &args.cache_dir, &args.run, &shown())?;
    let teacher = rows(&caches, &without_dropout(recipe.ensemble.as_ref()), 0)?;
    let teacher = teacher.as_ref().map(Rows::as_teacher);
    let pages = std::iter::zip(&which, &trained)
        .map(|(which, trained)| Page::of(args, *which, trained, &split, teacher))
        .collect::<Outcome<Vec<_>>>()?;
    if args.json {
        for page in &pages {
            println!("{}", serde_json::to_string(page).map_err(Failure::work)?);
        }
        return Ok(());
    }
    print(&pages);
    Ok(())
}

/// The recipe with the evaluation split that was asked for.
fn elsewhere(recipe: &Recipe, args: &Evaluate) -> Outcome<Recipe> {
    let mut recipe = recipe.clone();
    if let Some(root) = &args.dataset {
        recipe.data.root = root.clone();
    }
    if let Some(format) = &args.format {
        let taken = recipe.data.change_format(format)?;
        if !taken.is_empty() {
            let keys = taken.join("`, `");
            say(format!(
                "note: format `{format}` does not read `{keys}`: left out"
            ));
        }
    }
    if let Some(split) = &args.split {
        recipe.data.eval = Some(split.as_str().into());
    }
    Ok(recipe)
}

/// Figures of each class.
fn classes(found: &Logits, names: &[String]) -> Vec<ClassRow> {
    let n_classes = found.logits.len() / found.labels.len().max(1);
    let row = |class: usize| {
        let mut tally = Tally::default();
        let rows = found.logits.chunks_exact(n_classes).zip(&found.labels);
        for (row, label) in rows.filter(|(_, label)| **label as usize == class) {
            tally.add(row, &[*label], None);
        }
        let Metrics {
            n_samples,
            top1,
            nll,
            ..
        } = tally.metrics();
        ClassRow {
            class,
            name: names.get(class).cloned().unwrap_or_default(),
            n_samples,
            top1,
            nll,
        }
    };
    (0..n_classes).map(row).collect()
}

/// What one checkpoint is worth.
#[derive(Serialize)]
struct Page {
    run: PathBuf,
    checkpoint: &'static str,
    epoch: usize,
    dataset: String,
    metrics: Metrics,
    temperature: Option<f64>,
    calibrated: Option<Metrics>,
    classes: Vec<ClassRow>,
}

#[derive(Serialize)]
struct ClassRow {
    class: usize,
    name: String,
    n_samples: usize,
    top1: f64,
    nll: f64,
}

impl Page {
    fn of(
        args: &Evaluate,
        which: Which,
        trained: &Trained,
        split: &Split,
        teacher: Option<&dyn TeacherRows>,
    ) -> Outcome<Self> {
        trained.check_fits(split)?;
        let found = trained.logits(split, &split.dataset.selected(), teacher)?;
        let temperature = match trained.n_held_out() {
            0 => None,
            _ => Some(trained.temperature(&shown())?),
        };
        let data = split.dataset.spec();
        let name = data.eval.as_ref().map(ToString::to_string);
        Ok(Self {
            run: args.run.clone(),
            checkpoint: which.file(),
            epoch: trained.epochs_done,
            dataset: format!(
                "{} `{}` {}",
                data.format,
                data.root.display(),
                name.unwrap_or_default()
            ),
            metrics: found.metrics(1.0),
            temperature,
            calibrated: temperature.map(|temperature| found.metrics(temperature)),
            classes: classes(&found, split.dataset.class_names()),
        })
    }
}

/// The checkpoints side by side, then the classes.
fn print(pages: &[Page]) {
    let first = &pages[0];
    println!(
        "{}: {} images of {}",
        first.run.display(),
        first.metrics.n_samples,
        first.dataset
    );
    let row = |name: &str, cell: &dyn Fn(&Page) -> Option<String>, what: &str| {
        let cells: Option<Vec<String>> = pages.iter().map(cell).collect();
        if let Some(cells) = cells {
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>10}")).collect();
            let line = format!("  {name:<16}{}  {what}", cells.join("  "));
            println!("{}", line.trim_end());
        }
    };
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let nats = |x: f64| format!("{x:.4}");
    row(
        "checkpoint",
        &|p| p.checkpoint.split('.').next().map(str::to_owned),
        "",
    );
    row("epoch", &|p| Some(p.epoch.to_string()), "");
    row("top-1", &|p| Some(percent(p.metrics.top1)), "");
    row("top-5", &|p| Some(percent(p.metrics.top5)), "");
    row("NLL", &|p| Some(nats(p.metrics.nll)), "nats");
    row("ECE", &|p| Some(percent(p.metrics.ece)), "");
    let teacher = |p: &Page| p.metrics.teacher_top1.map(percent);
    row("teacher top-1", &teacher, "on the same images");
    row(
        "agreement",
        &|p| p.metrics.agreement.map(percent),
        "fidelity: the teacher's class is named",
    );
    row(
        "divergence",
        &|p| p.metrics.divergence.map(nats),
        "fidelity: KL(teacher || student), nats",
    );
    if pages.iter().all(|page| page.calibrated.is_some()) {
        println!("  divided by a temperature that was fitted on held-out training images:");
        row("temperature", &|p| p.temperature.map(nats), "");
        row("NLL", &|p| p.calibrated.map(|m| nats(m.nll)), "nats");
        row("ECE", &|p| p.calibrated.map(|m| percent(m.ece)), "");
    } else {
        say("no temperature was fitted: the run held no training images out (`train.held_out`)");
    }
    let heads: String = pages
        .iter()
        .map(|page| page.checkpoint.trim_end_matches(".safetensors"))
        .map(|name| format!("  {:>10}  {:>8}", format!("{name} top-1"), "NLL"))
        .collect();
    println!("  class  images{heads}  name");
    for class in 0..first.classes.len() {
        let cells: String = pages
            .iter()
            .map(|page| &page.classes[class])
            .map(|row| match row.n_samples {
                0 => format!("  {:>10}  {:>8}", "-", "-"),
                _ => format!("  {:>10}  {:>8.4}", percent(row.top1), row.nll),
            })
            .collect();
        let ClassRow {
            class,
            name,
            n_samples,
            ..
        } = &first.classes[class];
        println!(
            "{}",
            format!("  {class:>5}  {n_samples:>6}{cells}  {name}").trim_end()
        );
    }
}
