use std::path::{Path, PathBuf};

use logitcask_student::RunRecord;

use crate::args::Report;
use crate::exit::{Failure, Outcome};
use crate::report::{self, Run};

pub(crate) fn run(args: &Report) -> Outcome {
    let mut folders = Vec::new();
    for path in &args.runs {
        folders.extend(runs_in(path)?);
    }
    let runs = folders
        .iter()
        .map(|folder| Run::read(folder))
        .collect::<Outcome<Vec<_>>>()?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => folders[0].parent().unwrap_or(Path::new(".")).to_owned(),
    };
    let page = report::write(runs, &out)?;
    println!("{}", page.display());
    Ok(())
}

/// The folder itself if it holds a finished run, else the finished runs directly below it, by name.
fn runs_in(path: &Path) -> Outcome<Vec<PathBuf>> {
    let is_run = |folder: &Path| folder.join(RunRecord::FILE).is_file();
    if is_run(path) {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| {
        Failure::asked(format!(
            "cannot read the folder `{}`: {error}",
            path.display()
        ))
    })?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| is_run(folder))
        .collect();
    folders.sort();
    if folders.is_empty() {
        let failure = Failure::work(format!("`{}` holds no finished run", path.display()));
        return Err(failure.hint("train one: `make student RECIPE=pipelines/quick.toml`"));
    }
    Ok(folders)
}
