//! Whose class is it, which files are a split, and how much may be claimed: keys that are obeyed or refused, classes that are
//! compared by name, sets of files that must be whole, limits that are named.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use common::*;
use logitcask_dataset::*;

fn records(labels: &[&[u8]]) -> Vec<u8> {
    let records = labels.iter().map(|label| [*label, &[0; 3072]].concat());
    records.collect::<Vec<_>>().concat()
}

#[test]
fn a_key_that_the_format_does_not_read_is_refused() {
    type Give = fn(&mut DataSpec);
    let give: [(&str, Give); 11] = [
        ("root", |spec| spec.root = "somewhere".into()),
        ("channels", |spec| spec.channels = Some(3)),
        ("exif", |spec| spec.exif = true),
        ("image_column", |spec| {
            spec.image_column = Some("picture".into())
        }),
        ("label_column", |spec| {
            spec.label_column = Some("class".into())
        }),
        ("synthetic", |spec| {
            spec.synthetic = Some(SyntheticSpec::default())
        }),
        ("store_pixels", |spec| spec.store_pixels = true),
        ("allow_missing_shards", |spec| {
            spec.allow_missing_shards = true
        }),
        ("transpose", |spec| spec.transpose = Some(true)),
        ("max_image_pixels", |spec| spec.max_image_pixels = Some(1)),
        ("max_bytes", |spec| spec.max_bytes = Some(1)),
    ];
    assert_eq!(
        give.map(|(key, _)| key).to_vec(),
        format_keys().collect::<Vec<_>>()
    );
    for format in formats() {
        for (key, give) in give {
            let mut spec = DataSpec::new(format.name, "");
            give(&mut spec);
            let error = match Dataset::open(&spec, Role::Train) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            let refused = error.contains(&format!("`data.{key}` is given, but format"));
            assert_eq!(
                refused,
                !format.reads.contains(&key),
                "{} {key}: {error}",
                format.name
            );
        }
    }
    let mut spec = DataSpec::new("stl10", "somewhere");
    spec.label_column = Some("class".into());
    check_refused(
        &spec,
        Role::Train,
        &["read by `cifar100`, `parquet`, `webdataset`"],
    );
    // Another format takes only its own keys along.
    assert_eq!(spec.change_format("mnist").unwrap(), ["label_column"]);
    assert_eq!(
        (&spec.label_column, spec.root.as_path()),
        (&None, Path::new("somewhere"))
    );
}

#[test]
fn cifar100_has_two_labels() {
    let names =
        |n: usize, kind: &str| -> String { (0..n).map(|i| format!("{kind}{i}\n")).collect() };
    let (fine, coarse) = (names(100, "fine"), names(20, "coarse"));
    let (_folder, mut spec) = folder(
        "cifar100",
        &[
            ("train.bin", &records(&[&[19, 99], &[0, 3]])),
            ("fine_label_names.txt", fine.as_bytes()),
            ("coarse_label_names.txt", coarse.as_bytes()),
        ],
    );
    for (column, labels, n_classes) in [
        (None, [99, 3], 100),
        (Some("fine_label"), [99, 3], 100),
        (Some("coarse_label"), [19, 0], 20),
    ] {
        spec.label_column = column.map(str::to_owned);
        let dataset = Dataset::open(&spec, Role::Train).unwrap();
        assert_eq!(
            (dataset.labels(), dataset.n_classes()),
            (&labels[..], n_classes)
        );
        let last = dataset.class_names().last().unwrap();
        assert!(last.ends_with(&(n_classes - 1).to_string()), "{last}");
    }
    spec.n_classes = Some(20);
    assert_eq!(Dataset::open(&spec, Role::Train).unwrap().n_classes(), 20);
    spec.label_column = None;
    check_refused(
        &spec,
        Role::Train,
        &[
            "`data.n_classes` is 20",
            "100 classes",
            "class 20 is `fine20`",
        ],
    );
    spec.label_column = Some("label".into());
    check_refused(&spec, Role::Train, &["`fine_label` and `coarse_label`"]);
}

