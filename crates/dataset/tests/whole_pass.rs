//! What the one pass over all images settles: which samples are bad, in every view alike; which sizes there are; and
//! whether the images are still those of the last time.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::Path;

use logitcask_dataset::*;

/// 56 x 40 pixels of a pattern, by Pillow at quality 60.
const PHOTO: &[u8] = include_bytes!("fixtures/photo.jpg");

fn quiet(_: u64, _: u64) {}

fn open(spec: &DataSpec) -> Dataset {
    Dataset::open(spec, Role::Train).unwrap()
}

/// A JPEG that ends in the middle of its body and has its end mark all the same: libjpeg fills the rest with grey.
fn damaged() -> Vec<u8> {
    [&PHOTO[..PHOTO.len() - 40], &[0xFF, 0xD9]].concat()
}

/// A folder of `n` photos, those of `bad` damaged.
fn photos(root: &Path, n: u32, bad: &[u32]) -> DataSpec {
    let class = root.join("train/a");
    fs::create_dir_all(&class).unwrap();
    for index in 0..n {
        let bytes = match bad.contains(&index) {
            true => damaged(),
            false => PHOTO.to_vec(),
        };
        fs::write(class.join(format!("{index:03}.jpg")), bytes).unwrap();
    }
    let mut spec = DataSpec::new("image_folder", root);
    spec.on_bad = OnBad::Skip;
    spec
}

fn crop_8() -> ViewFamily {
    let augment = [AugmentSpec::new("random_resized_crop")
        .with("size", 8)
        .with("scale", vec![0.01, 0.02])];
    ViewFamily::new(&augment, 1, None).unwrap()
}

/// A small window above the damage decodes well. That does not make the image a good one: whether a sample has a row
/// must not depend on the view.
#[test]
fn a_damaged_photo_is_bad_in_all_its_views() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = open(&photos(folder.path(), 6, &[2, 4]));
    assert_eq!(dataset.fingerprint(&quiet).unwrap().bad, [2, 4]);
    assert_eq!(dataset.selected(), [0, 1, 3, 5]);
    let named = dataset.name_bad().unwrap();
    assert_eq!(named.len(), 2);
    assert!(
        named[0].starts_with("sample 2 (`train/a/002.jpg`): "),
        "{named:?}"
    );

    let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
    let mut batch = PixelBatch::new(PixelLayout::Nhwc);
    let mut n_bad = |dataset: &Dataset| {
        let mut n_bad = 0;
        for view in 0..100 {
            // One at a time: views of one sample that follow each other share one decoding of the whole.
            render(dataset, &crop_8(), &preprocess, &[(2, view)], &mut batch).unwrap();
            n_bad += batch.bad.len();
        }
        n_bad
    };
    assert_eq!(n_bad(&dataset), 100, "bad in every view");
    let unseen = open(&photos(folder.path(), 6, &[2, 4]));
    assert!(n_bad(&unseen) < 100, "some windows are clear of the damage");
}

#[test]
fn bad_photos_are_counted_and_the_first_ten_named() {
    let folder = tempfile::tempdir().unwrap();
    let bad: Vec<u32> = (3..16).collect();
    let mut spec = photos(folder.path(), 20, &bad);
    spec.on_bad = OnBad::Error;
    for _ in 0..2 {
        // The second time it is remembered, and said as well.
        let error = open(&spec).fingerprint(&quiet).unwrap_err();
        let DatasetError::BadSamples {
            n_bad, ref others, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((n_bad, others.len()), (13, 9));
        let text = error.to_string();
        assert!(text.contains("13 of 20 samples"), "{text}");
        assert!(
            text.contains("012.jpg") && text.ends_with("and 3 more"),
            "{text}"
        );
        assert!(error.hint().unwrap().contains("on_bad"));
    }
}

/// A partner without an image is not mixed in; the sample itself is as good as ever.
#[test]
fn a_bad_partner_spoils_no_sample() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = open(&photos(folder.path(), 4, &[1, 2, 3]));
    dataset.fingerprint(&quiet).unwrap();
    let family = ViewFamily::new(&[AugmentSpec::new("mixup")], 1, None).unwrap();
    let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
    let mut batch = PixelBatch::new(PixelLayout::Nhwc);
    let requests: Vec<(u32, u32)> = (0..32).map(|view| (0, view)).collect();
    render(&dataset, &family, &preprocess, &requests, &mut batch).unwrap();
    assert!(batch.bad.is_empty());
    assert!(batch.mixed.iter().all(|mixed| mixed.partner == 0));
}

