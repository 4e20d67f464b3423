//! Image folders as people have them: which files are samples, in which order, and what is said about the others. And
//! image files that lack their end.

mod common;

use std::fs;

use common::*;
use logitcask_dataset::*;

#[test]
fn nested_folders_come_in_torchvisions_order() {
    // What torchvision 0.29's ImageFolder lists for these names, in this order; the last is of the second class.
    let order = [
        "train/x/b.png",
        "train/x/z.png",
        "train/x/a/1.png",
        "train/x/a/9.png",
        "train/x/a-b/0.png",
        "train/x/a/c/2.png",
        "train/x-y/0.png",
    ];
    let tiles: Vec<Vec<u8>> = (0..7).map(tile).collect();
    let files: Vec<(&str, &[u8])> = order
        .into_iter()
        .zip(tiles.iter().map(Vec::as_slice))
        .collect();
    let (_folder, spec) = folder("image_folder", &files);
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    assert_eq!(greys(&dataset), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(dataset.labels(), [0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(dataset.notes(), [""; 0]);
}

#[test]
fn numbers_that_sort_as_text_are_noted() {
    let names = [
        "train/0/a.png",
        "train/1/a.png",
        "train/2/a.png",
        "train/10/a.png",
    ];
    let png = tile(0);
    let files = names.map(|name| (name, png.as_slice()));
    let (_folder, spec) = folder("image_folder", &files);
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    assert_eq!(dataset.class_names(), ["0", "1", "10", "2"]);
    check_noted(&dataset, &["`10` comes before `2`", "class 2 is `10`"]);
    // Nine of them sort as they should, and nothing is said.
    let (_folder, spec) = folder("image_folder", &files[..3]);
    assert_eq!(Dataset::open(&spec, Role::Train).unwrap().notes(), [""; 0]);
}

#[test]
fn what_is_left_out_is_noted_by_kind_and_number() {
    let png = tile(0);
    let png = png.as_slice();
    let (_folder, spec) = folder(
        "image_folder",
        &[
            ("train/a/0.png", png),
            ("train/a/1.heic", b"ftypheic"),
            ("train/a/2.HEIC", b"ftypheic"),
            ("train/a/._0.png", b"AppleDouble"),
            ("train/a/.DS_Store", b""),
            ("train/a/Thumbs.db", b""),
            ("train/a/boxes.txt", b""),
            ("train/a/.ipynb_checkpoints/0.png", png),
            ("train/__MACOSX/a/0.png", png),
            ("train/stray.png", png),
        ],
    );
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    assert_eq!(
        (dataset.len(), dataset.class_names()),
        (1, &["a".to_owned()][..])
    );
    let places = [
        "`.heic` (2, the first is `train/a/1.heic`)",
        "hidden images (1, the first is `train/a/._0.png`)",
        "folder `__MACOSX`",
        "folder `.ipynb_checkpoints`",
        "beside the class folders: images (1, the first is `train/stray.png`)",
    ];
    check_noted(&dataset, &places);
    let notes = dataset.notes().join("\n");
    assert!(!notes.contains("txt") && !notes.contains(".db"), "{notes}");
}

#[test]
fn kinds_that_are_not_decoded_are_refused_at_opening_or_keep_their_places() {
    let png = tile(7);
    let png = png.as_slice();
    let (_folder, mut spec) = folder(
        "image_folder",
        &[
            ("train/a/0.png", png),
            ("train/a/1.tif", b"II*\0...."),
            ("train/a/2.TIF", b"II*\0...."),
            ("train/a/3.gif", b"GIF89a.."),
            // A PNG by another name is a PNG.
            ("train/a/4.bmp", png),
        ],
    );
    let words = [
        "`.gif` (1, the first is `train/a/3.gif`)",
        "`.tif` (2, the first is `train/a/1.tif`)",
        "on_bad = \"skip\"",
    ];
    check_refused(&spec, Role::Train, &words);
    assert!(!refused(&spec, Role::Train).contains("bmp"));
    spec.on_bad = OnBad::Skip;
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    check_noted(&dataset, &words[..2]);
    let fingerprint = dataset.fingerprint(&|_, _| {}).unwrap();
    assert_eq!((dataset.len(), &fingerprint.bad[..]), (5, &[1, 2, 3][..]));
}

#[test]
fn layouts_that_are_no_folder_per_class_say_what_was_seen() {
    let png = tile(0);
    let png = png.as_slice();
    let (folder_, mut spec) = folder(
        "image_folder",
        &[("train/0.png", png), ("train/1.png", png)],
    );
    check_refused(
        &spec,
        Role::Train,
        &["holds 2 images itself, expected a folder per class"],
    );

    spec.train = "training".into();
    write(folder_.path(), &[("val/a/0.png", png), ("notes.txt", b"")]);
    let words = [
        "split `training` is not in",
        "found `notes.txt`, `train`, `val`",
    ];
    check_refused(&spec, Role::Train, &words);
    for i in 0..6 {
        write(folder_.path(), &[(&format!("more{i}"), b"")]);
    }
    check_refused(
        &spec,
        Role::Train,
        &["`more0`, `more1`, `more2`, `more3`, `more4` and 4 more"],
    );

    // The root is the split's folder itself.
    let (folder_, _) = folder("image_folder", &[("train/a/0.png", png)]);
    let spec = DataSpec::new("image_folder", folder_.path().join("train"));
    check_refused(
        &spec,
        Role::Train,
        &["found `a`", "`data.root` is the split's own folder"],
    );
}

#[test]
fn classes_without_images_are_noted_in_training_and_fine_in_evaluation() {
    let png = tile(0);
    let png = png.as_slice();
    let (folder_, spec) = folder(
        "image_folder",
        &[
            ("train/a/0.png", png),
            ("train/c/0.png", png),
            ("test/c/0.png", png),
        ],
    );
    fs::create_dir(folder_.path().join("train/b")).unwrap();
    let train = Dataset::open(&spec, Role::Train).unwrap();
    assert_eq!((train.n_classes(), train.labels()), (3, &[0, 2][..]));
    check_noted(&train, &["class `b` has no image"]);
    let eval = Dataset::open(&spec, Role::Eval).unwrap();
    assert_eq!((eval.n_classes(), eval.labels()), (3, &[2][..]));
    assert_eq!(eval.notes(), [""; 0]);
    write(folder_.path(), &[("test/d/0.png", png)]);
    check_refused(&spec, Role::Eval, &["/test/d`: it is no class"]);
    // Evaluation alone: what it was not compared with is said.
    fs::remove_dir_all(folder_.path().join("train")).unwrap();
    let eval = Dataset::open(&spec, Role::Eval).unwrap();
    assert_eq!(eval.class_names(), ["c", "d"]);
    check_noted(&eval, &["split `train` is not here"]);
}

/// Pillow 13 reads each of these: the compressed pixels are whole, the file ends in or before what follows them.
#[test]
fn a_png_that_lacks_only_its_end_is_read() {
    let size = ImageSize {
        height: 5,
        width: 7,
        channels: 3,
    };
    let image = Image::from_pixels(size, (0..105).map(|i| (i * 37 % 251) as u8).collect());
    let bytes = png(&image).unwrap();
    for missing in 0..=bytes.len() - 8 {
        let cut = &bytes[..bytes.len() - missing];
        let (_folder, spec) = folder("image_folder", &[("train/a/0.png", cut)]);
        let mut found = Image::new();
        let decoded = Dataset::open(&spec, Role::Train)
            .unwrap()
            .decode(0, &mut found);
        // The mark takes 12 bytes, the checksum of the pixels 4.
        assert_eq!(
            decoded.is_ok(),
            missing <= 16,
            "{missing} bytes are missing"
        );
        assert!(decoded.is_err() || found == image, "{missing}");
    }
    // A byte of the pixels that is another one is damage, mark or no mark.
    let mut damaged = bytes.clone();
    let at = bytes.len() - 30;
    damaged[at] ^= 1;
    for end in [bytes.len(), bytes.len() - 12] {
        let (_folder, spec) = folder("image_folder", &[("train/a/0.png", &damaged[..end])]);
        let dataset = Dataset::open(&spec, Role::Train).unwrap();
        assert!(dataset.decode(0, &mut Image::new()).is_err(), "{end}");
    }
}