#[test]
fn n_classes_may_be_larger_and_not_smaller() {
    let (_folder, mut spec) = folder("webdataset", &[("train.tar", &shard(&["0", "4"]))]);
    for (n_classes, expected) in [(None, 5), (Some(5), 5), (Some(9), 9)] {
        spec.n_classes = n_classes;
        assert_eq!(
            Dataset::open(&spec, Role::Train).unwrap().n_classes(),
            expected
        );
    }
    spec.n_classes = Some(4);
    check_refused(
        &spec,
        Role::Train,
        &["sample 1 (`train.tar` member `1`): label `4` is out of range"],
    );
    spec.n_classes = Some(1_000_000_000_000);
    check_refused(&spec, Role::Train, &["`data.n_classes`", "at most 1048576"]);
}

#[test]
fn a_missing_shard_is_named_and_can_be_allowed() {
    let one = shard(&["0"]);
    let batch = records(&[&[1]]);
    let cases: [(&str, &[&str], &str); 7] = [
        (
            "webdataset",
            &["train-00000-of-00003.tar", "train-00002-of-00003.tar"],
            "`train-00001-of-00003.tar`",
        ),
        (
            "webdataset",
            &["train-00000-of-00009.tar", "train-00001-of-00009.tar"],
            "`train-00006-of-00009.tar` and 2 more",
        ),
        (
            "webdataset",
            &["train-00001-of-00003.tar", "train-00003-of-00003.tar"],
            "`train-00002-of-00003.tar`",
        ),
        (
            "webdataset",
            &["train-000000.tar", "train-000002.tar"],
            "`train-000001.tar`",
        ),
        (
            "webdataset",
            &["train/0001.tar", "train/0003.tar"],
            "`0002.tar`",
        ),
        (
            "cifar10",
            &["data_batch_1.bin", "data_batch_3.bin", "data_batch_5.bin"],
            "`data_batch_2.bin`, `data_batch_4.bin`",
        ),
        (
            "cifar10",
            &["data_batch_2.bin", "data_batch_3.bin"],
            "`data_batch_1.bin`",
        ),
    ];
    for (format, names, missing) in cases {
        let bytes = if format == "cifar10" { &batch } else { &one };
        let files: Vec<(&str, &[u8])> =
            names.iter().map(|&name| (name, bytes.as_slice())).collect();
        let (_folder, mut spec) = folder(format, &files);
        check_refused(
            &spec,
            Role::Train,
            &[
                "lacks files of its set",
                missing,
                "allow_missing_shards = true",
            ],
        );
        spec.allow_missing_shards = true;
        assert_eq!(
            Dataset::open(&spec, Role::Train).unwrap().len(),
            names.len()
        );
        spec.allow_missing_shards = false;
        spec.train = SplitSpec::Files(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(
            Dataset::open(&spec, Role::Train).unwrap().len(),
            names.len()
        );
    }
    let (folder_, mut spec) = folder("parquet", &[]);
    for split in ["train-00000-of-00003", "train-00002-of-00003"] {
        parquet(folder_.path(), split, &["ant", "bee"]);
    }
    check_refused(&spec, Role::Train, &["`train-00001-of-00003.parquet`"]);
    spec.allow_missing_shards = true;
    assert_eq!(Dataset::open(&spec, Role::Train).unwrap().len(), 4);
    // Whole sets, and sets that begin somewhere.
    for names in [
        &[
            "train-00000-of-00002-1a2b.tar",
            "train-00001-of-00002-3c4d.tar",
        ][..],
        &["train-000007.tar", "train-000008.tar"],
        &["train-2023-12.tar", "train-2024-01.tar"],
    ] {
        let files: Vec<(&str, &[u8])> = names.iter().map(|&name| (name, one.as_slice())).collect();
        let (_folder, spec) = folder("webdataset", &files);
        assert_eq!(
            Dataset::open(&spec, Role::Train).unwrap().len(),
            2,
            "{names:?}"
        );
    }
}

#[test]
fn two_sets_under_one_name_are_refused_even_where_shards_may_be_missing() {
    let one = shard(&["0"]);
    for names in [
        ["train-00000-of-00003.tar", "train-00001-of-00005.tar"],
        [
            "train-00000-of-00001-1a2b.tar",
            "train-00000-of-00001-3c4d.tar",
        ],
        ["train.tar", "train-000000.tar"],
    ] {
        let (_folder, mut spec) = folder("webdataset", &names.map(|name| (name, one.as_slice())));
        spec.allow_missing_shards = true;
        let words = [
            "is not one set of files",
            names[0],
            names[1],
            "keep one of them",
        ];
        check_refused(&spec, Role::Train, &words);
    }
}

#[test]
fn packed_shards_are_refused_with_what_unpacks_them() {
    let one = shard(&["0"]);
    let (folder_, spec) = folder("webdataset", &[("train-000000.tar.gz", b"\x1f\x8b")]);
    check_refused(
        &spec,
        Role::Train,
        &["train-000000.tar.gz` is compressed", "gunzip "],
    );
    write(folder_.path(), &[("train-000000.tar", &one)]);
    assert_eq!(Dataset::open(&spec, Role::Train).unwrap().len(), 1);
}

#[test]
fn labels_of_shards_are_numbers_or_names() {
    let check = |labels: &[&str], expected: &[u32], names: &[&str]| {
        let (_folder, spec) = folder("webdataset", &[("train.tar", &shard(labels))]);
        let dataset = Dataset::open(&spec, Role::Train).unwrap();
        assert_eq!(dataset.labels(), expected, "{labels:?}");
        assert_eq!(dataset.class_names(), names, "{labels:?}");
        dataset.notes().join("\n")
    };
    assert_eq!(check(&["2", "0.0", "1.0"], &[2, 0, 1], &[]), "");
    let notes = check(
        &["\"cat\"", "\"ant\"", "\"cat\""],
        &[1, 0, 1],
        &["ant", "cat"],
    );
    assert!(notes.contains("labels are names: the 2 classes"), "{notes}");
    check(&["true", "false"], &[1, 0], &["false", "true"]);
    let notes = check(&["\"10\"", "\"2\""], &[0, 1], &["10", "2"]);
    assert!(notes.contains("`10` comes before `2`"), "{notes}");
    check(
        &["1, \"class_name\": \"bee\"", "0, \"class_name\": \"ant\""],
        &[1, 0],
        &["ant", "bee"],
    );
    for (labels, words) in [
        (
            ["1", "\"cat\""],
            "mixes labels that are numbers with labels that are names",
        ),
        (["0", "1.5"], "`1.5` is no class number"),
        (["0", "[1, 2]"], "`[1,2]` is no class number"),
        (
            ["0, \"class_name\": \"a\"", "0, \"class_name\": \"b\""],
            "calls class 0 `b`, another `a`",
        ),
    ] {
        let (_folder, spec) = folder("webdataset", &[("train.tar", &shard(&labels))]);
        check_refused(&spec, Role::Train, &[words]);
    }
    let (_folder, spec) = folder(
        "webdataset",
        &[
            ("train.tar", &shard(&["1", "0"])),
            ("classnames.txt", b"ant\nbee\n"),
        ],
    );
    assert_eq!(
        Dataset::open(&spec, Role::Train).unwrap().class_names(),
        ["ant", "bee"]
    );
}

#[test]
fn names_with_more_dots_are_read_where_they_can_only_mean_one_thing() {
    let check = |members: &[(&str, &[u8])]| {
        let (_folder, spec) = folder("webdataset", &[("train.tar", &tar_of(members))]);
        let dataset = Dataset::open(&spec, Role::Train).unwrap();
        (
            greys(&dataset),
            dataset.labels().to_vec(),
            dataset.notes().join("\n"),
        )
    };
    let (a, b) = (tile(10), tile(20));
    let only = |grey, label| (vec![grey], vec![label], String::new());
    assert_eq!(
        check(&[("img.0.png", &a), ("img.0.cls", b"3")]),
        only(10, 3)
    );
    assert_eq!(check(&[("img.0.PNG", &a), ("img.cls", b"3")]), only(10, 3));
    // A companion beside the image itself, and WebDataset's capital letters.
    assert_eq!(
        check(&[("0.seg.png", &a), ("0.png", &b), ("0.CLS", b"1")]),
        only(20, 1)
    );
    let heic = check(&[("0.png", &a), ("0.cls", b"1"), ("0.heic", b"")]);
    assert_eq!(
        heic.2,
        "left out, being neither images nor labels: `.heic` (1, the first is `0.heic`)"
    );
    for (members, words) in [
        (
            &[
                ("img.0.png", &a[..]),
                ("img.0.cls", b"0"),
                ("img.1.png", &b),
                ("img.1.cls", b"1"),
            ][..],
            "`img.0.png` and `img.1.png` are one sample, because keys end at the first dot",
        ),
        (
            &[("a.heic", b""), ("a.cls", b"0")],
            "sample `a` has no image (jpg, jpeg, png, webp), but `a.heic`",
        ),
        (
            &[("a.png", &a), ("a.x.cls", b"0"), ("a.y.cls", b"1")],
            "`a.x.cls` and `a.y.cls` are two labels",
        ),
    ] {
        let (_folder, spec) = folder("webdataset", &[("train.tar", &tar_of(members))]);
        check_refused(&spec, Role::Train, &[words]);
    }
}

#[test]
fn evaluation_has_the_train_splits_classes_by_name() {
    // Shards whose labels are names: numbered by the train split, though evaluation lacks one of them.
    let (folder_, spec) = folder(
        "webdataset",
        &[
            ("train.tar", &shard(&["\"ant\"", "\"bee\"", "\"cow\""])),
            ("test.tar", &shard(&["\"cow\"", "\"bee\""])),
        ],
    );
    let eval = Dataset::open(&spec, Role::Eval).unwrap();
    assert_eq!((eval.labels(), eval.n_classes()), (&[2, 1][..], 3));
    assert_eq!(eval.class_names(), ["ant", "bee", "cow"]);
    check_noted(
        &eval,
        &[
            "split `test` numbers its classes in another way",
            "mapped by name",
        ],
    );
    write(folder_.path(), &[("test.tar", &shard(&["\"dog\""]))]);
    let words = [
        "the classes of split `test` are not those of the train split",
        "its class 0, `dog`",
    ];
    check_refused(&spec, Role::Eval, &words);

    // Parquet whose ClassLabel lists the same names in another order, fewer, and another one.
    let (folder_, spec) = folder("parquet", &[]);
    parquet(folder_.path(), "train", &["ant", "bee", "cow"]);
    for (names, labels) in [
        (["ant", "bee", "cow"], [0, 1]),
        (["cow", "ant", "bee"], [2, 0]),
    ] {
        parquet(folder_.path(), "test", &names);
        let eval = Dataset::open(&spec, Role::Eval).unwrap();
        assert_eq!(
            (eval.labels(), eval.class_names()),
            (&labels[..], &["ant", "bee", "cow"].map(str::to_owned)[..])
        );
        assert_eq!(eval.notes().is_empty(), labels == [0, 1]);
    }
    parquet(folder_.path(), "test", &["ant", "bee"]);
    check_refused(&spec, Role::Eval, &["it lacks class `cow`"]);
    parquet(folder_.path(), "test", &["ant", "dog", "cow"]);
    check_refused(
        &spec,
        Role::Eval,
        &["its class 1, `dog`, is not among these"],
    );
}

/// Two rows, of classes 0 and 1 of these.
fn parquet(folder: &Path, split: &str, names: &[&str]) {
    let info = serde_json::json!({"info": {"features": {"label": {"names": names}}}});
    let schema = Schema::new(vec![
        Field::new("image", DataType::Binary, true),
        Field::new("label", DataType::Int64, true),
    ]);
    let schema = Arc::new(schema.with_metadata([("huggingface".to_owned(), info.to_string())]));
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values([tile(0), tile(1)]));
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![0, 1]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![images, labels]).unwrap();
    let file = fs::File::create(folder.join(format!("{split}.parquet"))).unwrap();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn emnist_has_names_labels_and_an_orientation_of_its_own() {
    // 2 rows of 3: 0 1 2 / 3 4 5, which upright is 0 3 / 1 4 / 2 5.
    let images = idx(&[2, 2, 3], &[0, 1, 2, 3, 4, 5, 9, 9, 9, 9, 9, 9]);
    let check = |set: &str, labels: [u8; 2], classes: [u32; 2], n_classes: usize, last: &str| {
        let prefix = format!("gzip/emnist-{set}-train");
        let (_folder, mut spec) = folder(
            "emnist",
            &[
                (&format!("{prefix}-images-idx3-ubyte"), &images),
                (&format!("{prefix}-labels-idx1-ubyte"), &idx(&[2], &labels)),
            ],
        );
        spec.train = format!("{set}-train").as_str().into();
        let mut image = Image::new();
        for (transpose, pixels, height) in [
            (None, [0, 1, 2, 3, 4, 5], 2),
            (Some(false), [0, 1, 2, 3, 4, 5], 2),
            (Some(true), [0, 3, 1, 4, 2, 5], 3),
        ] {
            spec.transpose = transpose;
            let dataset = Dataset::open(&spec, Role::Train).unwrap();
            dataset.decode(0, &mut image).unwrap();
            assert_eq!((image.pixels(), image.size().height), (&pixels[..], height));
            assert_eq!(dataset.uniform_size(), Some(image.size()));
            assert_eq!(
                (dataset.labels(), dataset.n_classes()),
                (&classes[..], n_classes),
                "{set}"
            );
            assert_eq!(dataset.class_names().last().unwrap(), last, "{set}");
            assert_eq!(dataset.notes().is_empty(), transpose.is_some());
        }
    };
    check("balanced", [0, 46], [0, 46], 47, "t");
    check("bymerge", [0, 46], [0, 46], 47, "t");
    check("byclass", [36, 61], [36, 61], 62, "z");
    check("letters", [1, 26], [0, 25], 26, "Z");
    check("digits", [0, 9], [0, 9], 10, "9");
    check("mnist", [0, 9], [0, 9], 10, "9");

    let (_folder, mut spec) = folder(
        "emnist",
        &[
            ("emnist-letters-train-images-idx3-ubyte", &images),
            (
                "emnist-letters-train-labels-idx1-ubyte",
                &idx(&[2], &[0, 1]),
            ),
        ],
    );
    spec.train = "letters-train".into();
    check_refused(
        &spec,
        Role::Train,
        &["sample 0", "the label is `0`, expected 1 to 26"],
    );
    spec.train = "train".into();
    let words = [
        "such as `balanced-train`",
        "found `emnist-letters-train-images-idx3-ubyte`",
    ];
    check_refused(&spec, Role::Train, &words);
}

