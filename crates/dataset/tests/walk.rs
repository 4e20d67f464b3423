//! Behaviour that the rest of the house leans on: the same index gives the same bytes, families count as they should,
//! loaders keep the order, and what is wrong says so.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logitcask_dataset::*;

fn digits(role_eval: bool) -> DataSpec {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/digits");
    let mut spec = DataSpec::new("parquet", root);
    if role_eval {
        spec.eval = Some("test".into());
    }
    spec
}

fn synthetic(n_train: u32) -> DataSpec {
    let mut spec = DataSpec::new("synthetic", "");
    spec.synthetic = Some(SyntheticSpec {
        n_train,
        ..SyntheticSpec::default()
    });
    spec.n_classes = Some(7);
    spec
}

fn crop_and_flip() -> Vec<AugmentSpec> {
    vec![
        AugmentSpec::new("random_crop")
            .with("size", 32)
            .with("padding", 4),
        AugmentSpec::new("horizontal_flip"),
    ]
}

/// Writes CIFAR records: pixel j of record i is i + j * 7 in every plane's own phase.
fn write_cifar(path: &Path, label_bytes: usize, n: usize) {
    let mut bytes = Vec::new();
    for i in 0..n {
        bytes.extend(std::iter::repeat_n((i % 10) as u8, label_bytes));
        bytes.extend((0..3072).map(|j| (i * 31 + j * 7 + j / 1024) as u8));
    }
    fs::write(path, bytes).unwrap();
}

fn cifar_folder() -> (tempfile::TempDir, DataSpec) {
    let folder = tempfile::tempdir().unwrap();
    write_cifar(&folder.path().join("data_batch_1.bin"), 1, 30);
    write_cifar(&folder.path().join("data_batch_2.bin"), 1, 20);
    write_cifar(&folder.path().join("test_batch_first1000.bin"), 1, 10);
    let mut spec = DataSpec::new("cifar10", folder.path());
    spec.eval = Some("test".into());
    (folder, spec)
}

#[test]
fn cifar_reads_labels_and_pixels_across_files() {
    let (_folder, spec) = cifar_folder();
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    assert_eq!(dataset.len(), 50);
    assert_eq!(
        (
            dataset.labels()[29],
            dataset.labels()[30],
            dataset.labels()[41]
        ),
        (9, 0, 1)
    );
    assert_eq!(dataset.class_names()[3], "cat");
    let mut image = Image::new();
    dataset.decode(41, &mut image).unwrap(); // record 11 of the second file
    let expected = |y: usize, x: usize, c: usize| {
        let j = c * 1024 + y * 32 + x;
        (11 * 31 + j * 7 + j / 1024) as u8
    };
    assert_eq!(image.pixels()[(5 * 32 + 6) * 3 + 2], expected(5, 6, 2));
    assert_eq!(image.pixels()[0], expected(0, 0, 0));
    assert_eq!(Dataset::open(&spec, Role::Eval).unwrap().len(), 10);
}

#[test]
fn cifar_100_takes_the_fine_label() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = vec![1u8, 77];
    record.extend([0; 3072]);
    fs::write(folder.path().join("train.bin"), &record).unwrap();
    let dataset = Dataset::open(&DataSpec::new("cifar100", folder.path()), Role::Train).unwrap();
    assert_eq!((dataset.labels(), dataset.n_classes()), (&[77][..], 100));
}

#[test]
fn parquet_carries_names_labels_and_grey_images() {
    let dataset = Dataset::open(&digits(true), Role::Eval).unwrap();
    assert_eq!(dataset.n_classes(), 10);
    assert_eq!(dataset.class_names()[9], "9");
    dataset.fingerprint(&|_, _| {}).unwrap();
    let size = ImageSize {
        height: 8,
        width: 8,
        channels: 1,
    };
    assert_eq!(dataset.uniform_size(), Some(size));
    let mut image = Image::new();
    dataset
        .decode(dataset.len() as u32 - 1, &mut image)
        .unwrap();
    assert_eq!(image.size(), size);
}

