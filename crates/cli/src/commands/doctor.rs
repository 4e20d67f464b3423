use std::path::Path;

use logitcask_teacher::{ExecutionProvider, Runtime};

use crate::args::Doctor;
use crate::exit::{Failure, Outcome};
use crate::experiment::Experiment;
use crate::recipe::Recipe;
use crate::runtime;

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
    let mut findings = vec![
        Finding::good("logitcask", crate::VERSION),
        Finding::good("processor", processor()),
    ];
    findings.extend(onnx_runtime());
    if let Some(recipe) = &args.recipe {
        findings.extend(diagnose(recipe));
    }
    let width = findings
        .iter()
        .map(|finding| finding.what.len())
        .max()
        .unwrap_or(0);
    for finding in &findings {
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

fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{}, {cores} threads, {}",
        std::env::consts::ARCH,
        crate::runtime::cpu_features()
    )
}

fn onnx_runtime() -> Vec<Finding> {
    let loaded = Runtime::load(runtime::library_path().as_deref(), ExecutionProvider::Cpu);
    let runtime = match loaded {
        Ok(runtime) => runtime,
        Err(error) => {
            let remedy = error.hint().unwrap_or_else(|| "make setup".to_owned());
            return vec![Finding::bad("ONNX Runtime", error.to_string(), remedy)];
        }
    };
    let mut findings = vec![Finding::good(
        "ONNX Runtime",
        format!("{} at `{}`", runtime.version(), runtime.path().display()),
    )];
    let compiled_in = runtime.providers();
    for provider in ExecutionProvider::ALL {
        findings.push(match compiled_in.contains(&provider) {
            true => Finding::good(provider_name(provider), "is in this library"),
            false => Finding {
                is_optional: true,
                ..Finding::bad(
                    provider_name(provider),
                    "is not in this library",
                    format!("where this machine has such a GPU: make setup PROVIDER={provider}"),
                )
            },
        });
    }
    findings
}

fn provider_name(provider: ExecutionProvider) -> &'static str {
    match provider {
        ExecutionProvider::Cpu => "provider cpu",
        ExecutionProvider::Cuda => "provider cuda",
        ExecutionProvider::TensorRt => "provider tensorrt",
    }
}

/// What a recipe names: is it there?
fn diagnose(path: &Path) -> Vec<Finding> {
    let bad = |what, failure: Failure| {
        let remedy = failure.remedy().unwrap_or("see the message").to_owned();
        Finding::bad(what, failure.to_string(), remedy)
    };
    let recipe = match Recipe::load(path, &[]) {
        Ok(recipe) => recipe,
        Err(failure) => return vec![bad("recipe", failure)],
    };
    let mut findings = vec![Finding::good(
        "recipe",
        format!("`{}` reads well", path.display()),
    )];
    let experiment = match Experiment::open(recipe.clone()) {
        Ok(experiment) => experiment,
        Err(failure) => {
            findings.push(bad("dataset", failure));
            return findings;
        }
    };
    findings.push(Finding::good(
        "dataset",
        format!(
            "{} samples, {} classes",
            experiment.train.dataset.len(),
            experiment.train.dataset.n_classes()
        ),
    ));
    for teacher in &recipe.teacher {
        let wants = match experiment.wants(teacher) {
            Ok(wants) => wants,
            Err(failure) => {
                findings.push(bad("teacher", failure));
                continue;
            }
        };
        for want in wants {
            findings.push(match want.open(Path::new("data/cache"), path) {
                Ok(_) => Finding::good("cache", format!("{}: ready", want.split.what())),
                Err(failure) => bad("cache", failure),
            });
        }
    }
    findings
}
