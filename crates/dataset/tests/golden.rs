//! Pixels agree with torchvision's PIL backend, and drawn parameters with numpy. The fixtures are written by the
//! scripts beside them; nothing in them comes from this crate.
//!
//! Tolerances, in levels of 255. Exact: crop, pad, flip, posterize, solarize, autocontrast, equalize, affine maps,
//! lossless decoding, normalisation. One level: what PIL computes in floating point (blends, hue), for compilers may
//! contract multiplications differently; measured is no difference at all. Resizing is exact in the order of passes of the
//! Pillow that made the fixture: 13 for pixels.json; views.json has both, and every other filter.
//!
//! JPEG: no difference at all (crates/jpeg has more of it).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};

use logitcask_dataset::*;
use serde::Deserialize;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[derive(Deserialize)]
struct Pixels {
    images: serde_json::Map<String, Value>,
    cases: Vec<Case>,
    normalised: Normalised,
    encoded: Vec<Encoded>,
}

#[derive(Deserialize)]
struct Case {
    image: String,
    step: Step,
    result: Place,
}

#[derive(Deserialize)]
struct Normalised {
    image: String,
    mean: Vec<f32>,
    std: Vec<f32>,
    result: Place,
}

#[derive(Deserialize)]
struct Encoded {
    name: String,
    file: Place,
    result: Place,
}

#[derive(Deserialize)]
struct Place {
    offset: usize,
    bytes: usize,
    shape: Vec<usize>,
}

impl Place {
    fn bytes<'a>(&self, blob: &'a [u8]) -> &'a [u8] {
        &blob[self.offset..self.offset + self.bytes]
    }

    fn image(&self, blob: &[u8]) -> Image {
        let [height, width, channels] = self.shape[..] else {
            panic!("an image has three dimensions")
        };
        Image::from_pixels(
            ImageSize {
                height,
                width,
                channels,
            },
            self.bytes(blob).to_vec(),
        )
    }
}

fn read() -> (Pixels, Vec<u8>) {
    let document = serde_json::from_slice(&fs::read(fixture("pixels.json")).unwrap()).unwrap();
    (document, fs::read(fixture("pixels.bin")).unwrap())
}

/// The greatest difference and the share of values that differ.
fn difference(a: &Image, b: &Image) -> (u8, f64) {
    assert_eq!(a.size(), b.size());
    let pairs = a.pixels().iter().zip(b.pixels());
    let greatest = pairs
        .clone()
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap_or(0);
    let differing = pairs.filter(|(a, b)| a != b).count();
    (greatest, differing as f64 / a.pixels().len() as f64)
}

#[test]
fn every_step_agrees_with_torchvision() {
    let (document, blob) = read();
    let mut failures = Vec::new();
    for case in &document.cases {
        let place: Place = serde_json::from_value(document.images[&case.image].clone()).unwrap();
        let mut step = case.step.clone();
        if let Step::Resize { resampling, .. } | Step::ResizedCrop { resampling, .. } = &mut step {
            resampling.pillow = Pillow::V13;
        }
        let view = View {
            steps: vec![step],
            mix: None,
        };
        let mut found = Image::new();
        view.apply_steps(&place.image(&blob), &mut found);
        let (greatest, share) = difference(&found, &case.result.image(&blob));
        let allowed = match case.step {
            Step::Brightness(_) | Step::Contrast(_) | Step::Saturation(_) => 1,
            Step::Sharpness(_) | Step::Hue(_) => 1,
            _ => 0,
        };
        if greatest > 0 {
            println!(
                "{} {:?}: up to {greatest}, {:.2} %",
                case.image,
                case.step,
                share * 100.0
            );
        }
        if greatest > allowed {
            failures.push(format!("{} {:?}", case.image, case.step));
        }
    }
    assert!(document.cases.len() > 200, "the fixture has shrunk");
    assert!(
        failures.is_empty(),
        "{} differ: {failures:#?}",
        failures.len()
    );
}

#[test]
fn normalisation_agrees_to_the_bit() {
    let (document, blob) = read();
    let normalised = &document.normalised;
    let place: Place = serde_json::from_value(document.images[&normalised.image].clone()).unwrap();
    let image = place.image(&blob);
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/only");
    fs::create_dir_all(&class).unwrap();
    write_png(&class.join("image.png"), &image);
    let spec = DataSpec::new("image_folder", folder.path());
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    let spec = PreprocessSpec::new(normalised.mean.clone(), normalised.std.clone());
    let preprocess = Preprocess::new(&spec).unwrap();
    let mut batch = PixelBatch::new(PixelLayout::Nchw);
    render(
        &dataset,
        &ViewFamily::clean(),
        &preprocess,
        &[(0, 0)],
        &mut batch,
    )
    .unwrap();
    let expected = normalised.result.bytes(&blob).chunks_exact(4);
    let expected = expected.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    assert!(batch.pixels.iter().copied().eq(expected));
}

