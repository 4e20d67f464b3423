//! Laws of every format in the table: labels in range, same index same bytes, a fingerprint that is stable, and files
//! that are cut off or damaged give errors and never panics. Whoever adds a format adds a sample of it to [`sample`];
//! the rest is tested unasked.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use logitcask_dataset::*;

const N: usize = 12;
const SIZE: ImageSize = ImageSize {
    height: 32,
    width: 32,
    channels: 3,
};

/// Image `i` of the dataset that every sample holds, as far as its format allows.
fn picture(i: usize, size: ImageSize) -> Image {
    let pixels = (0..size.n_bytes())
        .map(|at| (at * 7 + at / 96 * 3 + i * 31) as u8)
        .collect();
    Image::from_pixels(size, pixels)
}

fn png(image: &Image) -> Vec<u8> {
    let size = image.size();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width as u32, size.height as u32);
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
    bytes
}

fn planar(image: &Image) -> impl Iterator<Item = u8> + '_ {
    let channels = image.size().channels;
    (0..channels).flat_map(move |c| image.pixels()[c..].iter().step_by(channels).copied())
}

fn cifar(folder: &Path, name: &str, label_bytes: usize) {
    let mut bytes = Vec::new();
    for i in 0..N {
        bytes.extend(std::iter::repeat_n((i % 3) as u8, label_bytes));
        bytes.extend(planar(&picture(i, SIZE)));
    }
    fs::write(folder.join(name), bytes).unwrap();
}

fn idx(folder: &Path, prefix: &str) {
    let mut images = vec![0, 0, 8, 3];
    for n in [N, 28, 28] {
        images.extend((n as u32).to_be_bytes());
    }
    for i in 0..N {
        images.extend(
            picture(
                i,
                ImageSize {
                    height: 28,
                    width: 28,
                    channels: 1,
                },
            )
            .pixels(),
        );
    }
    let mut labels = vec![0, 0, 8, 1];
    labels.extend((N as u32).to_be_bytes());
    labels.extend((0..N).map(|i| (i % 3) as u8));
    let name = |end: &str| folder.join(format!("{prefix}train-{end}"));
    fs::write(name("images-idx3-ubyte"), images).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&labels).unwrap();
    fs::write(name("labels-idx1-ubyte.gz"), packed.finish().unwrap()).unwrap();
}

fn parquet(folder: &Path) {
    let images: Vec<Vec<u8>> = (0..N).map(|i| png(&picture(i, SIZE))).collect();
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(images.iter()));
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..N).map(|i| format!("{i}.png")),
    ));
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    let images: ArrayRef = Arc::new(StructArray::new(fields.clone(), vec![bytes, paths], None));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values((0..N).map(|i| (i % 3) as i64)));
    let schema = Arc::new(Schema::new(vec![
        Field::new("image", DataType::Struct(fields), true),
        Field::new("label", DataType::Int64, true),
    ]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![images, labels]).unwrap();
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(5))
        .set_compression(::parquet::basic::Compression::SNAPPY)
        .build();
    let file = fs::File::create(folder.join("train.parquet")).unwrap();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn image_folder(folder: &Path) {
    for i in 0..N {
        // Sorted by class, then by name: the order below is that of the other formats only within a class.
        let class = folder.join("train").join(["ant", "bee", "cow"][i % 3]);
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join(format!("{i:03}.png")), png(&picture(i, SIZE))).unwrap();
    }
}

fn stl10(folder: &Path) {
    let size = ImageSize {
        height: 96,
        width: 96,
        channels: 3,
    };
    let mut bytes = Vec::new();
    for i in 0..N {
        let image = picture(i, size);
        for (c, x, y) in
            (0..3).flat_map(|c| (0..96).flat_map(move |x| (0..96).map(move |y| (c, x, y))))
        {
            bytes.push(image.pixels()[(y * 96 + x) * 3 + c]);
        }
    }
    fs::write(folder.join("train_X.bin"), bytes).unwrap();
    fs::write(
        folder.join("train_y.bin"),
        (0..N).map(|i| (i % 3) as u8 + 1).collect::<Vec<_>>(),
    )
    .unwrap();
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        // By hand, so that a test can write names that the builder refuses.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn webdataset(folder: &Path) {
    for shard in 0..2 {
        let mut members = Vec::new();
        for i in shard * N / 2..(shard + 1) * N / 2 {
            let label = if i % 2 == 0 {
                (i % 3).to_string()
            } else {
                format!("{{\"label\": {}}}", i % 3)
            };
            members.push((format!("{i:06}.png"), png(&picture(i, SIZE))));
            members.push((
                format!("{i:06}.{}", if i % 2 == 0 { "cls" } else { "json" }),
                label.into_bytes(),
            ));
        }
        let members: Vec<(&str, &[u8])> = members
            .iter()
            .map(|(n, b)| (n.as_str(), b.as_slice()))
            .collect();
        fs::write(
            folder.join(format!("train-{shard:06}.tar")),
            tar_of(&members),
        )
        .unwrap();
    }
}

