//! Captures: the same bytes however the work was cut, and nothing half-done that is later believed.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Dim, FLOAT, Graph, N_CLASSES, classifier, expected, images, load, plain_tail};
use logitcask_cache::{Encoding, LogitCache, LogitWriter, Manifest, OpenOptions};
use logitcask_dataset::{Preprocess, ViewFamily};
use logitcask_teacher::{
    CaptureReport, Event, Job, Part, Pixels, TeacherError, cache_key, capture, prepare,
};

const N_SAMPLES: u32 = 1000;
const VIEWS: [u32; 3] = [0, 1, 2];

/// How one capture is cut.
struct Cut<'a> {
    sessions: usize,
    decoders: usize,
    views_per_pass: usize,
    part: Part,
    /// Called with each event; may set the flag that stops.
    on_event: &'a dyn Fn(&Event, &AtomicBool),
}

impl Default for Cut<'_> {
    fn default() -> Self {
        Cut {
            sessions: 2,
            decoders: 2,
            views_per_pass: 1,
            part: Part::WHOLE,
            on_event: &|_, _| {},
        }
    }
}

/// Captures three views of a thousand images with `model` into a cache under `root`.
fn run(root: &Path, model: &[u8], cut: &Cut<'_>) -> Result<CaptureReport, TeacherError> {
    run_with(root, model, "", cut)
}

/// The same with `more` in the teacher's section of the recipe.
fn run_with(
    root: &Path,
    model: &[u8],
    more: &str,
    cut: &Cut<'_>,
) -> Result<CaptureReport, TeacherError> {
    let path = common::write_model(root, model);
    let mut teacher = load(&path, more, cut.sessions)?;
    let dataset = images(N_SAMPLES);
    let flip = [logitcask_dataset::AugmentSpec::new("random_crop")
        .with("size", 8)
        .with("padding", 1)];
    let family = ViewFamily::new(&flip, 1, dataset.uniform_size())?;
    let preprocess = Preprocess::new(&teacher.spec().preprocess)?;
    let pixels = Pixels {
        dataset: &dataset,
        family: &family,
        preprocess: &preprocess,
    };
    let images = prepare(&mut teacher, pixels)?;
    let key = cache_key(
        teacher.spec(),
        teacher.file(),
        &dataset.fingerprint(&|_, _| {})?,
        &family,
    )?;
    let mut manifest = Manifest::new("teacher", key, Encoding::F32, N_SAMPLES, N_CLASSES)
        .with_features(teacher.feature_len());
    manifest.chunk_rows = 128;
    let writer = LogitWriter::open_part(&root.join("cache"), &manifest, |n_chunks| {
        cut.part.range(n_chunks)
    })?;
    let stop = AtomicBool::new(false);
    let job = Job {
        pixels,
        views: &VIEWS,
        batch_size: 48,
        decoders: cut.decoders,
        views_per_pass: cut.views_per_pass,
        images,
    };
    capture(&mut teacher, &job, &writer, &stop, &|event| {
        (cut.on_event)(&event, &stop)
    })
}

fn cache_path(root: &Path) -> std::path::PathBuf {
    let folders: Vec<_> = std::fs::read_dir(root.join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(folders.len(), 1);
    folders[0].clone()
}

/// Every chunk file's bytes, by view and name.
fn chunks(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for view in std::fs::read_dir(cache_path(root))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        for file in std::fs::read_dir(&view)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if file.extension().is_some_and(|ending| ending == "arrow") {
                let name = file
                    .strip_prefix(cache_path(root))
                    .unwrap()
                    .display()
                    .to_string();
                found.insert(name, std::fs::read(&file).unwrap());
            }
        }
    }
    found
}

fn plain() -> Vec<u8> {
    classifier(Dim::Any("batch"), plain_tail)
}

