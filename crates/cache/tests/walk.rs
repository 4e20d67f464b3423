//! Captured, found, gathered; resumed, extended, refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;

use logitcask_cache::{
    CacheError, CacheKey, ChunkRows, Encoding, Found, Io, LogitCache, LogitWriter, OpenOptions,
    Statistic, encodings, find, list, transcode,
};
use support::{capture, files, key, label, logit, manifest, write_chunk};

fn gather(cache: &LogitCache, wanted: &[(u32, u32)]) -> Result<(Vec<f32>, Vec<u32>), CacheError> {
    let mut logits = vec![0.0; wanted.len() * cache.n_classes()];
    let mut labels = vec![0; wanted.len()];
    cache.rows(wanted, &mut logits, &mut labels)?;
    Ok((logits, labels))
}

fn open(path: &Path) -> LogitCache {
    LogitCache::open(path, OpenOptions::default()).unwrap()
}

#[test]
fn what_went_in_comes_out_in_any_order_in_every_encoding() {
    for row in encodings().iter().filter(|row| row.encoding.is_dense()) {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = capture(root.path(), &manifest(row.encoding, 23, 7, 5), 3, &[]);
        for io in [Io::Map, Io::Read] {
            let cache = LogitCache::open(&path, OpenOptions { io }).unwrap();
            assert_eq!(cache.views(), [0, 1, 2]);
            let wanted: Vec<(u32, u32)> = (0..69).map(|i| (i * 11 % 23, i * 7 % 3)).collect();
            let (logits, labels) = gather(&cache, &wanted).unwrap();
            for (i, &(sample, view)) in wanted.iter().enumerate() {
                assert_eq!(labels[i], label(sample, 7));
                for class in 0..7 {
                    let (z, d) = (logit(sample, view, class), logits[i * 7 + class]);
                    let bound = match row.encoding {
                        Encoding::F32 => 0.0, // exact
                        _ => 0.07,
                    };
                    assert!((z - d).abs() <= bound, "{}: {z} {d}", row.name);
                }
            }
        }
    }
}

#[test]
fn bad_samples_keep_their_index_and_are_named() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F16, 10, 3, 4), 2, &[5, 9]);
    let cache = open(&path);
    assert_eq!(cache.null_samples(), [5, 9]);
    gather(&cache, &[(4, 1), (6, 1), (8, 0)]).unwrap();
    let error = gather(&cache, &[(4, 0), (9, 1)]).unwrap_err();
    assert!(
        matches!(error, CacheError::NullRow { sample: 9, view: 1 }),
        "{error}"
    );
}

#[test]
fn rows_that_are_not_there_are_named() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F32, 10, 3, 4), 1, &[]);
    let cache = open(&path);
    assert!(matches!(
        gather(&cache, &[(10, 0)]),
        Err(CacheError::NoSuchSample {
            sample: 10,
            n_samples: 10
        })
    ));
    assert!(matches!(
        gather(&cache, &[(0, 1)]),
        Err(CacheError::NoSuchView {
            view: 1,
            n_views: 1
        })
    ));
    let mut short = [0.0; 5];
    assert!(matches!(
        cache.rows(&[(0, 0), (1, 0)], &mut short, &mut [0; 2]),
        Err(CacheError::Length { .. })
    ));
}

#[test]
fn a_hit_a_miss_and_what_differs() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 10, 3, 4);
    assert_eq!(
        find(root.path(), &made.key).unwrap(),
        Found::Miss { nearest: None }
    );
    let (path, _) = capture(root.path(), &made, 1, &[]);
    assert_eq!(
        find(root.path(), &made.key).unwrap(),
        Found::Hit(path.clone())
    );

    let retrained = CacheKey {
        teacher: "beef".repeat(16),
        ..made.key.clone()
    };
    let Found::Miss {
        nearest: Some((near, differences)),
    } = find(root.path(), &retrained).unwrap()
    else {
        panic!("another teacher must be a miss");
    };
    assert_eq!(near, path);
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].field, "teacher");
    assert_eq!(differences[0].cached, made.key.teacher);

    let unrelated = CacheKey {
        teacher: "t".into(),
        images: "i".into(),
        ..key()
    };
    assert_eq!(
        find(root.path(), &unrelated).unwrap(),
        Found::Miss { nearest: None }
    );
    let listed = list(root.path()).unwrap();
    assert_eq!(
        (listed.len(), listed[0].n_views, listed[0].problem.as_ref()),
        (1, 1, None)
    );
}