/// A small dataset of a format, in `folder`.
fn sample(format: &str, folder: &Path) -> DataSpec {
    match format {
        "cifar10" => cifar(folder, "data_batch_1.bin", 1),
        "cifar100" => cifar(folder, "train.bin", 2),
        "mnist" | "fashion_mnist" | "kmnist" => idx(folder, ""),
        "emnist" => idx(folder, "emnist-digits-"),
        "parquet" => parquet(folder),
        "image_folder" => image_folder(folder),
        "stl10" => stl10(folder),
        "webdataset" => webdataset(folder),
        "synthetic" => {}
        other => panic!("no sample of format `{other}`: add one"),
    }
    let mut spec = DataSpec::new(format, folder);
    if format == "emnist" {
        spec.train = "digits-train".into();
    }
    if format == "synthetic" {
        spec.root = PathBuf::new();
        spec.synthetic = Some(SyntheticSpec {
            n_train: N as u32,
            ..SyntheticSpec::default()
        });
    }
    spec
}

fn with_each(check: impl Fn(&str, &Path, DataSpec)) {
    for format in formats() {
        let folder = tempfile::tempdir().unwrap();
        let spec = sample(format.name, folder.path());
        check(format.name, folder.path(), spec);
    }
}

fn open(spec: &DataSpec) -> Dataset {
    Dataset::open(spec, Role::Train).unwrap()
}

fn quiet(_: u64, _: u64) {}

#[test]
fn labels_are_in_range_and_the_same_index_gives_the_same_bytes() {
    with_each(|format, _, spec| {
        let (first, second) = (open(&spec), open(&spec));
        assert_eq!(first.len(), N, "{format}");
        assert!(
            first
                .labels()
                .iter()
                .all(|&label| (label as usize) < first.n_classes()),
            "{format}"
        );
        let (mut a, mut b) = (Image::new(), Image::new());
        for index in [3, 0, 11, 3] {
            first.decode(index, &mut a).unwrap();
            second.decode(index, &mut b).unwrap();
            assert_eq!(a, b, "{format} sample {index}");
        }
        assert!(matches!(
            first.decode(12, &mut a),
            Err(DatasetError::NoSuchSample { .. })
        ));
        assert_eq!(
            first.fingerprint(&quiet).unwrap(),
            second.fingerprint(&quiet).unwrap(),
            "{format}"
        );
        assert_eq!(first.uniform_size(), Some(a.size()), "{format}");
    });
}

#[test]
fn the_same_images_have_one_fingerprint_in_every_lossless_format() {
    let fingerprint = |format: &str| {
        let folder = tempfile::tempdir().unwrap();
        open(&sample(format, folder.path()))
            .fingerprint(&quiet)
            .unwrap()
    };
    let cifar = fingerprint("cifar10");
    for format in ["cifar100", "parquet", "webdataset"] {
        assert_eq!(fingerprint(format), cifar, "{format}");
    }
    // The folder sorts by class; a CIFAR file in that order is the same dataset.
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for i in [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11] {
        bytes.push((i % 3) as u8);
        bytes.extend(planar(&picture(i, SIZE)));
    }
    fs::write(folder.path().join("data_batch_1.bin"), bytes).unwrap();
    let sorted = open(&DataSpec::new("cifar10", folder.path()))
        .fingerprint(&quiet)
        .unwrap();
    assert_eq!(fingerprint("image_folder"), sorted);
}

#[test]
fn raw_formats_give_the_pixels_that_went_in() {
    with_each(|format, _, spec| {
        let dataset = open(&spec);
        let mut image = Image::new();
        dataset.decode(5, &mut image).unwrap();
        let expected = match format {
            "synthetic" => return,
            "image_folder" => picture(4, image.size()), // the second of the second class
            _ => picture(5, image.size()),
        };
        assert_eq!(image, expected, "{format}");
    });
}

#[test]
fn a_store_of_decoded_pixels_changes_nothing_but_the_speed() {
    with_each(|format, _, spec| {
        let (plain, mut stored) = (open(&spec), open(&spec));
        if format == "synthetic" {
            assert!(stored.store_pixels(&quiet).is_err());
            return;
        }
        let path = stored.store_pixels(&quiet).unwrap();
        let (mut a, mut b) = (Image::new(), Image::new());
        for index in 0..N as u32 {
            plain.decode(index, &mut a).unwrap();
            stored.decode(index, &mut b).unwrap();
            assert_eq!(a, b, "{format} sample {index}");
        }
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..40]).unwrap();
        assert!(
            open(&spec).store_pixels(&quiet).is_err(),
            "{format}: a store that is cut off"
        );
    });
}