#[test]
fn the_fingerprint_is_path_free_and_sensitive() {
    let (folder, spec) = cifar_folder();
    let fingerprint = |spec: &DataSpec| {
        Dataset::open(spec, Role::Train)
            .unwrap()
            .fingerprint(&|_, _| {})
            .unwrap()
    };
    let first = fingerprint(&spec);
    assert_eq!(first, fingerprint(&spec), "remembered");
    assert!(folder.path().join(".logitcask").is_dir());

    let (other, other_spec) = cifar_folder();
    assert_eq!(first, fingerprint(&other_spec), "another folder");

    // The same records in one file.
    let mut whole = fs::read(other.path().join("data_batch_1.bin")).unwrap();
    whole.extend(fs::read(other.path().join("data_batch_2.bin")).unwrap());
    fs::remove_file(other.path().join("data_batch_2.bin")).unwrap();
    fs::write(other.path().join("data_batch_1.bin"), &whole).unwrap();
    assert_eq!(
        first,
        fingerprint(&other_spec),
        "another division into files"
    );

    whole[3073 * 7] ^= 1; // a label
    fs::write(other.path().join("data_batch_1.bin"), &whole).unwrap();
    let relabelled = fingerprint(&other_spec);
    assert_eq!(first.images, relabelled.images);
    assert_ne!(first.labels, relabelled.labels);

    whole[3073 * 9 + 100] ^= 1; // a pixel
    fs::write(other.path().join("data_batch_1.bin"), &whole).unwrap();
    assert_ne!(first.images, fingerprint(&other_spec).images);
}

#[test]
fn a_finite_family_is_walked_through_without_repeats() {
    let size = ImageSize {
        height: 32,
        width: 32,
        channels: 3,
    };
    let family = ViewFamily::new(&crop_and_flip(), 1, Some(size)).unwrap();
    assert_eq!(family.n_views(), Some(162));
    for sample in [0, 41] {
        let views: Vec<View> = (0..162)
            .map(|v| family.draw(sample, v, size, 50).unwrap())
            .collect();
        for (i, a) in views.iter().enumerate() {
            assert!(
                views[..i].iter().all(|b| a != b),
                "view {i} repeats an earlier one"
            );
        }
    }
    assert_ne!(
        family.draw(0, 0, size, 50).unwrap(),
        family.draw(1, 0, size, 50).unwrap()
    );
    assert_eq!(family.resolve_count(&Count::All).unwrap(), 162);
    let error = family.resolve_count(&Count::Number(163)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`views.count` is 163, but this family of views has only 162"
    );
}

#[test]
fn a_family_without_one_size_has_no_end() {
    let family = ViewFamily::new(&crop_and_flip(), 1, None).unwrap();
    assert_eq!(family.n_views(), None);
    assert!(matches!(
        family.resolve_count(&Count::All),
        Err(DatasetError::EndlessFamily)
    ));
    assert_eq!(family.resolve_count(&Count::Number(500)).unwrap(), 500);
}

#[test]
fn identities_name_every_parameter() {
    let family = ViewFamily::new(&crop_and_flip(), 3, None).unwrap();
    assert_eq!(
        family.identity(),
        r#"random_crop{"size":32,"padding":4,"fill":0} horizontal_flip{"p":0.5} seed=3 draw=1"#
    );
    assert_eq!(ViewFamily::clean().identity(), "clean");
    let preprocess = PreprocessSpec::new([0.5], [0.25]);
    assert_eq!(preprocess.identity(), "rgb; x/255; mean 0.5; std 0.25");
}

#[test]
fn cycling_shows_every_view_once_a_round() {
    for round in 0..3 {
        let mut shown: Vec<u32> = (0..16)
            .map(|j| epoch_view(1, 5, round * 16 + j, 16, Draw::Cycle))
            .collect();
        shown.sort_unstable();
        assert_eq!(shown, (0..16).collect::<Vec<_>>());
    }
    let uniform: Vec<u32> = (0..100)
        .map(|e| epoch_view(1, 5, e, 4, Draw::Uniform))
        .collect();
    assert!((0..4).all(|view| uniform.contains(&view)));
}