#[test]
fn a_moved_cache_is_the_same_cache() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 10, 3, 4);
    let (path, _) = capture(root.path(), &made, 1, &[]);
    let id = open(&path).id();
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("renamed");
    std::fs::rename(&path, &moved).unwrap();
    assert_eq!(
        find(elsewhere.path(), &made.key).unwrap(),
        Found::Hit(moved.clone())
    );
    assert_eq!(open(&moved).id(), id);
}

#[test]
fn views_are_added_and_nothing_else_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 10, 3, 4);
    let (path, first) = capture(root.path(), &made, 2, &[]);
    assert_eq!(first, 6);
    let (before, id) = (files(&path), open(&path).id());
    assert_eq!(capture(root.path(), &made, 2, &[]).1, 0);
    assert_eq!(files(&path), before);
    assert_eq!(capture(root.path(), &made, 3, &[]).1, 3);
    let after = files(&path);
    assert!(before.iter().all(|(name, bytes)| after[name] == *bytes));
    assert_ne!(open(&path).id(), id);
}

#[test]
fn a_capture_that_stopped_is_taken_up() {
    let whole = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::U8, 22, 3, 4);
    let (expected, _) = capture(whole.path(), &made, 2, &[3]);

    let root = tempfile::tempdir().unwrap();
    let path = {
        let writer = LogitWriter::open(root.path(), &made).unwrap();
        for chunk in [0, 3] {
            write_chunk(&writer, 0, chunk, &[3]);
        }
        let error = writer.finish_view(0).unwrap_err();
        assert!(
            matches!(
                error,
                CacheError::Unfinished {
                    missing: 4,
                    n_chunks: 6,
                    ..
                }
            ),
            "{error}"
        );
        writer.path().to_path_buf()
    };
    // What a killed writer can leave: a temporary file; and what a failing disk can: a chunk cut short.
    std::fs::write(path.join("view=0000/.part-00001.arrow.tmp-1"), b"half").unwrap();
    let third = path.join("view=0000/part-00003.arrow");
    let bytes = std::fs::read(&third).unwrap();
    std::fs::write(&third, &bytes[..bytes.len() / 2]).unwrap();
    assert!(
        open(&path).views().is_empty(),
        "a view without view.json does not exist"
    );
    // Chunk 0 is kept; the damaged one and the four that never were are written.
    assert_eq!(capture(root.path(), &made, 2, &[3]).1, 5 + 6);
    assert_eq!(files(&path), files(&expected));
}

#[test]
fn one_process_writes_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 10, 3, 4);
    let writer = LogitWriter::open(root.path(), &made).unwrap();
    let error = LogitWriter::open(root.path(), &made).err().unwrap();
    assert!(matches!(error, CacheError::Claim { .. }), "{error}");
    assert!(error.hint().is_some());
    drop(writer);
    LogitWriter::open(root.path(), &made).unwrap();
}

