//! One page about one or more runs: a leaderboard, learning curves, how honest and how much like their teacher the
//! students are, and where each number comes from.

mod charts;
mod escape;
mod html;
mod looks;
mod markdown;
mod page;
mod run;

use std::io::Write;
use std::path::{Path, PathBuf};

use logitcask_experiment::{Board, Entry, Failure, Outcome, reference};

use crate::args::Report;
use crate::progress::say;
use looks::Look;
use page::Page;
pub(crate) use run::Run;

/// Writes `report.html`, `report.md` and `curves.svg` into `out`, and returns the page's path.
pub(crate) fn write(mut runs: Vec<Run>, args: &Report, out: &Path) -> Outcome<PathBuf> {
    name_apart(&mut runs);
    let mut names: Vec<String> = Vec::new();
    for run in &runs {
        if !names.contains(&run.configuration) {
            names.push(run.configuration.clone());
        }
    }
    let reference = reference(args.reference.as_deref(), &names)?;
    let entries: Vec<Entry> = runs.iter().map(Run::entry).collect();
    let board = Board::of(&entries, &names, reference);
    let looks = names
        .iter()
        .map(|name| look_at(&runs, name, &args.cache_dir))
        .collect();
    let page = Page {
        runs,
        names,
        board,
        looks,
    };
    let files = [
        ("curves.svg", charts::sheet(&page.curves(), &page.names)?),
        ("report.md", markdown::page(&page)),
        ("report.html", html::page(&page)?),
    ];
    logitcask_durable::create_dir_all(out).map_err(|e| cannot_write(out, e))?;
    for (name, text) in files {
        let path = out.join(name);
        logitcask_durable::write_atomic(&path, |w| w.write_all(text.as_bytes()))
            .map_err(|e| cannot_write(&path, e))?;
    }
    Ok(out.join("report.html"))
}

fn cannot_write(path: &Path, error: std::io::Error) -> Failure {
    Failure::work(format!("cannot write `{}`: {error}", path.display()))
}

/// Where two experiments have the same name, their folders' names tell them apart.
fn name_apart(runs: &mut [Run]) {
    let known: Vec<(String, String)> = runs
        .iter()
        .map(|run| (run.configuration.clone(), run.experiment()))
        .collect();
    for (run, (name, experiment)) in runs.iter_mut().zip(&known) {
        let is_other =
            |(other_name, other): &(String, String)| other_name == name && other != experiment;
        if known.iter().any(is_other) || run.configuration.is_empty() {
            let folder = run.folder.file_name().unwrap_or_default();
            run.configuration = folder.to_string_lossy().into_owned();
        }
        // Wherever such a run is named, it says what it is.
        if run.recorded("inconsistent") == "true" && !run.configuration.contains("inconsistent") {
            run.configuration.push_str(" (inconsistent views)");
        }
    }
}

/// The first run of a configuration, looked at again. A report without it is still a report, and says so.
fn look_at(runs: &[Run], name: &str, cache_dir: &Path) -> Result<Look, String> {
    let run = runs.iter().find(|run| run.configuration == name);
    let run = run.ok_or_else(|| "it has no run".to_owned())?;
    match looks::look(&run.folder, cache_dir) {
        Ok(Some(look)) => Ok(look),
        Ok(None) => Err("its recipe names no evaluation split".to_owned()),
        Err(failure) => {
            let hint = failure.hint().map(|hint| format!("\n  hint: {hint}"));
            say(format!(
                "{name}: its student could not be looked at again: {failure}{}",
                hint.unwrap_or_default()
            ));
            Err(failure.to_string())
        }
    }
}