fn png_of(height: usize, width: usize) -> Vec<u8> {
    let size = ImageSize {
        height,
        width,
        channels: 3,
    };
    png(&Image::from_pixels(size, vec![7; size.n_bytes()])).unwrap()
}

/// The size is what the views make of the images, and it is known before anything is rendered.
#[test]
fn the_size_of_views_is_told_of_images_of_many_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/a");
    fs::create_dir_all(&class).unwrap();
    for (index, (height, width)) in [(40, 48), (48, 40), (40, 48), (12, 90)]
        .into_iter()
        .enumerate()
    {
        fs::write(class.join(format!("{index}.png")), png_of(height, width)).unwrap();
    }
    let dataset = open(&DataSpec::new("image_folder", folder.path()));
    let fingerprint = dataset.fingerprint(&quiet).unwrap();
    let firsts: Vec<u32> = fingerprint.sizes.iter().map(|&(_, first)| first).collect();
    assert_eq!(firsts, [0, 1, 3]);
    assert_eq!(dataset.uniform_size(), None);

    let size_of = |augment: &[AugmentSpec], teacher: &PreprocessSpec| {
        let family = ViewFamily::new(augment, 1, None).unwrap();
        let preprocess = Preprocess::new(teacher).unwrap();
        input_size(
            &dataset,
            &fingerprint,
            &family,
            &preprocess,
            "views.augment",
        )
    };
    let plain = PreprocessSpec::default();
    let crop = AugmentSpec::new("random_resized_crop").with("size", 32);
    let found = size_of(&[crop], &plain).unwrap();
    assert_eq!((found.height, found.width), (32, 32));
    let resize = AugmentSpec::new("resize").with("size", 16);
    let error = size_of(std::slice::from_ref(&resize), &plain).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`views.augment` leaves images of different sizes"),
        "{text}"
    );
    assert!(
        text.contains("`train/a/0.png`") && text.contains("`train/a/1.png`"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("center_crop"));
    // A teacher that resizes whatever it is shown may be asked all the same.
    let own = PreprocessSpec {
        size: Some(24),
        ..plain.clone()
    };
    assert_eq!(size_of(&[resize], &own).unwrap().width, 24);
    // The image that is too small is named, not "every sample".
    let error = size_of(&[AugmentSpec::new("random_crop").with("size", 32)], &plain).unwrap_err();
    assert!(error.to_string().contains("`train/a/3.png`"), "{error}");
}

/// An edit that keeps length and modification time is what an editor with "preserve times", or rsync, does.
#[test]
fn an_edit_under_the_same_length_and_time_is_noticed_by_a_capture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data_batch_1.bin");
    let mut records = vec![1u8; 4 * 3073];
    fs::write(&path, &records).unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let spec = DataSpec::new("cifar10", folder.path());
    let before = open(&spec).fingerprint(&quiet).unwrap();
    let again = open(&spec)
        .fingerprint_trusting(Trust::StatusTimes, &|_| (), &quiet)
        .unwrap();
    assert_eq!(before, again);

    records[100] = 9;
    fs::write(&path, &records).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(
        open(&spec).fingerprint(&quiet).unwrap(),
        before,
        "by times alone nothing is seen"
    );
    let trusting = |trust| {
        open(&spec)
            .fingerprint_trusting(trust, &|_| (), &quiet)
            .unwrap()
    };
    assert_ne!(trusting(Trust::Nothing).images, before.images);
    // Looking again has been remembered; so edit once more.
    records[100] = 10;
    fs::write(&path, &records).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let known = open(&spec).remembered_fingerprint().unwrap().unwrap();
    let found = trusting(Trust::StatusTimes);
    assert_ne!(found.images, known.images);
    assert_eq!(
        open(&spec).remembered_fingerprint().unwrap().unwrap(),
        found
    );
}

#[test]
fn every_file_of_a_sharded_dataset_is_known_by_its_samples() {
    let folder = tempfile::tempdir().unwrap();
    for (batch, n) in [(1, 3), (2, 1), (3, 2)] {
        let path = folder.path().join(format!("data_batch_{batch}.bin"));
        fs::write(path, vec![1u8; n * 3073]).unwrap();
    }
    let dataset = open(&DataSpec::new("cifar10", folder.path()));
    assert_eq!(dataset.samples_by_file(), [0..3, 3..4, 4..6]);
}