fn write_png(path: &Path, image: &Image) {
    let size = image.size();
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, size.width as u32, size.height as u32);
    encoder.set_color(if size.channels == 1 {
        png::ColorType::Grayscale
    } else {
        png::ColorType::Rgb
    });
    encoder
        .write_header()
        .unwrap()
        .write_image_data(image.pixels())
        .unwrap();
}

#[test]
fn decoders_agree_with_pil() {
    let (document, blob) = read();
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/only");
    fs::create_dir_all(&class).unwrap();
    let mut failures = Vec::new();
    for (index, file) in document.encoded.iter().enumerate() {
        // The codec is told by the bytes, not by the name.
        let path = class.join(format!("{index:03}.png"));
        fs::write(&path, file.file.bytes(&blob)).unwrap();
        let dataset =
            Dataset::open(&DataSpec::new("image_folder", folder.path()), Role::Train).unwrap();
        let mut found = Image::new();
        dataset.decode(0, &mut found).unwrap();
        fs::remove_file(&path).unwrap();
        let expected = file.result.image(&blob);
        let (greatest, _) = difference(&found, &expected);
        if greatest > 0 {
            failures.push(format!("{}: up to {greatest} levels", file.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A JPEG that is damaged inside may decode to something or not; it never panics.
#[test]
fn damaged_files_never_panic() {
    let (document, blob) = read();
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/only");
    fs::create_dir_all(&class).unwrap();
    let path = class.join("0.jpg");
    for file in &document.encoded {
        let mut bytes = file.file.bytes(&blob).to_vec();
        for at in (0..bytes.len()).step_by((bytes.len() / 60).max(1)) {
            for flip in [0x01, 0xFF] {
                bytes[at] ^= flip;
                fs::write(&path, &bytes).unwrap();
                let spec = DataSpec::new("image_folder", folder.path());
                if let Ok(dataset) = Dataset::open(&spec, Role::Train) {
                    let _ = dataset.decode(0, &mut Image::new());
                }
                bytes[at] ^= flip;
            }
        }
    }
}

/// Numbers may differ by what single precision and two libraries' exponentials leave open; all else is the same.
fn agree(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-6 * b.abs().max(1.0)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agree(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| agree(a, b)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn every_draw_agrees_with_numpy() {
    let document: Value =
        serde_json::from_slice(&fs::read(fixture("draws.json")).unwrap()).unwrap();
    let views = document["views"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in views {
        let number = |key: &str| case[key].as_u64().unwrap();
        let augment: Vec<AugmentSpec> = serde_json::from_value(case["augment"].clone()).unwrap();
        let (height, width) = (number("height") as usize, number("width") as usize);
        let size = ImageSize {
            height,
            width,
            channels: 3,
        };
        let known = case["one_size"].as_bool().unwrap().then_some(size);
        let family = ViewFamily::new(&augment, number("seed"), known).unwrap();
        let (sample, view) = (number("sample") as u32, number("view") as u32);
        let view = family
            .draw(sample, view, size, number("n_samples") as usize)
            .unwrap();
        let ours = serde_json::to_value(&view).unwrap();
        if !agree(&ours, &case["drawn"]) {
            failures.push(format!("{case}\nours: {ours}"));
        }
    }
    assert!(views.len() > 60, "the fixture has shrunk");
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn every_epoch_shows_the_view_that_numpy_says() {
    let document: Value =
        serde_json::from_slice(&fs::read(fixture("draws.json")).unwrap()).unwrap();
    for case in document["epochs"].as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap();
        let draw: Draw = serde_json::from_value(case["draw"].clone()).unwrap();
        let (sample, epoch, count) = (
            number("sample") as u32,
            number("epoch") as u32,
            number("count") as u32,
        );
        let view = epoch_view(number("seed"), sample, epoch, count, draw);
        assert_eq!(u64::from(view), number("view"), "{case}");
    }
}

/// What `views.py` writes: resampling, augmentations and files as Pillow 12 and 13, torchvision and timm have them.
#[derive(Deserialize)]
struct Views {
    images: serde_json::Map<String, Value>,
    cases: Vec<Case>,
    fitted: Vec<Fitted>,
    clean: Vec<Clean>,
    files: Vec<Stored>,
}

#[derive(Deserialize)]
struct Fitted {
    image: String,
    size: u32,
    interpolation: Interpolation,
    pillow: Pillow,
    result: Place,
}

#[derive(Deserialize)]
struct Clean {
    image: String,
    clean: Vec<AugmentSpec>,
    result: Place,
}

#[derive(Deserialize)]
struct Stored {
    name: String,
    exif: bool,
    file: Place,
    result: Place,
}

fn read_views() -> (Views, Vec<u8>) {
    let document = serde_json::from_slice(&fs::read(fixture("views.json")).unwrap()).unwrap();
    (document, fs::read(fixture("views.bin")).unwrap())
}

impl Views {
    fn image(&self, name: &str, blob: &[u8]) -> Image {
        let place: Place = serde_json::from_value(self.images[name].clone()).unwrap();
        place.image(blob)
    }
}

/// To the byte: every filter in both orders of passes, and FixMatch's operations; but for the blends, which PIL computes
/// in floating point (no difference is seen here either).
#[test]
fn every_resampling_and_fixmatch_operation_is_pils() {
    let (document, blob) = read_views();
    let mut failures = Vec::new();
    for case in &document.cases {
        let view = View {
            steps: vec![case.step.clone()],
            mix: None,
        };
        let mut found = Image::new();
        view.apply_steps(&document.image(&case.image, &blob), &mut found);
        let (greatest, share) = difference(&found, &case.result.image(&blob));
        let allowed = match case.step {
            Step::Brightness(_) | Step::Contrast(_) | Step::Saturation(_) | Step::Sharpness(_) => 1,
            _ => 0,
        };
        if greatest > allowed {
            failures.push(format!(
                "{} {:?}: {greatest}, {share}",
                case.image, case.step
            ));
        }
    }
    assert!(document.cases.len() > 140, "the fixture has shrunk");
    assert!(failures.is_empty(), "{failures:#?}");
}

fn folder_of(file: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/only");
    fs::create_dir_all(&class).unwrap();
    fs::write(class.join("0.png"), file).unwrap();
    folder
}

#[test]
fn a_models_own_size_is_resized_to_as_pil_does() {
    let (document, blob) = read_views();
    for case in &document.fitted {
        let image = document.image(&case.image, &blob);
        let folder = folder_of(&[]);
        write_png(&folder.path().join("train/only/0.png"), &image);
        let dataset =
            Dataset::open(&DataSpec::new("image_folder", folder.path()), Role::Train).unwrap();
        let spec = PreprocessSpec {
            size: Some(case.size),
            interpolation: case.interpolation,
            pillow: case.pillow,
            scale: Scale::Byte,
            ..PreprocessSpec::default()
        };
        let preprocess = Preprocess::new(&spec).unwrap();
        let mut batch = PixelBatch::new(PixelLayout::Nhwc);
        let family = ViewFamily::clean();
        render(&dataset, &family, &preprocess, &[(0, 0)], &mut batch).unwrap();
        let expected = case.result.bytes(&blob).iter().copied().map(f32::from);
        assert!(
            batch.pixels.iter().copied().eq(expected),
            "{:?} {:?}",
            case.interpolation,
            case.pillow
        );
    }
    assert_eq!(document.fitted.len(), 6);
}

/// `create_transform` of timm, for evaluation: resized to floor(size / crop_pct), then the middle.
#[test]
fn clean_views_are_timms() {
    let (document, blob) = read_views();
    for case in &document.clean {
        let image = document.image(&case.image, &blob);
        let spec = ViewsSpec {
            clean: case.clean.clone(),
            ..ViewsSpec::default()
        };
        let family = ViewFamily::clean_of(&spec, Some(image.size()), &[]).unwrap();
        let view = family.draw(0, 0, image.size(), 1).unwrap();
        let mut found = Image::new();
        view.apply_steps(&image, &mut found);
        let expected = case.result.image(&blob);
        assert_eq!(difference(&found, &expected).0, 0, "{:?}", case.clean);
    }
    assert_eq!(document.clean.len(), 8);
}

/// PNGs of every depth, and upright images of every orientation. A lossless file's digest is that of its pixels; a lossy
/// one's says how it is turned, so that neither is taken for the other.
#[test]
fn files_are_what_pil_takes_them_for() {
    let (document, blob) = read_views();
    let progress = |_, _| {};
    for file in &document.files {
        let folder = folder_of(file.file.bytes(&blob));
        let open = |exif: bool| {
            let mut spec = DataSpec::new("image_folder", folder.path());
            spec.exif = exif;
            Dataset::open(&spec, Role::Train).unwrap()
        };
        let dataset = open(file.exif);
        let mut found = Image::new();
        dataset.decode(0, &mut found).unwrap();
        let expected = file.result.image(&blob);
        assert_eq!(difference(&found, &expected).0, 0, "{}", file.name);

        let fingerprint = dataset.fingerprint(&progress).unwrap();
        assert_eq!(
            fingerprint.uniform_size(),
            Some(expected.size()),
            "{}",
            file.name
        );
        let mut as_stored = Image::new();
        open(false).decode(0, &mut as_stored).unwrap();
        let other = open(false).fingerprint(&progress).unwrap();
        // Two of the orientations may leave a file's few pixels as they are: compare by what comes out.
        if as_stored != found {
            assert_ne!(fingerprint.images, other.images, "{}", file.name);
        }

        // A view that begins with a window decodes no more than that, where nothing is to be turned.
        let crop = [AugmentSpec::new("random_crop").with("size", 1)];
        let family = ViewFamily::new(&crop, 3, None).unwrap();
        let mut batch = PixelBatch::new(PixelLayout::Nhwc);
        let spec = PreprocessSpec {
            scale: Scale::Byte,
            ..PreprocessSpec::default()
        };
        let preprocess = Preprocess::new(&spec).unwrap();
        for view in 0..6 {
            render(&dataset, &family, &preprocess, &[(0, view)], &mut batch).unwrap();
            let drawn = family.draw(0, view, found.size(), 1).unwrap();
            let mut cropped = Image::new();
            drawn.apply_steps(&found, &mut cropped);
            let cropped = cropped.pixels().iter().copied().map(f32::from);
            assert!(
                batch.pixels.iter().copied().eq(cropped),
                "{} view {view}",
                file.name
            );
        }
    }
    assert!(document.files.len() > 40, "the fixture has shrunk");
}

/// Keys of caches that were made before there were these options stay; what gives other pixels has another one, and what
/// gives the same has the same, however it is written.
#[test]
fn identities_tell_apart_what_pixels_do() {
    let identity = |name: &str, options: Value| {
        let Value::Object(options) = options else {
            panic!("options are an object")
        };
        let name = name.into();
        let family = ViewFamily::new(&[AugmentSpec { name, options }], 1, None);
        family.map(|family| family.identity()).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            source.unwrap_or_else(|| error.to_string())
        })
    };
    let same = |name: &str, options: Value, text: &str| {
        assert_eq!(identity(name, options).unwrap(), text);
    };
    let resize = |options: &str| format!("resize{options} draw=1");
    same("resize", json!({ "size": 256 }), &resize(r#"{"size":256}"#));
    same(
        "resize",
        json!({ "size": 224, "crop_pct": 0.875, "interpolation": "bilinear", "pillow": 12 }),
        &resize(r#"{"size":256}"#),
    );
    same(
        "resize",
        json!({ "size": 224, "crop_pct": 0.95, "interpolation": "bicubic", "pillow": 13 }),
        &resize(r#"{"size":235,"interpolation":"bicubic","pillow":13}"#),
    );
    same(
        "random_resized_crop",
        json!({ "size": 24 }),
        r#"random_resized_crop{"size":24,"scale":[0.08,1.0],"ratio":[0.75,1.3333333333333333]} seed=1 draw=1"#,
    );
    same(
        "trivial_augment",
        json!({}),
        r#"trivial_augment{"fill":0} bins=2 seed=1 draw=1"#,
    );
    same(
        "rand_augment",
        json!({}),
        r#"rand_augment{"n_ops":2,"magnitude":9,"fill":0} seed=1 draw=1"#,
    );
    assert_eq!(
        identity("random_erasing", json!({ "mean": [0.485, 0.456, 0.406] })),
        identity("random_erasing", json!({ "value": [124, 116, 104] }))
    );
    for (name, options, told) in [
        (
            "resize",
            json!({ "size": 8, "crop_pct": 0.0 }),
            "`crop_pct` is 0",
        ),
        (
            "resize",
            json!({ "size": 8, "pillow": 11 }),
            "`pillow` is 11: expected 12 or 13",
        ),
        (
            "resize",
            json!({ "size": 8, "interpolation": "cubic" }),
            "`bicubic`",
        ),
        (
            "random_erasing",
            json!({ "mean": [124, 116, 104] }),
            "from 0 to 1",
        ),
        (
            "random_erasing",
            json!({ "mean": [0.5], "value": 3 }),
            "both given",
        ),
        (
            "fixmatch_rand_augment",
            json!({ "cutout": 1.5 }),
            "`cutout` is 1.5",
        ),
    ] {
        let error = identity(name, options).unwrap_err();
        assert!(error.contains(told), "{error}");
    }

    let mut spec = PreprocessSpec {
        size: Some(24),
        ..PreprocessSpec::default()
    };
    assert_eq!(spec.identity(), "resize 24 bilinear; rgb; x/255");
    (spec.interpolation, spec.pillow) = (Interpolation::Bicubic, Pillow::V13);
    assert_eq!(spec.identity(), "resize 24 bicubic pillow 13; rgb; x/255");
    spec.size = None;
    let error = Preprocess::new(&spec).unwrap_err().to_string();
    assert!(error.contains("without `size`"), "{error}");
}