/// Opens and decodes everything; errors are fine, panics are not.
fn try_all(spec: &DataSpec) -> Result<(), DatasetError> {
    let dataset = Dataset::open(spec, Role::Train)?;
    let mut image = Image::new();
    for index in 0..dataset.len() as u32 {
        dataset.decode(index, &mut image)?;
    }
    Ok(())
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with(".logitcask") => {}
            true => files.extend(files_of(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn files_that_are_cut_off_give_errors() {
    with_each(|format, folder, spec| {
        try_all(&spec).unwrap();
        for path in files_of(folder) {
            let bytes = fs::read(&path).unwrap();
            let lengths =
                (0..24)
                    .map(|i| bytes.len() * i / 24)
                    .chain([1, 3, 7, 15, bytes.len() - 1]);
            for length in lengths.filter(|&length| length < bytes.len()) {
                fs::write(&path, &bytes[..length]).unwrap();
                let tolerated = format.starts_with("cifar") && length % (bytes.len() / N) == 0;
                let found = try_all(&spec);
                let ends_in_padding =
                    format == "webdataset" && bytes[length..].iter().all(|&b| b == 0);
                // A PNG's pixels are whole before the checksum of their last chunk and the one that says only that it ends.
                let whole_png = format == "image_folder" && bytes.len() - length <= 16;
                assert!(
                    found.is_err() || tolerated || ends_in_padding || whole_png,
                    "{format}: {length} of {} bytes",
                    bytes.len()
                );
            }
            fs::write(&path, &bytes).unwrap();
        }
    });
}

#[test]
fn flipped_bytes_never_panic() {
    with_each(|_, folder, spec| {
        // Two files of each format show what the others would.
        for path in files_of(folder).into_iter().take(2) {
            let mut bytes = fs::read(&path).unwrap();
            // Everything near both ends, where headers and footers are, and some of the rest.
            let n = bytes.len();
            let places: Vec<usize> = (0..n.min(48))
                .chain((48..n).step_by((n / 40).max(1)))
                .chain(n.saturating_sub(300)..n)
                .collect();
            for at in places {
                for flip in [0x01, 0xFF] {
                    bytes[at] ^= flip;
                    fs::write(&path, &bytes).unwrap();
                    let _ = try_all(&spec);
                    bytes[at] ^= flip;
                }
            }
            fs::write(&path, &bytes).unwrap();
        }
        try_all(&spec).unwrap();
    });
}

/// One image file in an image folder, by itself.
fn check_image(bytes: &[u8], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/a");
    fs::create_dir_all(&class).unwrap();
    fs::write(class.join("0.png"), png(&picture(0, SIZE))).unwrap();
    fs::write(class.join("1.png"), bytes).unwrap();
    let mut spec = DataSpec::new("image_folder", folder.path());
    let dataset = open(&spec);
    let error = dataset.decode(1, &mut Image::new()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.to_string().starts_with("sample 1 (`train/a/1.png`)"),
        "{error}"
    );
    assert!(source.contains(expected), "{source}");

    // Skipped, it keeps its index and is listed.
    spec.on_bad = OnBad::Skip;
    let dataset = open(&spec);
    let mut batch = PixelBatch::new(PixelLayout::Nchw);
    let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
    render(
        &dataset,
        &ViewFamily::clean(),
        &preprocess,
        &[(1, 0), (0, 0)],
        &mut batch,
    )
    .unwrap();
    assert_eq!(
        (batch.bad.len(), batch.bad[0].row, batch.bad[0].index),
        (1, 0, 1)
    );
    assert!(
        batch.pixels[..SIZE.n_bytes()]
            .iter()
            .all(|&value| value == 0.0)
    );
    assert_eq!(dataset.fingerprint(&quiet).unwrap().bad, [1]);
    assert_eq!(dataset.selected(), [0]);
}

fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(&picture(0, SIZE));
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    bytes
}

#[test]
fn bad_images_are_named() {
    check_image(b"", "no bytes");
    check_image(
        b"GIF89a....",
        "no PNG, JPEG or WebP image: they begin with `GIF8`",
    );
    check_image(&png(&picture(1, SIZE))[..200], "not a valid PNG");
    check_image(
        &png_claiming(200_000, 200_000),
        "claims 200000 x 200000 pixels",
    );
    check_image(
        &[0xFF, 0xD8, 0xFF, 0xE0, 0, 16, b'J', b'F', b'I', b'F'],
        "cut off",
    );
}

#[test]
fn a_colour_image_in_a_grey_dataset_says_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/a");
    fs::create_dir_all(&class).unwrap();
    fs::write(
        class.join("0.png"),
        png(&picture(
            0,
            ImageSize {
                channels: 1,
                ..SIZE
            },
        )),
    )
    .unwrap();
    fs::write(class.join("1.png"), png(&picture(1, SIZE))).unwrap();
    let mut spec = DataSpec::new("image_folder", folder.path());
    let error = open(&spec).fingerprint(&quiet).unwrap_err();
    assert_eq!(error.hint().unwrap(), "set `channels = 3` in `[data]`");
    spec.channels = Some(3);
    assert_eq!(
        open(&spec).fingerprint(&quiet).unwrap().uniform_size(),
        Some(SIZE)
    );
}

fn check_tar(members: &[(&str, &[u8])], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train.tar"), tar_of(members)).unwrap();
    let error =
        Dataset::open(&DataSpec::new("webdataset", folder.path()), Role::Train).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn bad_shards_are_named() {
    let image = png(&picture(0, SIZE));
    check_tar(&[("a.png", &image)], "sample `a` has no label");
    check_tar(&[("a.cls", b"1")], "sample `a` has no image");
    check_tar(
        &[("a.png", &image), ("a.cls", b"one")],
        "member `a.cls`: `one` is no class number",
    );
    check_tar(
        &[("a.png", &image), ("a.cls", b"1"), ("a.png", &image)],
        "member `a.png` is there twice",
    );
    check_tar(
        &[("a.png", &image), ("a.jpg", &image), ("a.cls", b"1")],
        "sample `a` has two images",
    );
    check_tar(
        &[("../a.png", &image), ("../a.cls", b"1")],
        "member `../a.png` climbs out",
    );
    check_tar(&[("/a.png", &image), ("/a.cls", b"1")], "climbs out");
    check_tar(&[("a.txt", b"nothing")], "is empty");
}

#[test]
fn tiny_imagenets_validation_split_is_read_by_its_annotations() {
    let folder = tempfile::tempdir().unwrap();
    for (class, i) in [("n01", 0), ("n02", 1)] {
        let images = folder.path().join("train").join(class).join("images");
        fs::create_dir_all(&images).unwrap();
        fs::write(
            images.join(format!("{class}_0.png")),
            png(&picture(i, SIZE)),
        )
        .unwrap();
    }
    let images = folder.path().join("val/images");
    fs::create_dir_all(&images).unwrap();
    fs::write(images.join("val_0.png"), png(&picture(5, SIZE))).unwrap();
    fs::write(images.join("val_1.png"), png(&picture(6, SIZE))).unwrap();
    let annotations = folder.path().join("val/val_annotations.txt");
    fs::write(
        &annotations,
        "val_1.png\tn02\t0\t0\t1\t1\nval_0.png\tn01\t0\t0\t1\t1\n",
    )
    .unwrap();
    let mut spec = DataSpec::new("image_folder", folder.path());
    spec.eval = Some("val".into());
    let eval = Dataset::open(&spec, Role::Eval).unwrap();
    assert_eq!((eval.labels(), eval.class_names().len()), (&[1, 0][..], 2));
    let mut image = Image::new();
    eval.decode(0, &mut image).unwrap();
    assert_eq!(image, picture(6, SIZE));

    fs::write(&annotations, "../../x.png\tn02\n").unwrap();
    let error = Dataset::open(&spec, Role::Eval).unwrap_err();
    assert!(error.to_string().contains("is no file name"), "{error}");
}

#[test]
fn mixing_shows_the_partner_and_says_how_much() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = open(&sample("cifar10", folder.path()));
    for name in ["mixup", "cutmix"] {
        let augment = [AugmentSpec::new("horizontal_flip"), AugmentSpec::new(name)];
        let family = ViewFamily::new(&augment, 4, Some(SIZE)).unwrap();
        let preprocess = Preprocess::new(&PreprocessSpec {
            scale: Scale::Byte,
            ..Default::default()
        })
        .unwrap();
        let requests: Vec<(u32, u32)> = (0..N as u32).flat_map(|i| [(i, 0), (i, 1)]).collect();
        let mut batch = PixelBatch::new(PixelLayout::Nhwc);
        render(&dataset, &family, &preprocess, &requests, &mut batch).unwrap();
        let plain = ViewFamily::new(&augment[..1], 4, None).unwrap();
        for (row, (&(sample, view), mixed)) in requests.iter().zip(&batch.mixed).enumerate() {
            assert_eq!(
                mixed.partner_label,
                dataset.labels()[mixed.partner as usize]
            );
            let pixels = |index: u32| {
                let mut image = Image::new();
                let mut view_of = Image::new();
                dataset.decode(index, &mut image).unwrap();
                plain
                    .draw(index, view, SIZE, N)
                    .unwrap()
                    .apply_steps(&image, &mut view_of);
                view_of
            };
            let (own, partner) = (pixels(sample), pixels(mixed.partner));
            let found = &batch.pixels[row * SIZE.n_bytes()..][..SIZE.n_bytes()];
            let mut shown = 0;
            for ((&found, &own), &partner) in found.iter().zip(own.pixels()).zip(partner.pixels()) {
                let blend =
                    f32::from(own) * mixed.lambda + f32::from(partner) * (1.0 - mixed.lambda);
                if name == "mixup" {
                    assert!((found - blend).abs() <= 0.5 + 1e-3, "{found} {blend}");
                } else {
                    assert!(found == f32::from(own) || found == f32::from(partner));
                    shown += usize::from(found == f32::from(own));
                }
            }
            if name == "cutmix" {
                let share = shown as f32 / SIZE.n_bytes() as f32;
                assert!(share >= mixed.lambda - 1e-6, "{share} {}", mixed.lambda);
            }
        }
        assert!(batch.mixed.iter().any(|mixed| mixed.lambda < 0.9));
    }
    let early = [
        AugmentSpec::new("mixup"),
        AugmentSpec::new("horizontal_flip"),
    ];
    assert!(
        ViewFamily::new(&early, 4, None)
            .unwrap_err()
            .to_string()
            .contains("mixing comes last")
    );
}

#[test]
fn what_is_shown_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = open(&sample("cifar10", folder.path()));
    let family = ViewFamily::clean();
    let sheet = contact_sheet(&dataset, &family, &[vec![(0, 0), (1, 0)], vec![(2, 0)]]).unwrap();
    assert_eq!(
        (sheet.size().height, sheet.size().width),
        (2 * 66 + 2, 2 * 66 + 2)
    );
    write_png(
        &folder.path().join("sheet.png"),
        &stack(&[sheet.clone(), sheet]),
    )
    .unwrap();
    let mut batch = PixelBatch::new(PixelLayout::Nchw);
    let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
    render(&dataset, &family, &preprocess, &[(0, 0)], &mut batch).unwrap();
    let path = folder.path().join("out.npy");
    write_npy(&path, &batch).unwrap();
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    assert_eq!(bytes.len() % 64, 3072 * 4 % 64);
    assert_eq!(bytes[bytes.len() - 3072 * 4 - 1], b'\n');
}

