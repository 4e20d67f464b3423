//! What is done with whole caches: verified, compared, judged, recoded, merged, removed.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;
use std::time::{Duration, SystemTime};

use logitcask_cache::{
    CacheError, CacheKey, ChunkRows, Encoding, Found, GcCandidate, GcPolicy, LogitCache,
    LogitWriter, Manifest, OpenOptions, diff, export, find, find_archive, gc_plan, list, makers,
    merge, pack, remove, remove_shells, stats, transcode, unpack, verify,
};
use support::{capture, files, key, label, logit, manifest, write_chunk};

fn open(path: &Path) -> LogitCache {
    LogitCache::open(path, OpenOptions::default()).unwrap()
}

#[test]
fn verify_finds_every_damaged_chunk_and_reads_on() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F16, 20, 4, 4), 2, &[3]);
    let report = verify(&path, &|_, _| {}).unwrap();
    assert!(report.is_whole(), "{:?}", report.damages);
    assert_eq!(
        (report.n_views, report.n_chunks, report.n_rows),
        (2, 10, 40)
    );

    let damaged = path.join("view=0001/part-00002.arrow");
    let mut bytes = std::fs::read(&damaged).unwrap();
    // A column that no gather reads: only verify sees it.
    let at = bytes
        .windows(4)
        .position(|w| w == 8u32.to_le_bytes())
        .unwrap();
    let sample_column = bytes
        .windows(8)
        .position(|w| w == [8, 0, 0, 0, 9, 0, 0, 0])
        .unwrap_or(at);
    bytes[sample_column] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    std::fs::write(path.join("view=0000/part-00000.arrow"), b"").unwrap();
    let report = verify(&path, &|_, _| {}).unwrap();
    let places: Vec<_> = report
        .damages
        .iter()
        .map(|damage| (damage.view, damage.chunk))
        .collect();
    assert_eq!(places, [(0, Some(0)), (1, Some(2))], "{:?}", report.damages);
}

#[test]
fn transcoded_rows_are_close_and_their_origin_is_recorded() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F32, 40, 10, 16), 2, &[7]);
    let exact = open(&path);
    let u8_path = transcode(&exact, root.path(), Encoding::U8, &|_, _| {}).unwrap();
    let coarse = open(&u8_path);
    assert_eq!(coarse.views(), exact.views());
    assert_eq!(coarse.null_samples(), [7]);
    assert_eq!(
        coarse.manifest().recorded["transcoded_from_encoding"],
        "f32"
    );
    assert_eq!(coarse.accuracy(), exact.accuracy());

    let report = diff(&exact, &coarse, 3, &|_, _| {}).unwrap();
    let fields: Vec<&str> = report.differences.iter().map(|d| d.field).collect();
    assert_eq!(fields, ["encoding", "transcoded"]);
    let distance = report.distance.unwrap();
    assert_eq!(distance.n_rows, 78);
    assert!(
        distance.max_abs <= 32.0 / 510.0 * 1.001,
        "{}",
        distance.max_abs
    );
    assert!(distance.kl[1].mean < 1e-3 && distance.worst.len() == 3);

    // A row that was rounded must never pass for an exact one.
    let error = transcode(&coarse, root.path(), Encoding::F32, &|_, _| {}).unwrap_err();
    assert!(matches!(error, CacheError::NotHeld { .. }), "{error}");
    // And its rows are those that a capture in that encoding makes of the same logits.
    let fresh = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::U8, 40, 10, coarse.manifest().chunk_rows);
    let (captured, _) = capture(fresh.path(), &made, 2, &[7]);
    let report = diff(&open(&captured), &coarse, 1, &|_, _| {}).unwrap();
    assert_eq!(report.distance.unwrap().max_abs, 0.0);
}

