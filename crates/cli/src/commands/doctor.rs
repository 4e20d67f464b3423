//! `doctor`: what this machine can run, what is wrong with a recipe, or what ails a run.

use std::path::{Path, PathBuf};

use logitcask_experiment::{
    Failure, LAST_WORDS, Machine, Outcome, Own, RECIPE, Recipe, check, symptoms,
};
use logitcask_student::{EpochRecord, Symptom};
use logitcask_teacher::{ExecutionProvider, Runtime, TeacherError, gpu_models};

use crate::args::Doctor;
use crate::runtime;
use crate::watch::shown;

/// One line of the diagnosis: what was looked at, what was found, and what to do if that is bad.
struct Finding {
    what: &'static str,
    found: String,
    remedy: Option<String>,
    /// Nothing is wrong where it is missing.
    is_optional: bool,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            found: found.into(),
            remedy: None,
            is_optional: false,
        }
    }

    fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..Self::good(what, found)
        }
    }
}

pub(crate) fn run(args: &Doctor) -> Outcome {
    let findings = match &args.patient {
        Some(run) if logitcask_durable::is_folder(run).map_err(Failure::io("look at", run))? => {
            of_run(run)?
        }
        recipe => {
            let mut findings = vec![
                Finding::good("logitcask", logitcask_experiment::VERSION),
                Finding::good("processor", processor()),
            ];
            let (runs, library) = onnx_runtime();
            findings.extend(runs);
            if let Some(recipe) = recipe {
                print(&findings);
                return check_recipe(recipe, library);
            }
            findings
        }
    };
    print(&findings);
    let ill = findings
        .iter()
        .filter(|finding| finding.remedy.is_some() && !finding.is_optional)
        .count();
    match ill {
        0 => Ok(()),
        n => Err(Failure::work(format!(
            "{n} of {} findings want attention",
            findings.len()
        ))),
    }
}

/// As `logitcask check` does, with the library that was found.
fn check_recipe(recipe: &Path, library: Option<PathBuf>) -> Outcome {
    let cache_dir = Path::new("data/cache");
    let machine = library.map(|library| Machine {
        provider: ExecutionProvider::Cpu,
        gpus: Vec::new(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        library: Some(library),
        engines: cache_dir.join(".tensorrt"),
    });
    let findings = check(
        recipe,
        &[],
        Own::NONE,
        cache_dir,
        machine.as_ref(),
        &shown(),
    );
    findings.iter().for_each(super::check::print);
    super::check::judge(&findings)
}

fn print(findings: &[Finding]) {
    let width = findings
        .iter()
        .map(|finding| finding.what.len())
        .max()
        .unwrap_or(0);
    for finding in findings {
        let mark = match &finding.remedy {
            None => "ok",
            // A GPU that is not there is no illness.
            Some(_) if finding.is_optional => "--",
            Some(_) => "!!",
        };
        println!("{mark}  {:width$}  {}", finding.what, finding.found);
        if let Some(remedy) = &finding.remedy {
            println!("    {:width$}  -> {remedy}", "");
        }
    }
}

fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{}, {cores} threads, {}",
        std::env::consts::ARCH,
        crate::runtime::cpu_features()
    )
}

/// The library and what it can run. The one with CUDA is looked for first: it serves the CPU too, and a process can load
/// only one.
fn onnx_runtime() -> (Vec<Finding>, Option<PathBuf>) {
    let stated = runtime::library_path();
    let loaded = Runtime::load(stated.as_deref(), ExecutionProvider::Cuda);
    let loaded = match loaded {
        Err(TeacherError::RuntimeNotFound { .. }) => {
            Runtime::load(stated.as_deref(), ExecutionProvider::Cpu)
        }
        other => other,
    };
    let runtime = match loaded {
        Ok(runtime) => runtime,
        Err(error) => {
            let remedy = error.hint().unwrap_or_else(|| "make setup".to_owned());
            return (
                vec![Finding::bad("ONNX Runtime", told(&error), remedy)],
                None,
            );
        }
    };
    let mut findings = vec![
        Finding::good(
            "ONNX Runtime",
            format!("{} at `{}`", runtime.version(), runtime.path().display()),
        ),
        gpus(),
    ];
    for provider in ExecutionProvider::ALL {
        let name = provider_name(provider);
        findings.push(match runtime.try_provider(provider) {
            Ok(()) => Finding::good(name, "runs here"),
            Err(error) => Finding {
                // Nobody has to have a GPU.
                is_optional: provider != ExecutionProvider::Cpu,
                ..Finding::bad(name, told(&error), error.hint().unwrap_or_default())
            },
        });
    }
    (findings, Some(runtime.path().to_owned()))
}