fn sixteen_bit_png(size: ImageSize, values: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width as u32, size.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Sixteen);
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&data)
        .unwrap();
    bytes
}

/// An image folder of one file.
fn one_image(bytes: &[u8]) -> (tempfile::TempDir, DataSpec) {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/a");
    fs::create_dir_all(&class).unwrap();
    fs::write(class.join("0.png"), bytes).unwrap();
    let spec = DataSpec::new("image_folder", folder.path());
    (folder, spec)
}

#[test]
fn sixteen_bits_become_the_upper_eight() {
    let size = ImageSize {
        height: 2,
        width: 3,
        channels: 3,
    };
    let values: Vec<u16> = (0..18).map(|i| i * 3640 + 200).collect();
    let (_folder, spec) = one_image(&sixteen_bit_png(size, &values));
    let mut image = Image::new();
    open(&spec).decode(0, &mut image).unwrap();
    let upper: Vec<u8> = values.iter().map(|value| (value >> 8) as u8).collect();
    assert_eq!(image, Image::from_pixels(size, upper));
}

#[test]
fn animations_are_refused() {
    let mut apng = Vec::new();
    let mut encoder = png::Encoder::new(&mut apng, 32, 32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(picture(0, SIZE).pixels()).unwrap();
    writer.write_image_data(picture(1, SIZE).pixels()).unwrap();
    writer.finish().unwrap();
    check_image(&apng, "an animation of 2 frames");
    check_image(ANIMATED_WEBP, "an animation of 2 frames");
}

/// Two frames of 2 x 2 pixels, red and blue, as Pillow writes them.
const ANIMATED_WEBP: &[u8] = &[
    82, 73, 70, 70, 132, 0, 0, 0, 87, 69, 66, 80, 86, 80, 56, 88, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0,
    1, 0, 0, 65, 78, 73, 77, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 65, 78, 77, 70, 40, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 1, 0, 0, 1, 0, 0, 100, 0, 0, 2, 86, 80, 56, 76, 15, 0, 0, 0, 47, 1, 64, 0, 0, 7, 16, 253,
    143, 254, 7, 34, 162, 255, 1, 0, 65, 78, 77, 70, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0,
    0, 100, 0, 0, 0, 86, 80, 56, 76, 15, 0, 0, 0, 47, 1, 64, 0, 0, 7, 16, 209, 255, 254, 7, 34,
    162, 255, 1, 0,
];

/// The headers claim more than a machine holds, and not one byte is allocated for it: this runs within the limits of any
/// machine, and takes no time.
#[test]
fn gigapixels_are_refused_by_their_headers() {
    let side = 65_500u16.to_be_bytes();
    let mut jpeg = vec![
        0xFF, 0xD8, 0xFF, 0xC0, 0, 17, 8, side[0], side[1], side[0], side[1], 3,
    ];
    jpeg.extend([1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0]);
    jpeg.extend([
        0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0, 1, 2, 3, 0xFF, 0xD9,
    ]);
    check_image(&jpeg, "claims 65500 x 65500 pixels");
    // The same as a progressive file, all of whose coefficients are kept.
    jpeg[3] = 0xC2;
    let last_coefficient = jpeg.len() - 7;
    jpeg[last_coefficient] = 0;
    check_image(&jpeg, "claims 65500 x 65500 pixels");

    let (width, height) = (16_382u32, 16_382u32); // each less one
    let packed = width | height << 14;
    let mut webp = b"RIFF\x20\0\0\0WEBPVP8L\x10\0\0\0\x2f".to_vec();
    webp.extend(packed.to_le_bytes());
    webp.extend([0; 11]);
    check_image(&webp, "claims 16383 x 16383 pixels");

    // An idx file whose header claims 2^32 images of 2^32 x 2^32 pixels, plain and gzipped.
    let folder = tempfile::tempdir().unwrap();
    let mut head = vec![0, 0, 8, 3];
    head.extend([0xFF; 12]);
    let mut labels = vec![0, 0, 8, 1];
    labels.extend([0, 0, 0, 1, 0]);
    fs::write(folder.path().join("train-labels-idx1-ubyte"), labels).unwrap();
    let spec = DataSpec::new("mnist", folder.path());
    fs::write(folder.path().join("train-images-idx3-ubyte"), &head).unwrap();
    check_open(&spec, "its header claims");
    fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
    head[4..].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0, 0, 0, 0xFF]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&head).unwrap();
    let path = folder.path().join("train-images-idx3-ubyte.gz");
    fs::write(path, packed.finish().unwrap()).unwrap();
    check_open(&spec, "bytes after the header, found 0");
}

