//! `report`: finds the runs that folders or a sweep's file stand for, and has their page written.

use std::path::{Path, PathBuf};

use logitcask_experiment::{Failure, Finished, Outcome, Sweep};
use logitcask_student::RunRecord;

use crate::args::Report;
use crate::report::{self, Run};

pub(crate) fn run(args: &Report) -> Outcome {
    let (runs, beside) = match &args.runs[..] {
        [path] if is_file_of_sweep(path)? => runs_of_sweep(path)?,
        paths => runs_of_folders(paths)?,
    };
    let out = args.out.clone().unwrap_or(beside);
    let page = report::write(runs, args, &out)?;
    println!("{}", page.display());
    Ok(())
}

fn is_file_of_sweep(path: &Path) -> Outcome<bool> {
    let ending = path.extension();
    let is_named_so = ending.is_some_and(|ending| ending == "toml" || ending == "jsonl");
    Ok(is_named_so || is_file(path)?)
}

fn is_file(path: &Path) -> Outcome<bool> {
    logitcask_durable::is_file(path).map_err(Failure::io("look for", path))
}

/// The finished runs of a sweep, and the folder that holds theirs.
fn runs_of_sweep(path: &Path) -> Outcome<(Vec<Run>, PathBuf)> {
    let is_toml = path.extension().is_some_and(|ending| ending == "toml");
    let finished = match is_toml {
        true => Sweep::load(path)?.finished()?,
        false => Finished::read_all(path)?,
    };
    let Some(first) = finished.first() else {
        return Err(
            Failure::work(format!("no run of `{}` is finished yet", path.display())).with_hint(
                format!("logitcask sweep {}", path.with_extension("toml").display()),
            ),
        );
    };
    let beside = first.run.parent().unwrap_or(Path::new(".")).to_owned();
    Ok((finished.into_iter().map(Run::of_line).collect(), beside))
}

fn runs_of_folders(paths: &[PathBuf]) -> Outcome<(Vec<Run>, PathBuf)> {
    let mut folders = Vec::new();
    for path in paths {
        folders.extend(runs_in(path)?);
    }
    let runs = folders
        .iter()
        .map(|folder| Run::read(folder))
        .collect::<Outcome<Vec<_>>>()?;
    let beside = folders[0].parent().unwrap_or(Path::new(".")).to_owned();
    Ok((runs, beside))
}

/// The folder itself if it holds a finished run, else the finished runs directly below it, by name.
fn runs_in(path: &Path) -> Outcome<Vec<PathBuf>> {
    let is_run = |folder: &Path| is_file(&folder.join(RunRecord::FILE));
    if is_run(path)? {
        return Ok(vec![path.to_owned()]);
    }
    let mut folders = Vec::new();
    for entry in logitcask_durable::entries(path).map_err(Failure::io("read", path))? {
        if is_run(&entry)? {
            folders.push(entry);
        }
    }
    if folders.is_empty() {
        let failure = Failure::work(format!("`{}` holds no finished run", path.display()));
        return Err(failure.with_hint("train one: `logitcask student pipelines/quick.toml`"));
    }
    Ok(folders)
}