/// torchvision keeps MNIST's kin beside each other under one root, all with the same file names.
#[test]
fn mnists_kin_are_told_apart_by_their_folders() {
    let (_folder, mut spec) = folder("mnist", &[]);
    for (grey, kin) in ["MNIST", "FashionMNIST", "KMNIST"].iter().enumerate() {
        let name = |what: &str| format!("{kin}/raw/train-{what}-ubyte");
        write(
            &spec.root,
            &[
                (&name("images-idx3"), &idx(&[1, 1, 1], &[grey as u8])),
                (&name("labels-idx1"), &idx(&[1], &[0])),
            ],
        );
    }
    for (grey, (format, first)) in [
        ("mnist", "0"),
        ("fashion_mnist", "T-shirt/top"),
        ("kmnist", "o"),
    ]
    .iter()
    .enumerate()
    {
        spec.format = (*format).to_owned();
        let dataset = Dataset::open(&spec, Role::Train).unwrap();
        assert_eq!(
            (greys(&dataset), dataset.class_names()[0].as_str()),
            (vec![grey as u8], *first)
        );
    }
}

/// Each claims what no machine holds, or one byte more than it may: nothing is allocated for it, so this takes no time.
#[test]
fn absurd_claims_are_refused_with_the_limit_and_the_key_that_raises_it() {
    let mut spec = DataSpec::new("synthetic", "");
    let mut check = |n_train: u32, height: usize, width: usize, words: &[&str]| {
        spec.synthetic = Some(SyntheticSpec {
            n_train,
            height,
            width,
            ..SyntheticSpec::default()
        });
        check_refused(&spec, Role::Train, words);
    };
    check(
        u32::MAX,
        32,
        32,
        &[
            "4294967295 samples",
            "above the limit of 4294967296",
            "data.max_bytes",
        ],
    );
    check(
        1,
        1_000_000,
        1_000_000,
        &["1000000 x 1000000", "178956970", "data.max_image_pixels"],
    );
    check(1, usize::MAX, usize::MAX, &["data.max_image_pixels"]);
    spec.synthetic = Some(SyntheticSpec {
        height: 3,
        width: 3,
        ..SyntheticSpec::default()
    });
    spec.max_image_pixels = Some(8);
    check_refused(&spec, Role::Train, &["above the limit of 8 pixels"]);
    spec.max_image_pixels = Some(9);
    Dataset::open(&spec, Role::Train).unwrap();

    // Headers of idx files, plain and gzipped, that claim 2^40 bytes and 2^96.
    for claim in [[256, 65536, 65536], [u32::MAX; 3]] {
        let plain = idx(&claim, &[]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&plain).unwrap();
        for (end, bytes) in [("", plain), (".gz", packed.finish().unwrap())] {
            let name = format!("train-images-idx3-ubyte{end}");
            let (_folder, spec) = folder(
                "mnist",
                &[
                    (&name, &bytes),
                    ("train-labels-idx1-ubyte", &idx(&[1], &[0])),
                ],
            );
            check_refused(&spec, Role::Train, &["train-images-idx3-ubyte"]);
        }
    }
    let (_folder, mut spec) = folder(
        "mnist",
        &[
            ("train-images-idx3-ubyte", &idx(&[2, 2, 2], &[0; 8])),
            ("train-labels-idx1-ubyte", &idx(&[2], &[0; 2])),
        ],
    );
    spec.max_bytes = Some(7);
    check_refused(
        &spec,
        Role::Train,
        &["take 8 bytes, above the limit of 7", "data.max_bytes"],
    );
    spec.max_bytes = Some(8);
    Dataset::open(&spec, Role::Train).unwrap();

    // One encoded image: its pixels and its bytes.
    let png = tile(0);
    for (format, name, bytes) in [
        ("image_folder", "train/a/0.png", png.clone()),
        (
            "webdataset",
            "train.tar",
            tar_of(&[("0.png", &png), ("0.cls", b"0")]),
        ),
    ] {
        let (_folder, plain) = folder(format, &[(name, &bytes)]);
        let decode = |max_image_pixels: Option<u64>, max_bytes: Option<u64>| {
            let spec = DataSpec {
                max_image_pixels,
                max_bytes,
                ..plain.clone()
            };
            let decoded = Dataset::open(&spec, Role::Train)
                .unwrap()
                .decode(0, &mut Image::new());
            decoded.map_err(|error| {
                let source = std::error::Error::source(&error).unwrap().to_string();
                format!("{source}; {}", error.hint().unwrap())
            })
        };
        let error = decode(Some(3), None).unwrap_err();
        assert!(
            error.contains("2 x 2 pixels, above the limit of 3")
                && error.contains("data.max_image_pixels"),
            "{error}"
        );
        let error = decode(None, Some(png.len() as u64 - 1)).unwrap_err();
        assert!(
            error.contains("above the limit of") && error.contains("data.max_bytes"),
            "{error}"
        );
        decode(Some(4), Some(png.len() as u64)).unwrap();
    }
}
