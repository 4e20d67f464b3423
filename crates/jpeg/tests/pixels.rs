//! Pixels are those of Pillow, at no level of difference. Nothing here comes from this crate's own output: the digests in
//! golden.txt are of Pillow's pixels (tests/jpeg_sweep.py golden), and so are those below.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};

use logitcask_jpeg::{Buffers, Error, Header};
use serde_json::Value;
use sha2::{Digest, Sha256};

mod drawn;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn decoded(file: &[u8], reduction: usize) -> Result<Vec<u8>, Error> {
    let header = Header::read(file)?;
    let [height, width] = header.reduced(reduction);
    let mut out = vec![0; height * width * header.channels()];
    let window = [0, 0, height, width];
    header.decode(file, reduction, window, &mut out, &mut Buffers::default())?;
    Ok(out)
}

/// Eight bytes are enough of a digest for a few hundred pictures.
fn digest(pixels: &[u8]) -> String {
    let digest = Sha256::digest(pixels);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// 200 files of a seed, each at four resolutions: every combination of sampling factors, scans and markers that libjpeg
/// takes is equally welcome. 20,000 of them are part of `make test-full`.
#[test]
fn drawn_files_have_pillows_pixels() {
    let golden = fs::read_to_string(here("golden.txt")).unwrap();
    let mut n = 0;
    for (index, line) in golden.lines().enumerate() {
        let file = drawn::file(1, index as u64);
        for (reduction, expected) in [1, 2, 4, 8].iter().zip(line.split(' ')) {
            let found = decoded(&file, *reduction).unwrap();
            assert_eq!(digest(&found), expected, "file {index} at 1/{reduction}");
            n += 1;
        }
    }
    assert_eq!(n, 800, "the list has shrunk");
}

/// These came out up to 113 levels wrong, or were refused, or brought the program down, while a second decoder took what
/// this one declined: luma coarser than chroma, scans of one component with unusual factors, thirds, progressive files that
/// lack scans.
#[test]
fn files_that_once_failed_have_pillows_pixels() {
    for (name, expected) in [
        ("base_1x1_2x1_2x1", "9109641c5d53fee5"),
        ("base_1x1_2x2_2x2", "4c157158a126c75c"),
        ("noninter_2x2_1x2_1x2", "c4c01cf6167ee8e4"),
        ("panic_8x8_prog_1x1_2x2_2x2", "b6090d0b7bf8343b"),
        ("prog_dc_only", "d95b5e56fee5334f"),
        ("prog_incomplete", "b1db0d7263b11343"),
        ("sample_3x1", "403ab56484f653fa"),
    ] {
        let file = fs::read(here(&format!("cases/{name}.jpg"))).unwrap();
        assert_eq!(digest(&decoded(&file, 1).unwrap()), expected, "{name}");
    }
}

/// What cameras and editors write, whole and reduced: PIL's `draft` is libjpeg's scaled decoding. The fixture is that of the
/// dataset's tests.
#[test]
fn usual_files_have_pillows_pixels() {
    let folder = here("../../dataset/tests/fixtures");
    let blob = fs::read(folder.join("pixels.bin")).unwrap();
    let json = fs::read(folder.join("pixels.json")).unwrap();
    let document: Value = serde_json::from_slice(&json).unwrap();
    let bytes = |place: &Value| {
        let number = |key: &str| place[key].as_u64().unwrap() as usize;
        blob[number("offset")..][..number("bytes")].to_vec()
    };
    let mut n = 0;
    let lists = [&document["encoded"], &document["reduced"]];
    for case in lists.into_iter().flat_map(|list| list.as_array().unwrap()) {
        let name = case["name"].as_str().unwrap();
        let by = case["by"].as_u64().unwrap_or(1) as usize;
        if name.starts_with("jpeg") {
            let found = decoded(&bytes(&case["file"]), by).unwrap();
            assert!(found == bytes(&case["result"]), "{name} at 1/{by}");
            n += 1;
        }
    }
    assert!(n >= 24, "the fixture has shrunk to {n}");
}

/// A file of these bytes after the frame's marker and length, with one scan.
fn with_frame(marker: u8, frame: &[u8]) -> Vec<u8> {
    let mut file = vec![0xFF, 0xD8, 0xFF, marker, 0, frame.len() as u8 + 2];
    file.extend(frame);
    file.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 0x55, 0x55, 0xFF, 0xD9]);
    file
}

#[test]
fn what_is_not_decoded_is_refused_by_name() {
    let grey = [8, 0, 8, 0, 8, 1, 1, 0x11, 0];
    let refusal = |marker: u8, frame: &[u8]| Header::read(&with_frame(marker, frame)).err();
    assert_eq!(refusal(0xC0, &grey), None);
    assert_eq!(refusal(0xC9, &grey), Some(Error::Arithmetic));
    assert_eq!(refusal(0xCA, &grey), Some(Error::Arithmetic));
    assert_eq!(refusal(0xC3, &grey), Some(Error::Lossless));
    assert_eq!(refusal(0xCB, &grey), Some(Error::Lossless));
    assert_eq!(refusal(0xC5, &grey), Some(Error::Hierarchical));
    assert_eq!(refusal(0xDE, &grey), Some(Error::Hierarchical));
    let twelve = [12, 0, 8, 0, 8, 1, 1, 0x11, 0];
    assert_eq!(refusal(0xC1, &twelve), Some(Error::Precision(12)));
    // libjpeg refuses these too: two components (PIL does), and halves of thirds.
    let two = [8, 0, 8, 0, 8, 2, 1, 0x11, 0, 2, 0x11, 0];
    assert_eq!(refusal(0xC0, &two), Some(Error::Components(2)));
    let thirds = [8, 0, 8, 0, 8, 3, 1, 0x31, 0, 2, 0x21, 0, 3, 0x11, 0];
    assert_eq!(refusal(0xC0, &thirds), Some(Error::Sampling));
    let many = [8, 0, 8, 0, 8, 3, 1, 0x51, 0, 2, 0x11, 0, 3, 0x11, 0];
    assert!(matches!(refusal(0xC0, &many), Some(Error::Damaged(_))));
    let file = fs::read(here("cases/arith.jpg")).unwrap();
    assert_eq!(decoded(&file, 1), Err(Error::Arithmetic));
}

/// A header that claims gigapixels is refused before anybody takes memory for them.
#[test]
fn a_file_cannot_be_larger_than_its_bytes_allow() {
    for marker in [0xC0, 0xC2] {
        let mut file = with_frame(marker, &[8, 0xFF, 0, 0xFF, 0, 1, 1, 0x11, 0]);
        if marker == 0xC2 {
            let last = file.len() - 6;
            file[last] = 0; // averages alone, as progressive files begin
        }
        let refused = Header::read(&file).err().unwrap();
        assert!(matches!(refused, Error::TooShort { .. }), "{refused}");
    }
}
