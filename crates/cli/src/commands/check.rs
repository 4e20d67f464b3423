//! `check`: a recipe's findings, one a line, and the exit code that the worst of them asks for.

use logitcask_experiment::{Failure, Finding, Machine, Outcome, Own, State, check};
use logitcask_teacher::{Runtime, TeacherError};

use crate::args::Check;
use crate::watch::shown;

pub(crate) fn run(args: &Check) -> Outcome {
    let machine = args.machine.machine(&args.recipe.cache_dir)?;
    let recipe = &args.recipe;
    let findings = check(
        &recipe.recipe,
        &recipe.overrides,
        Own::NONE,
        &recipe.cache_dir,
        can_run(&machine)?.then_some(&machine),
        &shown(),
    );
    for finding in &findings {
        match recipe.json {
            true => println!("{}", serde_json::to_string(finding).map_err(Failure::work)?),
            false => print(finding),
        }
    }
    judge(&findings)
}

/// Whether there is a library to run teachers with; one that is there and cannot be used is a failure.
fn can_run(machine: &Machine) -> Outcome<bool> {
    match Runtime::load(machine.library.as_deref(), machine.provider) {
        Ok(_) => Ok(true),
        Err(TeacherError::RuntimeNotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// `!!  recipe.toml:12: what`, and what to do.
pub(crate) fn print(finding: &Finding) {
    let mark = match finding.state {
        State::Good => "ok",
        State::Unknown => "--",
        State::Failed | State::Wrong => "!!",
    };
    let file = finding.file.display();
    let place = finding
        .line
        .map_or(format!("{file}"), |line| format!("{file}:{line}"));
    println!("{mark}  {place}: {}", finding.what);
    if let Some(hint) = &finding.hint {
        println!("    -> {hint}");
    }
}

/// Nothing, or a failure of the worst kind that was found.
pub(crate) fn judge(findings: &[Finding]) -> Outcome {
    let n_of = |state| findings.iter().filter(|it| it.state == state).count();
    match (n_of(State::Wrong), n_of(State::Failed)) {
        (0, 0) => Ok(()),
        (0, n) => Err(Failure::work(format!(
            "the recipe cannot be obeyed now: {n} of what it names cannot be used"
        ))),
        (n, _) => Err(Failure::asked(format!(
            "the recipe is wrong in {n} {}",
            if n == 1 { "place" } else { "places" }
        ))),
    }
}