/// A transcoded cache used to have the key of a capture in its encoding. So one could grow by the other's rows, which differ
/// where the first rounding decides on the second.
#[test]
fn transcoded_rows_have_a_key_of_their_own_and_do_not_mix() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F32, 40, 10, 16), 2, &[]);
    let exact = open(&path);
    let wanted = manifest(Encoding::U8, 40, 10, 16);
    let u8_path = transcode(&exact, root.path(), Encoding::U8, &|_, _| {}).unwrap();
    let coarse = open(&u8_path);
    assert_eq!(coarse.manifest().transcoded_from(), Some("f32"));
    assert_eq!(coarse.manifest().key.transcoded, "f32");
    assert_ne!(coarse.manifest().key.digest(), wanted.key.digest());
    // It serves where there is nothing better, and a shorter way is better.
    let found = || find(root.path(), &wanted.key).unwrap();
    assert_eq!(found(), Found::Transcoded(u8_path.clone()));
    let half = transcode(&exact, root.path(), Encoding::F16, &|_, _| {}).unwrap();
    let by_half = transcode(&open(&half), root.path(), Encoding::U8, &|_, _| {}).unwrap();
    assert_eq!(
        open(&by_half).manifest().transcoded_from(),
        Some("f32, f16")
    );
    assert_eq!(found(), Found::Transcoded(u8_path.clone()));
    std::fs::remove_dir_all(&u8_path).unwrap();
    assert_eq!(found(), Found::Transcoded(by_half));
    // A capture makes a cache of its own, and that is found first.
    let (direct, _) = capture(root.path(), &wanted, 1, &[]);
    assert_eq!(found(), Found::Hit(direct));
}

#[test]
fn a_transcoded_cache_grows_with_its_source_and_with_no_other() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F32, 40, 10, 16), 1, &[]);
    let recode = || {
        let source = open(&path);
        transcode(&source, root.path(), Encoding::U8, &|_, _| {})
    };
    let coarse = recode().unwrap();
    capture(root.path(), &manifest(Encoding::F32, 40, 10, 16), 2, &[]);
    assert_eq!(recode().unwrap(), coarse);
    assert_eq!(open(&coarse).views(), [0, 1]);
    // The same teacher's rows of another machine: the key says nothing of them.
    std::fs::remove_dir_all(&path).unwrap();
    capture(root.path(), &manifest(Encoding::F32, 40, 10, 16), 3, &[7]);
    let error = recode().unwrap_err();
    assert!(
        matches!(&error, CacheError::Disagrees { path, .. } if *path == coarse),
        "{error}"
    );
}

/// Those of earlier versions have the key of a capture, and record where they come from.
#[test]
fn an_old_transcoded_cache_is_read_and_not_grown() {
    let root = tempfile::tempdir().unwrap();
    let wanted = manifest(Encoding::U8, 40, 10, 16);
    let mut old = wanted.clone();
    for (name, value) in [
        ("transcoded_from", "00"),
        ("transcoded_from_encoding", "f32"),
    ] {
        old.recorded.insert(name.to_owned(), value.to_owned());
    }
    let (path, _) = capture(root.path(), &old, 1, &[]);
    assert_eq!(
        find(root.path(), &wanted.key).unwrap(),
        Found::Hit(path.clone())
    );
    assert_eq!(open(&path).manifest().transcoded_from(), Some("f32"));
    let error = LogitWriter::open(root.path(), &wanted).err().unwrap();
    assert!(matches!(error, CacheError::Transcoded { .. }), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("encoding=f32"), "{hint}");
}