/// The arithmetic that torchvision does, one value at a time.
#[test]
fn a_rendered_view_is_padded_cropped_flipped_and_normalised() {
    let (_folder, spec) = cifar_folder();
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    let size = dataset.uniform_size().unwrap();
    let family = ViewFamily::new(&crop_and_flip(), 9, Some(size)).unwrap();
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let preprocess = Preprocess::new(&PreprocessSpec::new(mean, std)).unwrap();
    let mut image = Image::new();
    for layout in [PixelLayout::Nchw, PixelLayout::Nhwc] {
        let mut batch = PixelBatch::new(layout);
        let requests: Vec<(u32, u32)> = (0..40).map(|i| (i % 10, i * 3)).collect();
        render(&dataset, &family, &preprocess, &requests, &mut batch).unwrap();
        for (row, &(sample, view)) in requests.iter().enumerate() {
            dataset.decode(sample, &mut image).unwrap();
            let view = family.draw(sample, view, size, 50).unwrap();
            let Step::Crop { top, left, .. } = view.steps[0] else {
                panic!("no crop")
            };
            let flipped = view.steps.len() == 2;
            for (c, y, x) in [(0, 0, 0), (1, 31, 0), (2, 13, 20), (0, 0, 31), (1, 31, 31)] {
                let from_x = if flipped { 31 - x } else { x };
                let (sy, sx) = (y as i32 + top as i32 - 4, from_x as i32 + left as i32 - 4);
                let inside = (0..32).contains(&sy) && (0..32).contains(&sx);
                let byte = if inside {
                    image.pixels()[(sy as usize * 32 + sx as usize) * 3 + c]
                } else {
                    0
                };
                let expected = (f32::from(byte) / 255.0 - mean[c]) / std[c];
                let at = match layout {
                    PixelLayout::Nchw => ((row * 3 + c) * 32 + y) * 32 + x,
                    PixelLayout::Nhwc => ((row * 32 + y) * 32 + x) * 3 + c,
                };
                assert_eq!(
                    batch.pixels[at], expected,
                    "row {row} channel {c} at {y}, {x}"
                );
            }
        }
    }
}

#[test]
fn loaders_keep_the_order_at_any_thread_count() {
    let dataset = Arc::new(Dataset::open(&synthetic(100), Role::Train).unwrap());
    let family = Arc::new(ViewFamily::new(&crop_and_flip(), 1, dataset.uniform_size()).unwrap());
    let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
    let batches: Vec<Vec<(u32, u32)>> = (0..25)
        .map(|b| (0..5).map(|i| ((b * 37 + i * 3) % 100, b)).collect())
        .collect();
    let run = |threads, ahead| {
        let mut loader = Loader::new(
            Arc::clone(&dataset),
            Arc::clone(&family),
            preprocess.clone(),
            PixelLayout::Nhwc,
            batches.clone().into_iter(),
            threads,
            ahead,
        );
        let mut all = Vec::new();
        while let Some(batch) = loader.next() {
            let batch = batch.unwrap();
            all.push((batch.requests.clone(), batch.pixels.clone()));
            loader.recycle(batch);
        }
        all
    };
    let one = run(1, 0);
    assert_eq!(
        one.iter()
            .map(|(requests, _)| requests.clone())
            .collect::<Vec<_>>(),
        batches
    );
    assert!(one == run(2, 3) && one == run(5, 1));
}

#[test]
fn a_loader_may_be_left_early() {
    let dataset = Arc::new(Dataset::open(&synthetic(10), Role::Train).unwrap());
    let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
    let endless = std::iter::repeat(vec![(0, 0)]);
    let mut loader = Loader::new(
        dataset,
        Arc::new(ViewFamily::clean()),
        preprocess,
        PixelLayout::Nchw,
        endless,
        2,
        4,
    );
    assert!(loader.next().unwrap().is_ok());
}

#[test]
fn pixel_digests_follow_the_pixels() {
    let dataset = Dataset::open(&synthetic(10), Role::Train).unwrap();
    let size = dataset.uniform_size();
    let digests = |seed| {
        let family = ViewFamily::new(&crop_and_flip(), seed, size).unwrap();
        pixel_digests(&dataset, &family, &[(0, 0), (3, 1), (0, 0)]).unwrap()
    };
    let first = digests(1);
    assert_eq!(first[0], first[2]);
    assert_eq!(first, digests(1));
    assert_ne!(first, digests(2));
}

