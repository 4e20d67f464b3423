//! The verbs on caches, through the real binary, on a capture of the digits by their real teacher.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bench::Bench;
use logitcask_cache::{ChunkRows, LogitCache, LogitWriter, OpenOptions};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A bench with the digits captured in two views; returns the names of the evaluation and the training cache.
fn captured(test: &str) -> (Bench, String, [String; 2]) {
    let bench = Bench::new(test);
    let recipe = bench.recipe(|text| text.replace("count = 9", "count = 2"));
    let printed = bench.run(&["teacher-logits", &recipe]).ok().stdout;
    let mut paths = printed.lines().map(str::to_owned);
    let caches = [paths.next().unwrap(), paths.next().unwrap()];
    (bench, recipe, caches)
}

#[test]
fn a_cache_is_described_by_what_identifies_it() {
    let (bench, _, [_, train]) = captured("show");
    let shown = json(&bench.run(&["cache", "show", &train, "--json"]).ok().stdout);
    assert_eq!(shown["samples"], 1201);
    assert_eq!(shown["views"].as_array().unwrap().len(), 2);
    assert_eq!(shown["ingredients"]["encoding"], "f16");
    assert!(
        shown["ingredients"]["views"]
            .as_str()
            .unwrap()
            .contains("random_crop")
    );
    assert!(shown["recorded"]["onnxruntime"].is_string());
    assert!(shown["id"].as_str().unwrap().len() == 64);
}

#[test]
fn the_teacher_gives_the_same_logits_again() {
    let (bench, recipe, _) = captured("recompute");
    let verified = bench
        .run(&[
            "cache",
            "verify",
            "--recipe",
            &recipe,
            "--recompute",
            "200",
            "--json",
        ])
        .ok();
    let verdicts: Vec<Value> = verified
        .stdout
        .lines()
        .map(json)
        .filter(|line| line["passes"].is_boolean())
        .collect();
    assert_eq!(verdicts.len(), 2);
    for verdict in verdicts {
        assert_eq!(verdict["passes"], true, "{verdict}");
        assert!(
            verdict["recompute"]["max_abs"].as_f64().unwrap() < 0.01,
            "{verdict}"
        );
    }
}

#[test]
fn whole_chunks_of_another_cache_are_not_believed() {
    // Rows of another normalisation, whole and with good checks, are copied over those of this one.
    let (bench, recipe, [_, train]) = captured("forged");
    let wrong = Bench::new("forged_source");
    let sets = [
        "--set",
        "teacher.0.mean=[0.9]",
        "--set",
        "teacher.0.min_accuracy=0",
    ];
    let printed = wrong
        .run(&[&["teacher-logits", recipe.as_str()], &sets[..]].concat())
        .ok()
        .stdout;
    let other = printed.lines().last().unwrap();
    let mut forged = 0;
    for view in ["view=0000", "view=0001"] {
        let (from, to) = (format!("{other}/{view}"), format!("{train}/{view}"));
        for entry in fs::read_dir(&from).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".arrow") {
                fs::copy(format!("{from}/{name}"), format!("{to}/{name}")).unwrap();
                forged += 1;
            }
        }
    }
    assert!(forged > 2);
    let run = bench.run(&["cache", "verify", &train]);
    assert_eq!(
        run.code, 1,
        "digests catch rows of another cache: {}",
        run.stdout
    );
}

/// Rows can be whole and bear other labels than the dataset, where a capture took them up under a `cache.json` of its own.
#[test]
fn rows_with_other_labels_than_the_dataset_are_found() {
    let (bench, recipe, [_, train]) = captured("labels");
    bench.run(&["cache", "verify", "--recipe", &recipe]).ok();
    fs::remove_dir_all(format!("{train}/view=0001")).unwrap();
    let cache = LogitCache::open(Path::new(&train), OpenOptions::default()).unwrap();
    let writer = LogitWriter::open(&bench.cache_dir(), cache.manifest()).unwrap();
    let n_classes = cache.n_classes();
    for chunk in writer.missing_chunks(1).unwrap() {
        let samples: Vec<u32> = writer.chunk_range(chunk).unwrap().collect();
        let rows = ChunkRows {
            labels: &samples.iter().map(|sample| sample % 10).collect::<Vec<_>>(),
            logits: &vec![0.5; samples.len() * n_classes],
            valid: &vec![true; samples.len()],
            ..ChunkRows::default()
        };
        writer.write_chunk(1, chunk, &rows).unwrap();
    }
    writer.finish_view(1).unwrap();
    drop(writer);
    bench.run(&["cache", "verify", &train]).ok();
    let run = bench.run(&["cache", "verify", "--recipe", &recipe]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.contains("another label"), "{}", run.stdout);
}

