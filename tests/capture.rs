//! Stage one through the real binary: what it tells while it runs, and every way in which it can go wrong. Each fault ends
//! in a message that says what to do, with everything finished before it on the disk, and nothing half-done believed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests are tests too, and a skipped test says so"
)]

mod bench;
#[path = "../crates/teacher/tests/common/mod.rs"]
mod teachers;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bench::{Bench, Run};
use logitcask_cache::{LogitCache, OpenOptions};
use serde_json::Value;
use teachers::{Dim, FLOAT, Graph, N_CLASSES, classifier, plain_tail};

/// Writes `model` and a recipe that shows it synthetic images of 8 x 8; `data` and `teacher` are more lines of these
/// sections, `views` is `[views]`. Returns the recipe's path.
fn synthetic(bench: &Bench, model: &[u8], data: &str, views: &str, teacher: &str) -> String {
    let onnx = teachers::write_model(&bench.folder, model);
    let text = format!(
        "[data]\nformat = \"synthetic\"\nroot = \"\"\nn_classes = {N_CLASSES}\n{data}\n\
         [views]\n{views}\n\
         [[teacher]]\nonnx = {onnx:?}\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n{teacher}\n"
    );
    let path = bench.folder.join("recipe.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const IMAGES: &str = "synthetic = { n_train = 1000, height = 8, width = 8 }";
const VIEWS: &str = "count = 9\naugment = [{ name = \"random_crop\", size = 8, padding = 1 }]";

fn plain() -> Vec<u8> {
    classifier(Dim::Any("batch"), plain_tail)
}

/// Exit code 1, every one of `words` on stderr, and no panic.
fn check_failed(run: &Run, words: &[&str]) {
    check_code(run, 1, words);
}

/// The same of what was asked wrongly: exit code 2.
fn check_asked(run: &Run, words: &[&str]) {
    check_code(run, 2, words);
}

fn check_code(run: &Run, code: i32, words: &[&str]) {
    assert_eq!(run.code, code, "{}", run.stderr);
    for word in words {
        assert!(
            run.stderr.contains(word),
            "`{word}` is missing: {}",
            run.stderr
        );
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

fn events(stdout: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    stdout.lines().map(parse).collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["event"] == name)
        .collect()
}

/// The cache's folder; there is one.
fn only_cache(bench: &Bench) -> PathBuf {
    let is_cache = |path: &PathBuf| path.join("cache.json").is_file();
    let entries = fs::read_dir(bench.cache_dir()).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(is_cache)
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn open(path: &Path) -> LogitCache {
    LogitCache::open(path, OpenOptions::default()).unwrap()
}

/// The bytes of every chunk, in order of their names.
fn chunks(cache: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for view in fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let Ok(files) = fs::read_dir(&view) else {
            continue;
        };
        for file in files.map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|ending| ending == "arrow") {
                let name = file.strip_prefix(cache).unwrap().display().to_string();
                found.push((name, fs::read(&file).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn verify(bench: &Bench) {
    let cache = only_cache(bench);
    bench
        .run(&["cache", "verify", cache.to_str().unwrap()])
        .ok();
}

/// Starts a capture and calls `at` when it tells the first event of this name; then waits for its end.
fn interrupted(bench: &Bench, args: &[&str], name: &str, at: impl FnOnce(u32)) -> Run {
    let cache_dir = bench.cache_dir();
    let mut args = args.to_vec();
    args.extend(["--json", "--cache-dir", cache_dir.to_str().unwrap()]);
    let mut child = bench
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stdout = String::new();
    let mut at = Some(at);
    for line in lines.by_ref() {
        let line = line.unwrap();
        if events(&line)[0]["event"] == name
            && let Some(at) = at.take()
        {
            at(child.id());
        }
        stdout += &(line + "\n");
    }
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn events_tell_the_whole_story() {
    let bench = Bench::new("events");
    let recipe = synthetic(&bench, &plain(), IMAGES, VIEWS, "");
    let told = events(
        &bench
            .run(&["teacher-logits", &recipe, "--json"])
            .ok()
            .stdout,
    );
    let teacher = named(&told, "teacher")[0];
    assert_eq!(
        (&teacher["provider"], &teacher["nodes_left_to_cpu"]),
        (&"cpu".into(), &0.into())
    );
    assert!(
        named(&told, "batch_size")[0]["tried"]
            .as_array()
            .unwrap()
            .len()
            > 1
    );
    let accuracy = named(&told, "accuracy")[0];
    assert_eq!(
        accuracy["samples"], 450,
        "a twentieth of 1000 images in 9 views"
    );
    let started = named(&told, "started")[0];
    assert_eq!(started["images"], 9000);
    assert!(started["buffer_bytes"].as_u64().unwrap() > 0);
    let last = *named(&told, "progress").last().unwrap();
    assert_eq!(
        (&last["done"], &last["total"]),
        (&9000.into(), &9000.into())
    );
    let shares = ["model", "decode", "disk"].map(|share| last[share].as_f64().unwrap());
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{last}");
    assert_eq!(named(&told, "view").len(), 9);
    let cache = named(&told, "cache")[0];
    assert_eq!(
        (&cache["hit"], &cache["images"]),
        (&false.into(), &9000.into())
    );
    let spent = cache["teacher_seconds_spent"].as_f64().unwrap();
    assert!(
        spent > 0.0 && cache["teacher_seconds_saved"] == 0.0,
        "{cache}"
    );

    let again = events(
        &bench
            .run(&["teacher-logits", &recipe, "--json"])
            .ok()
            .stdout,
    );
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(
        (&again[0]["hit"], &again[0]["id"]),
        (&true.into(), &cache["id"])
    );
    let saved = again[0]["teacher_seconds_saved"].as_f64().unwrap();
    assert!((saved - spent).abs() < 0.1, "spent {spent}, saved {saved}");
}

#[test]
fn a_benchmark_leaves_nothing_behind() {
    let bench = Bench::new("bench");
    let recipe = synthetic(&bench, &plain(), IMAGES, VIEWS, "");
    let args = [
        "bench",
        "capture",
        &recipe,
        "--json",
        "--rounds",
        "2",
        "--seconds",
        "0.1",
    ];
    let told = bench.run(&args).ok().stdout;
    let told: Value = serde_json::from_str(told.trim()).unwrap();
    for rates in ["capture_images_per_s", "bare_images_per_s"] {
        let rates = told[rates].as_array().unwrap();
        assert!(rates.len() == 2 && rates.iter().all(|rate| rate.as_f64().unwrap() > 0.0));
    }
    assert!(told["ratio"].as_f64().unwrap() > 0.0, "{told}");
    assert_eq!(fs::read_dir(bench.cache_dir()).unwrap().count(), 0);
}

#[test]
fn ctrl_c_leaves_a_cache_that_resumes_to_the_same_bytes() {
    let bench = Bench::new("ctrl_c");
    let data = "synthetic = { n_train = 20000, height = 8, width = 8 }";
    let recipe = synthetic(
        &bench,
        &plain(),
        data,
        VIEWS,
        "batch_size = 32\nchunk_rows = 512",
    );
    let run = interrupted(&bench, &["teacher-logits", &recipe], "view", |pid| {
        let sent = Command::new("kill")
            .args(["-INT", &pid.to_string()])
            .status();
        assert!(sent.unwrap().success());
    });
    check_failed(
        &run,
        &[
            "stopping at the next safe place",
            "the same command captures the rest",
        ],
    );
    assert_eq!(named(&events(&run.stdout), "stopped").len(), 1);
    let path = only_cache(&bench);
    let n_views = open(&path).views().len();
    assert!((1..9).contains(&n_views), "{n_views} views");
    bench.run(&["teacher-logits", &recipe]).ok();
    verify(&bench);

    let whole = Bench::new("no_ctrl_c");
    let recipe = synthetic(
        &whole,
        &plain(),
        data,
        VIEWS,
        "batch_size = 32\nchunk_rows = 512",
    );
    whole.run(&["teacher-logits", &recipe]).ok();
    assert!(chunks(&path) == chunks(&only_cache(&whole)));
}

/// The teacher, but images whose first logit is below `threshold` are answered with NaN.
fn with_nan_below(threshold: f32) -> Vec<u8> {
    classifier(Dim::Any("batch"), |graph: Graph| {
        graph
            .weights("first", 7, &[1], &0i64.to_le_bytes())
            .weights("threshold", FLOAT, &[1], &threshold.to_le_bytes())
            .weights("zero", FLOAT, &[1], &0f32.to_le_bytes())
            .node("Gather", &["gemm", "first"], "column", &[("axis", 1)])
            .node("Sub", &["column", "threshold"], "above", &[])
            .node("Sqrt", &["above"], "root", &[])
            .node("Mul", &["root", "zero"], "poison", &[])
            .node("Add", &["gemm", "poison"], "logits", &[])
            .output("logits", FLOAT, &[Dim::Any("batch"), Dim::Is(10)])
    })
}

#[test]
fn a_nan_on_one_sample_stops_the_capture_and_names_it() {
    let bench = Bench::new("nan");
    let settings = "chunk_rows = 256\nencoding = \"f32\"";
    let recipe = synthetic(&bench, &plain(), IMAGES, "count = 1", settings);
    bench.run(&["teacher-logits", &recipe]).ok();
    let cache = open(&only_cache(&bench));
    let wanted: Vec<(u32, u32)> = (0..1000).map(|sample| (sample, 0)).collect();
    let (mut rows, mut labels) = (vec![0.0; 1000 * N_CLASSES], vec![0; 1000]);
    cache.rows(&wanted, &mut rows, &mut labels).unwrap();
    let mut first: Vec<(f32, usize)> = rows
        .chunks_exact(N_CLASSES)
        .map(|row| row[0])
        .zip(0..)
        .collect();
    first.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (lowest, sample) = first[0];

    let poisoned = Bench::new("poisoned");
    let model = with_nan_below(f32::midpoint(lowest, first[1].0));
    let recipe = synthetic(&poisoned, &model, IMAGES, "count = 1", settings);
    let run = poisoned.run(&["teacher-logits", &recipe]);
    let named = format!("answers sample {sample}, view 0 with NaN");
    check_failed(&run, &[&named, "logitcask dataset show"]);
    let cache = open(&only_cache(&poisoned));
    assert!(
        cache.views().is_empty(),
        "the view of the NaN must not exist"
    );
    let student = poisoned.run(&["teacher-logits", &recipe]);
    check_failed(&student, &[&named]);
}

/// An 8 x 8 PNG in one colour, as small as they come.
fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], content: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(content);
        file.extend((content.len() as u32).to_be_bytes());
        file.extend(kind);
        file.extend(content);
        file.extend(crc.sum().to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0]);
    let line = [&[0][..], &colour.repeat(8)].concat();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(&line.repeat(8)).unwrap();
    chunk(b"IDAT", &deflate.finish().unwrap());
    chunk(b"IEND", &[]);
    file
}

#[test]
fn a_corrupt_image_in_the_middle_stops_or_is_skipped() {
    let bench = Bench::new("corrupt");
    let images = bench.folder.join("images/train");
    for class in 0..N_CLASSES as u8 {
        let folder = images.join(format!("class{class}"));
        fs::create_dir_all(&folder).unwrap();
        for index in 0..20 {
            fs::write(
                folder.join(format!("{index:02}.png")),
                png([class * 20, index, 99]),
            )
            .unwrap();
        }
    }
    let broken = images.join("class4/07.png"); // sample 4 * 20 + 7
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let onnx = teachers::write_model(&bench.folder, &plain());
    let text = format!(
        "[data]\nformat = \"image_folder\"\nroot = {:?}\n[[teacher]]\nonnx = {onnx:?}\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n",
        bench.folder.join("images")
    );
    let recipe = bench.folder.join("recipe.toml");
    fs::write(&recipe, text).unwrap();
    let args = ["teacher-logits", recipe.to_str().unwrap(), "--json"];

    let run = bench.run(&args);
    check_failed(&run, &["class4/07.png", "on_bad = \"skip\""]);
    bench.assert_no_cache();

    let skipping = [&args[..], &["--set", "data.on_bad=skip"]].concat();
    let run = bench.run(&skipping).ok();
    let told = events(&run.stdout);
    assert_eq!(named(&told, "bad_sample")[0]["sample"], 87);
    assert!(
        run.stderr.contains("1 samples could not be read"),
        "{}",
        run.stderr
    );
    let cache = open(&only_cache(&bench));
    assert_eq!(cache.null_samples(), [87]);
    let mut row = [0.0; N_CLASSES];
    assert_eq!(cache.row_or_null(87, 0, &mut row).unwrap(), None);
    assert_eq!(cache.row_or_null(88, 0, &mut row).unwrap(), Some(4));
    verify(&bench);
}

#[test]
fn two_captures_of_one_key_do_not_harm_each_other() {
    let data = "synthetic = { n_train = 20000, height = 8, width = 8 }";
    let settings = "batch_size = 32\nchunk_rows = 1024";
    let alone = Bench::new("alone");
    let recipe = synthetic(&alone, &plain(), data, VIEWS, settings);
    alone.run(&["teacher-logits", &recipe]).ok();

    let bench = Bench::new("together");
    let recipe = synthetic(&bench, &plain(), data, VIEWS, settings);
    let first = interrupted(&bench, &["teacher-logits", &recipe], "started", |_| {
        let second = bench.run(&["teacher-logits", &recipe]);
        // Refused while the first works; served where it was over by then.
        if second.code != 0 {
            check_failed(&second, &["claimed", "process", "kill "]);
        }
    });
    assert_eq!(first.code, 0, "{}", first.stderr);
    verify(&bench);
    assert!(chunks(&only_cache(&bench)) == chunks(&only_cache(&alone)));
}

#[test]
fn a_library_that_is_not_the_right_one_is_named() {
    let bench = Bench::new("library");
    let recipe = synthetic(&bench, &plain(), IMAGES, VIEWS, "");
    let cache_dir = bench.cache_dir();
    let with_library = |library: &Path| {
        let args = [
            "teacher-logits",
            &recipe,
            "--cache-dir",
            cache_dir.to_str().unwrap(),
        ];
        let output = bench
            .command(&args)
            .env("ORT_DYLIB_PATH", library)
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    let missing = with_library(Path::new("/nowhere/libonnxruntime.so"));
    check_failed(&missing, &["/nowhere/libonnxruntime.so", "make setup"]);
    let text = bench.folder.join("libtext.so");
    fs::write(&text, "no library").unwrap();
    check_failed(
        &with_library(&text),
        &["libtext.so", "could not be loaded", "make setup"],
    );

    // Libraries that say which version they are, and nothing else: one too old, one from a far future.
    for (version, words) in [
        ("1.10.0", ["1.10.0", "or a later 1.x is needed"]),
        ("9.0.0", ["9.0.0", "or a later 1.x is needed"]),
    ] {
        let Some(library) = fake_library(&bench.folder, version) else {
            eprintln!("SKIPPED: there is no `cc` to build a library of version {version} with");
            return;
        };
        check_failed(&with_library(&library), &[words[0], words[1], "make setup"]);
    }
    bench.assert_no_cache();
}

/// A shared library that claims to be ONNX Runtime of this version; `None` without a C compiler.
fn fake_library(folder: &Path, version: &str) -> Option<PathBuf> {
    let source = folder.join("fake.c");
    let code = format!(
        "static const void* api(unsigned v) {{ (void)v; return 0; }}\n\
         static const char* version(void) {{ return \"{version}\"; }}\n\
         static const struct {{ const void* (*a)(unsigned); const char* (*b)(void); }} base = {{ api, version }};\n\
         const void* OrtGetApiBase(void) {{ return &base; }}\n"
    );
    fs::write(&source, code).unwrap();
    let library = folder.join(format!("libort-{version}.so"));
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .ok()?;
    status.success().then_some(library)
}

/// A teacher that blows each image up to 50 MB on its way.
fn greedy() -> Vec<u8> {
    let shape: Vec<u8> = [1i64, 1, 1, 1, 65536]
        .iter()
        .flat_map(|dim| dim.to_le_bytes())
        .collect();
    let (w, b) = teachers::weights();
    Graph::default()
        .input(
            "input",
            FLOAT,
            &[Dim::Any("batch"), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
        )
        .weights("w", FLOAT, &[3, 10], &teachers::raw_f32(&w))
        .weights("b", FLOAT, &[10], &teachers::raw_f32(&b))
        .weights("shape", 7, &[5], &shape)
        .node_with("Unsqueeze", &["input"], "wide", &[], &[("axes", &[4])])
        .node("Expand", &["wide", "shape"], "huge", &[])
        .node_with(
            "ReduceMean",
            &["huge"],
            "flat",
            &[("keepdims", 0)],
            &[("axes", &[2, 3, 4])],
        )
        .node("Gemm", &["flat", "w", "b"], "logits", &[])
        .output("logits", FLOAT, &[Dim::Any("batch"), Dim::Is(10)])
        .model(11)
}

#[test]
fn out_of_memory_halves_the_batch_and_is_told() {
    let bench = Bench::new("memory");
    let data = "synthetic = { n_train = 96, height = 8, width = 8 }";
    let recipe = synthetic(
        &bench,
        &greedy(),
        data,
        "count = 1",
        "batch_size = 64\nencoding = \"f32\"",
    );
    // 64 images want 3.2 GB at once. A limit on addresses, because a limit on memory would need root.
    let limited = |args: &[&str]| {
        let mut command = bench.command(args);
        let program = command.get_program().to_owned();
        command = Command::new("sh");
        command
            .args(["-c", "ulimit -v 3500000; exec \"$@\"", "sh"])
            .arg(program)
            .args(args)
            .current_dir(bench::ROOT);
        command.output().unwrap()
    };
    let cache_dir = bench.cache_dir();
    let output = limited(&[
        "teacher-logits",
        &recipe,
        "--json",
        "--threads",
        "1",
        "--cache-dir",
        cache_dir.to_str().unwrap(),
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let told = events(&String::from_utf8_lossy(&output.stdout));
    let halved = named(&told, "halved");
    assert_eq!(
        (&halved[0]["from"], &halved[0]["to"]),
        (&64.into(), &32.into())
    );
    assert!(
        stderr.contains("out of memory with 64 images at once; going on with 32"),
        "{stderr}"
    );
    let used = named(&told, "cache")[0]["batch_size"].clone();
    assert!(used.as_u64().unwrap() < 64, "{used}");
    let cache = open(&only_cache(&bench));
    assert_eq!(
        cache.view_files()[0].recorded["batch_size"],
        used.to_string()
    );
    verify(&bench);
}

#[test]
fn probabilities_are_clipped_counted_and_marked() {
    let bench = Bench::new("softmax");
    let model = classifier(Dim::Any("batch"), |graph: Graph| {
        graph
            .weights("many", FLOAT, &[1], &100f32.to_le_bytes())
            .node("Mul", &["gemm", "many"], "sharp", &[])
            .node("Softmax", &["sharp"], "probabilities", &[("axis", 1)])
            .output("probabilities", FLOAT, &[Dim::Any("batch"), Dim::Is(10)])
    });
    let recipe = synthetic(&bench, &model, IMAGES, "count = 1", "encoding = \"f32\"");
    let refused = bench.run(&["teacher-logits", &recipe]);
    check_failed(
        &refused,
        &["holds probabilities", "output_is = \"probabilities\""],
    );
    bench.assert_no_cache();
    let set = ["--set", "teacher.0.output_is=probabilities", "--json"];
    let run = bench
        .run(&[&["teacher-logits", &recipe], &set[..]].concat())
        .ok();
    assert!(
        run.stderr.contains("were clipped before the logarithm"),
        "{}",
        run.stderr
    );
    let told = events(&run.stdout);
    let clipped = named(&told, "cache")[0]["clipped"].as_u64().unwrap();
    let cache = open(&only_cache(&bench));
    assert!(!cache.manifest().absolute);
    let mut row = [0.0; N_CLASSES];
    let mut at_floor = 0;
    for sample in 0..1000 {
        cache.row_or_null(sample, 0, &mut row).unwrap().unwrap();
        let mean = row.iter().sum::<f32>() / N_CLASSES as f32;
        assert!(
            mean.abs() < 1e-3 && row.iter().all(|z| z.is_finite()),
            "{row:?}"
        );
        // The largest of ten probabilities is a tenth at least, so a clipped one lies this far below it.
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let floor = f32::MIN_POSITIVE.ln() + 10f32.ln();
        at_floor += row.iter().filter(|z| **z - largest < floor).count() as u64;
    }
    assert!(
        clipped > 0 && at_floor >= clipped,
        "{clipped} clipped, {at_floor} at the floor"
    );
}

#[test]
fn a_teacher_below_the_bar_is_refused_now_and_later() {
    let bench = Bench::new("bar");
    let recipe = bench.recipe(|text| text.replace("mean = [0.3048]", "mean = [0.9]"));
    for _ in 0..2 {
        let run = bench.run(&["teacher-logits", &recipe]);
        let words = [
            "teacher accuracy 43.96 % on 596 evaluation images",
            "the teacher's accuracy is 43.96 % on 596 samples",
            "the recipe asks for 98.00 %",
            "the best that was found is mean = [",
        ];
        check_failed(&run, &words);
        // A wrong guess leaves nothing behind, and names no folder.
        assert_eq!(run.stdout, "");
        bench.assert_no_cache();
    }
}

#[test]
fn classes_in_another_order_are_found_out() {
    let bench = Bench::new("order");
    let recipe = bench.recipe(|text| {
        text.replace(
            "mean = [0.3048]",
            "classes = [1, 0, 2, 4, 5, 3, 6, 7, 9, 8]\nmean = [0.3048]",
        )
    });
    let run = bench.run(&["teacher-logits", &recipe]);
    check_failed(&run, &["classes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"]);
    bench.assert_no_cache();
}

#[test]
fn a_teacher_that_guesses_is_told_where_no_bar_is_set() {
    let bench = Bench::new("guesses");
    let recipe = synthetic(&bench, &plain(), IMAGES, "count = 1", "");
    let run = bench.run(&["teacher-logits", &recipe]).ok();
    for words in [
        "warning: the teacher is right on",
        "of 256 images",
        "guessing",
    ] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
}

/// Logits that are quantised by the extremes of a whole batch.
fn quantised_by_batch() -> Vec<u8> {
    classifier(Dim::Any("batch"), |graph: Graph| {
        graph
            .op(
                "dql",
                "DynamicQuantizeLinear",
                &["gemm"],
                &["q", "s", "z"],
                &[],
            )
            .node("DequantizeLinear", &["q", "s", "z"], "logits", &[])
            .output("logits", FLOAT, &[Dim::Any("batch"), Dim::Is(10)])
    })
}

/// The rows of such a teacher are right among those they were captured with, and no check holds them against others.
#[test]
fn a_batch_that_decides_its_rows_is_part_of_the_key() {
    let bench = Bench::new("by_batch");
    let views = "count = 2\naugment = [{ name = \"random_crop\", size = 8, padding = 1 }]";
    let recipe = |more: &str| synthetic(&bench, &quantised_by_batch(), IMAGES, views, more);
    let run = bench.run(&["teacher-logits", &recipe("")]);
    check_failed(&run, &["`dql` (DynamicQuantizeLinear)", "batch_size = 1"]);
    bench.assert_no_cache();
    let mut keys = Vec::new();
    for more in [
        "batch_size = 1",
        "batch_size = 7",
        "batch_size = 7\nchunk_rows = 70",
    ] {
        let recipe = recipe(&format!("encoding = \"f32\"\n{more}"));
        bench.run(&["teacher-logits", &recipe]).ok();
        let args = ["cache", "verify", "--recipe", &recipe, "--recompute", "300"];
        let told = bench.run(&args).ok().stdout;
        assert!(
            told.contains("300 rows recomputed: error at most 0.0e0"),
            "{told}"
        );
        let cache = only_cache(&bench);
        keys.push(open(&cache).manifest().key.clone());
        fs::remove_dir_all(cache).unwrap();
    }
    assert_eq!((keys[0].batch.as_str(), keys[1].batch.as_str()), ("1", "7"));
    assert_ne!(keys[0].digest(), keys[1].digest());
    assert_eq!(keys[1], keys[2], "chunks change no row");
    let straddling = recipe("batch_size = 7\nchunk_rows = 64");
    let run = bench.run(&["teacher-logits", &straddling]);
    check_asked(&run, &["chunks of 64 samples", "a multiple of 7"]);
}

#[test]
fn what_only_a_gpu_knows_is_refused_on_the_cpu() {
    let bench = Bench::new("gpu");
    let recipe = synthetic(&bench, &plain(), IMAGES, VIEWS, "");
    let run = bench.run(&["teacher-logits", &recipe, "--gpu", "1"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("--gpu") && run.stderr.contains("--provider cuda"));
    // TensorFloat-32 was a flag of the machine, and its rows lay under the key of f32.
    let rounded = ["--set", "teacher.0.precision=tf32"];
    let run = bench.run(&[&["teacher-logits", &recipe], &rounded[..]].concat());
    check_asked(&run, &["`tf32`", "--provider cuda"]);
    bench.run(&["teacher-logits", &recipe]).ok();
    let verify = ["cache", "verify", "--recipe", &recipe];
    bench.run(&verify).ok();
    let run = bench.run(&[&verify[..], &rounded[..]].concat());
    check_failed(&run, &["precision", "`f32`", "`tf32`"]);
    let run = bench.run(&["teacher-logits", &recipe, "--provider", "metal"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("`cpu`, `cuda`, `tensorrt`"),
        "{}",
        run.stderr
    );
}

#[test]
fn doctor_says_what_each_provider_misses() {
    let said = Bench::new("doctor").run_plain(&["doctor"]).ok().stdout;
    for provider in ["provider cpu", "provider cuda", "provider tensorrt"] {
        let line = said.lines().position(|line| line.contains(provider));
        let lines: Vec<&str> = said.lines().skip(line.unwrap()).take(2).collect();
        let works = lines[0].starts_with("ok") && lines[0].ends_with("runs here");
        let remedied = lines[0].starts_with("--") && lines[1].contains("-> ");
        assert!(
            works || (remedied && provider != "provider cpu"),
            "{lines:?}"
        );
    }
}

/// A full disk, on a small file system of its own. Needs to mount one, hence root.
#[test]
fn a_full_disk_stops_the_capture_and_more_room_finishes_it() {
    let bench = Bench::new("full_disk");
    let disk = bench.cache_dir();
    fs::create_dir_all(&disk).unwrap();
    let mount = |options: &str| {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&disk)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    if !mount("size=4m") {
        eprintln!(
            "SKIPPED: a file system of its own, to be filled up, can only be mounted by root"
        );
        return;
    }
    let _mounted = Mounted(&disk);
    let data = "synthetic = { n_train = 20000, height = 8, width = 8 }";
    let settings = "batch_size = 32\nchunk_rows = 512";
    let recipe = synthetic(&bench, &plain(), data, "count = 2", settings);
    let recipe_of_more = [
        "teacher-logits",
        &recipe,
        "--set",
        "views.augment=[{ name = \"random_crop\", size = 8, padding = 1 }]",
        "--set",
        "views.count=4",
    ];

    // Somebody else fills the disk while the capture runs.
    let run = interrupted(&bench, &recipe_of_more, "view", |_| {
        let _ = fs::write(disk.join("filler"), vec![1; 8 << 20]);
    });
    check_failed(&run, &["space"]);
    let cache = only_cache(&bench);
    let n_views = open(&cache).views().len();
    assert!((1..4).contains(&n_views), "{n_views} views");
    verify(&bench);
    // Still full: refused again, and nothing is worse than before.
    let again = bench.run(&recipe_of_more);
    check_failed(&again, &["space"]);
    assert_eq!(open(&cache).views().len(), n_views);
    fs::remove_file(disk.join("filler")).unwrap();
    bench.run(&recipe_of_more).ok();
    verify(&bench);

    let roomy = Bench::new("roomy_disk");
    let recipe = synthetic(&roomy, &plain(), data, "count = 2", settings);
    roomy
        .run(&[&["teacher-logits", &recipe], &recipe_of_more[2..]].concat())
        .ok();
    assert!(chunks(&cache) == chunks(&only_cache(&roomy)));
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// A thousand of the evaluation images passed the bar and all four thousand did not: the refusal left the cache behind, which
/// the next command found.
#[test]
fn a_split_below_the_bar_leaves_no_cache() {
    let bench = Bench::new("bar");
    let data = "eval = \"test\"\nsynthetic = { n_train = 8, n_eval = 4000, height = 8, width = 8 }";
    let recipe = synthetic(&bench, &plain(), data, "count = 1", "min_accuracy = 0.0");
    let (bar, seed) = (1..20)
        .find_map(|seed| {
            let seed = format!("data.synthetic.seed={seed}");
            let run = bench.run(&["teacher-logits", &recipe, "--set", &seed]).ok();
            let shares = run.stderr.split("teacher accuracy ").skip(1);
            let shares: Vec<f64> = shares
                .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
                .collect();
            let (some, all) = (shares[0], shares[1]);
            (some > all + 0.1).then(|| ((some + all) / 200.0, seed))
        })
        .unwrap();
    fs::remove_dir_all(bench.cache_dir()).unwrap();
    let bar = format!("teacher.0.min_accuracy={bar}");
    for _ in 0..2 {
        let run = bench.run(&["teacher-logits", &recipe, "--set", &seed, "--set", &bar]);
        check_failed(&run, &["on 4000 samples, the recipe asks for"]);
        assert_eq!(run.stdout, "", "a folder is printed");
        bench.assert_no_cache();
    }
}
