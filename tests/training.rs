//! Training through the real binary: what interrupts it, what it writes, what it says when it does not learn, and what a
//! person meets who asks wrongly.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bench::{Bench, Run};
use serde_json::Value;

/// The digits' KD recipe with two captured views, ready to be trained.
struct Desk {
    bench: Bench,
    recipe: String,
}

impl Desk {
    fn new(test: &str) -> Self {
        let bench = Bench::new(test);
        let recipe = bench.recipe(|text| {
            text.replace("count = 9", "count = 2")
                .replace("epochs = 54", "epochs = 4")
        });
        let desk = Self { bench, recipe };
        desk.bench.run(&["teacher-logits", &desk.recipe]).ok();
        desk
    }

    fn run(&self, name: &str) -> PathBuf {
        self.bench.folder.join(name)
    }

    /// The arguments of a training into the run called `name`.
    fn args(&self, name: &str, sets: &[&str]) -> Vec<String> {
        let mut args = vec!["student".to_owned(), self.recipe.clone()];
        let cache_dir = self.bench.cache_dir();
        args.extend(["--cache-dir".to_owned(), cache_dir.display().to_string()]);
        args.extend(["--out".to_owned(), self.run(name).display().to_string()]);
        for set in sets {
            args.extend(["--set".to_owned(), (*set).to_owned()]);
        }
        args
    }

    fn train(&self, name: &str, sets: &[&str]) -> Run {
        let args = self.args(name, sets);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.bench.run_plain(&args)
    }

    fn start(&self, name: &str, sets: &[&str]) -> Child {
        let args = self.args(name, sets);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = self.bench.command(&args);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// What a run leaves that depends on the recipe alone.
    fn results(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let mut results = BTreeMap::new();
        for entry in fs::read_dir(self.run(name)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".safetensors") || name == "metrics.jsonl" || name == "recipe.toml" {
                results.insert(name, fs::read(path).unwrap());
            }
        }
        results
    }

    fn doctor(&self, name: &str) -> Run {
        self.bench
            .run_plain(&["doctor", self.run(name).to_str().unwrap()])
    }
}

