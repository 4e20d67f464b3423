//! Caches that somebody made to do harm, through the real binary: every verb reads what it can or refuses, soon, in little
//! memory, and lets nothing through to the terminal that a terminal obeys.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]
#![cfg(unix)]

mod bench;

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::{Bench, ROOT, Run};
use serde_json::{Value, json};

/// No verb needs as much on the digits; in KiB, as `ulimit` counts.
const MEMORY: u32 = 6 << 20;
/// Each takes a second on an idle machine, or less.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    bench: Bench,
    recipe: String,
    /// The cache as it was captured.
    whole: PathBuf,
    /// The one that is made hostile.
    cache: PathBuf,
}

impl Scene {
    fn new(test: &str) -> Self {
        let bench = Bench::new(test);
        let recipe = bench.recipe(|text| {
            let text = text.replace("count = 9", "count = 1");
            text.replace("limit = 300", "limit = 64")
                .replace("epochs = 54", "epochs = 1")
        });
        let captured = bench.run(&["teacher-logits", &recipe]).ok().stdout;
        let cache = PathBuf::from(captured.lines().last().unwrap());
        let whole = bench.folder.join("whole");
        copy(&cache, &whole);
        Self {
            bench,
            recipe,
            whole,
            cache,
        }
    }

    fn renew(&self) {
        fs::remove_dir_all(&self.cache).unwrap();
        copy(&self.whole, &self.cache);
    }

    /// A JSON file with other members, and a digest that fits.
    fn reseal(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.cache.join(name);
        let text = fs::read_to_string(&path).unwrap();
        let mut value = serde_json::from_str::<Value>(&text).unwrap();
        value.as_object_mut().unwrap().remove("blake3").unwrap();
        change(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap();
        fs::write(path, logitcask_durable::seal_json(&text)).unwrap();
    }

    /// Every verb that looks at a cache, each after the other.
    fn suffer(&self, case: &str) -> Vec<Run> {
        let at = |name: &str| self.bench.folder.join(name).to_str().unwrap().to_owned();
        let (dir, cache) = (at("cache"), self.cache.to_str().unwrap());
        let (run, exported, merged) = (at("run"), at("exported"), at("merged"));
        let verbs: [&[&str]; 11] = [
            &["cache", "ls"],
            &["cache", "show", cache],
            &["cache", "verify", cache],
            &["cache", "stats", cache],
            &["cache", "export", cache, "--out", &exported],
            &["cache", "transcode", cache, "--encoding", "u8"],
            &["cache", "transcode", cache, "--layout", "parquet"],
            &["cache", "merge", cache, "--cache-dir", &merged],
            &["cache", "gc", "--max-gb", "0"],
            &["student", &self.recipe, "--out", &run],
            &["teacher-logits", &self.recipe],
        ];
        let runs = verbs.map(|verb| {
            let mut verb = verb.to_vec();
            if !verb.contains(&"--cache-dir") {
                verb.extend(["--cache-dir", &dir]);
            }
            let run = limited(&verb);
            let place = format!("{case}: {verb:?}: {}", run.stderr);
            assert!((0..=2).contains(&run.code), "{place}");
            assert!(!run.stderr.contains("panicked"), "{place}");
            let said = run.stdout.chars().chain(run.stderr.chars());
            let mut obeyed = said.filter(|c| c.is_control() && !"\n\t".contains(*c));
            assert_eq!(obeyed.next(), None, "{place}");
            assert!(
                run.stdout.len() + run.stderr.len() < 1 << 16,
                "{case}: {verb:?}"
            );
            run
        });
        for folder in [run, exported, merged] {
            let _: std::io::Result<()> = fs::remove_dir_all(folder);
        }
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path != self.cache && path.to_str().unwrap().ends_with(".parquet") {
                fs::remove_dir_all(path).unwrap();
            }
        }
        self.renew();
        runs.into()
    }
}