#[test]
fn a_flipped_byte_is_found_and_named() {
    let (bench, recipe, [_, train]) = captured("flipped");
    bench.run(&["cache", "verify", &train]).ok();
    let path = format!("{train}/view=0001/part-00000.arrow");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let run = bench.run(&["cache", "verify", &train]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("view 1, chunk 0"), "{}", run.stdout);
    // And a student that needs the row refuses it.
    let out = bench.folder.join("run");
    let run = bench.run(&["student", &recipe, "--out", out.to_str().unwrap()]);
    assert_eq!(run.code, 1, "{}", run.stderr);
}

#[test]
fn eight_bits_are_close_to_sixteen() {
    let (bench, _, [_, train]) = captured("transcode");
    let small = bench
        .run(&["cache", "transcode", &train, "--encoding", "u8"])
        .ok()
        .stdout;
    let report = json(
        &bench
            .run(&["cache", "diff", &train, small.trim(), "--json"])
            .ok()
            .stdout,
    );
    let distance = &report["distance"];
    assert_eq!(distance["n_rows"], 2 * 1201);
    assert!(
        distance["kl"][1]["mean"].as_f64().unwrap() < 1e-4,
        "{distance}"
    );
    assert!(distance["max_abs"].as_f64().unwrap() > 0.0, "{distance}");
    let run = bench.run(&["cache", "transcode", small.trim(), "--encoding", "f32"]);
    assert_eq!(run.code, 1, "what was rounded once must not pass for exact");
}

#[test]
fn statistics_tell_the_teacher_s_accuracy() {
    let (bench, _, [eval, _]) = captured("stats");
    let stats = json(&bench.run(&["cache", "stats", &eval, "--json"]).ok().stdout);
    assert!((stats["accuracy"].as_f64().unwrap() - 591.0 / 596.0).abs() < 1e-9);
    assert_eq!(stats["contradictions"], 5);
    let told = bench.run(&["cache", "stats", &eval]).ok().stdout;
    assert!(
        told.contains("contradicts the label on 5 samples"),
        "{told}"
    );
}

#[test]
fn contradicted_labels_become_a_list_that_training_leaves_out() {
    let (bench, recipe, [eval, train]) = captured("exclude_list");
    let list = bench.folder.join("noisy.txt");
    let list = list.to_str().unwrap();
    // The training images are all right; among the evaluation images the teacher contradicts 5 of 596.
    for (cache, confidence, n_listed) in [(&train, "0", 0), (&eval, "0", 5), (&eval, "1", 0)] {
        let args = [
            "cache",
            "stats",
            cache,
            "--exclude-list",
            list,
            "--confidence",
            confidence,
        ];
        let said = bench.run(&args).ok().stderr;
        let told = format!("{n_listed} samples listed");
        assert!(said.contains(&told), "{said}");
        assert_eq!(
            fs::read_to_string(list).unwrap().lines().count(),
            n_listed,
            "{confidence}"
        );
    }
    bench
        .run(&[
            "cache",
            "stats",
            &eval,
            "--exclude-list",
            list,
            "--confidence",
            "0",
        ])
        .ok();
    let set = format!("data.exclude={list}");
    let out = bench.folder.join("run");
    let args = [
        "student",
        &recipe,
        "--out",
        out.to_str().unwrap(),
        "--set",
        "train.epochs=1",
        "--set",
        "data.limit=1201",
        "--set",
        &set,
        "--json",
    ];
    // The list stands for any list of training samples here.
    let record = json(&bench.run(&args).ok().stdout);
    assert_eq!(record["n_train"], 1201 - 5);
    // Another list under the same name is another run.
    fs::write(list, "7\n").unwrap();
    let refused = bench.run(&args);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("another run"), "{}", refused.stderr);
}

#[test]
fn removing_is_a_dry_run_unless_told_otherwise() {
    let (bench, _, _) = captured("gc");
    let count = || {
        bench
            .run(&["cache", "ls", "--json"])
            .ok()
            .stdout
            .lines()
            .count()
    };
    assert_eq!(bench.run(&["cache", "gc"]).code, 2);
    bench.run(&["cache", "gc", "--max-gb", "0"]).ok();
    assert_eq!(count(), 2);
    bench.run(&["cache", "gc", "--max-gb", "0", "--yes"]).ok();
    assert_eq!(count(), 0);
}