#[test]
fn the_same_key_with_other_labels_or_pixels_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 10, 3, 4);
    capture(root.path(), &made, 1, &[]);
    let mut relabelled = made.clone();
    relabelled.labels[0] = 1;
    let error = LogitWriter::open(root.path(), &relabelled).err().unwrap();
    assert!(
        matches!(
            error,
            CacheError::Disagrees {
                field: "labels",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn relabelled_rows_keep_their_logits() {
    for encoding in [Encoding::F16, Encoding::TopK(3)] {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = capture(root.path(), &manifest(encoding, 10, 7, 4), 2, &[]);
        let (before, mut after) = (open(&path), open(&path));
        after.relabel(&[6, 5, 4, 3, 2, 1, 0, 6, 5, 4]).unwrap();
        assert_eq!(
            (before.accuracy().is_some(), after.accuracy()),
            (true, None)
        );
        let wanted = [(7, 1), (0, 0), (9, 1)];
        if encoding.is_dense() {
            let (logits, labels) = gather(&after, &wanted).unwrap();
            assert_eq!(labels, [6, 6, 4]);
            assert_eq!(logits, gather(&before, &wanted).unwrap().0);
        } else {
            let rows = |cache: &LogitCache| cache.top_k_rows(&wanted).unwrap().into_iter();
            let labels: Vec<u32> = rows(&after).map(|(label, _)| label).collect();
            assert_eq!(labels, [6, 6, 4]);
            assert!(
                rows(&after)
                    .zip(rows(&before))
                    .all(|(a, b)| a.1.classes == b.1.classes)
            );
        }
        let error = after.relabel(&[0; 9]).unwrap_err();
        assert!(error.to_string().contains("9"), "{error}");
    }
}

#[test]
fn what_is_no_logit_is_refused_with_its_sample() {
    let root = tempfile::tempdir().unwrap();
    let writer = LogitWriter::open(root.path(), &manifest(Encoding::F16, 4, 3, 2)).unwrap();
    let write = |logits: &[f32], labels: &[u32], valid: &[bool]| {
        writer.write_chunk(
            0,
            1,
            &ChunkRows {
                labels,
                logits,
                valid,
                ..ChunkRows::default()
            },
        )
    };
    let error = write(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0], &[0, 0], &[]).unwrap_err();
    assert!(
        matches!(
            error,
            CacheError::NonFinite {
                sample: 3,
                view: 0,
                class: 1,
                ..
            }
        ),
        "{error}"
    );
    let error = write(&[0.0, 0.0, 70000.0, 0.0, 0.0, 0.0], &[0, 0], &[]).unwrap_err();
    assert!(
        matches!(
            error,
            CacheError::OutOfRange {
                sample: 2,
                class: 2,
                ..
            }
        ),
        "{error}"
    );
    let error = write(&[0.0; 6], &[0, 3], &[]).unwrap_err();
    assert!(
        matches!(
            error,
            CacheError::Label {
                sample: 3,
                label: 3,
                ..
            }
        ),
        "{error}"
    );
    // A missing row may hold anything.
    write(
        &[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0],
        &[0, 0],
        &[true, false],
    )
    .unwrap();
}

#[test]
fn a_chunk_in_a_wrong_place_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F16, 8, 3, 4), 2, &[]);
    let (a, b) = (
        path.join("view=0000/part-00000.arrow"),
        path.join("view=0001/part-00000.arrow"),
    );
    std::fs::copy(&a, &b).unwrap();
    let error = LogitCache::open(&path, OpenOptions::default())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("its `logitcask.view` is `0`, expected `1`"),
        "{error}"
    );
}

#[test]
fn a_file_replaced_after_opening_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F16, 8, 3, 4), 1, &[]);
    let cache = open(&path);
    let before = gather(&cache, &[(6, 0)]).unwrap();
    std::fs::remove_file(path.join("view=0000/part-00001.arrow")).unwrap();
    std::fs::write(path.join("view=0000/part-00001.arrow"), b"").unwrap();
    assert_eq!(gather(&cache, &[(6, 0)]).unwrap(), before);
}

#[test]
fn a_batch_large_enough_for_several_threads_comes_out_the_same() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F16, 300, 1000, 64), 2, &[]);
    let cache = open(&path);
    let wanted: Vec<(u32, u32)> = (0..600).map(|i| (i * 7 % 300, i % 2)).collect();
    let (together, labels) = gather(&cache, &wanted).unwrap();
    for (i, pair) in wanted.iter().enumerate() {
        let (alone, label) = gather(&cache, &[*pair]).unwrap();
        assert_eq!(together[i * 1000..][..1000], alone);
        assert_eq!(labels[i], label[0]);
    }
}

#[test]
fn a_top_k_cache_gives_what_it_holds_and_refuses_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::TopK(3), 20, 9, 8), 1, &[2]);
    let cache = open(&path);
    let error = gather(&cache, &[(0, 0)]).unwrap_err();
    assert!(matches!(error, CacheError::NotHeld { .. }), "{error}");
    assert!(error.to_string().contains("`top3`"), "{error}");
    cache.require(Statistic::Rest { temperature: 4.0 }).unwrap();
    assert!(cache.require(Statistic::Rest { temperature: 3.0 }).is_err());
    assert!(cache.require(Statistic::Largest(4)).is_err());
    for (label_there, row) in cache
        .top_k_rows(&[(7, 0), (0, 0)])
        .unwrap()
        .into_iter()
        .take(1)
    {
        let logits: Vec<f32> = (0..9).map(|class| logit(7, 0, class)).collect();
        let mut order: Vec<usize> = (0..9).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        assert_eq!(
            row.classes,
            order[..3]
                .iter()
                .map(|&class| class as u32)
                .collect::<Vec<_>>()
        );
        assert_eq!(label_there, label(7, 9));
        assert_eq!(row.label_logit, logits[label_there as usize]);
        let whole: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        let listed: f64 = order[..3]
            .iter()
            .map(|&class| f64::from(logits[class]).exp())
            .sum();
        assert!((f64::from(row.rest[0]) - (whole - listed).ln()).abs() < 1e-5);
    }
    assert!(matches!(
        cache.top_k_rows(&[(2, 0)]),
        Err(CacheError::NullRow { sample: 2, view: 0 })
    ));
    let too_many = LogitWriter::open(root.path(), &manifest(Encoding::TopK(9), 20, 9, 8))
        .err()
        .unwrap();
    assert!(
        matches!(
            too_many,
            CacheError::Manifest {
                field: "encoding",
                ..
            }
        ),
        "{too_many}"
    );
}