#[test]
fn caches_of_other_images_are_not_compared() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F32, 8, 3, 4);
    let (a, _) = capture(root.path(), &made, 1, &[]);
    let other = Manifest {
        key: CacheKey {
            images: "other".into(),
            ..made.key.clone()
        },
        ..made
    };
    let (b, _) = capture(root.path(), &other, 1, &[]);
    let error = diff(&open(&a), &open(&b), 1, &|_, _| {}).unwrap_err();
    assert!(
        matches!(
            error,
            CacheError::NotComparable {
                field: "images",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn parts_by_samples_and_views_merge_into_what_one_capture_makes() {
    let whole = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 30, 4, 4);
    let (expected, _) = capture(whole.path(), &made, 3, &[5]);

    let parts: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut sources = Vec::new();
    for (part, root) in (0..).zip(&parts) {
        let writer = LogitWriter::open(root.path(), &made).unwrap();
        for view in 0..3 {
            for chunk in (0..made.n_chunks()).filter(|chunk| (chunk + view) % 3 == part) {
                write_chunk(&writer, view, chunk, &[5]);
            }
        }
        sources.push(writer.path().to_path_buf());
    }
    let root = tempfile::tempdir().unwrap();
    let report = merge(&sources[..2], root.path(), &|_, _| {}).unwrap();
    assert!(
        report.views.is_empty() && report.unfinished.len() == 3,
        "{report:?}"
    );
    let report = merge(&sources, root.path(), &|_, _| {}).unwrap();
    assert_eq!((report.views, report.unfinished.len()), (vec![0, 1, 2], 0));
    assert_eq!(files(&report.path), files(&expected));
}

#[test]
fn a_part_of_another_labelling_is_not_merged() {
    let (a, b, root) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let made = manifest(Encoding::F16, 8, 4, 4);
    let relabelled = Manifest {
        labels: [1; 32],
        ..made.clone()
    };
    let sources = [
        capture(a.path(), &made, 1, &[]).0,
        capture(b.path(), &relabelled, 1, &[]).0,
    ];
    let error = merge(&sources, root.path(), &|_, _| {}).unwrap_err();
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
fn stats_by_hand() {
    // Two classes, three samples, two views; z = (ln 3, 0) means p = (3/4, 1/4).
    let root = tempfile::tempdir().unwrap();
    let made = Manifest {
        chunk_rows: 3,
        ..Manifest::new("t", key(), Encoding::F32, 3, 2)
    };
    let writer = LogitWriter::open(root.path(), &made).unwrap();
    let yes = [3f32.ln(), 0.0];
    let no = [0.0, 3f32.ln()];
    let views = [[yes, no, yes], [yes, no, no]];
    for (view, rows) in (0..).zip(views) {
        let rows = ChunkRows {
            labels: &[0, 0, 0],
            logits: rows.as_flattened(),
            ..ChunkRows::default()
        };
        writer.write_chunk(view, 0, &rows).unwrap();
        writer.finish_view(view).unwrap();
    }
    let found = stats(&open(writer.path()), &|_, _| {}).unwrap();
    assert_eq!((found.n_rows, found.n_labelled), (6, 6));
    assert_eq!(found.accuracy, 0.5);
    let nll = -(3.0 * 0.75f64.ln() + 3.0 * 0.25f64.ln()) / 6.0;
    assert!((found.nll - nll).abs() < 1e-6, "{}", found.nll);
    // All rows have confidence 3/4 and half of them are right.
    assert!((found.ece - 0.25).abs() < 1e-6, "{}", found.ece);
    assert!((found.view_agreement.unwrap() - (1.0 + 1.0 + 0.5) / 3.0).abs() < 1e-6);
    let contradictions = found.contradictions();
    assert_eq!(contradictions.len(), 1);
    assert_eq!(
        (contradictions[0].sample, contradictions[0].predicted),
        (1, 1)
    );
    assert!((contradictions[0].confidence - 0.75).abs() < 1e-6);
}

fn paths(candidates: &[GcCandidate]) -> Vec<&std::path::PathBuf> {
    candidates
        .iter()
        .map(|candidate| &candidate.cache.path)
        .collect()
}

#[test]
fn gc_names_the_oldest_first_and_leaves_nothing_that_passes_for_a_cache() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 8, 3, 4);
    let (a, _) = capture(root.path(), &made, 1, &[]);
    let newer = Manifest {
        key: CacheKey {
            teacher: "newer".into(),
            ..made.key.clone()
        },
        ..made
    };
    let (b, _) = capture(root.path(), &newer, 1, &[]);
    let day = Duration::from_secs(86400);
    for file in [a.join("cache.json"), a.join("view=0000/view.json")] {
        let file = std::fs::File::options().append(true).open(file).unwrap();
        file.set_modified(SystemTime::now() - 10 * day).unwrap();
    }
    let now = SystemTime::now();
    let by_age = gc_plan(
        root.path(),
        GcPolicy {
            older_than: Some(5 * day),
            max_bytes: None,
        },
        now,
    )
    .unwrap();
    assert_eq!(paths(&by_age), [&a]);
    let one = list(root.path()).unwrap()[0].bytes;
    let by_size = gc_plan(
        root.path(),
        GcPolicy {
            older_than: None,
            max_bytes: Some(one + 10),
        },
        now,
    )
    .unwrap();
    assert_eq!(paths(&by_size), [&a]);
    assert_eq!(
        list(root.path()).unwrap().len(),
        2,
        "a plan removes nothing"
    );
    remove(&a).unwrap();
    assert!(!a.exists());
    assert_eq!(list(root.path()).unwrap()[0].path, b);
    assert!(matches!(remove(&a), Err(CacheError::NotACache { .. })));
}

/// `cache.json` went first once: a removal that was killed left rows which no verb saw, and the next capture took them up
/// under whatever labels it had.
#[test]
fn a_removal_cut_anywhere_leaves_a_smaller_cache_and_never_rows_of_nobody() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 8, 3, 4);
    let (path, _) = capture(root.path(), &made, 3, &[]);
    // Something in the last view but one that cannot be removed as a file stops the removal there.
    let stone = path.join("view=0001/view.json");
    std::fs::remove_file(&stone).unwrap();
    std::fs::create_dir_all(stone.join("in the way")).unwrap();
    remove(&path).unwrap_err();
    let left = list(root.path()).unwrap().remove(0);
    assert!(path.join("view=0000/view.json").exists() && !path.join("view=0002").exists());
    assert_eq!((left.problem, left.teacher.as_str()), (None, "synthetic"));
    std::fs::remove_dir_all(&stone).unwrap();
    remove(&path).unwrap();
    assert!(!path.exists());

    // Rows of nobody, as older versions could leave them.
    let (path, _) = capture(root.path(), &made, 1, &[]);
    std::fs::remove_file(path.join("cache.json")).unwrap();
    let other_labels = Manifest {
        labels: [9; 32],
        ..made
    };
    let refused = LogitWriter::open(root.path(), &other_labels).err().unwrap();
    assert!(matches!(refused, CacheError::Damaged { .. }), "{refused}");
}