fn check_open(spec: &DataSpec, expected: &str) {
    let error = Dataset::open(spec, Role::Train).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn labels_that_are_no_classes_are_named_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), "");
    fs::remove_file(folder.path().join("train-labels-idx1-ubyte.gz")).unwrap();
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, N as u8];
    labels.extend((0..N).map(|i| if i == 7 { 10 } else { 0 }));
    fs::write(folder.path().join("train-labels-idx1-ubyte"), &labels).unwrap();
    let spec = DataSpec::new("mnist", folder.path());
    check_open(
        &spec,
        "sample 7 (`train-images-idx3-ubyte` image 7): label `10` is out of range",
    );
    labels[7] = 3;
    fs::write(folder.path().join("train-labels-idx1-ubyte"), &labels[..11]).unwrap();
    check_open(
        &spec,
        "it holds 3 labels, but `train-images-idx3-ubyte` holds 12 images",
    );

    let folder = tempfile::tempdir().unwrap();
    stl10(folder.path());
    let spec = DataSpec::new("stl10", folder.path());
    for (label, expected) in [
        (0, "the label is `0`, expected 1 to 10"),
        (11, "label `10` is out of range"),
    ] {
        let mut labels = vec![1u8; N];
        labels[4] = label;
        fs::write(folder.path().join("train_y.bin"), labels).unwrap();
        check_open(&spec, "sample 4");
        check_open(&spec, expected);
    }

    let image = png(&picture(0, SIZE));
    check_tar(
        &[("a.png", &image), ("a.cls", b"-1")],
        "`-1` is no class number",
    );
    check_tar(
        &[("a.png", &image), ("a.json", b"{\"label\": 1.5}")],
        "`1.5` is no class number",
    );
    check_tar(
        &[("a.png", &image), ("a.json", b"{\"label\": ")],
        "member `a.json`",
    );
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_are_only_names() {
    use std::os::unix::ffi::OsStrExt;

    let folder = tempfile::tempdir().unwrap();
    let class = folder
        .path()
        .join("train")
        .join(std::ffi::OsStr::from_bytes(b"caf\xE9"));
    fs::create_dir_all(&class).unwrap();
    let name = |bytes| class.join(std::ffi::OsStr::from_bytes(bytes));
    fs::write(name(b"0\xFF.png"), png(&picture(0, SIZE))).unwrap();
    fs::write(name(b"1\xFF.png"), b"not an image").unwrap();
    let dataset = open(&DataSpec::new("image_folder", folder.path()));
    let mut image = Image::new();
    dataset.decode(0, &mut image).unwrap();
    assert_eq!(image, picture(0, SIZE));
    let error = dataset.decode(1, &mut image).unwrap_err().to_string();
    assert!(error.contains("1\u{FFFD}.png"), "{error}");

    // In a shard they are refused: a name is the sample's key there.
    let folder = tempfile::tempdir().unwrap();
    let mut shard = tar_of(&[("a.png", &png(&picture(0, SIZE)))]);
    shard[0] = 0xFF;
    let sum: u32 = (0..512)
        .map(|at| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(shard[at])
            }
        })
        .sum();
    shard[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    fs::write(folder.path().join("train.tar"), shard).unwrap();
    check_open(
        &DataSpec::new("webdataset", folder.path()),
        "a name that is not UTF-8",
    );
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let spec = sample("image_folder", folder.path());
    let class = folder.path().join("train/bee");
    fs::set_permissions(&class, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&class).is_ok() {
        // This is root, who may read everything. Somebody else runs the test in his place.
        let own = std::env::current_exe().unwrap();
        let name = "a_folder_that_may_not_be_read_is_named";
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups"]);
        match command.arg(own).args(["--exact", name]).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => println!("skipped: this is root, and `setpriv` does not run: {error}"),
        }
        return;
    }
    let error = Dataset::open(&spec, Role::Train).unwrap_err().to_string();
    fs::set_permissions(&class, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        error.contains("cannot list") && error.contains("train/bee"),
        "{error}"
    );
}