#[test]
fn a_name_that_fits_nothing_or_too_much_is_refused() {
    let (bench, _, _) = captured("names");
    let run = bench.run(&["cache", "show", "nowhere"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("cache ls"), "{}", run.stderr);
    let run = bench.run(&["cache", "show", "digits"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("fits 2 caches"), "{}", run.stderr);
}

#[test]
fn parts_that_run_at_once_make_the_cache_that_one_run_makes() {
    let sets = ["teacher.0.chunk_rows=128", "teacher.0.batch_size=64"];
    let sets = sets.map(|set| ["--set", set]).concat();
    let edit = |text: String| text.replace("count = 9", "count = 2");
    let whole = Bench::new("not-divided");
    let recipe = whole.recipe(edit);
    whole
        .run(&[&["teacher-logits", &recipe], &sets[..]].concat())
        .ok();

    let divided = Bench::new("divided");
    let recipe = divided.recipe(edit);
    let cache_dir = divided.cache_dir();
    let running: Vec<_> = ["1/3", "2/3", "3/3"]
        .map(|part| {
            let args = ["teacher-logits", &recipe, "--part", part, "--cache-dir"];
            let args = [&args[..], &[cache_dir.to_str().unwrap()], &sets[..]].concat();
            let mut command = divided.command(&args);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .into();
    for part in running {
        let output = part.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
    }
    let ids = |bench: &Bench| -> Vec<String> {
        let listed = bench.run(&["cache", "ls", "--json"]).ok().stdout;
        let names = listed.lines().map(|line| json(line)["name"].clone());
        names
            .map(|name| {
                let shown = bench.run(&["cache", "show", name.as_str().unwrap(), "--json"]);
                let shown = json(&shown.ok().stdout);
                format!(
                    "{} {} {}",
                    name,
                    shown["views"].as_array().unwrap().len(),
                    shown["id"]
                )
            })
            .collect()
    };
    assert_eq!(ids(&divided), ids(&whole));
    assert_eq!(ids(&whole).len(), 2);
}

/// Two epochs of training on what [`captured`] captures.
const SHORT: [&str; 2] = ["--set", "train.epochs=2"];

/// Trains, and returns the run's record and what was said.
fn trained(bench: &Bench, recipe: &str, name: &str, more: &[&str]) -> (Value, String) {
    let out = bench.folder.join(name);
    let out = ["--out", out.to_str().unwrap(), "--json"];
    let args = [&["student", recipe], &SHORT[..], &out, more].concat();
    let run = bench.run(&args).ok();
    (json(&run.stdout), run.stderr)
}

#[test]
fn an_archive_is_smaller_and_is_converted_once_when_it_is_needed() {
    let (bench, recipe, [_, train]) = captured("archive");
    let shown = json(&bench.run(&["cache", "show", &train, "--json"]).ok().stdout);
    let pack = ["cache", "transcode", &train, "--layout", "parquet"];
    let archive = bench.run(&pack).ok().stdout.trim().to_owned();
    assert!(archive.ends_with(".parquet"), "{archive}");
    fs::remove_dir_all(&train).unwrap();
    let (record, said) = trained(&bench, &recipe, "first", &[]);
    assert!(said.contains("converting it once"), "{said}");
    let again = bench.run(&["cache", "show", &train, "--json"]).ok();
    assert_eq!(json(&again.stdout)["id"], shown["id"]);
    // From now on it is mapped, and read by position it is the same.
    let (by_position, said) = trained(&bench, &recipe, "second", &["--io", "read"]);
    assert!(!said.contains("converting"), "{said}");
    assert_eq!(record["last"]["loss"], by_position["last"]["loss"]);
    // A capture too takes the archive for what it is.
    fs::remove_dir_all(&train).unwrap();
    let hit = bench.run(&["teacher-logits", &recipe]).ok().stderr;
    assert!(
        hit.contains("converting it once") && hit.contains("already in cache"),
        "{hit}"
    );
}

#[test]
fn another_cache_than_the_expected_one_is_refused() {
    let (bench, recipe, [_, train]) = captured("expect");
    let shown = json(&bench.run(&["cache", "show", &train, "--json"]).ok().stdout);
    let id = shown["id"].as_str().unwrap();
    let out = bench.folder.join("run");
    let args = [
        "student",
        &recipe,
        "--out",
        out.to_str().unwrap(),
        "--expect",
    ];
    for wrong in ["0123456789abcdef", &id[..7]] {
        let run = bench.run(&[&args[..], &[wrong]].concat());
        assert_eq!(run.code, 1);
        assert!(
            run.stderr.contains(id) && run.stderr.contains(wrong),
            "{}",
            run.stderr
        );
    }
    bench
        .run(&[&args[..], &[&id[..16]], &SHORT[..]].concat())
        .ok();

    // Views that are added move neither the rows that are read nor the name that they go by.
    bench
        .run(&["teacher-logits", &recipe, "--set", "views.count=3"])
        .ok();
    let grown = json(&bench.run(&["cache", "show", &train, "--json"]).ok().stdout);
    let grown = grown["id"].as_str().unwrap();
    assert_ne!(grown, id);
    for expected in [id, grown] {
        let again = bench
            .run(&[&args[..], &[&expected[..16]], &SHORT[..]].concat())
            .ok();
        assert!(again.stderr.contains("finished before"), "{}", again.stderr);
    }
}

/// A run goes on with the rows that it was begun with, or not at all: not with those of a cache that was transcoded into the
/// encoding, and not with those that another machine, say, has captured under the same key.
#[test]
fn a_run_is_not_continued_on_other_rows() {
    let bench = Bench::new("other_rows");
    let capture = |encoding: &str| {
        let recipe = bench.recipe(|text| {
            let text = text.replace("count = 9", "count = 2");
            text.replace("encoding = \"f16\"", &format!("encoding = \"{encoding}\""))
        });
        let printed = bench.run(&["teacher-logits", &recipe]).ok().stdout;
        (
            recipe,
            printed.lines().map(str::to_owned).collect::<Vec<_>>(),
        )
    };
    let (_, dense) = capture("f16");
    let (recipe, direct) = capture("u8");
    let out = bench.folder.join("run");
    let args = ["student", &recipe, "--out", out.to_str().unwrap()];
    let train = || bench.run(&[&args[..], &SHORT[..]].concat());
    let is_refused = || {
        let refused = train();
        let said = refused.stderr;
        assert_eq!(refused.code, 1, "{said}");
        assert!(said.contains("holds another run"), "{said}");
        said
    };
    train().ok();
    let train_cache = Path::new(&direct[1]);
    let kept = with_other_rows(train_cache);
    is_refused();
    fs::remove_dir_all(train_cache).unwrap();
    fs::rename(kept, train_cache).unwrap();
    let again = train().ok();
    assert!(again.stderr.contains("(u8)"), "{}", again.stderr);

    for from in &dense {
        bench
            .run(&["cache", "transcode", from, "--encoding", "u8"])
            .ok();
    }
    // The direct capture is found first, whatever lies beside it.
    assert!(train().ok().stderr.contains("(u8)"));
    for path in &direct {
        fs::remove_dir_all(path).unwrap();
    }
    let said = is_refused();
    assert!(said.contains("(u8, transcoded from f16)"), "{said}");

    // A capture finds it too, and does not put the teacher's own rows among its.
    let hit = bench.run(&["teacher-logits", &recipe]).ok().stderr;
    assert!(hit.contains("(u8, transcoded from f16)"), "{hit}");
    let more = bench.run(&["teacher-logits", &recipe, "--set", "views.count=3"]);
    assert_eq!(more.code, 1, "{}", more.stderr);
    for words in ["was transcoded from `f16`", "teacher.0.encoding=f16"] {
        assert!(more.stderr.contains(words), "{}", more.stderr);
    }
}

/// Puts a cache in this one's place with the same key, and logits that are larger by a half; returns where it went.
fn with_other_rows(path: &Path) -> PathBuf {
    let kept = path.with_extension("kept");
    let kept = path
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join(kept.file_name().unwrap());
    fs::rename(path, &kept).unwrap();
    let cache = LogitCache::open(&kept, OpenOptions::default()).unwrap();
    let writer = LogitWriter::open(path.parent().unwrap(), cache.manifest()).unwrap();
    assert_eq!(writer.path(), path);
    for &view in cache.views() {
        for chunk in writer.missing_chunks(view).unwrap() {
            let samples = writer.chunk_range(chunk).unwrap();
            let wanted: Vec<(u32, u32)> = samples.map(|sample| (sample, view)).collect();
            let mut logits = vec![0.0; wanted.len() * cache.n_classes()];
            let mut labels = vec![0; wanted.len()];
            cache.rows(&wanted, &mut logits, &mut labels).unwrap();
            logits.iter_mut().for_each(|z| *z += 0.5);
            let rows = ChunkRows {
                labels: &labels,
                logits: &logits,
                ..ChunkRows::default()
            };
            writer.write_chunk(view, chunk, &rows).unwrap();
        }
        writer.finish_view(view).unwrap();
    }
    kept
}

#[test]
fn top_k_serves_kd_at_the_temperatures_it_keeps_and_says_so() {
    let bench = Bench::new("top-k");
    let recipe = bench.recipe(|text| {
        let text = text.replace("count = 9", "count = 2");
        text.replace("encoding = \"f16\"", "encoding = \"top3\"")
    });
    let printed = bench.run(&["teacher-logits", &recipe]).ok().stdout;
    // The evaluation split keeps every class, for accuracy and agreement.
    let encodings: Vec<Value> = printed
        .lines()
        .map(|path| json(&bench.run(&["cache", "show", path, "--json"]).ok().stdout))
        .map(|shown| shown["encoding"].clone())
        .collect();
    assert_eq!(encodings, ["f16", "top3"]);
    let (record, said) = trained(&bench, &recipe, "served", &[]);
    let notes = record["recorded"]["notes"].as_str().unwrap();
    assert!(
        notes.contains("`kd`") && notes.contains("one bucket for the rest"),
        "{notes}"
    );
    assert!(said.contains(notes), "{said}");
    assert!(
        record["last"]["eval"]["agreement"].as_f64().is_some(),
        "{record}"
    );
    let out = bench.folder.join("refused");
    for (set, needs) in [
        ("loss.1.temperature=3", "at temperature 3"),
        ("loss.1.name=dkd", "every class"),
    ] {
        let run = bench.run(&[
            "student",
            &recipe,
            "--out",
            out.to_str().unwrap(),
            "--set",
            set,
        ]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains(needs), "{}", run.stderr);
    }
    // And it leaves as Parquet with what its rows hold.
    let top_k = printed.lines().last().unwrap();
    let folder = bench.folder.join("exported");
    let args = ["cache", "export", top_k, "--out", folder.to_str().unwrap()];
    bench.run(&args).ok();
    assert!(
        fs::read_to_string(folder.join("README.md"))
            .unwrap()
            .contains("`rest`")
    );
}

#[test]
fn an_export_is_a_folder_with_a_card() {
    let (bench, _, [eval, _]) = captured("export");
    let folder = bench.folder.join("exported");
    let args = ["cache", "export", &eval, "--out", folder.to_str().unwrap()];
    assert_eq!(
        bench.run(&args).ok().stdout.trim(),
        folder.to_str().unwrap()
    );
    let card = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(
        card.starts_with("---\n") && card.contains("Cache id"),
        "{card}"
    );
    let data = fs::read_dir(folder.join("data")).unwrap().count();
    assert!(data > 0);
}

#[test]
fn statistics_leave_as_parquet_and_a_picture() {
    let (bench, _, [eval, _]) = captured("stats-out");
    let folder = bench.folder.join("stats");
    let args = ["cache", "stats", &eval, "--out", folder.to_str().unwrap()];
    bench.run(&args).ok();
    let picture = fs::read_to_string(folder.join("stats.svg")).unwrap();
    assert!(
        picture.contains("accuracy by confidence"),
        "no reliability plot"
    );
    let file = fs::File::open(folder.join("samples.parquet")).unwrap();
    let rows = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
    let batches = rows.unwrap().build().unwrap();
    let (mut n_rows, mut n_contradicting) = (0, 0);
    for batch in batches {
        let batch = batch.unwrap();
        n_rows += batch.num_rows();
        let contradicts = batch.column_by_name("contradicts").unwrap();
        n_contradicting += arrow::array::AsArray::as_boolean(contradicts).true_count();
    }
    assert_eq!((n_rows, n_contradicting), (596, 5));
}

#[test]
fn a_plan_tells_bytes_and_the_teacher_s_time() {
    let (bench, recipe, [_, train]) = captured("plan");
    let planned = bench.run(&["cache", "plan", &recipe, "--json"]).ok().stdout;
    let lines: Vec<Value> = planned.lines().map(json).collect();
    assert_eq!(lines.len(), 3, "two splits and a teacher: {planned}");
    let encodings = lines[1]["encodings"].as_array().unwrap();
    let f16 = encodings
        .iter()
        .find(|row| row["encoding"] == "f16")
        .unwrap();
    let shown = json(&bench.run(&["cache", "show", &train, "--json"]).ok().stdout);
    let (planned, found) = (
        f16["bytes"].as_f64().unwrap(),
        shown["bytes"].as_f64().unwrap(),
    );
    // Frames and manifests come on top; a cache this small has many of them for its rows.
    assert!(
        found > planned && found < 2.0 * planned,
        "{planned} planned, {found} taken"
    );
    assert_eq!(lines[2]["images"], 596 + 2 * 1201);
    assert!(lines[2]["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_listing_names_teacher_dataset_and_encoding() {
    let (bench, _, _) = captured("ls");
    let told = bench.run(&["cache", "ls"]).ok().stdout;
    assert!(
        told.contains("parquet, train split") && told.contains("f16"),
        "{told}"
    );
}