#[test]
fn what_a_killed_removal_leaves_goes_with_the_next_and_what_lives_stays() {
    let root = tempfile::tempdir().unwrap();
    let [shell, notes, new] = ["shell", "notes", "new"].map(|name| root.path().join(name));
    for folder in [&shell, &notes, &new] {
        std::fs::create_dir(folder).unwrap();
    }
    // A claim of whom nothing is known, silent for long.
    let stale = std::fs::File::create(shell.join(".door.claim-0001")).unwrap();
    stale.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    std::fs::write(notes.join("README.md"), b"mine").unwrap();
    let mut watcher = logitcask_durable::Watcher::default();
    let living = watcher.try_claim(&new.join(".door")).unwrap();
    remove_shells(root.path()).unwrap();
    assert!(!shell.exists() && notes.join("README.md").exists());
    assert!(living.check().is_ok() && new.exists());
}

/// A killed `pack` or `export` left its temporary files for ever, and an export of fewer views its parts among the new ones.
#[test]
fn a_killed_export_is_cleaned_up_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let made = manifest(Encoding::F16, 8, 3, 4);
    let (path, _) = capture(root.path(), &made, 1, &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let out = elsewhere.path().join("out");
    export(&open(&path), &out, &|_, _| {}).unwrap();
    capture(root.path(), &made, 2, &[]);
    let left = [
        "data/.train-00000-of-00004.parquet.tmp-1",
        ".README.md.tmp-2",
    ];
    for name in left {
        std::fs::write(out.join(name), b"half").unwrap();
    }
    let foreign = out.join(".notes.txt.tmp-3");
    std::fs::write(&foreign, b"another's").unwrap();
    export(&open(&path), &out, &|_, _| {}).unwrap();
    assert!(foreign.exists());
    std::fs::remove_file(&foreign).unwrap();
    let clean = elsewhere.path().join("clean");
    export(&open(&path), &clean, &|_, _| {}).unwrap();
    assert!(files(&out) == files(&clean));

    let archive = pack(&path, root.path(), false, &|_, _| {}).unwrap();
    let packed = files(&archive);
    let left = archive.join("view=0001/.part-00001.parquet.tmp-1");
    std::fs::write(&left, b"half").unwrap();
    let mut watcher = logitcask_durable::Watcher::default();
    let living = watcher.try_claim(&archive.join(".pack")).unwrap();
    let refused = pack(&path, root.path(), false, &|_, _| {}).unwrap_err();
    assert!(matches!(refused, CacheError::Claim { .. }), "{refused}");
    assert!(left.exists(), "a living one's is not touched");
    drop(living);
    pack(&path, root.path(), false, &|_, _| {}).unwrap();
    assert!(files(&archive) == packed);
}

#[test]
fn a_label_and_a_row_can_be_had_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F32, 8, 3, 4), 1, &[2]);
    let cache = open(&path);
    let mut row = [0.0; 3];
    assert_eq!(cache.row_or_null(2, 0, &mut row).unwrap(), None);
    assert_eq!(cache.label(2, 0).unwrap(), label(2, 3));
    assert_eq!(
        cache.row_or_null(5, 0, &mut row).unwrap(),
        Some(label(5, 3))
    );
    assert_eq!(row[1], logit(5, 0, 1));
}

#[test]
fn an_archive_brings_the_cache_back_byte_for_byte() {
    for encoding in [
        Encoding::F16,
        Encoding::Bf16,
        Encoding::F32,
        Encoding::U8,
        Encoding::TopK(2),
    ] {
        for keep_f16 in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let made = manifest(encoding, 11, 5, 4);
            let (path, _) = capture(root.path(), &made, 2, &[6]);
            let archive = pack(&path, root.path(), keep_f16, &|_, _| {}).unwrap();
            assert_eq!(
                list(root.path()).unwrap().len(),
                1,
                "an archive is no cache"
            );
            assert_eq!(
                find_archive(root.path(), &made.key).unwrap(),
                Some(Found::Hit(archive.clone()))
            );
            let elsewhere = tempfile::tempdir().unwrap();
            let back = unpack(&archive, elsewhere.path(), &|_, _| {}).unwrap();
            assert!(files(&back) == files(&path), "{encoding}");
        }
    }
}

