//! The walk from images to a report, through the real binary, on the embedded digits and their real teacher.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bench::Bench;
use serde_json::Value;

/// A short run: two views, two epochs.
fn short(text: String) -> String {
    let text = set(&text, "count", "2");
    set(&text, "epochs", "2")
}

fn set(text: &str, key: &str, value: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some((k, _)) if k.trim() == key => format!("{key} = {value}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn json(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn capture_train_report() {
    let bench = Bench::new("walk");
    let recipe = bench.recipe(short);

    let captured = bench.run(&["teacher-logits", &recipe]).ok();
    assert!(captured.stderr.contains("captured"), "{}", captured.stderr);
    let caches = bench.run(&["cache", "ls", "--json"]).ok().stdout;
    let caches: Vec<Value> = caches.lines().map(json).collect();
    assert_eq!(
        caches.len(),
        2,
        "the train split's views and the evaluation split's clean view"
    );

    let runs = ["a", "b"].map(|name| {
        let out = bench.folder.join(name);
        let trained = bench
            .run(&["student", &recipe, "--json", "--out", out.to_str().unwrap()])
            .ok();
        (
            json(&trained.stdout),
            fs::read(out.join("metrics.jsonl")).unwrap(),
            out,
        )
    });
    assert_eq!(
        runs[0].1, runs[1].1,
        "two runs of one recipe write the same metrics"
    );
    let weights = |run: &(Value, Vec<u8>, std::path::PathBuf)| {
        fs::read(run.2.join("last.safetensors")).unwrap()
    };
    assert!(
        weights(&runs[0]) == weights(&runs[1]),
        "and the same checkpoints"
    );
    let eval = &runs[0].0["last"]["eval"];
    assert_eq!(eval["n_samples"], 596);
    assert!(
        eval["top1"].as_f64().unwrap() > 0.2,
        "two epochs beat chance (0.1): {eval}"
    );
    assert!(eval["agreement"].is_f64());

    let page = bench
        .run_plain(&[
            "report",
            runs[0].2.to_str().unwrap(),
            runs[1].2.to_str().unwrap(),
        ])
        .ok();
    let html = fs::read_to_string(page.stdout.trim()).unwrap();
    for part in ["<table>", "<svg", "agrees with teacher", "</html>"] {
        assert!(html.contains(part), "`{part}` is missing from the report");
    }
    assert!(!html.contains("http://") || html.contains("http://www.w3.org/2000/svg"));
}

/// Clean-image logits beside augmented pixels are trained on only by saying so, and no page that shows such a run is
/// silent about it.
#[test]
fn inconsistent_views_are_labelled_wherever_the_run_is_shown() {
    let bench = Bench::new("inconsistent");
    let recipe = bench.recipe(|text| {
        short(text.replace(
            "[views]\n",
            "[views]\ninconsistent = true\nviews_per_pass = 4\n",
        ))
    });
    bench.run(&["teacher-logits", &recipe]).ok();
    let out = bench.folder.join("run");
    let out = out.to_str().unwrap();
    let trained = bench.run(&["student", &recipe, "--out", out]).ok();
    assert!(
        trained.stderr.contains("Inconsistent views"),
        "{}",
        trained.stderr
    );
    let record = fs::read_to_string(bench.folder.join("run/run.json")).unwrap();
    assert_eq!(json(&record)["recorded"]["inconsistent"], "true");
    let page = bench.run_plain(&["report", out, "--out", out]).ok();
    let html = fs::read_to_string(page.stdout.trim()).unwrap();
    let markdown = fs::read_to_string(bench.folder.join("run/report.md")).unwrap();
    for text in [html, markdown] {
        assert!(
            text.contains("(inconsistent views)"),
            "the table says nothing"
        );
        assert!(
            text.contains("logits of the clean image"),
            "the facts say nothing"
        );
    }
}

#[test]
fn a_second_capture_is_a_hit_and_touches_nothing() {
    let bench = Bench::new("hit");
    let recipe = bench.recipe(short);
    bench.run(&["teacher-logits", &recipe]).ok();
    let before = contents(&bench.cache_dir());
    let again = bench.run(&["teacher-logits", &recipe]).ok();
    assert!(again.stderr.contains("nothing to run"), "{}", again.stderr);
    assert!(
        before == contents(&bench.cache_dir()),
        "a hit changed the cache"
    );
}

#[test]
fn a_changed_ingredient_is_a_miss_that_names_it() {
    let bench = Bench::new("miss");
    let recipe = bench.recipe(short);
    bench.run(&["teacher-logits", &recipe]).ok();
    let changed = bench.run(&["student", &recipe, "--set", "teacher.0.mean=[0.5]"]);
    assert_eq!(changed.code, 1);
    assert!(changed.stderr.contains("preprocess"), "{}", changed.stderr);
    let changed = bench
        .run(&["teacher-logits", &recipe, "--set", "views.seed=9"])
        .ok();
    assert!(
        changed.stderr.contains("seed=1 draw=1` there"),
        "{}",
        changed.stderr
    );
}

#[test]
fn more_views_capture_only_the_missing_ones() {
    let bench = Bench::new("more_views");
    let recipe = bench.recipe(short);
    bench.run(&["teacher-logits", &recipe]).ok();
    let before = contents(&bench.cache_dir());
    let more = bench
        .run(&["teacher-logits", &recipe, "--set", "views.count=5"])
        .ok();
    assert!(more.stderr.contains("2 of 5 views"), "{}", more.stderr);
    let after = contents(&bench.cache_dir());
    for (name, bytes) in &before {
        assert!(after.get(name) == Some(bytes), "`{name}` changed");
    }
    assert!(
        after
            .keys()
            .any(|name| name.contains("view=0004/view.json"))
    );

    // The cache of five views begins with the bytes of the cache of two.
    let whole = Bench::new("whole_views");
    let recipe = whole.recipe(short);
    whole
        .run(&["teacher-logits", &recipe, "--set", "views.count=5"])
        .ok();
    for (name, bytes) in contents(&whole.cache_dir()) {
        if name.ends_with(".arrow") {
            assert!(
                after.get(&name) == Some(&bytes),
                "`{name}` depends on how the views were captured"
            );
        }
    }
}

#[test]
fn a_killed_capture_resumes_to_the_same_bytes() {
    let whole = Bench::new("unkilled");
    let edit = |text: String| set(&short(text), "count", "\"all\"");
    let recipe = whole.recipe(edit);
    // Small chunks, so that a kill finds some done and some not.
    let small = ["--set", "teacher.0.chunk_rows=128"];
    whole
        .run(&[&["teacher-logits", &recipe], &small[..]].concat())
        .ok();

    let bench = Bench::new("killed");
    let recipe = bench.recipe(edit);
    let cache_dir = bench.cache_dir();
    let args = [
        &[
            "teacher-logits",
            &recipe,
            "--cache-dir",
            cache_dir.to_str().unwrap(),
        ],
        &small[..],
    ]
    .concat();
    for delay_ms in [60, 150, 250] {
        let mut child = bench
            .command(&args)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    bench.run_plain(&args).ok();
    let parts = |folder: &Path| {
        let mut parts = contents(folder);
        parts.retain(|name, _| name.ends_with(".arrow"));
        parts
    };
    assert!(
        parts(&cache_dir) == parts(&whole.cache_dir()),
        "a resumed capture differs from a whole one"
    );
}

#[test]
fn an_interrupted_training_continues_to_the_same_weights() {
    let bench = Bench::new("resume");
    let recipe = bench.recipe(|text| set(&short(text), "epochs", "4"));
    bench.run(&["teacher-logits", &recipe]).ok();
    let folders = ["whole", "killed"].map(|name| bench.folder.join(name));
    let args = |folder: &Path| {
        let cache_dir = bench.cache_dir();
        [
            "student",
            &recipe,
            "--cache-dir",
            cache_dir.to_str().unwrap(),
            "--out",
            folder.to_str().unwrap(),
        ]
        .map(str::to_owned)
    };
    let run = |folder: &Path| {
        let args = args(folder);
        bench.command(&args.each_ref().map(String::as_str))
    };
    assert!(run(&folders[0]).output().unwrap().status.success());
    let mut child = run(&folders[1])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // After the first epoch is on disk, at the latest before the last.
    let last = folders[1].join("last.safetensors");
    while !last.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(run(&folders[1]).output().unwrap().status.success());
    for name in ["metrics.jsonl", "last.safetensors", "best.safetensors"] {
        let [whole, killed] = folders
            .each_ref()
            .map(|folder| fs::read(folder.join(name)).unwrap());
        assert!(whole == killed, "`{name}` differs");
    }
}

/// The same images under other labels share logits, but a student must not train on the confusion, unless it is told which
/// of the two labellings is right.
#[test]
fn other_labels_than_the_cache_s_are_refused_or_preferred() {
    let bench = Bench::new("corrected");
    let root = bench.folder.join("idx");
    fs::create_dir(&root).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 64, 0, 0, 0, 8, 0, 0, 0, 8];
    images.extend((0..64 * 64u32).map(|i| (i * i % 251) as u8));
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 64];
    labels.extend((0..64).map(|i| i % 10));
    fs::write(root.join("train-images-idx3-ubyte"), images).unwrap();
    fs::write(root.join("train-labels-idx1-ubyte"), &labels).unwrap();
    let recipe = bench.folder.join("recipe.toml");
    let text = format!(
        "[data]\nformat = \"mnist\"\nroot = {root:?}\n\
         [[teacher]]\nonnx = \"data/digits/teacher.onnx\"\nmean = [0.3048]\nstd = [0.3757]\n\
         [student]\nname = \"resnet8\"\n[train]\nepochs = 1\nbatch_size = 16\noptimizer = {{ name = \"sgd\", lr = 0.05 }}\n[[loss]]\nname = \"kd\"\n"
    );
    fs::write(&recipe, text).unwrap();
    let recipe = recipe.to_str().unwrap();
    bench.run(&["teacher-logits", recipe]).ok();
    let out = bench.folder.join("run");
    let student = ["student", recipe, "--out", out.to_str().unwrap()];
    bench.run(&student).ok();

    labels[8 + 20] = 7;
    fs::write(root.join("train-labels-idx1-ubyte"), labels).unwrap();
    let refused = bench.run(&[&student[..], &["--fresh"]].concat());
    assert_eq!(refused.code, 1);
    for words in ["are not those that cache", "`data.relabelled = true`"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    let corrected = ["--fresh", "--set", "data.relabelled=true"];
    let run = bench.run(&[&student[..], &corrected].concat()).ok();
    assert!(
        run.stderr.contains("the dataset's are used"),
        "{}",
        run.stderr
    );
}

/// What `dataset show --npy` writes depends on nothing but the images, the seed, the sample and the view.
#[test]
fn the_tensor_shown_is_the_same_from_any_format_by_any_number_of_threads() {
    let bench = Bench::new("tensors");
    let mut tensors = Vec::new();
    for (format, file, label_bytes) in [
        ("cifar10", "data_batch_1.bin", 1),
        ("cifar100", "train.bin", 2),
    ] {
        let root = bench.folder.join(format);
        fs::create_dir(&root).unwrap();
        let record = |image: u32| {
            let pixels = (0..3072).map(move |at| (at * at % 253 + 40 * image) as u8);
            std::iter::repeat_n(image as u8, label_bytes).chain(pixels)
        };
        fs::write(
            root.join(file),
            (0..5).flat_map(record).collect::<Vec<u8>>(),
        )
        .unwrap();
        let recipe = bench.folder.join(format!("{format}.toml"));
        let text = format!(
            "[data]\nformat = {format:?}\nroot = {root:?}\n[views]\naugment = [\n\
             {{ name = \"random_resized_crop\", size = 24 }},\n{{ name = \"rand_augment\" }},\n\
             {{ name = \"cutmix\" }},\n]\n"
        );
        fs::write(&recipe, text).unwrap();
        for threads in ["1", "2"] {
            let out = bench.folder.join(format!("{format}-{threads}.npy"));
            let show = [
                "dataset",
                "show",
                recipe.to_str().unwrap(),
                "--index",
                "3",
                "--index",
                "0",
            ];
            let mut command = bench.command(&show);
            command.args(["--views", "0..8", "--npy", out.to_str().unwrap()]);
            let output = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            tensors.push(fs::read(out).unwrap());
        }
    }
    assert!(tensors[0].len() > 16 * 3 * 24 * 24 * 4);
    assert!(tensors.iter().all(|tensor| *tensor == tensors[0]));
}

/// Each loss of the zoo's kinds: none of the teacher, its rows, a bank of them.
#[test]
fn a_step_is_measured_for_any_loss() {
    let bench = Bench::new("step");
    for losses in [
        &["ce"][..],
        &["ce", "{ name = \"kd\", temperature = 2 }"],
        &["mcld"],
    ] {
        let mut args =
            "bench step --student resnet8 --batch-size 4 --classes 10 --steps 2 --warmup 1 --json"
                .split(' ')
                .collect::<Vec<_>>();
        args.extend(losses.iter().flat_map(|loss| ["--loss", *loss]));
        let row = json(&bench.run_plain(&args).ok().stdout);
        let of = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
        assert!(0.0 < of("min_s") && of("min_s") <= of("median_s"));
        let parts = ["gather_s", "forward_s", "loss_s", "backward_s", "step_s"];
        assert!(parts.iter().all(|part| of(part) >= 0.0));
    }
}

/// The dump holds the run's own weights, rows and losses: the first step's cross-entropy is computed again from it.
#[test]
fn dumped_batches_are_those_of_the_run() {
    let bench = Bench::new("dump");
    let recipe = bench.recipe(short);
    bench.run(&["teacher-logits", &recipe]).ok();
    let [out, dump] = ["out", "dump"].map(|name| bench.folder.join(name));
    let [out_arg, dump_arg] = [&out, &dump].map(|path| path.to_str().unwrap());
    let args = [
        "student",
        &recipe,
        "--out",
        out_arg,
        "--dump-batches",
        dump_arg,
        "--dump-steps",
        "3",
        "--fresh", // a run that goes on has no first steps to write
    ];
    let refused = bench.run(&args[..args.len() - 1]);
    assert!(
        refused.code == 2 && refused.stderr.contains("--fresh"),
        "{}",
        refused.stderr
    );
    bench.run(&args).ok();

    let names: Vec<String> = contents(&dump).into_keys().collect();
    let batches = (1..=3).map(|i| format!("batch-{i:05}.safetensors"));
    let expected = batches.chain(["initial.safetensors".to_owned(), "steps.jsonl".to_owned()]);
    assert_eq!(names, expected.collect::<Vec<_>>());

    let load = |name: &str| {
        candle_core::safetensors::load(dump.join(name), &candle_core::Device::Cpu).unwrap()
    };
    let batch = load("batch-00001.safetensors");
    let network = logitcask_student::Network::build(
        "resnet8",
        logitcask_student::ImageShape {
            channels: 1,
            height: 8,
            width: 8,
        },
        10,
        77,
        &candle_core::Device::Cpu,
    )
    .unwrap();
    network.load(&load("initial.safetensors")).unwrap();
    let logits = network
        .forward(&batch["pixels"], logitcask_layers::Mode::Train)
        .unwrap();
    let logits = logits.to_vec2::<f32>().unwrap();
    let labels = batch["labels"].to_vec1::<i64>().unwrap();
    let ce = logits.iter().zip(&labels).map(|(z, &label)| {
        let sum: f64 = z.iter().map(|&z| f64::from(z).exp()).sum();
        sum.ln() - f64::from(z[label as usize])
    });
    let ce = ce.sum::<f64>() / labels.len() as f64;
    let steps = fs::read_to_string(dump.join("steps.jsonl")).unwrap();
    let first = json(steps.lines().next().unwrap());
    let noted = first["terms"][0]["value"].as_f64().unwrap();
    assert_eq!(first["terms"][0]["name"], "ce");
    assert!((noted - ce).abs() < 1e-5 * ce, "{noted}, expected {ce}");
    assert_eq!(batch["teacher_logits"].dims(), [labels.len(), 10]);
}