/// Features lie beside the rows, under the same check, and go wherever the rows go.
#[test]
fn features_come_back_beside_their_rows() {
    const LEN: usize = 5;
    let feature = |sample: u32, view: u32, index: usize| logit(sample, view, 1000 + index);
    for (encoding, tolerance) in [
        (Encoding::F32, 0.0),
        (Encoding::F16, 0.01),
        (Encoding::U8, 0.01),
        (Encoding::TopK(2), 0.01),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut manifest = manifest(encoding, 6, 3, 4).with_features(LEN);
        manifest.chunk_rows = 4;
        let writer = LogitWriter::open(root.path(), &manifest).unwrap();
        for chunk in 0..2 {
            let samples = writer.chunk_range(chunk).unwrap();
            let of = |n: usize, value: &dyn Fn(u32, usize) -> f32| -> Vec<f32> {
                let rows = samples.clone();
                rows.flat_map(|sample| (0..n).map(move |i| value(sample, i)))
                    .collect()
            };
            let rows = ChunkRows {
                labels: &vec![0; samples.len()],
                logits: &of(3, &|sample, class| logit(sample, 0, class)),
                valid: &samples.clone().map(|s| s != 5).collect::<Vec<_>>(),
                features: &of(LEN, &|sample, index| feature(sample, 0, index)),
            };
            writer.write_chunk(0, chunk, &rows).unwrap();
        }
        writer.finish_view(0).unwrap();

        let cache = LogitCache::open(writer.path(), OpenOptions::default()).unwrap();
        let wanted = [(4, 0), (0, 0), (3, 0)];
        let mut features = [0.0; 3 * LEN];
        cache.features(&wanted, &mut features).unwrap();
        for ((sample, view), row) in wanted.iter().zip(features.chunks(LEN)) {
            for (index, value) in row.iter().enumerate() {
                let expected = feature(*sample, *view, index);
                assert!(
                    (value - expected).abs() <= tolerance,
                    "{encoding}: {value}, expected {expected}"
                );
            }
        }
        // The rows themselves do not take the features for their own last column.
        if encoding.is_dense() {
            let (logits, _) = gather(&cache, &wanted).unwrap();
            for ((sample, view), row) in wanted.iter().zip(logits.chunks(3)) {
                for (class, value) in row.iter().enumerate() {
                    let expected = logit(*sample, *view, class);
                    assert!(
                        (value - expected).abs() <= 0.07,
                        "{encoding}: {value}, {expected}"
                    );
                }
            }
        }
        let null = cache.features(&[(5, 0)], &mut [0.0; LEN]).unwrap_err();
        assert!(
            matches!(null, CacheError::NullRow { sample: 5, .. }),
            "{null}"
        );
        let verified = cache.verify(&|_, _| {}).unwrap();
        assert!(verified.damages.is_empty(), "{verified:?}");
        if encoding == Encoding::F32 {
            let path = transcode(&cache, root.path(), Encoding::F16, &|_, _| {}).unwrap();
            let coarse = LogitCache::open(&path, OpenOptions::default()).unwrap();
            let mut rounded = [0.0; 3 * LEN];
            coarse.features(&wanted, &mut rounded).unwrap();
            let pairs = features.iter().zip(rounded);
            assert!(pairs.into_iter().all(|(exact, f)| (exact - f).abs() < 0.01));
        }

        // One flipped bit of a feature, and the row is refused.
        let file = writer.path().join("view=0000/part-00000.arrow");
        let stored: Vec<u8> = (0..LEN)
            .flat_map(|index| stored_feature(encoding, feature(0, 0, index)))
            .collect();
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.windows(stored.len()).position(|b| b == stored);
        bytes[at.expect("the feature stands in the file")] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let damaged = LogitCache::open(writer.path(), OpenOptions::default()).unwrap();
        let refused = damaged.features(&[(0, 0)], &mut [0.0; LEN]).unwrap_err();
        assert!(
            matches!(refused, CacheError::DamagedRow { sample: 0, .. }),
            "{refused}"
        );
    }
    let plain = tempfile::tempdir().unwrap();
    let writer = LogitWriter::open(plain.path(), &manifest(Encoding::F16, 2, 3, 2)).unwrap();
    write_chunk(&writer, 0, 0, &[]);
    writer.finish_view(0).unwrap();
    let cache = LogitCache::open(writer.path(), OpenOptions::default()).unwrap();
    let none = cache.features(&[(0, 0)], &mut []).unwrap_err();
    assert!(matches!(none, CacheError::NotHeld { .. }), "{none}");
}