#[test]
fn selections_apply_to_training_only() {
    let (folder, mut spec) = cifar_folder();
    let list = folder.path().join("subset.txt");
    fs::write(&list, "# good ones\n3\n49 # the last\n7\n\n20\n").unwrap();
    spec.subset = Some(Selection::File(list));
    spec.exclude = Some(Selection::Indices(vec![7]));
    spec.limit = Some(2);
    assert_eq!(
        Dataset::open(&spec, Role::Train).unwrap().selected(),
        [3, 20]
    );
    assert_eq!(
        Dataset::open(&spec, Role::Eval).unwrap().selected().len(),
        10
    );
}

fn check(spec: &DataSpec, role: Role, expected: &str, hint: &str) {
    let error = Dataset::open(spec, role).expect_err(expected);
    let (text, found) = (error.to_string(), error.hint().unwrap_or_default());
    assert!(text.contains(expected), "{text}");
    assert!(found.contains(hint), "{found}");
}

#[test]
fn what_is_wrong_says_so() {
    let (folder, good) = cifar_folder();
    let with = |change: &dyn Fn(&mut DataSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec
    };
    check(
        &with(&|s| s.format = "cifar01".into()),
        Role::Train,
        "`cifar01` is not a dataset format",
        "did you mean `cifar10`?",
    );
    check(
        &with(&|s| s.root = PathBuf::from("/nowhere")),
        Role::Train,
        "`/nowhere` does not exist",
        "data.root",
    );
    check(
        &with(&|s| s.train = "valid".into()),
        Role::Train,
        "expected the file `valid.bin`",
        "list its files",
    );
    check(
        &with(&|s| s.train = SplitSpec::Files(vec!["x.bin".into()])),
        Role::Train,
        "x.bin",
        "",
    );
    check(
        &with(&|s| s.eval = None),
        Role::Eval,
        "no evaluation split",
        "eval = ",
    );
    check(
        &with(&|s| s.exclude = Some(Selection::Indices(vec![50]))),
        Role::Train,
        "names sample 50, but the split holds 50",
        "",
    );
    check(
        &with(&|s| s.limit = Some(0)),
        Role::Train,
        "selects no sample",
        "",
    );

    let path = folder.path().join("data_batch_2.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(3073 * 2 + 5);
    fs::write(&path, &bytes).unwrap();
    check(
        &good,
        Role::Train,
        "is 6151 bytes: expected a multiple of the record length 3073, found 2 records and 5 bytes more",
        "cut off",
    );
    bytes.truncate(3073 * 2);
    bytes[3073] = 10;
    fs::write(&path, &bytes).unwrap();
    check(
        &good,
        Role::Train,
        "sample 31 (`data_batch_2.bin` record 1): label `10` is out of range, expected 0 to 9",
        "",
    );
    fs::write(&path, b"").unwrap();
    fs::write(folder.path().join("data_batch_1.bin"), b"").unwrap();
    check(&good, Role::Train, "is empty", "");

    let error = ViewFamily::new(&[AugmentSpec::new("random_crip")], 1, None).unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `random_crop`?");
    let error =
        ViewFamily::new(&[AugmentSpec::new("random_crop").with("sise", 3)], 1, None).unwrap_err();
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("sise")
    );
    let small = ImageSize {
        height: 8,
        width: 8,
        channels: 1,
    };
    let error = ViewFamily::new(&crop_and_flip(), 1, Some(small)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "every sample: `random_crop` cannot be applied to an image of 8 x 8 pixels of 1 channel"
    );
}

/// The colour JPEGs of the fixture, CMYK first.
fn jpeg_folder() -> (tempfile::TempDir, Dataset) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let blob = fs::read(fixtures.join("pixels.bin")).unwrap();
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(fixtures.join("pixels.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/only");
    fs::create_dir_all(&class).unwrap();
    for case in document["encoded"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if name.starts_with("jpeg") && !name.ends_with("grey") {
            let number = |key: &str| case["file"][key].as_u64().unwrap() as usize;
            let bytes = &blob[number("offset")..][..number("bytes")];
            fs::write(class.join(format!("{name}.jpg")), bytes).unwrap();
        }
    }
    let dataset = Dataset::open(&DataSpec::new("image_folder", folder.path()), Role::Train);
    (folder, dataset.unwrap())
}