/// Runs the binary with little memory, and not for ever.
fn limited(verb: &[&str]) -> Run {
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$@\""), "sh"])
        .arg(env!("CARGO_BIN_EXE_logitcask"))
        .args(verb)
        .current_dir(ROOT)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    fn read(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let stdout = read(child.stdout.take().unwrap());
    let stderr = read(child.stderr.take().unwrap());
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{verb:?} is still at work after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Run {
        code: status.code().unwrap_or(-1),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// Whether all verbs that open the cache refused it, with these words.
fn all_refuse(runs: &[Run], words: &str) {
    let (opening, student) = (&runs[1..8], &runs[9]);
    for run in opening.iter().chain([student]) {
        assert!(
            run.code != 0 && run.stderr.contains(words),
            "{}",
            run.stderr
        );
    }
}

const ESCAPES: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}31m\u{202e}<b>|`\n# x";

#[test]
fn numbers_that_no_cache_has_are_refused_with_their_limit() {
    let scene = Scene::new("hostile-numbers");
    let cases = [
        (json!({ "n_samples": u32::MAX }), "1048576 chunks"),
        (
            json!({ "n_samples": u32::MAX, "chunk_rows": 1 }),
            "1048576 chunks",
        ),
        (json!({ "n_classes": 1u64 << 40 }), "1048576"),
        (json!({ "n_classes": 0 }), "1048576"),
        (json!({ "chunk_rows": 0 }), "1048576"),
        (json!({ "chunk_rows": 1 << 21 }), "1048576"),
        (json!({ "feature_len": 1 << 30 }), "1048576"),
        (json!({ "teacher": "x".repeat(100_000) }), "4096"),
        (
            json!({ "recorded": { "tool": "x".repeat(100_000) } }),
            "65536",
        ),
        (
            json!({ "pixel_checks": [{ "sample": u32::MAX, "view": 0, "digest": "0".repeat(64) }] }),
            "below `n_samples`",
        ),
    ];
    for (members, limit) in cases {
        scene.reseal("cache.json", |manifest| {
            for (name, value) in members.as_object().unwrap() {
                manifest[name] = value.clone();
            }
        });
        all_refuse(&scene.suffer(limit), limit);
    }
    // As many chunks as there may be, none of them there: merging walks what there is.
    scene.reseal("cache.json", |manifest| {
        manifest["n_samples"] = json!(1 << 20);
        manifest["chunk_rows"] = json!(1);
    });
    fs::remove_file(scene.cache.join("view=0000/view.json")).unwrap();
    scene.suffer("a million chunks");
    let of_view = [
        ("null_samples", json!([u32::MAX]), "null_samples"),
        ("null_samples", json!([3, 3]), "null_samples"),
        ("recorded", json!({ "x": "y".repeat(100_000) }), "65536"),
    ];
    for (name, value, words) in of_view {
        scene.reseal("view=0000/view.json", |view| view[name] = value);
        let runs = scene.suffer(words);
        assert!(runs[1].stderr.contains(words), "{}", runs[1].stderr);
        assert!(runs[9].stderr.contains(words), "{}", runs[9].stderr);
    }
}

#[test]
fn texts_do_nothing_to_a_terminal() {
    let scene = Scene::new("hostile-texts");
    scene.reseal("cache.json", |manifest| {
        manifest["teacher"] = json!(ESCAPES);
        manifest["class_names"] = json!(vec![ESCAPES; 10]);
        manifest["recorded"] = json!({
            "dataset": ESCAPES, "split": ESCAPES, "tool": ESCAPES, ESCAPES: ESCAPES,
        });
    });
    scene.reseal("view=0000/view.json", |view| {
        view["recorded"] = json!({ "teacher_seconds": "NaN" });
    });
    let runs = scene.suffer("escapes");
    // The rows are whole, and what is odd about them are words: they are read, and the words are spelled out.
    assert_eq!(runs[1].code, 0, "{}", runs[1].stderr);
    assert!(runs[1].stdout.contains("\\u001b[2J"), "{}", runs[1].stdout);
    assert_eq!(runs[9].code, 0, "{}", runs[9].stderr);
}

#[test]
fn records_and_checks_that_say_nothing_are_not_believed() {
    let scene = Scene::new("hostile-records");
    scene.reseal("cache.json", |manifest| {
        manifest["pixel_checks"] = json!([])
    });
    let runs = scene.suffer("no pixel checks");
    let refused = &runs[9];
    assert!(
        refused.code == 1 && refused.stderr.contains("no digest of the pixels"),
        "{}",
        refused.stderr
    );

    let check = json!({ "sample": 0, "view": 1_000_000, "digest": "0".repeat(64) });
    scene.reseal("cache.json", |manifest| {
        manifest["pixel_checks"] = json!([check])
    });
    assert_eq!(
        scene.suffer("a view that the family does not have")[9].code,
        1
    );

    // More views are wanted than there are, and the record says in what batches.
    for rows in ["0", "1152921504606846976", "many"] {
        scene.reseal("cache.json", |manifest| {
            manifest["recorded"]["batch_size"] = json!(rows);
        });
        let dir = scene.bench.cache_dir();
        let more = [
            "--set",
            "views.count=2",
            "--cache-dir",
            dir.to_str().unwrap(),
        ];
        let run = limited(&[&["teacher-logits", &scene.recipe], &more[..]].concat());
        assert!(
            run.code == 1 && run.stderr.contains("between 1 and 1048576"),
            "{}",
            run.stderr
        );
        scene.renew();
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let scene = Scene::new("hostile-files");
    let replace = |name: &str, with: &dyn Fn(&Path)| {
        let path = scene.cache.join(name);
        fs::remove_file(&path).unwrap();
        with(&path);
    };
    let pipe = |path: &Path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let zeros = |path: &Path| symlink("/dev/zero", path).unwrap();
    let folder = |path: &Path| fs::create_dir(path).unwrap();
    for name in [
        "cache.json",
        "view=0000/view.json",
        "view=0000/part-00000.arrow",
    ] {
        for with in [&pipe as &dyn Fn(&Path), &zeros, &folder] {
            replace(name, with);
            let runs = scene.suffer(name);
            let student = &runs[9];
            assert!(student.code != 0, "{name}: {}", student.stderr);
        }
    }
    // An archive has such files too.
    let archive = scene.bench.folder.join("archive");
    let args = ["cache", "transcode", scene.cache.to_str().unwrap()];
    let more = [
        "--layout",
        "parquet",
        "--cache-dir",
        archive.to_str().unwrap(),
    ];
    limited(&[&args[..], &more].concat()).ok();
    let archive = fs::read_dir(&archive)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let part = archive.join("view=0000/part-00000.parquet");
    fs::remove_file(&part).unwrap();
    pipe(&part);
    let out = scene.bench.folder.join("unpacked");
    let args = ["cache", "transcode", archive.to_str().unwrap()];
    let more = ["--layout", "arrow", "--cache-dir", out.to_str().unwrap()];
    let run = limited(&[&args[..], &more].concat());
    assert!(
        run.code == 1 && run.stderr.contains("part-00000.parquet"),
        "{}",
        run.stderr
    );

    // A view's folder of a number that no capture has.
    copy(
        &scene.cache.join("view=0000"),
        &scene.cache.join("view=4294967295"),
    );
    scene.reseal("view=4294967295/view.json", |view| {
        view["view"] = json!(u32::MAX)
    });
    scene.suffer("the last view of all");
}