/// A feature as it is stored beside rows of this encoding.
fn stored_feature(encoding: Encoding, value: f32) -> Vec<u8> {
    match encoding {
        Encoding::F32 => value.to_le_bytes().to_vec(),
        _ => half::f16::from_f32(value).to_le_bytes().to_vec(),
    }
}

#[test]
fn parts_are_written_at_once_and_whoever_completes_a_view_makes_it_exist() {
    let whole = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 40, 3, 4);
    let (expected, _) = capture(whole.path(), &made, 2, &[7]);

    let root = tempfile::tempdir().unwrap();
    let part = |chunks: std::ops::Range<u32>| {
        LogitWriter::open_part(root.path(), &made, |n_chunks| {
            assert_eq!(n_chunks, 10);
            chunks
        })
    };
    let (first, second) = (part(0..4).unwrap(), part(4..10).unwrap());
    let nobodys = part(4..4).unwrap();
    for overlapping in [3..5, 0..10, 9..10, 0..4] {
        let error = part(overlapping).err().unwrap();
        assert!(matches!(error, CacheError::Claim { .. }), "{error}");
    }
    let error = logitcask_cache::remove(first.path()).unwrap_err();
    assert!(matches!(error, CacheError::Claim { .. }), "{error}");
    // What a part that was killed left behind goes with the next one that holds its chunks, and no sooner.
    let leftover = first.path().join("view=0000/.part-00004.arrow.tmp-1");
    std::fs::create_dir_all(leftover.parent().unwrap()).unwrap();
    std::fs::write(&leftover, b"half").unwrap();

    for view in 0..2 {
        for chunk in second.missing_chunks(view).unwrap() {
            write_chunk(&second, view, chunk, &[7]);
        }
        assert!(matches!(
            second.finish_view(view),
            Err(CacheError::Unfinished { missing: 4, .. })
        ));
    }
    assert_eq!(first.missing_chunks(0).unwrap(), [0, 1, 2, 3]);
    let refused = first.write_chunk(0, 5, &ChunkRows::default());
    assert!(refused.is_err(), "chunk 5 is the other part's");
    drop(part(0..0).unwrap());
    assert!(leftover.exists());
    drop(second);
    drop(part(4..10).unwrap());
    assert!(!leftover.exists());
    for chunk in 0..4 {
        write_chunk(&first, 0, chunk, &[7]);
        write_chunk(&first, 1, chunk, &[7]);
    }
    first.finish_view(0).unwrap();
    // The last part may die between its last chunk and the view's file: any other finishes the view.
    nobodys.finish_view(1).unwrap();
    nobodys.finish_view(0).unwrap();
    drop((first, nobodys));
    assert_eq!(files(&expected), {
        let path = list(root.path()).unwrap().remove(0).path;
        files(&path)
    });
}

#[test]
fn what_the_disk_cannot_hold_is_refused_before_the_work() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F32, u32::MAX, 1000, 1 << 19);
    let writer = LogitWriter::open(root.path(), &made).unwrap();
    let views: Vec<u32> = (0..256).collect();
    let error = writer.check_space(&views).unwrap_err();
    assert!(matches!(error, CacheError::DiskFull { .. }), "{error}");
    writer.check_space(&[]).unwrap();
}
