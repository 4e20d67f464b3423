//! Caches of every format version, kept in the repository, are opened for ever.
//!
//! `LOGITCASK_MAKE_COMPAT=1` writes the cache of the version in force, once, before a release.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;

use logitcask_cache::{Encoding, LogitCache, OpenOptions};
use support::{capture, label, logit, manifest};

#[test]
fn caches_of_every_version_open() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/compat"));
    if std::env::var_os("LOGITCASK_MAKE_COMPAT").is_some() {
        for encoding in [Encoding::F16, Encoding::F32, Encoding::U8] {
            capture(
                &folder.join("version-0"),
                &manifest(encoding, 11, 4, 8),
                2,
                &[3],
            );
        }
    }
    let mut n_caches = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let version = entry.unwrap().path();
        if !version.is_dir() {
            continue;
        }
        for summary in logitcask_cache::list(&version).unwrap() {
            assert_eq!(summary.problem, None);
            let cache = LogitCache::open(&summary.path, OpenOptions::default()).unwrap();
            assert_eq!(
                (cache.views(), cache.null_samples()),
                (&[0, 1][..], &[3][..])
            );
            for sample in (0..11).filter(|sample| *sample != 3) {
                let (mut logits, mut labels) = ([0.0; 4], [0]);
                cache
                    .rows(&[(sample, 1)], &mut logits, &mut labels)
                    .unwrap();
                assert_eq!(labels, [label(sample, 4)]);
                for (class, z) in logits.iter().enumerate() {
                    assert!(
                        (z - logit(sample, 1, class)).abs() < 0.07,
                        "{}",
                        summary.path.display()
                    );
                }
            }
            n_caches += 1;
        }
    }
    assert!(n_caches >= 3, "the kept caches are missing");
}