/// The bytes that `dataset show --npy` writes, for each format that can hold these images, each number of threads and
/// each batch size.
#[test]
fn the_same_views_of_the_same_images_are_the_same_bytes() {
    let augment = [
        AugmentSpec::new("random_crop")
            .with("size", 32)
            .with("padding", 4),
        AugmentSpec::new("horizontal_flip"),
        AugmentSpec::new("rand_augment"),
        AugmentSpec::new("color_jitter")
            .with("hue", 0.1)
            .with("contrast", 0.4),
        AugmentSpec::new("mixup"),
    ];
    let spec = PreprocessSpec::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let preprocess = Preprocess::new(&spec).unwrap();
    let requests: Vec<(u32, u32)> = (0..N as u32).flat_map(|i| [(i, 0), (i, 5)]).collect();
    let mut first: Option<Vec<u8>> = None;
    for format in [
        "cifar10",
        "cifar100",
        "parquet",
        "webdataset",
        "image_folder",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let spec = match format {
            // Of one class, for the order of a folder is that of its classes.
            "image_folder" => {
                let class = folder.path().join("train/only");
                fs::create_dir_all(&class).unwrap();
                for i in 0..N {
                    fs::write(class.join(format!("{i:03}.png")), png(&picture(i, SIZE))).unwrap();
                }
                DataSpec::new(format, folder.path())
            }
            _ => sample(format, folder.path()),
        };
        let dataset = Arc::new(open(&spec));
        let family = Arc::new(ViewFamily::new(&augment, 11, Some(SIZE)).unwrap());
        for (threads, batch_size) in [(1, 24), (1, 1), (2, 5), (2, 24)] {
            let batches: Vec<Vec<(u32, u32)>> =
                requests.chunks(batch_size).map(<[_]>::to_vec).collect();
            let loader = Loader::new(
                Arc::clone(&dataset),
                Arc::clone(&family),
                preprocess.clone(),
                PixelLayout::Nchw,
                batches.into_iter(),
                threads,
                2,
            );
            let mut all = PixelBatch::new(PixelLayout::Nchw);
            (all.channels, all.height, all.width) = (3, 32, 32);
            for batch in loader {
                let batch = batch.unwrap();
                all.n += batch.n;
                all.pixels.extend(batch.pixels);
            }
            let path = folder.path().join("out.npy");
            write_npy(&path, &all).unwrap();
            let bytes = fs::read(path).unwrap();
            assert_eq!(all.n, requests.len());
            let first = first.get_or_insert_with(|| bytes.clone());
            assert!(
                *first == bytes,
                "{format}, {threads} threads, batches of {batch_size}"
            );
        }
    }
}

