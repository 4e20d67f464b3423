//! Sweeps through the real binary: what is finished is never lost and never repeated, whenever the process dies.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use bench::{Bench, ROOT};
use serde_json::Value;

/// `pipelines/studies/quick.toml` with shorter runs, in the bench's folder.
fn quick(bench: &Bench, epochs: &str) -> PathBuf {
    let text = fs::read_to_string(Path::new(ROOT).join("pipelines/studies/quick.toml")).unwrap();
    assert!(text.contains("epochs = 36") && text.contains("count = 9"));
    let text = text
        .replace("epochs = 36", &format!("epochs = {epochs}"))
        .replace("count = 9", "count = 2");
    let path = bench.folder.join("quick.toml");
    fs::write(&path, text).unwrap();
    path
}

fn arguments(bench: &Bench, sweep: &Path, more: &[&str]) -> Vec<String> {
    let (cache_dir, out) = (bench.cache_dir(), bench.folder.join("runs"));
    let own = [
        "sweep",
        sweep.to_str().unwrap(),
        "--cache-dir",
        cache_dir.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    own.iter()
        .chain(more)
        .map(|&text| text.to_owned())
        .collect()
}

fn run(bench: &Bench, sweep: &Path, more: &[&str]) -> bench::Run {
    let args = arguments(bench, sweep, more);
    bench.run_plain(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn start(bench: &Bench, sweep: &Path, more: &[&str]) -> Child {
    let args = arguments(bench, sweep, more);
    let mut command = bench.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn lines(sweep: &Path) -> Vec<Value> {
    let text = fs::read_to_string(sweep.with_extension("jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What must not depend on how a sweep came to its end, sorted: configuration, seed and every epoch.
fn outcome(sweep: &Path) -> Vec<String> {
    let told = |line: &Value| {
        format!(
            "{} {} {}",
            line["configuration"], line["seed"], line["epochs"]
        )
    };
    let mut told: Vec<String> = lines(sweep).iter().map(told).collect();
    told.sort();
    told
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within a minute");
}

#[test]
fn three_losses_and_two_seeds_from_one_capture() {
    let bench = Bench::new("sweep");
    let sweep = quick(&bench, "2");
    let done = run(&bench, &sweep, &["--json"]).ok();
    assert!(done.stderr.contains("captured"), "{}", done.stderr);
    assert!(
        done.stderr.contains("6 runs, 0 finished before"),
        "{}",
        done.stderr
    );

    let rows: Vec<Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        rows.len(),
        4,
        "three configurations and the cost: {}",
        done.stdout
    );
    let configurations: BTreeSet<&str> = rows[..3]
        .iter()
        .map(|row| row["configuration"].as_str().unwrap())
        .collect();
    assert_eq!(configurations, BTreeSet::from(["ce", "ce + kd", "mcld"]));
    for row in &rows[..3] {
        assert_eq!(row["seeds"], serde_json::json!([1, 2]));
        assert_eq!(
            row["difference"].is_null(),
            row["configuration"] == "ce",
            "{row}"
        );
    }
    // The last epochs' accuracies by hand, from the lines.
    let kd = rows
        .iter()
        .find(|row| row["configuration"] == "ce + kd")
        .unwrap();
    let top1 = |configuration: &str, seed: u64| {
        let is_it = |line: &&Value| line["configuration"] == configuration && line["seed"] == seed;
        let all = lines(&sweep);
        all.iter().find(is_it).unwrap()["record"]["last"]["eval"]["top1"]
            .as_f64()
            .unwrap()
    };
    let mean = (top1("ce + kd", 1) + top1("ce + kd", 2)) / 2.0;
    assert!((kd["last"]["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    let difference =
        (top1("ce + kd", 1) - top1("ce", 1) + top1("ce + kd", 2) - top1("ce", 2)) / 2.0;
    assert!((kd["difference"]["mean"].as_f64().unwrap() - difference).abs() < 1e-12);
    let cost = &rows[3]["cost"];
    let (spent, saved) = (&cost["teacher_seconds"], &cost["teacher_seconds_saved"]);
    assert!(
        (saved.as_f64().unwrap() / spent.as_f64().unwrap() - 5.0).abs() < 1e-9,
        "six runs, one capture: {cost}"
    );

    let before = fs::read(sweep.with_extension("jsonl")).unwrap();
    let again = run(&bench, &sweep, &[]).ok();
    assert!(
        again.stderr.contains("all of them finished before"),
        "{}",
        again.stderr
    );
    assert!(
        again.stdout.contains("against ce, points"),
        "{}",
        again.stdout
    );
    assert_eq!(before, fs::read(sweep.with_extension("jsonl")).unwrap());

    let against = run(&bench, &sweep, &["--show", "--json", "--reference", "mcld"]).ok();
    let row = |name: &str| -> Value {
        let rows = against.stdout.lines();
        rows.map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|row| row["configuration"] == name)
            .unwrap()
    };
    let difference = (top1("ce", 1) - top1("mcld", 1) + top1("ce", 2) - top1("mcld", 2)) / 2.0;
    assert!((row("ce")["difference"]["mean"].as_f64().unwrap() - difference).abs() < 1e-12);
    assert!(row("mcld")["difference"].is_null());
    let refused = run(&bench, &sweep, &["--show", "--reference", "mclb"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused
            .stderr
            .contains("there are: `ce`, `ce + kd`, `mcld`"),
        "{}",
        refused.stderr
    );
}

#[test]
fn fewer_views_of_a_cache_are_paid_with_the_most() {
    let bench = Bench::new("sweep_views");
    let sweep = quick(&bench, "1");
    let text = fs::read_to_string(&sweep).unwrap();
    let at = text.find("[sweep]").unwrap();
    let lists = "[[loss]]\nname = \"kd\"\n[sweep]\n\"views.count\" = [1, 3]\n";
    fs::write(&sweep, format!("{}{lists}", &text[..at])).unwrap();
    let done = run(&bench, &sweep, &["--json"]).ok();
    let seconds = |configuration: &str| -> f64 {
        let all = lines(&sweep);
        let line = all
            .iter()
            .find(|line| line["configuration"] == configuration);
        let seconds = &line.unwrap()["record"]["recorded"]["teacher_seconds"];
        seconds.as_str().unwrap().parse().unwrap()
    };
    let (one, three) = (seconds("count=1"), seconds("count=3"));
    assert!(0.0 < one && one < three, "{one} s and {three} s");
    let cost: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(cost["cost"]["teacher_seconds"], three);
    let saved = cost["cost"]["teacher_seconds_saved"].as_f64().unwrap();
    assert!(
        (saved - one).abs() < 1e-9,
        "{saved} s saved by a view of {one} s"
    );
}

#[test]
fn killed_at_any_moment_it_does_the_rest_only() {
    let bench = Bench::new("sweep_whole");
    let whole = quick(&bench, "3");
    run(&bench, &whole, &[]).ok();

    let bench = Bench::new("sweep_killed");
    let sweep = quick(&bench, "3");
    // In the capture or before it, then after a finished run, then two runs side by side.
    let mut child = start(&bench, &sweep, &[]);
    std::thread::sleep(Duration::from_millis(150));
    child.kill().unwrap();
    child.wait().unwrap();
    for (n_finished, more) in [(1, &[][..]), (3, &["--jobs", "2"][..])] {
        let mut child = start(&bench, &sweep, more);
        wait_until("a run is finished", || lines(&sweep).len() >= n_finished);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // As a kill while a run is written down would leave it.
    let leftover = bench.folder.join(".quick.jsonl.tmp-1");
    fs::write(&leftover, "half a li").unwrap();
    let kept = lines(&sweep);
    assert!(
        (3..6).contains(&kept.len()),
        "{} runs were finished when it was killed",
        kept.len()
    );
    let rest = run(&bench, &sweep, &["--jobs", "2"]).ok();
    let told = format!("6 runs, {} finished before", kept.len());
    assert!(rest.stderr.contains(&told), "{}", rest.stderr);
    let all = lines(&sweep);
    assert_eq!(
        all[..kept.len()],
        kept[..],
        "finished runs stay as they are"
    );
    assert_eq!(all.len(), 6, "and none is there twice");
    assert_eq!(
        outcome(&sweep),
        outcome(&whole),
        "kills and neighbours change no number"
    );
    assert!(!leftover.exists());
}

#[cfg(unix)]
#[test]
fn a_stop_saves_and_an_interrupted_run_continues_within() {
    let bench = Bench::new("sweep_stopped");
    let sweep = quick(&bench, "200");
    let mut child = start(&bench, &sweep, &[]);
    let runs = bench.folder.join("runs");
    let checkpoints = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&runs).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path().join("last.safetensors"))
            .filter(|path| path.exists())
            .collect()
    };
    wait_until("a checkpoint is there", || !checkpoints().is_empty());
    // As a terminal or a batch system asks: the sweep alone is told, and tells its run.
    let asked = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(asked.success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("stopped with 6 of 6 runs to go"), "{said}");
    assert_eq!(lines(&sweep).len(), 0);

    // Shortening the runs makes other runs of them; so the checkpoint is shown to be used by the run itself.
    let folder = checkpoints()[0].parent().unwrap().to_owned();
    assert!(
        !folder.join(".run.claim-0001").exists(),
        "the run gave its folder back"
    );
    let (recipe, cache_dir) = (folder.join("recipe.toml"), bench.cache_dir());
    let args = [
        "student",
        recipe.to_str().unwrap(),
        "--out",
        folder.to_str().unwrap(),
        "--cache-dir",
        cache_dir.to_str().unwrap(),
    ];
    let mut child = bench
        .command(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut said = std::io::BufRead::lines(stderr).map_while(Result::ok);
    assert!(
        said.any(|line| line.contains("continuing after")),
        "the run began anew"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_cannot_be_trained_is_refused_before_the_first_run() {
    let bench = Bench::new("sweep_wrong");
    let sweep = quick(&bench, "2");
    let text = fs::read_to_string(&sweep).unwrap();
    for (good, bad, told) in [
        ("{ name = \"mcld\" }", "{ name = \"mclb\" }", "`mclb`"),
        (
            "{ name = \"mcld\" }",
            "{ name = \"mcld\", temprature = 2 }",
            "temprature",
        ),
        ("seed = [1, 2]", "seed = 1", "`sweep.seed` is not a list"),
        ("seed = [1, 2]", "seed = [1, 1]", "twice"),
    ] {
        fs::write(&sweep, text.replace(good, bad)).unwrap();
        let refused = run(&bench, &sweep, &[]);
        assert_eq!(refused.code, 2, "{bad}: {}", refused.stderr);
        assert!(refused.stderr.contains(told), "{bad}: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    bench.assert_no_cache();
}

#[test]
fn one_failing_run_takes_no_other_with_it() {
    let bench = Bench::new("sweep_diverges");
    let sweep = quick(&bench, "2");
    // An absurd learning rate: the loss becomes infinite.
    let text = fs::read_to_string(&sweep).unwrap();
    let at = text.find("[sweep]").unwrap();
    let lists = "[sweep]\n\"train.optimizer.lr\" = [0.05, 1e30]\n";
    let losses = "[[loss]]\nname = \"kd\"\n";
    fs::write(&sweep, format!("{}{losses}{lists}", &text[..at])).unwrap();
    let run_once = run(&bench, &sweep, &[]);
    assert_eq!(run_once.code, 1, "{}", run_once.stderr);
    assert!(
        run_once.stderr.contains("1 of 2 runs failed"),
        "{}",
        run_once.stderr
    );
    assert!(
        run_once.stderr.contains(", seed 1: the run failed"),
        "{}",
        run_once.stderr
    );
    assert_eq!(lines(&sweep).len(), 1);
    // Only the failed one is tried again; what is finished can be looked at.
    assert!(
        run(&bench, &sweep, &[])
            .stderr
            .contains("1 finished before, 1 to train")
    );
    let shown = run(&bench, &sweep, &["--show"]).ok();
    assert!(
        shown.stderr.contains("1 of 2 runs are not finished"),
        "{}",
        shown.stderr
    );
    assert_eq!(shown.stdout.lines().count(), 2, "{}", shown.stdout);
}
