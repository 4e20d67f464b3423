//! Decoded pages, as many as fit. A page is loaded once for all threads that want it, and what is being loaded counts:
//! so many pages at a time as there is room for, whatever the number of threads.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;

/// What all pages of a split together may take, in bytes. One page alone may be larger.
const LIMIT: usize = 64 << 20;

/// (row group of the split, page of its image column)
pub(super) type PageKey = (u32, u32);

/// The encoded images of one page; no image where the row is null.
pub(super) struct PageImages {
    pub(super) rows: Vec<Option<ByteArray>>,
    /// Bytes that they take in memory.
    pub(super) n_bytes: usize,
}

pub(super) struct PageCache {
    /// Bytes that all pages together may take.
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for PageCache {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

#[derive(Default)]
struct State {
    pages: HashMap<PageKey, Entry>,
    /// What is kept and what is being loaded, in bytes.
    n_bytes: usize,
    n_loading: usize,
    clock: u64,
}

/// A page that is kept; while it is being loaded there is none in it.
struct Entry {
    page: Option<Arc<PageImages>>,
    n_bytes: usize,
    used: u64,
}

impl PageCache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The page, where it is kept.
    pub(super) fn get(&self, key: PageKey) -> Option<Arc<PageImages>> {
        self.lock().touch(key)
    }

    /// The page, loaded by `load` where it is not kept, which takes about `expected` bytes meanwhile.
    pub(super) fn get_or_load(
        &self,
        key: PageKey,
        expected: usize,
        load: impl FnOnce() -> Result<PageImages, ParquetError>,
    ) -> Result<Arc<PageImages>, ParquetError> {
        let mut state = self.lock();
        loop {
            if let Some(page) = state.touch(key) {
                return Ok(page);
            }
            if !state.pages.contains_key(&key) && state.make_room(expected, self.limit) {
                break;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.begin(key, expected);
        drop(state);
        let mut loading = Loading {
            cache: self,
            key,
            page: None,
        };
        let page = Arc::new(load()?);
        loading.page = Some(Arc::clone(&page));
        Ok(page)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a load however it ends, so that nobody waits for a page that will not come.
struct Loading<'a> {
    cache: &'a PageCache,
    key: PageKey,
    page: Option<Arc<PageImages>>,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.cache.lock().end(self.key, self.page.take());
        self.cache.changed.notify_all();
    }
}

impl State {
    fn touch(&mut self, key: PageKey) -> Option<Arc<PageImages>> {
        self.clock += 1;
        let entry = self.pages.get_mut(&key)?;
        entry.used = self.clock;
        entry.page.clone()
    }

    /// Forgets the pages that were used longest ago until `n_bytes` more fit. False where that takes waiting for what is
    /// being loaded.
    fn make_room(&mut self, n_bytes: usize, limit: usize) -> bool {
        while self.n_bytes + n_bytes > limit {
            let kept = self.pages.iter().filter(|(_, entry)| entry.page.is_some());
            let Some((&oldest, _)) = kept.min_by_key(|(_, entry)| entry.used) else {
                return self.n_loading == 0;
            };
            self.forget(oldest);
        }
        true
    }

    fn begin(&mut self, key: PageKey, n_bytes: usize) {
        self.n_loading += 1;
        self.keep(key, None, n_bytes);
    }

    fn end(&mut self, key: PageKey, page: Option<Arc<PageImages>>) {
        self.n_loading -= 1;
        self.forget(key);
        if let Some(page) = page {
            let n_bytes = page.n_bytes;
            self.keep(key, Some(page), n_bytes);
        }
    }

    fn keep(&mut self, key: PageKey, page: Option<Arc<PageImages>>, n_bytes: usize) {
        self.n_bytes += n_bytes;
        let used = self.clock;
        self.pages.insert(
            key,
            Entry {
                page,
                n_bytes,
                used,
            },
        );
    }

    fn forget(&mut self, key: PageKey) {
        if let Some(entry) = self.pages.remove(&key) {
            self.n_bytes -= entry.n_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn page(n_bytes: usize) -> PageImages {
        PageImages {
            rows: Vec::new(),
            n_bytes,
        }
    }

    /// Runs 16 threads, each of which wants pages `keys(thread)`; returns how many loads there were, and how many at once.
    fn loads(keys: impl Fn(u32) -> Vec<u32> + Sync, expected: usize) -> (usize, usize) {
        let (cache, loads) = (PageCache::default(), AtomicUsize::new(0));
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let (cache, keys, loads, now, most) = (&cache, &keys, &loads, &now, &most);
                scope.spawn(move || {
                    for key in keys(thread) {
                        let load = || {
                            loads.fetch_add(1, Ordering::SeqCst);
                            let n = now.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(n, Ordering::SeqCst);
                            std::thread::sleep(std::time::Duration::from_millis(2));
                            now.fetch_sub(1, Ordering::SeqCst);
                            Ok(page(expected))
                        };
                        cache.get_or_load((0, key), expected, load).unwrap();
                    }
                });
            }
        });
        (loads.into_inner(), most.into_inner())
    }

    #[test]
    fn many_threads_load_each_page_once_where_all_fit() {
        assert_eq!(loads(|_| (0..12).collect(), LIMIT / 16).0, 12);
    }

    #[test]
    fn no_more_is_loaded_at_once_than_there_is_room_for() {
        let (loads, most) = loads(|thread| vec![thread], LIMIT / 2);
        assert_eq!(loads, 16);
        assert!(most <= 2, "{most}");
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let cache = PageCache::default();
        for key in 0..4 {
            cache
                .get_or_load((0, key), LIMIT / 4, || Ok(page(LIMIT / 4)))
                .unwrap();
        }
        assert!(cache.get((0, 0)).is_some());
        cache
            .get_or_load((1, 0), LIMIT / 4, || Ok(page(LIMIT / 4)))
            .unwrap();
        assert!(cache.get((0, 1)).is_none() && cache.get((0, 0)).is_some());
        // A page above the limit comes alone.
        cache
            .get_or_load((2, 0), 2 * LIMIT, || Ok(page(2 * LIMIT)))
            .unwrap();
        assert_eq!(cache.lock().pages.len(), 1);
    }

    #[test]
    fn a_load_that_fails_is_tried_again() {
        let cache = PageCache::default();
        let failing = || Err(ParquetError::General("no".into()));
        assert!(cache.get_or_load((0, 0), 1, failing).is_err());
        assert!(cache.get_or_load((0, 0), 1, || Ok(page(1))).is_ok());
    }
}