#[test]
fn weights_of_samples_come_from_a_file_or_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = sample("cifar10", folder.path());
    let path = folder.path().join("weights.txt");
    fs::write(
        &path,
        "# the teacher's opinion\n3 0.25\n\n11\t0 # not at all\n",
    )
    .unwrap();
    spec.sample_weights = Some(SampleWeights::File(path.clone()));
    let dataset = open(&spec);
    let mut expected = vec![1.0; N];
    (expected[3], expected[11]) = (0.25, 0.0);
    assert_eq!(dataset.sample_weights(), Some(&expected[..]));

    spec.sample_weights = Some(SampleWeights::Listed {
        list: Selection::Indices(vec![0, 3]),
        weight: 0.5,
    });
    expected = vec![1.0; N];
    (expected[0], expected[3]) = (0.5, 0.5);
    assert_eq!(open(&spec).sample_weights(), Some(&expected[..]));

    spec.sample_weights = Some(SampleWeights::File(path.clone()));
    for (text, message) in [
        ("3", "whose line 1 is no index and weight: `3`"),
        ("3 much", "whose line 1 is no index and weight: `3 much`"),
        ("12 1", "names sample 12, but the split holds 12"),
        ("2 -1", "gives sample 2 the weight -1: it must be 0 or more"),
        ("2 inf", "gives sample 2 the weight inf"),
    ] {
        fs::write(&path, text).unwrap();
        let error = Dataset::open(&spec, Role::Train).unwrap_err().to_string();
        assert!(
            error.contains("data.sample_weights") && error.contains(message),
            "{error}"
        );
    }
}