#[test]
fn a_damaged_archive_gives_an_error_and_no_cache() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::F16, 11, 5, 16), 1, &[6]);
    let archive = pack(&path, root.path(), false, &|_, _| {}).unwrap();
    let file = archive.join("view=0000/part-00000.parquet");
    let whole = std::fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&file, bytes).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        // Either the damage is seen, or it was in something that no row depends on.
        if let Ok(back) = unpack(&archive, elsewhere.path(), &|_, _| {}) {
            assert!(files(&back) == files(&path), "byte {at}");
        }
    }
}

#[test]
fn an_export_has_rows_and_a_card() {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(root.path(), &manifest(Encoding::U8, 11, 5, 4), 2, &[6]);
    let folder = root.path().join("exported");
    export(&open(&path), &folder, &|_, _| {}).unwrap();
    let found = files(&folder);
    let card = String::from_utf8(found["README.md"].clone()).unwrap();
    assert!(
        card.starts_with("---\n") && card.contains("22 rows: 11 samples in 2 views, 5 classes"),
        "{card}"
    );
    assert_eq!(
        found
            .keys()
            .filter(|name| name.starts_with("data/train-"))
            .count(),
        6
    );
}

#[test]
fn a_part_of_another_maker_is_recorded_as_its_own() {
    let root = tempfile::tempdir().unwrap();
    let by = |library: &str| {
        let mut manifest = manifest(Encoding::F32, 20, 4, 4);
        let recorded = [("onnxruntime", library), ("cpu", "a processor")];
        manifest.recorded = recorded
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        manifest
    };
    // Three parts: the cache's own maker, another one, and the first once more.
    let mut path = root.path().to_path_buf();
    for (library, chunks) in [("1.24", 0..2), ("1.25", 2..4), ("1.24", 4..5)] {
        let writer = LogitWriter::open_part(root.path(), &by(library), |_| chunks.clone()).unwrap();
        for chunk in chunks {
            write_chunk(&writer, 0, chunk, &[]);
        }
        path = writer.path().to_path_buf();
    }
    let told = |path: &Path| {
        let cache = open(path);
        let makers = makers(path).unwrap();
        let told = makers.iter().flat_map(|maker| {
            let differences = maker.differences(cache.manifest()).into_iter();
            differences.map(|(name, value)| (maker.samples(), format!("{name} {value}")))
        });
        told.collect::<Vec<_>>()
    };
    let other = vec![(8..16, "onnxruntime 1.25".to_owned())];
    LogitWriter::open(root.path(), &by("1.25"))
        .unwrap()
        .finish_view(0)
        .unwrap();
    assert_eq!(told(&path), other, "who only looked at it captured nothing");

    // It goes where the rows go, whatever the size of chunks there.
    let cache = open(&path);
    let coarse = transcode(&cache, root.path(), Encoding::F16, &|_, _| {}).unwrap();
    assert_eq!(told(&coarse), other);
    let archive = pack(&path, root.path(), false, &|_, _| {}).unwrap();
    let elsewhere = root.path().join("elsewhere");
    assert_eq!(
        told(&unpack(&archive, &elsewhere, &|_, _| {}).unwrap()),
        other
    );

    // Merged, parts that were captured apart are those of two makers as well.
    let apart = [("1.24", 0..2), ("1.25", 2..5)].map(|(library, chunks)| {
        let disk = root.path().join(library);
        let writer = LogitWriter::open_part(&disk, &by(library), |_| chunks.clone()).unwrap();
        for chunk in chunks {
            write_chunk(&writer, 0, chunk, &[]);
        }
        writer.path().to_path_buf()
    });
    let merged = merge(&apart, &root.path().join("merged"), &|_, _| {}).unwrap();
    assert_eq!(told(&merged.path), [(8..20, "onnxruntime 1.25".to_owned())]);

    let record = files(&path)
        .into_keys()
        .find(|name| name.starts_with("maker-"));
    let record = path.join(record.unwrap());
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("1.25", "1.24")).unwrap();
    assert!(makers(&path).is_err() && verify(&path, &|_, _| {}).is_err());
    drop(cache);
    remove(&path).unwrap();
    assert!(!path.exists());
}
