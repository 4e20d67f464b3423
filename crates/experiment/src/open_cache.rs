//! Opening a cache that a recipe wants: where it lies, what differs where it does not, and whether it is of these very images.

use std::path::{Path, PathBuf};

use logitcask_cache::{Difference, Found, LogitCache, OpenOptions};
use logitcask_dataset::pixel_digests;

use crate::event::{self, Watch, with_progress};
use crate::failure::{Failure, Outcome};
use crate::want::CacheWant;

impl CacheWant<'_> {
    /// Opens the cache if it is there with every view that is wanted.
    ///
    /// # Errors
    /// If it is not there, saying which ingredient differs from the nearest one; if views are missing; if it is damaged;
    /// or if today's labels or pixels are not those that the teacher was shown.
    pub fn open(&self, cache_dir: &Path, recipe: &Path, watch: &Watch<'_>) -> Outcome<LogitCache> {
        self.open_by(cache_dir, recipe, OpenOptions::default(), watch)
    }

    /// The same, read in a way of one's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(
        &self,
        cache_dir: &Path,
        recipe: &Path,
        options: OpenOptions,
        watch: &Watch<'_>,
    ) -> Outcome<LogitCache> {
        let make = match self.teacher.known {
            None => format!("logitcask teacher-logits {}", recipe.display()),
            Some(_) => "capture it where the teacher's file is, and copy the cache here".to_owned(),
        };
        let path = match self.find(cache_dir, watch)? {
            Found::Hit(path) | Found::Transcoded(path) => path,
            Found::Miss { nearest } => {
                let mut message = format!(
                    "no cache under `{}` holds the {} of teacher `{}`",
                    cache_dir.display(),
                    self.split.what(),
                    self.teacher.title()
                );
                if let Some((path, differences)) =
                    nearest.filter(|(_, differences)| is_near(differences))
                {
                    message += &format!(
                        "; the nearest, `{}`, differs: {}",
                        path.display(),
                        describe(&differences)
                    );
                }
                return Err(Failure::work(message).with_hint(make));
            }
        };
        let mut cache = LogitCache::open(&path, options)?;
        let n_there = self.views_there(&cache);
        if n_there < self.split.n_views {
            let message = format!(
                "cache `{}` holds {n_there} of the {} views",
                path.display(),
                self.split.n_views
            );
            return Err(Failure::work(message).with_hint(make));
        }
        self.check_labels(&mut cache, &path, watch)?;
        self.check_pixels(&cache, &path)?;
        Ok(cache)
    }

    /// Looks for the cache: one that was captured before one that was transcoded into its encoding. Where only a Parquet archive
    /// of it is there, the cache is made from that, once, and says so.
    ///
    /// # Errors
    /// If the one cache with this key, or its archive, is damaged.
    pub fn find(&self, cache_dir: &Path, watch: &Watch<'_>) -> Outcome<Found> {
        let found = logitcask_cache::find(cache_dir, &self.key)?;
        if matches!(found, Found::Hit(_)) {
            return Ok(found);
        }
        match (logitcask_cache::find_archive(cache_dir, &self.key)?, found) {
            (Some(Found::Hit(archive)), _) => {
                self.unpack(&archive, cache_dir, watch).map(Found::Hit)
            }
            (Some(Found::Transcoded(archive)), Found::Miss { .. }) => self
                .unpack(&archive, cache_dir, watch)
                .map(Found::Transcoded),
            (_, found) => Ok(found),
        }
    }

    fn unpack(&self, archive: &Path, cache_dir: &Path, watch: &Watch<'_>) -> Outcome<PathBuf> {
        event::info(
            watch,
            format!(
                "{}: found as a Parquet archive, `{}`; converting it once, to be mapped from then on",
                self.split.what(),
                archive.display()
            ),
        );
        Ok(with_progress(watch, "converting", "chunks", |progress| {
            logitcask_cache::unpack(archive, cache_dir, progress)
        })?)
    }

    /// How many of the wanted views a cache holds.
    pub fn views_there(&self, cache: &LogitCache) -> u32 {
        cache.view_files_below(self.split.n_views).len() as u32
    }

    fn check_labels(&self, cache: &mut LogitCache, path: &Path, watch: &Watch<'_>) -> Outcome {
        if cache.manifest().labels == self.split.fingerprint.labels {
            return Ok(());
        }
        let what = format!(
            "the labels of the {} are not those that cache `{}` was made with",
            self.split.what(),
            path.display()
        );
        let dataset = &self.split.dataset;
        if dataset.spec().relabelled {
            event::info(
                watch,
                format!("{what}; the dataset's are used (`data.relabelled`)"),
            );
            return Ok(cache.relabel(dataset.labels())?);
        }
        Err(Failure::work(what).with_hint(
            "the images are the same, so one of the two labellings is wrong; if it is the cache's, set \
             `data.relabelled = true`: the logits are taken and the dataset's labels used",
        ))
    }

    fn check_pixels(&self, cache: &LogitCache, path: &Path) -> Outcome {
        let wanted = &cache.manifest().pixel_checks;
        if wanted.is_empty() {
            return Err(Failure::work(format!(
                "cache `{}` has no digest of the pixels that its teacher saw, so nobody can tell whether they were these",
                path.display()
            ))
            .with_hint("capture again: every capture of ours keeps some"));
        }
        let pairs: Vec<(u32, u32)> = wanted
            .iter()
            .map(|check| (check.sample, check.view))
            .collect();
        let digests = pixel_digests(&self.split.dataset, &self.split.family, &pairs)?;
        let differing = wanted
            .iter()
            .zip(&digests)
            .find(|(check, digest)| check.digest != **digest);
        match differing {
            None => Ok(()),
            Some((check, _)) => Err(Failure::work(format!(
                "view {} of sample {} does not have the pixels that the teacher of cache `{}` saw (made by {}, this is {})",
                check.view,
                check.sample,
                path.display(),
                cache.manifest().recorded.get("tool").map_or("an unknown version", String::as_str),
                crate::VERSION,
            ))
            .with_hint("capture again with this version, or train with the version that made the cache")),
        }
    }
}

/// Whether a nearest cache is near enough to be mentioned: the caches of the two splits of one recipe differ in images
/// and views alike, and that says nothing.
pub fn is_near(differences: &[Difference]) -> bool {
    let differs = |field: &str| {
        differences
            .iter()
            .any(|difference| difference.field == field)
    };
    differences.len() <= 2 && !(differs("images") && differs("views"))
}

/// "teacher is `12ab34cd56ef...` there, `...` here".
pub fn describe(differences: &[Difference]) -> String {
    const LONGEST: usize = 500;
    let one = |difference: &Difference| {
        let short = |text: &str| match text.len() {
            64 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                format!("{}...", &text[..12])
            }
            n if n > LONGEST => format!("{}...", text.chars().take(LONGEST).collect::<String>()),
            _ => text.to_owned(),
        };
        let (cached, wanted) = (short(&difference.cached), short(&difference.wanted));
        format!("{} is `{cached}` there, `{wanted}` here", difference.field)
    };
    differences.iter().map(one).collect::<Vec<_>>().join("; ")
}