fn epochs(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Asserts that a command failed with `code` and one message that says each of `words`.
fn refused(run: Run, code: i32, words: &[&str]) {
    assert_eq!(run.code, code, "{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert_eq!(run.stderr.matches("error: ").count(), 1, "{}", run.stderr);
    for word in words {
        assert!(
            run.stderr.contains(word),
            "`{word}` is missing from: {}",
            run.stderr
        );
    }
}

/// Everything that a checkpoint has to hold: a velocity, a moving average, sums of half an epoch, gradients of half a
/// step (which it does not hold: it is written between steps).
const EVERYTHING: &[&str] = &[
    "train.checkpoint_steps=2",
    "train.keep_checkpoints=2",
    "train.accumulate=2",
    "train.batch_size=32",
    "train.ema=0.9",
    "train.clip_norm=1.0",
    "train.held_out=20",
];

/// Three kills by default, twenty with `LOGITCASK_FULL=1`, spread over the run by the golden ratio.
#[test]
fn kills_at_any_moment_leave_the_weights_of_an_uninterrupted_run() {
    let n_kills = if std::env::var_os("LOGITCASK_FULL").is_some() {
        20
    } else {
        3
    };
    let desk = Desk::new("kills");
    let started = Instant::now();
    desk.train("whole", EVERYTHING).ok();
    let whole_time = started.elapsed();
    let expected = desk.results("whole");
    assert!(
        expected.contains_key("epoch-0004.safetensors"),
        "{:?}",
        expected.keys()
    );

    let (mut kills, mut round) = (0, 0);
    while kills < n_kills {
        let name = format!("killed-{round}");
        // Killed again and again, until a run gets to its end.
        loop {
            round += 1;
            let share = (f64::from(round) * 0.618_033_988_749_895).fract();
            let moment = Instant::now() + whole_time.mul_f64(share);
            let mut child = desk.start(&name, EVERYTHING);
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if Instant::now() >= moment {
                    break None;
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            if let Some(status) = ended {
                assert!(status.success(), "nobody is in the way: {status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        // A run that was killed before its first step is an uninterrupted one: the last word is the last run's.
        desk.train(&name, EVERYTHING).ok();
        let found = desk.results(&name);
        assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
        for (file, bytes) in &expected {
            assert!(
                found[file] == *bytes,
                "`{file}` differs after {kills} kills"
            );
        }
        for entry in fs::read_dir(desk.run(&name)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_left = name.contains(".tmp-") || name.contains(".claim-");
            assert!(!is_left, "`{name}` was left behind");
        }
    }
    println!("{n_kills} kills, {round} starts");
}

/// A laptop that slept, a container that was frozen: the run was taken over, and the sleeper must not write into it.
#[cfg(unix)]
#[test]
fn a_run_that_was_taken_over_while_its_process_was_paused_is_left_alone() {
    let desk = Desk::new("paused");
    let started = Instant::now();
    desk.train("whole", EVERYTHING).ok();
    let whole_time = started.elapsed();
    let expected = desk.results("whole");
    let paused = desk.start("paused", EVERYTHING);
    std::thread::sleep(whole_time / 2);
    let signal = |child: &Child, name: &str| {
        let mut kill = std::process::Command::new("kill");
        assert!(
            kill.args([name, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    };
    signal(&paused, "-STOP");
    // A living process's run is refused, with its name.
    refused(
        desk.train("paused", EVERYTHING),
        1,
        &["process", "host", "kill ", "--out"],
    );
    // In place of the 90 s that a test does not wait.
    let claim = desk.run("paused").join(".run.claim-0001");
    let file = fs::File::options().write(true).open(claim).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    desk.train("paused", EVERYTHING).ok();
    signal(&paused, "-CONT");
    let output = paused.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("meanwhile"),
        "{said}"
    );
    assert!(desk.results("paused") == expected);
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let desk = Desk::new("threads");
    let results = [1, 2, 3].map(|threads| {
        let name = format!("on-{threads}");
        let mut args = desk.args(&name, EVERYTHING);
        args.extend(["--threads".to_owned(), threads.to_string()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        desk.bench.run_plain(&args).ok();
        desk.results(&name)
    });
    assert!(results[0] == results[1], "two threads differ from one");
    assert!(results[0] == results[2], "three threads differ from one");
    refused(
        desk.bench.run(&["student", &desk.recipe, "--threads", "0"]),
        2,
        &["--threads", "1..=4096"],
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_the_step_in_work_and_the_same_command_continues() {
    let desk = Desk::new("ctrl_c");
    let sets = ["train.epochs=12"];
    desk.train("whole", &sets).ok();
    let child = desk.start("stopped", &sets);
    while !desk.run("stopped").join("last.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let signal = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [
        "stopping at the next safe place",
        "stopped before the last epoch",
        "the same command continues",
    ] {
        assert!(said.contains(words), "`{words}` is missing from: {said}");
    }
    let again = desk.train("stopped", &sets).ok();
    assert!(
        again.stderr.contains("continuing after"),
        "{}",
        again.stderr
    );
    assert!(desk.results("whole") == desk.results("stopped"));
}

#[test]
fn every_setting_of_the_loop_is_obeyed() {
    let desk = Desk::new("settings");
    let name = |set: &str| set.replace(['"', '\\', '/', ' '], "");
    let mut seen: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let optimizer = |more: &str| {
        format!("train.optimizer={{ name = \"sgd\", lr = 0.05, weight_decay = 5e-4{more} }}")
    };
    let sets = [
        optimizer(""),
        optimizer(", momentum = 0.5"),
        optimizer(", nesterov = true"),
        optimizer(", decay = \"weights\""),
        "train.optimizer={ name = \"adamw\", lr = 0.001 }".to_owned(),
        "train.schedule={ name = \"cosine\", warmup_epochs = 2 }".to_owned(),
        "train.schedule={ name = \"step\", milestones = [1], gamma = 0.1 }".to_owned(),
        "train.clip_norm=0.1".to_owned(),
        "train.accumulate=2".to_owned(),
        "loss.0.label_smoothing=0.1".to_owned(),
        "train.ema=0.9".to_owned(),
        "train.held_out=64".to_owned(),
        "train.drop_last=true".to_owned(),
    ];
    for set in &sets {
        let run = name(set);
        desk.train(&run, &["train.epochs=2", set]).ok();
        let weights = fs::read(desk.run(&run).join("metrics.jsonl")).unwrap();
        let other = seen.insert(weights, set.clone());
        assert_eq!(other, None, "and `{set}` train alike");
    }
}

#[test]
fn parameters_that_a_loss_declares_are_trained_and_saved() {
    let desk = Desk::new("vid");
    let sets = ["loss=[{ name = \"vid\" }]", "train.keep_checkpoints=4"];
    desk.train("run", &sets).ok();
    let of_loss = |file: &str| -> BTreeMap<String, Vec<u8>> {
        let bytes = fs::read(desk.run("run").join(file)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors
            .tensors()
            .into_iter()
            .filter(|(name, _)| name.contains("loss."));
        tensors
            .map(|(name, tensor)| (name, tensor.data().to_vec()))
            .collect()
    };
    let (first, last) = (
        of_loss("epoch-0001.safetensors"),
        of_loss("last.safetensors"),
    );
    let own: Vec<&String> = first
        .keys()
        .filter(|name| name.starts_with("loss.vid."))
        .collect();
    assert!(!own.is_empty(), "{:?}", first.keys());
    for name in own {
        assert!(first[name] != last[name], "`{name}` was not trained");
    }
}

#[test]
fn a_run_that_no_longer_improves_stops_early_and_keeps_what_it_was_told_to() {
    let desk = Desk::new("early");
    // Pixels divided by 1e9 are all alike to a student: nothing improves after the first epoch.
    let sets = [
        "student.std=[1e9]",
        "train.early_stop=2",
        "train.epochs=9",
        "train.keep_checkpoints=2",
    ];
    desk.train("early", &sets).ok();
    let run = desk.run("early");
    let record = fs::read_to_string(run.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let n_epochs = epochs(&run).len();
    assert!(n_epochs < 9, "{n_epochs} epochs");
    assert_eq!(record["last"]["epoch"], n_epochs);
    assert_eq!(record["best"]["epoch"], n_epochs - 2);
    for epoch in 1..=n_epochs {
        let is_there = run.join(format!("epoch-{epoch:04}.safetensors")).exists();
        assert_eq!(
            is_there,
            epoch + 2 > n_epochs,
            "epoch {epoch} of {n_epochs}"
        );
    }
    // Finished is finished, also for one that stopped early.
    let again = desk.train("early", &sets).ok();
    assert!(again.stderr.contains("finished before"), "{}", again.stderr);
}

#[test]
fn a_run_is_evaluated_as_often_as_it_is_told_and_at_its_end() {
    let desk = Desk::new("eval-every");
    let evaluated = |name: &str, sets: &[&str]| {
        desk.train(name, sets).ok();
        let epochs = epochs(&desk.run(name));
        let is_evaluated = epochs.iter().map(|epoch| epoch.get("eval").is_some());
        is_evaluated.collect::<Vec<_>>()
    };
    let every = evaluated("every", &["train.epochs=5", "train.eval_every=2"]);
    assert_eq!(every, [false, true, false, true, true]);
    // Nothing improves for long; the patience of one epoch ends with an evaluation.
    let sets = [
        "student.std=[1e9]",
        "train.epochs=9",
        "train.eval_every=2",
        "train.early_stop=1",
    ];
    let early = evaluated("early", &sets);
    assert!(early.len() < 9, "{early:?}");
    assert!(
        early
            .iter()
            .enumerate()
            .all(|(epoch, &is)| is == (epoch % 2 == 1)),
        "{early:?}"
    );
    assert_eq!(early.last(), Some(&true), "{early:?}");
}

#[test]
fn without_a_terminal_progress_is_plain_lines() {
    let desk = Desk::new("plain");
    let run = desk.train("run", &[]).ok();
    for words in [
        "training on 300 samples, 5 steps per epoch",
        "epoch   1/4  loss ",
        "(ce ",
        "kd ",
        "train ",
        "eval ",
        "after the last epoch",
        "at best (epoch ",
        "backward ",
    ] {
        assert!(
            run.stderr.contains(words),
            "`{words}` is missing from: {}",
            run.stderr
        );
    }
    assert!(
        !run.stderr.contains('\u{1b}') && !run.stderr.contains('\r'),
        "{:?}",
        run.stderr
    );
    assert_eq!(run.stdout.trim(), desk.run("run").to_str().unwrap());
}

#[test]
fn evaluate_tells_both_checkpoints_and_every_figure() {
    let desk = Desk::new("evaluate");
    let sets = ["train.held_out=60", "train.epochs=6"];
    let record = desk.train("run", &sets).ok();
    assert!(record.stderr.contains("top-1"));
    let run = desk.run("run");
    let run = run.to_str().unwrap();
    let history = epochs(Path::new(run));
    let best = |a: &Value, b: &Value| a["eval"]["top1"].as_f64() > b["eval"]["top1"].as_f64();
    let best = history.iter().fold(&history[0], |best_so_far, epoch| {
        if best(epoch, best_so_far) {
            epoch
        } else {
            best_so_far
        }
    });

    let told = desk.bench.run(&["evaluate", run, "--json"]).ok();
    let pages: Vec<Value> = told
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(pages.len(), 2);
    for (page, epoch) in pages.iter().zip([&history[5], best]) {
        assert_eq!(page["epoch"], epoch["epoch"]);
        // The very figures that training wrote down, but for the order in which f64 sums are taken.
        for figure in [
            "top1",
            "top5",
            "nll",
            "ece",
            "agreement",
            "divergence",
            "teacher_top1",
        ] {
            let (now, then) = (
                page["metrics"][figure].as_f64(),
                epoch["eval"][figure].as_f64(),
            );
            let (now, then) = (now.unwrap(), then.unwrap());
            assert!(
                (now - then).abs() < 1e-9,
                "{figure}: {now}, in training {then}"
            );
        }
        assert!((page["metrics"]["teacher_top1"].as_f64().unwrap() - 0.9916).abs() < 1e-4);
        let classes = page["classes"].as_array().unwrap();
        let right: f64 = classes
            .iter()
            .map(|c| c["n_samples"].as_f64().unwrap() * c["top1"].as_f64().unwrap())
            .sum();
        assert!((right / 596.0 - page["metrics"]["top1"].as_f64().unwrap()).abs() < 1e-9);
        assert!(page["temperature"].as_f64().unwrap() > 0.0);
        // Dividing by a number changes no class.
        assert_eq!(page["calibrated"]["top1"], page["metrics"]["top1"]);
    }
    let table = desk.bench.run(&["evaluate", run]).ok().stdout;
    for word in [
        "top-1",
        "top-5",
        "NLL",
        "ECE",
        "agreement",
        "divergence",
        "temperature",
        "last top-1",
        "best top-1",
    ] {
        assert!(table.contains(word), "`{word}` is missing from: {table}");
    }

    // Elsewhere: the same images in another folder are the same images; fewer classes are refused.
    let copy = desk.bench.folder.join("copy");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(Path::new(bench::ROOT).join("data/digits")).unwrap() {
        let file = file.unwrap().path();
        if file
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
        }
    }
    let copy = copy.to_str().unwrap();
    let elsewhere = desk
        .bench
        .run(&[
            "evaluate",
            run,
            "--dataset",
            copy,
            "--checkpoint",
            "last",
            "--json",
        ])
        .ok();
    let page: Value = serde_json::from_str(elsewhere.stdout.trim()).unwrap();
    assert_eq!(page["metrics"], pages[0]["metrics"]);
    assert!(page["dataset"].as_str().unwrap().contains(copy));
    let train = desk
        .bench
        .run(&[
            "evaluate",
            run,
            "--split",
            "train",
            "--checkpoint",
            "last",
            "--json",
        ])
        .ok();
    let page: Value = serde_json::from_str(train.stdout.trim()).unwrap();
    assert_eq!(page["metrics"]["n_samples"], 1201);
    let synthetic = [
        "--dataset",
        ".",
        "--format",
        "synthetic",
        "--set",
        "data.channels=1",
    ];
    refused(
        desk.bench
            .run(&[&["evaluate", run], &synthetic[..]].concat()),
        1,
        &[
            "the student was trained on images of 1 x 8 x 8",
            "1 x 32 x 32",
        ],
    );

    // The calibrated file answers with the logits divided, and `--check` holds it to that.
    let onnx = desk.bench.folder.join("calibrated.onnx");
    let onnx = onnx.to_str().unwrap();
    let flags = ["--calibrated", "--with-normalisation", "--check"];
    let exported = desk
        .bench
        .run_plain(&[&["export", run, "--onnx", onnx], &flags[..]].concat())
        .ok();
    assert!(
        exported
            .stderr
            .contains("checked by ONNX Runtime on 596 images"),
        "{}",
        exported.stderr
    );
}

/// The records of an event file, framed as TensorBoard frames them.
fn n_records(bytes: &[u8]) -> usize {
    let (mut at, mut n) = (0, 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        at += 8 + 4 + length + 4;
        n += 1;
    }
    assert_eq!(at, bytes.len());
    n
}

#[test]
fn an_event_file_holds_every_epoch_once_however_often_the_run_stopped() {
    let desk = Desk::new("events");
    desk.train("run", &[]).ok();
    let file = desk.run("run").join("events.out.tfevents.logitcask");
    assert_eq!(n_records(&fs::read(&file).unwrap()), 1 + 4);
    // A kill took the record of the run and half an event.
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 9]).unwrap();
    fs::remove_file(desk.run("run").join("run.json")).unwrap();
    desk.train("run", &[]).ok();
    let after = fs::read(&file).unwrap();
    assert_eq!(n_records(&after), 1 + 4);
    assert!(after[..whole.len() / 2] == whole[..whole.len() / 2]);
}

/// Trains, and expects one note about `about` at the end and the same finding by `doctor`.
fn ails(desk: &Desk, name: &str, sets: &[&str], about: &str, words: &[&str]) {
    let run = desk.train(name, sets).ok();
    let doctor = desk.doctor(name);
    assert_eq!(doctor.code, 1, "{}", doctor.stdout);
    let bad = doctor
        .stdout
        .lines()
        .any(|line| line.starts_with("!!") && line.contains(about));
    assert!(bad, "nothing ails `{about}`: {}", doctor.stdout);
    for word in words {
        assert!(
            run.stderr.contains(word),
            "`{word}` is missing from: {}",
            run.stderr
        );
        assert!(
            doctor.stdout.contains(word),
            "`{word}` is missing from: {}",
            doctor.stdout
        );
    }
}

#[test]
fn a_healthy_run_is_told_so() {
    let desk = Desk::new("healthy");
    let run = desk.train("run", &["train.epochs=12"]).ok();
    assert!(!run.stderr.contains("note:"), "{}", run.stderr);
    let doctor = desk.doctor("run").ok();
    assert!(!doctor.stdout.contains("!!"), "{}", doctor.stdout);
    for what in ["run", "gradients", "loss", "teacher", "agreement"] {
        assert!(
            doctor.stdout.contains(&format!("ok  {what}")),
            "{}",
            doctor.stdout
        );
    }
}

#[test]
fn a_loss_that_does_not_fall_and_strangers_are_told() {
    let desk = Desk::new("stays");
    let words = ["the loss does not fall", "student.std"];
    ails(&desk, "run", &["student.std=[1e9]"], "loss", &words);
    let told = desk.doctor("run").stdout;
    assert!(told.contains("student and teacher agree on"), "{told}");
}

#[test]
fn a_learning_rate_that_is_too_high_is_told() {
    let desk = Desk::new("lr");
    let words = [
        "training made the loss larger",
        "lower `train.optimizer.lr`",
    ];
    ails(&desk, "run", &["train.optimizer.lr=30"], "loss", &words);
}

#[test]
fn parameters_without_a_gradient_are_told() {
    let desk = Desk::new("gradient");
    let sets = ["loss.0.weight=0", "loss.1.weight=0"];
    let words = ["no step has changed `", "no loss reaches them"];
    ails(&desk, "run", &sets, "gradients", &words);
    let told = desk.train("again", &sets).ok().stderr;
    assert!(told.contains("note: no gradient reaches `"), "{told}");
}

#[test]
fn a_teacher_that_guesses_is_told() {
    let desk = Desk::new("guesses");
    // The teacher was trained on another normalisation.
    let sets = [
        "teacher.0.classes=[1,2,3,4,5,6,7,8,9,0]",
        "teacher.0.min_accuracy=0",
        "student.mean=[0.3048]",
    ];
    let flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    desk.bench
        .run(&[&["teacher-logits", &desk.recipe], &flags[..]].concat())
        .ok();
    let words = ["the teacher guesses", "`mean`, `std`, `scale`"];
    ails(&desk, "run", &sets, "teacher", &words);
}

#[test]
fn a_teacher_that_is_worse_than_its_student_is_told() {
    let desk = Desk::new("worse");
    // Not far enough off to guess, far enough to fall behind.
    let teacher = [
        "teacher.0.mean=[0.9]",
        "teacher.0.min_accuracy=0",
        "student.mean=[0.3048]",
    ];
    let flags: Vec<&str> = teacher.iter().flat_map(|set| ["--set", set]).collect();
    desk.bench
        .run(&[&["teacher-logits", &desk.recipe], &flags[..]].concat())
        .ok();
    let more = [
        "data.limit=1201",
        "train.epochs=10",
        "loss.0.weight=1",
        "loss.1.weight=0",
    ];
    let words = ["the teacher is worse than the student", "better teacher"];
    ails(
        &desk,
        "run",
        &[&teacher[..], &more].concat(),
        "teacher",
        &words,
    );
}

#[test]
fn numbers_that_leave_the_finite_ones_stop_the_run_and_are_remembered() {
    let desk = Desk::new("finite");
    let sets = ["train.optimizer.lr=1e30"];
    refused(
        desk.train("run", &sets),
        1,
        &[
            "is NaN at epoch 1, step 2 (the step before: ce = ",
            "kd = ",
            "lower `train.optimizer.lr`",
        ],
    );
    let doctor = desk.doctor("run");
    assert_eq!(doctor.code, 1);
    for words in [
        "!!  stopped",
        "is NaN at epoch 1, step 2",
        "lower `train.optimizer.lr`",
    ] {
        assert!(
            doctor.stdout.contains(words),
            "`{words}` is missing from: {}",
            doctor.stdout
        );
    }
    refused(
        desk.bench
            .run_plain(&["doctor", desk.bench.cache_dir().to_str().unwrap()]),
        2,
        &["is no run", "hint"],
    );
}

#[test]
fn a_checkpoint_that_is_missing_foreign_or_damaged_is_refused() {
    let desk = Desk::new("checkpoint");
    let nowhere = desk.run("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for command in [
        &["evaluate", nowhere][..],
        &["export", nowhere, "--onnx", "x.onnx"],
    ] {
        refused(
            desk.bench.run_plain(command),
            1,
            &["nowhere/last.safetensors", "hint"],
        );
    }

    desk.train("run", &[]).ok();
    let before = desk.results("run");
    let other = ["train.epochs=5", "loss.1.temperature=2.0"];
    refused(
        desk.train("run", &other),
        1,
        &[
            "holds another run",
            "`train.epochs` is 4 there, 5 here",
            "`loss.1.temperature` is 4.0 there, 2.0 here",
            "--fresh",
        ],
    );
    refused(
        desk.train("run", &["seed=2"]),
        1,
        &["holds another run: `seed` is 1 there, 2 here"],
    );
    assert!(before == desk.results("run"), "a refusal changed the run");

    let last = desk.run("run").join("last.safetensors");
    fs::remove_file(desk.run("run").join("run.json")).unwrap();
    let whole = fs::read(&last).unwrap();
    for (bytes, words) in [
        (&whole[..whole.len() / 2], "last.safetensors"),
        (&b"{}"[..], "is not a safetensors file"),
        (&[0; 0][..], "is not a safetensors file"),
    ] {
        fs::write(&last, bytes).unwrap();
        refused(desk.train("run", &[]), 1, &[words, "--fresh"]);
    }
    // Somebody's weights, with no word about training.
    let run = desk.run("run");
    fs::write(&last, &whole).unwrap();
    desk.bench
        .run_plain(&[
            "export",
            run.to_str().unwrap(),
            "--safetensors",
            last.to_str().unwrap(),
        ])
        .ok();
    refused(
        desk.train("run", &[]),
        1,
        &["holds weights, but no training position"],
    );
    let mut fresh = desk.args("run", &[]);
    fresh.push("--fresh".to_owned());
    let fresh: Vec<&str> = fresh.iter().map(String::as_str).collect();
    desk.bench.run_plain(&fresh).ok();
    assert!(before == desk.results("run"), "a fresh run differs");
}

#[test]
fn what_cannot_be_trained_is_refused_before_the_first_step() {
    let desk = Desk::new("refusals");
    let check = |sets: &[&str], code, words: &[&str]| {
        refused(desk.train("run", sets), code, words);
        assert!(!desk.run("run").join("last.safetensors").exists());
    };
    check(
        &["views.count=5"],
        1,
        &["holds 2 of the 5 views", "logitcask teacher-logits "],
    );
    check(&["data.n_classes=12"], 1, &["12", "10", "classes"]);
    check(
        &["train.batch_size=301"],
        2,
        &[
            "300 samples are selected",
            "`train.batch_size` is 301",
            "`train.batch_size` to 300",
        ],
    );
    check(
        &["train.batch_size=1"],
        2,
        &[
            "`train.batch_size` is 1",
            "batch statistics need at least 2",
        ],
    );
    check(
        &["train.held_out=300"],
        2,
        &["0 samples are selected", "held_out"],
    );
    check(&["train.epochs=0"], 2, &["`train.epochs` is 0"]);
    check(&["train.optimizer.lr=0"], 2, &["`train.optimizer.lr` is 0"]);
    check(&["train.ema=1"], 2, &["`train.ema` is 1"]);
    check(
        &["train.optimizer.momentum=1.5"],
        2,
        &["`train.optimizer.momentum` is 1.5"],
    );
}

/// In a file system of its own that is too small for a checkpoint: needs `unshare`, as root or with user namespaces.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_costs_nothing_but_the_rest_of_the_run() {
    let desk = Desk::new("full_disk");
    desk.train("whole", EVERYTHING).ok();
    let small = desk.run("small");
    fs::create_dir(&small).unwrap();
    let binary = env!("CARGO_BIN_EXE_logitcask");
    let quoted = |args: Vec<String>| {
        let args: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
        format!("{binary} {}", args.join(" "))
    };
    let command = quoted(desk.args("small/run", EVERYTHING));
    // Room for the last, the best and one kept checkpoint, not for all: the run fails while it saves. Then there is room.
    let size = fs::metadata(desk.run("whole").join("last.safetensors"))
        .unwrap()
        .len();
    let script = format!(
        "set -u; mount -t tmpfs -o size={} tmpfs '{small}' || exit 99\n\
         {command} 2> '{folder}/first'; echo $? > '{folder}/code'\n\
         ls -A '{small}/run' > '{folder}/left'\n\
         mount -o remount,size=100m '{small}' || exit 99\n\
         {command} 2> '{folder}/second' || exit 98\n\
         cp -r '{small}/run' '{folder}/after'",
        3 * size + 60_000,
        small = small.display(),
        folder = desk.bench.folder.display(),
    );
    let done = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .current_dir(bench::ROOT)
        .env("NO_COLOR", "1")
        .output();
    match done {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(98) => {
            panic!("{}", fs::read_to_string(desk.run("second")).unwrap())
        }
        other => {
            println!("SKIPPED: no file system can be mounted here ({other:?})");
            return;
        }
    }
    let read = |name: &str| fs::read_to_string(desk.run(name)).unwrap();
    let first = Run {
        code: read("code").trim().parse().unwrap(),
        stdout: String::new(),
        stderr: read("first"),
    };
    refused(first, 1, &["cannot write `", "No space left on device"]);
    assert!(!read("left").contains(".tmp-"), "{}", read("left"));
    assert!(
        read("second").contains("continuing after"),
        "{}",
        read("second")
    );
    assert!(
        desk.results("whole") == desk.results("after"),
        "the resumed run differs"
    );
}