#[test]
fn the_cache_holds_the_teachers_answers_to_each_view() {
    let root = tempfile::tempdir().unwrap();
    let finished = Cell::new(0);
    let count = |event: &Event, _: &AtomicBool| {
        if matches!(event, Event::ViewFinished { .. }) {
            finished.set(finished.get() + 1);
        }
    };
    let report = run(
        root.path(),
        &plain(),
        &Cut {
            on_event: &count,
            ..Cut::default()
        },
    )
    .unwrap();
    assert_eq!(
        (report.images, report.finished_views.len(), finished.get()),
        (3000, 3, 3)
    );
    assert!(!report.stopped && report.bad_samples.is_empty() && report.correct.1 == 3000);

    let cache = LogitCache::open(&cache_path(root.path()), OpenOptions::default()).unwrap();
    assert_eq!(cache.views(), VIEWS);
    let dataset = images(N_SAMPLES);
    let augment = [logitcask_dataset::AugmentSpec::new("random_crop")
        .with("size", 8)
        .with("padding", 1)];
    let family = ViewFamily::new(&augment, 1, dataset.uniform_size()).unwrap();
    let preprocess = Preprocess::new(&common::spec(Path::new("x"), "").preprocess).unwrap();
    let wanted: Vec<(u32, u32)> = (0..64).map(|i| ((i * 389) % N_SAMPLES, i % 3)).collect();
    let mut batch = logitcask_dataset::PixelBatch::new(logitcask_dataset::PixelLayout::Nchw);
    logitcask_dataset::render(&dataset, &family, &preprocess, &wanted, &mut batch).unwrap();
    let (mut rows, mut labels) = (vec![0.0; wanted.len() * N_CLASSES], vec![0; wanted.len()]);
    cache.rows(&wanted, &mut rows, &mut labels).unwrap();
    common::assert_close(&rows, &expected(&batch), 1e-4);
    for ((sample, _), label) in wanted.iter().zip(labels) {
        assert_eq!(label, dataset.labels()[*sample as usize]);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(
        one.path(),
        &plain(),
        &Cut {
            sessions: 1,
            decoders: 1,
            ..Cut::default()
        },
    )
    .unwrap();
    run(
        many.path(),
        &plain(),
        &Cut {
            sessions: 5,
            decoders: 3,
            views_per_pass: 2,
            ..Cut::default()
        },
    )
    .unwrap();
    let chunks_of_one = chunks(one.path());
    assert_eq!(chunks_of_one.len(), 3 * 8);
    assert!(chunks_of_one == chunks(many.path()));
}

#[test]
fn a_stopped_capture_goes_on_to_the_same_bytes() {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), &plain(), &Cut::default()).unwrap();
    let halt = |event: &Event, stop: &AtomicBool| {
        // At the very start: on a busy machine everything may be answered before a later event is handed over.
        if matches!(event, Event::Started(_)) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let report = run(
        stopped.path(),
        &plain(),
        &Cut {
            on_event: &halt,
            ..Cut::default()
        },
    )
    .unwrap();
    assert!(report.stopped && report.images < 3000, "{report:?}");
    assert!(
        LogitCache::open(&cache_path(stopped.path()), OpenOptions::default())
            .unwrap()
            .views()
            .len()
            < 3
    );
    let again = run(stopped.path(), &plain(), &Cut::default()).unwrap();
    assert_eq!(report.images + again.images, 3000);
    assert!(chunks(whole.path()) == chunks(stopped.path()));
    let nothing = run(stopped.path(), &plain(), &Cut::default()).unwrap();
    assert_eq!(nothing.images, 0);
}

#[test]
fn parts_in_any_order_make_the_whole() {
    let (whole, divided) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), &plain(), &Cut::default()).unwrap();
    let mut finished = Vec::new();
    for part in ["2/3", "3/3", "1/3"] {
        let part: Part = part.parse().unwrap();
        finished.push(
            run(
                divided.path(),
                &plain(),
                &Cut {
                    part,
                    ..Cut::default()
                },
            )
            .unwrap()
            .finished_views
            .len(),
        );
    }
    assert_eq!(finished, [0, 0, 3], "whoever completes a view says so");
    assert!(chunks(whole.path()) == chunks(divided.path()));
}

/// The teacher, but the image whose first logit is the lowest is answered with NaN.
fn with_one_nan(threshold: f32) -> Vec<u8> {
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
fn a_nan_stops_the_capture_and_names_its_sample() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), &plain(), &Cut::default()).unwrap();
    let cache = LogitCache::open(&cache_path(root.path()), OpenOptions::default()).unwrap();
    let wanted: Vec<(u32, u32)> = VIEWS
        .iter()
        .flat_map(|view| (0..N_SAMPLES).map(move |sample| (sample, *view)))
        .collect();
    let (mut rows, mut labels) = (vec![0.0; wanted.len() * N_CLASSES], vec![0; wanted.len()]);
    cache.rows(&wanted, &mut rows, &mut labels).unwrap();
    let mut first: Vec<(f32, (u32, u32))> = rows
        .chunks_exact(N_CLASSES)
        .map(|row| row[0])
        .zip(wanted)
        .collect();
    first.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (lowest, next) = (first[0], first[1]);

    let poisoned = tempfile::tempdir().unwrap();
    let error = run(
        poisoned.path(),
        &with_one_nan((lowest.0 + next.0) / 2.0),
        &Cut::default(),
    )
    .unwrap_err();
    let TeacherError::NotFinite { sample, view, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((sample, view), lowest.1);
    let views = LogitCache::open(&cache_path(poisoned.path()), OpenOptions::default())
        .unwrap()
        .views()
        .to_vec();
    assert!(!views.contains(&view), "the view of the NaN must not exist");
}

#[test]
fn features_are_stored_beside_their_logits() {
    let model = classifier(Dim::Any("batch"), |graph: Graph| {
        let dims = [Dim::Any("batch"), Dim::Is(3)];
        plain_tail(graph).output("flat", FLOAT, &dims)
    });
    let root = tempfile::tempdir().unwrap();
    run_with(
        root.path(),
        &model,
        "output = \"logits\"\nfeatures = \"flat\"",
        &Cut::default(),
    )
    .unwrap();
    let cache = LogitCache::open(&cache_path(root.path()), OpenOptions::default()).unwrap();
    assert_eq!(cache.manifest().feature_len, 3);
    let wanted: Vec<(u32, u32)> = (0..64).map(|i| ((i * 389) % N_SAMPLES, i % 3)).collect();
    let (mut rows, mut labels) = (vec![0.0; wanted.len() * N_CLASSES], vec![0; wanted.len()]);
    let mut features = vec![0.0; wanted.len() * 3];
    cache.rows(&wanted, &mut rows, &mut labels).unwrap();
    cache.features(&wanted, &mut features).unwrap();
    // The logits are a known function of these features.
    let (w, b) = common::weights();
    for (row, features) in rows.chunks_exact(N_CLASSES).zip(features.chunks_exact(3)) {
        for (class, logit) in row.iter().enumerate() {
            let sum: f32 = (0..3).map(|i| features[i] * w[i * N_CLASSES + class]).sum();
            assert!(
                (logit - b[class] - sum).abs() < 1e-4,
                "{logit} {features:?}"
            );
        }
    }
}
