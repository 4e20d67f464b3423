//! A student needs neither its teacher's file nor a runtime: what a cache says of the teacher is enough.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::fs;
use std::path::Path;

use bench::{Bench, ROOT};

/// The digits' recipe with a copy of the teacher that can be taken away, trained for an epoch.
struct Moved {
    bench: Bench,
    recipe: String,
    onnx: std::path::PathBuf,
}

const MEAN: &str = "mean = [0.3048]\nstd = [0.3757]\n";

fn moved(test: &str) -> Moved {
    let bench = Bench::new(test);
    let onnx = bench.folder.join("here.onnx");
    fs::copy(Path::new(ROOT).join("data/digits/teacher.onnx"), &onnx).unwrap();
    let named = format!("onnx = \"{}\"", onnx.display());
    let recipe = bench.recipe(|text| text.replace("onnx = \"data/digits/teacher.onnx\"", &named));
    bench.run(&["teacher-logits", &recipe]).ok();
    Moved {
        bench,
        recipe,
        onnx,
    }
}

impl Moved {
    /// Trains an epoch of a recipe into a folder, and gives its last checkpoint.
    fn trained(&self, recipe: &str, folder: &str) -> Vec<u8> {
        let out = self.bench.folder.join(folder);
        let out_text = out.to_str().unwrap();
        let args = [
            "student",
            recipe,
            "--out",
            out_text,
            "--set",
            "train.epochs=1",
        ];
        self.bench.run(&args).ok();
        let checkpoint = fs::read(out.join("last.safetensors")).unwrap();
        // Runs of other recipes say so in their digests; what was trained has to be the same.
        let tensors = safetensors_of(&checkpoint);
        assert!(tensors.len() > 100_000, "weights of a student");
        tensors
    }

    /// The recipe with its `[[teacher]]` replaced.
    fn with_teacher(&self, name: &str, section: &str) -> String {
        let text = fs::read_to_string(&self.recipe).unwrap();
        let (before, rest) = text.split_once("[[teacher]]").unwrap();
        let (_, after) = rest.split_once("\n[").unwrap();
        let path = self.bench.folder.join(name);
        fs::write(&path, format!("{before}[[teacher]]\n{section}\n[{after}")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The name of the cache of the training split.
    fn train_cache(&self) -> String {
        let ls = self.bench.run(&["cache", "ls", "--json"]).ok();
        let caches = ls.stdout.lines().map(|line| {
            let cache: serde_json::Value = serde_json::from_str(line).unwrap();
            cache
        });
        let of_train =
            |cache: &serde_json::Value| cache["dataset"].as_str().unwrap().contains("train");
        let train = caches.into_iter().find(of_train).unwrap();
        train["name"].as_str().unwrap().to_owned()
    }
}

/// What follows the header.
fn safetensors_of(bytes: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + length..].to_vec()
}

#[test]
fn the_file_may_be_elsewhere() {
    let it = moved("absent");
    let with_file = it.trained(&it.recipe, "with-file");
    fs::remove_file(&it.onnx).unwrap();
    assert!(with_file == it.trained(&it.recipe, "without-file"));

    let out = it.bench.folder.join("without-file");
    let told = it.bench.run(&["evaluate", out.to_str().unwrap()]).ok();
    assert!(told.stdout.contains("agreement"), "{}", told.stdout);

    // The whole check holds, and says what it could not look at.
    let check = it.bench.run(&["check", &it.recipe]).ok();
    let told = check.stdout + &check.stderr;
    assert!(told.contains("without its file"), "{told}");

    // What is captured already is no reason to ask; more views are.
    it.bench.run(&["teacher-logits", &it.recipe]).ok();
    let more = ["teacher-logits", &it.recipe, "--set", "views.seed=7"];
    let refused = it.bench.run(&more);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("is not here"), "{}", refused.stderr);
    let student = ["student", &it.recipe, "--set", "views.seed=7"];
    let refused = it.bench.run(&student);
    assert!(refused.stderr.contains("views is "), "{}", refused.stderr);
}