/// Found by the fuzzer: a page that refers to a dictionary which is not there made the decoder panic.
#[test]
fn a_parquet_file_that_contradicts_itself_is_an_error() {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};

    let folder = tempfile::tempdir().unwrap();
    let spec = sample("parquet", folder.path());
    let path = folder.path().join("train.parquet");
    let reader = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
    let columns = reader.metadata().row_group(0).columns();
    let labels = columns
        .iter()
        .find(|column| column.column_path().string() == "label");
    let offset = labels.unwrap().dictionary_page_offset().unwrap() as usize;
    let mut bytes = fs::read(&path).unwrap();
    // The page's type, a zigzag number: no dictionary now, but an index, which is passed over.
    assert_eq!(bytes[offset..offset + 2], [0x15, 4]);
    bytes[offset + 1] = 2;
    fs::write(&path, bytes).unwrap();
    let error = Dataset::open(&spec, Role::Train).err().unwrap();
    let whole = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(
        whole.contains("train.parquet") && whole.contains("contradicts itself"),
        "{whole}"
    );
}

/// A disk that fails, a file that is cut short or deleted while it is used: `on_bad = "skip"` used to count each sample
/// of it as a bad one, and to train on what was left.
#[test]
fn a_file_that_cannot_be_read_is_no_bad_sample() {
    let failed = |error: DatasetError| match error {
        DatasetError::Io { .. } | DatasetError::Parquet { .. } => {}
        other => panic!("{other}"),
    };
    with_each(|format, folder, mut spec| {
        spec.on_bad = OnBad::Skip;
        let mut dataset = open(&spec);
        let family = ViewFamily::new(&[], 1, dataset.uniform_size()).unwrap();
        for path in files_of(folder) {
            match format {
                "image_folder" => fs::remove_file(path).unwrap(),
                _ => drop(fs::File::create(path).unwrap()),
            }
        }
        if ["mnist", "fashion_mnist", "emnist", "kmnist", "synthetic"].contains(&format) {
            dataset.fingerprint(&quiet).unwrap(); // they are in memory
            return;
        }
        // The last: to tell the number of channels, the first has been read already.
        let last = N as u32 - 1;
        failed(dataset.decode(last, &mut Image::new()).unwrap_err());
        failed(dataset.fingerprint(&quiet).unwrap_err());
        failed(dataset.store_pixels(&quiet).unwrap_err());
        let preprocess = Preprocess::new(&PreprocessSpec::default()).unwrap();
        let mut batch = PixelBatch::new(PixelLayout::Nchw);
        failed(render(&dataset, &family, &preprocess, &[(last, 0)], &mut batch).unwrap_err());
    });
}

/// Nothing used to notice: the flipped pixel was trained on.
#[test]
fn a_flipped_bit_in_a_store_of_pixels_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = sample("cifar10", folder.path());
    spec.on_bad = OnBad::Skip;
    let mut dataset = open(&spec);
    let path = dataset.store_pixels(&quiet).unwrap();
    let bytes = fs::read(&path).unwrap();
    let all_decode = || -> Result<(), DatasetError> {
        let mut dataset = open(&spec);
        dataset.store_pixels(&quiet)?;
        (0..N as u32).try_for_each(|index| dataset.decode(index, &mut Image::new()))
    };
    all_decode().unwrap();
    let head = 24 + 24 * N;
    let places = (0..head).chain((head..bytes.len()).step_by(997));
    for at in places {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).unwrap();
        let error = all_decode().unwrap_err();
        let is_told =
            matches!(&error, DatasetError::StoredPixels { path: named, .. } if *named == path);
        assert!(is_told, "byte {at}: {error}");
        assert!(error.hint().unwrap().contains("rm '"), "{error}");
    }
    // One of the first layout has no checks: it is written anew.
    let mut old = bytes.clone();
    old[..8].copy_from_slice(b"LCPIXEL1");
    fs::write(&path, &old).unwrap();
    all_decode().unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn a_store_of_pixels_that_is_cut_short_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = sample("image_folder", folder.path());
    spec.on_bad = OnBad::Skip;
    let mut dataset = open(&spec);
    let path = dataset.store_pixels(&quiet).unwrap();
    fs::File::create(path).unwrap();
    let error = dataset.decode(0, &mut Image::new()).unwrap_err();
    assert!(matches!(error, DatasetError::Io { .. }), "{error}");
}

#[cfg(unix)]
/// Without `channels` the first image decides on them: a file that cannot be read decides on nothing.
#[test]
fn an_image_that_cannot_be_read_is_not_passed_over_at_opening() {
    let folder = tempfile::tempdir().unwrap();
    let spec = sample("image_folder", folder.path());
    let first = files_of(folder.path()).into_iter().min().unwrap();
    fs::remove_file(&first).unwrap();
    std::os::unix::fs::symlink("nowhere", &first).unwrap();
    let error = Dataset::open(&spec, Role::Train).unwrap_err();
    assert!(matches!(error, DatasetError::Io { .. }), "{error}");
}
