//! Photos as people have them, through the real binary: differing sizes, some damaged, in folders, in Parquet and in tar
//! shards. Captured, trained on, evaluated, probed, swept.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;
#[path = "../crates/teacher/tests/common/mod.rs"]
mod common;
mod stand_in;

use std::fs;
use std::path::Path;

use bench::Bench;
use stand_in::{Layout, Photos};

/// The recipe of a student of ten classes on 32 x 32 views of `root`.
fn recipe(bench: &Bench, format: &str, root: &Path, more: &str) -> String {
    let teacher = bench.folder.join("teacher.onnx");
    fs::write(&teacher, stand_in::teacher(3, 10)).unwrap();
    let text = format!(
        r#"
[data]
format = "{format}"
root = {root:?}
eval = "val"
{more}
[views]
count = 2
augment = [{{ name = "random_resized_crop", size = 32 }}, {{ name = "horizontal_flip" }}]
clean = [{{ name = "resize", size = 32 }}, {{ name = "center_crop", size = 32 }}]
[[teacher]]
onnx = {teacher:?}
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[student]
name = "resnet8"
[[loss]]
name = "kd"
[train]
epochs = 1
batch_size = 16
optimizer = {{ name = "sgd", lr = 0.05 }}
"#
    );
    let path = bench.folder.join(format!("{format}.toml"));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Sizes are what views make of images, wherever a size is asked for.
#[test]
fn photos_of_differing_sizes_go_all_the_way() {
    let bench = Bench::new("photos");
    for (format, layout) in [
        ("image_folder", Layout::Folder),
        ("parquet", Layout::Parquet),
        ("webdataset", Layout::Tar),
    ] {
        for stored in ["", "store_pixels = true"] {
            let root = bench.folder.join(format);
            let photos = Photos::new(10, 3);
            photos.write(&root, layout, "train");
            photos.write(&root, layout, "val");
            let recipe = recipe(&bench, format, &root, stored);
            bench.run(&["teacher-logits", &recipe]).ok();
            let out = bench.folder.join(format!("run-{format}-{}", stored.len()));
            let out = out.to_str().unwrap();
            bench.run(&["student", &recipe, "--out", out]).ok();
            bench.run(&["evaluate", out]).ok();
        }
    }
}

#[test]
fn a_probe_and_a_sweep_see_the_size_of_the_views() {
    let bench = Bench::new("photos_probe");
    let root = bench.folder.join("images");
    let photos = Photos::new(10, 2);
    photos.write(&root, Layout::Folder, "train");
    photos.write(&root, Layout::Folder, "val");
    let recipe = recipe(&bench, "image_folder", &root, "");
    bench.run(&["teacher-logits", &recipe]).ok();
    let out = bench.folder.join("run");
    let out = out.to_str().unwrap();
    bench.run(&["student", &recipe, "--out", out]).ok();

    let text = fs::read_to_string(&recipe).unwrap();
    let (before, rest) = text.split_once("count = 2\n").unwrap();
    let clean = rest.lines().find(|line| line.starts_with("clean")).unwrap();
    let train = &rest[rest.find("[train]").unwrap()..];
    let probe = bench.folder.join("probe.toml");
    fs::write(&probe, format!("{before}{clean}\n{train}")).unwrap();
    bench
        .run_plain(&["probe", out, "--dataset", probe.to_str().unwrap()])
        .ok();

    let sweep = bench.folder.join("sweep.toml");
    fs::write(&sweep, format!("{text}\n[sweep]\nseed = [1, 2]\n")).unwrap();
    let runs = bench.folder.join("runs");
    bench
        .run(&[
            "sweep",
            sweep.to_str().unwrap(),
            "--out",
            runs.to_str().unwrap(),
        ])
        .ok();
}

/// Before anything is paid: the views are named, and two images that differ in them.
#[test]
fn views_that_leave_sizes_different_are_refused_before_the_capture() {
    let bench = Bench::new("photos_sizes");
    let root = bench.folder.join("images");
    let photos = Photos::new(10, 2);
    photos.write(&root, Layout::Folder, "train");
    photos.write(&root, Layout::Folder, "val");
    let recipe = recipe(&bench, "image_folder", &root, "");
    let refused = |set: &str, told: &[&str]| {
        let run = bench.run(&["teacher-logits", &recipe, "--set", set]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        for told in told {
            assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
        }
        assert_eq!(
            bench.run(&["cache", "ls", "--json"]).ok().stdout,
            "",
            "nothing was captured"
        );
    };
    refused(
        "views.clean=[]",
        &[
            "`views.clean` leaves images of different sizes",
            "hint: bring every image to one size",
        ],
    );
    refused(
        "views.augment=[{ name = \"resize\", size = 32 }, { name = \"horizontal_flip\" }]",
        &[
            "`views.augment` leaves images of different sizes",
            "center_crop",
        ],
    );
    refused(
        "views.clean=[{ name = \"resize\", size = 40 }, { name = \"center_crop\", size = 40 }]",
        &[
            "`views.clean` shows the student 40 x 40",
            "`views.augment` 32 x 32",
        ],
    );
}

/// Half of all captures were refused at 1 % of damaged images, because a probe met one.
#[test]
fn damaged_photos_are_skipped_and_named() {
    let bench = Bench::new("photos_damaged");
    let root = bench.folder.join("images");
    let photos = Photos::new(10, 6);
    photos.write(&root, Layout::Folder, "train");
    photos.write(&root, Layout::Folder, "val");
    let photo = include_bytes!("../crates/dataset/tests/fixtures/photo.jpg");
    for (class, name) in [("03", "b.jpg"), ("07", "c.jpg")] {
        let damaged = [&photo[..photo.len() - 40], &[0xFF, 0xD9]].concat();
        let folder = root.join("train").join(format!("class{class}"));
        fs::write(folder.join(name), damaged).unwrap();
    }
    let recipe = recipe(&bench, "image_folder", &root, "on_bad = \"skip\"");
    let captured = bench.run(&["teacher-logits", &recipe]).ok();
    for told in [
        "2 of the 62 samples of split `train`",
        "class03/b.jpg",
        "class07/c.jpg",
    ] {
        assert!(
            captured.stderr.contains(told),
            "{told}: {}",
            captured.stderr
        );
    }
    let out = bench.folder.join("run");
    bench
        .run(&["student", &recipe, "--out", out.to_str().unwrap()])
        .ok();
    let refused = bench.run(&["student", &recipe, "--set", "data.on_bad=error"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("2 of 62 samples are bad"),
        "{}",
        refused.stderr
    );
}

/// `dataset verify` sees an edit that times do not tell, and so does `student --verify-data`, by the cache's key.
#[test]
fn edited_images_are_noticed_where_it_is_asked() {
    let bench = Bench::new("photos_edited");
    let root = bench.folder.join("records");
    fs::create_dir_all(&root).unwrap();
    let mut records = vec![0u8; 40 * 3073];
    for (index, record) in records.chunks_exact_mut(3073).enumerate() {
        record.fill(index as u8);
        record[0] = (index % 10) as u8;
    }
    fs::write(root.join("data_batch_1.bin"), &records).unwrap();
    fs::write(root.join("val.bin"), &records).unwrap();
    let recipe = recipe(&bench, "cifar10", &root, "");
    bench.run(&["teacher-logits", &recipe]).ok();
    let verified = bench.run(&["dataset", "verify", &recipe]).ok();
    assert!(
        verified
            .stdout
            .contains("train split: 40 images, as remembered")
    );

    let path = root.join("data_batch_1.bin");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    records[5000] ^= 0xFF;
    fs::write(&path, &records).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    let out = bench.folder.join("run");
    let refused = bench.run(&[
        "student",
        &recipe,
        "--verify-data",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("images is"), "{}", refused.stderr);

    records[5000] ^= 0x0F;
    fs::write(&path, &records).unwrap();
    file.set_modified(time).unwrap();
    let verified = bench.run(&["dataset", "verify", &recipe]);
    assert_eq!(verified.code, 1);
    assert!(
        verified
            .stderr
            .contains("images of the train split are not those")
    );
}