fn rendered(dataset: &Dataset, family: &ViewFamily, requests: &[(u32, u32)]) -> PixelBatch {
    let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
    let mut batch = PixelBatch::new(PixelLayout::Nchw);
    render(dataset, family, &preprocess, requests, &mut batch).unwrap();
    batch
}

/// A view by itself decodes only its window; several views of a sample share one decoding of the whole image; stored
/// pixels are not decoded at all. The pixels are the same.
#[test]
fn how_much_is_decoded_is_not_seen_in_the_pixels() {
    let (_folder, dataset) = jpeg_folder();
    let (_other_folder, mut stored) = jpeg_folder();
    stored.store_pixels(&|_, _| {}).unwrap();
    let families = [
        vec![AugmentSpec::new("random_resized_crop").with("size", 16)],
        vec![
            AugmentSpec::new("random_crop")
                .with("size", 40)
                .with("padding", 12),
        ],
        vec![
            AugmentSpec::new("center_crop").with("size", 30),
            AugmentSpec::new("mixup"),
        ],
        vec![AugmentSpec::new("horizontal_flip")],
    ];
    for augment in families {
        let family = ViewFamily::new(&augment, 3, None).unwrap();
        let n = dataset.len() as u32;
        let views: Vec<u32> = (0..40).collect();
        let together: Vec<(u32, u32)> = (0..n)
            .flat_map(|i| views.iter().map(move |&v| (i, v)))
            .collect();
        let whole = rendered(&dataset, &family, &together);
        assert_eq!(
            whole.pixels,
            rendered(&stored, &family, &together).pixels,
            "{augment:?}"
        );
        let length = whole.pixels.len() / whole.n;
        for (row, &request) in together.iter().enumerate() {
            let alone = rendered(&dataset, &family, &[request]);
            assert_eq!(
                alone.pixels,
                whole.pixels[row * length..][..length],
                "{augment:?} {request:?}"
            );
        }
        let samples: Vec<u32> = (0..n).collect();
        let mut batches: Vec<PixelBatch> = views
            .iter()
            .map(|_| PixelBatch::new(PixelLayout::Nchw))
            .collect();
        let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
        render_views(
            &dataset,
            &family,
            &preprocess,
            &samples,
            &views,
            &mut batches,
        )
        .unwrap();
        for (view, batch) in batches.iter().enumerate() {
            let requests: Vec<(u32, u32)> = samples.iter().map(|&i| (i, view as u32)).collect();
            let one = rendered(&dataset, &family, &requests);
            assert_eq!(
                (&batch.pixels, &batch.mixed),
                (&one.pixels, &one.mixed),
                "{augment:?} view {view}"
            );
        }
    }
}

/// Reduced decoding is another family, and near the full one: measured over these views are 1.92 levels of 255 on average.
#[test]
fn reduced_decoding_is_keyed_and_near() {
    let (_folder, dataset) = jpeg_folder();
    let plain = AugmentSpec::new("random_resized_crop")
        .with("size", 8)
        .with("scale", vec![0.6, 1.0]);
    let reduced = plain.clone().with("reduced", true);
    let [full, reduced] = [plain, reduced].map(|spec| ViewFamily::new(&[spec], 3, None).unwrap());
    assert_ne!(full.identity(), reduced.identity());
    assert!(reduced.reduces() && !full.reduces() && !full.identity().contains("reduced"));
    let requests: Vec<(u32, u32)> = (2..4).flat_map(|i| (0..50).map(move |v| (i, v))).collect();
    let pixels = |family| rendered(&dataset, family, &requests).pixels;
    let (a, b) = (pixels(&full), pixels(&reduced));
    let mean = a
        .iter()
        .zip(&b)
        .map(|(a, b)| 255.0 * f64::from((a - b).abs()))
        .sum::<f64>()
        / a.len() as f64;
    println!("{mean:.2} levels on average");
    assert!(mean > 0.0, "nothing was reduced");
    assert!(mean < 2.5, "{mean} levels");
    // Together or alone, a reduced view is the same.
    for &request in &requests[..10] {
        let alone = rendered(&dataset, &reduced, &[request]);
        let row = requests.iter().position(|other| *other == request).unwrap();
        assert_eq!(alone.pixels, b[row * 192..][..192]);
    }
}