/// A cache that was transcoded stands beside the one that was captured in the same encoding, and may come first by its name.
#[test]
fn the_captured_rows_are_read_and_not_transcoded_ones() {
    let it = moved("transcoded");
    let captured = it.train_cache();
    let finer = [
        "teacher-logits",
        &it.recipe,
        "--set",
        "teacher.0.encoding=f32",
    ];
    it.bench.run(&finer).ok();
    let ls = it.bench.run(&["cache", "ls", "--json"]).ok();
    for line in ls.stdout.lines() {
        let cache: serde_json::Value = serde_json::from_str(line).unwrap();
        if cache["encoding"] == "f32" {
            let name = cache["name"].as_str().unwrap();
            let transcode = ["cache", "transcode", name, "--encoding", "f16"];
            it.bench.run(&transcode).ok();
        }
    }
    // Whichever comes first: the name of a folder can be changed, and a listing is sorted.
    let folder = it.bench.cache_dir();
    fs::rename(
        folder.join(&captured),
        folder.join(format!("zz-{captured}")),
    )
    .unwrap();
    fs::remove_file(&it.onnx).unwrap();
    let train = ["student", &it.recipe, "--set", "train.epochs=1", "--out"];
    let out = it.bench.folder.join("run");
    let told = it
        .bench
        .run(&[&train[..], &[out.to_str().unwrap()]].concat())
        .ok();
    let run = fs::read_to_string(out.join("run.json")).unwrap();
    assert!(!run.contains("transcoded from"), "{}", told.stderr);
}

/// Of two teachers with one name nobody knows which is meant.
#[test]
fn two_absent_teachers_of_one_name_are_not_told_apart_by_guessing() {
    let it = moved("twins");
    // The same network with another name of its producer is another file.
    let mut other = fs::read(&it.onnx).unwrap();
    other.extend([0x12, 1, b'x']);
    fs::write(&it.onnx, other).unwrap();
    it.bench.run(&["teacher-logits", &it.recipe]).ok();
    fs::remove_file(&it.onnx).unwrap();
    let refused = it.bench.run(&["student", &it.recipe]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("2 teachers of that name"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("cache = "), "{}", refused.stderr);
}

#[test]
fn a_cache_names_its_teacher() {
    let it = moved("named");
    let with_file = it.trained(&it.recipe, "with-file");
    fs::remove_file(&it.onnx).unwrap();
    let name = it.train_cache();
    let by_name = it.with_teacher("by-name.toml", &format!("cache = \"{name}\""));
    assert!(with_file == it.trained(&by_name, "by-name"));

    // By the id, and beside what the cache says too.
    let show = it.bench.run(&["cache", "show", &name, "--json"]).ok();
    let show: serde_json::Value = serde_json::from_str(&show.stdout).unwrap();
    let id = show["id"].as_str().unwrap();
    let section = format!("cache = \"{}\"\n{MEAN}", &id[..12]);
    let by_id = it.with_teacher("by-id.toml", &section);
    assert!(with_file == it.trained(&by_id, "by-id"));

    // A run says how its images were normalised, and can be looked at where its caches are not.
    let run = it.bench.folder.join("by-name");
    let told = it
        .bench
        .run_plain(&["evaluate", run.to_str().unwrap()])
        .ok();
    assert!(told.stderr.contains("no agreement"), "{}", told.stderr);

    for (section, word) in [
        ("cache = \"nothing\"".to_owned(), "no cache under"),
        (format!("cache = \"{name}\"\nmean = [0.5]"), "`mean"),
        (format!("cache = \"{name}\"\nonnx = \"x\""), "both given"),
        ("name = \"x\"".to_owned(), "`onnx`"),
    ] {
        let wrong = it.with_teacher("wrong.toml", &section);
        let refused = it.bench.run(&["student", &wrong]);
        assert_eq!(refused.code, 2, "{section}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(word),
            "{section}: {}",
            refused.stderr
        );
        let checked = it.bench.run(&["check", &wrong]);
        let told = checked.stdout + &checked.stderr;
        assert_eq!(checked.code, 2, "{section}: {told}");
        assert!(told.contains(word), "{section}: {told}");
    }
}