fn gpus() -> Finding {
    match &gpu_models()[..] {
        [] => Finding {
            is_optional: true,
            ..Finding::bad(
                "NVIDIA driver",
                "not on this machine, or no GPU",
                "where there is a GPU: a driver of version 580 or later, from your system's packages",
            )
        },
        models => Finding::good("NVIDIA driver", models.join(", ")),
    }
}

/// An error with its causes, in a line.
fn told(error: &TeacherError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // ONNX Runtime puts its own source file and function before what matters.
        let cause_text = cause.to_string();
        let what = cause_text.rsplit(" : ").next().unwrap_or(&cause_text);
        text += &format!(": {}", what.trim());
        source = cause.source();
    }
    text
}

fn provider_name(provider: ExecutionProvider) -> &'static str {
    match provider {
        ExecutionProvider::Cpu => "provider cpu",
        ExecutionProvider::Cuda => "provider cuda",
        ExecutionProvider::TensorRt => "provider tensorrt",
    }
}

/// What ails a run: what it has written down, held against what a run in good health would write.
fn of_run(run: &Path) -> Outcome<Vec<Finding>> {
    let recipe = run.join(RECIPE);
    if !logitcask_durable::is_file(&recipe).map_err(Failure::io("look for", &recipe))? {
        return Err(Failure::asked(format!(
            "`{}` is no run: there is no `{RECIPE}` in it",
            run.display()
        ))
        .with_hint("name the folder of a run: `logitcask student` prints it"));
    }
    let recipe = Recipe::load(&recipe, &[])?;
    let history = EpochRecord::read_all(run)?;
    let symptoms = symptoms(run, &recipe, false)?;
    let mut findings = vec![position(run, &recipe, &history)];
    findings.extend(stopped(run)?);
    let Some(last) = history.last() else {
        return Ok(findings);
    };
    let loss = format!(
        "{:.4} in epoch 1, {:.4} in epoch {}; {:.2} % of the last epoch's training images are right",
        history[0].loss,
        last.loss,
        last.epoch,
        100.0 * last.train_top1
    );
    let eval = last.eval.unwrap_or_default();
    let teacher = eval.teacher_top1.map(|teacher| {
        format!(
            "right on {:.2} % of the evaluation images, the student on {:.2} %",
            100.0 * teacher,
            100.0 * eval.top1
        )
    });
    let agreement = eval
        .agreement
        .map(|agreement| format!("with the teacher on {:.2} %", 100.0 * agreement));
    let healthy = [
        (
            "gradients",
            Some("every parameter has moved since the start".to_owned()),
        ),
        ("loss", Some(loss)),
        ("teacher", teacher),
        ("agreement", agreement),
    ];
    for (what, found) in healthy {
        let ill: Vec<&Symptom> = symptoms.iter().filter(|s| s.about() == what).collect();
        match found {
            Some(found) if ill.is_empty() => findings.push(Finding::good(what, found)),
            _ => {}
        }
        let bad = |symptom: &Symptom| Finding::bad(what, symptom.to_string(), symptom.remedy());
        findings.extend(ill.into_iter().map(bad));
    }
    Ok(findings)
}

/// How far a run has come.
fn position(run: &Path, recipe: &Recipe, history: &[EpochRecord]) -> Finding {
    let (student, epochs) = (
        recipe.student.as_ref().map_or("", |s| s.name.as_str()),
        recipe.train.as_ref().map_or(0, |train| train.epochs),
    );
    let done = format!(
        "`{}`: {student}, {} of {epochs} epochs are done",
        run.display(),
        history.len()
    );
    match history.len() {
        0 => Finding::bad(
            "run",
            done,
            "there is little to go by yet: look again after the first epoch",
        ),
        _ => Finding::good("run", done),
    }
}

/// Why it stopped, if it did.
fn stopped(run: &Path) -> Outcome<Option<Finding>> {
    let path = run.join(LAST_WORDS);
    let damaged = |why: String| {
        let damaged = format!("`{}` is damaged: {why}", path.display());
        let remedy = "run the same command again: it goes on from the last checkpoint";
        Ok(Some(Finding::bad("stopped", damaged, remedy)))
    };
    let words = match logitcask_durable::absent_is_none(logitcask_durable::read_to_string(&path)) {
        Ok(None) => return Ok(None),
        Ok(Some(words)) => words,
        Err(error) => return damaged(error.to_string()),
    };
    let words = match logitcask_durable::unseal_comment(&words) {
        Ok(unsealed) => unsealed.unwrap_or(&words),
        Err(seal) => return damaged(seal.to_string()),
    };
    let told = words.split_once('\n');
    Ok(told.map(|(error, remedy)| Finding::bad("stopped", error, remedy.trim_end())))
}
