//! Claims, as a person meets them: whom one waits for, and how long.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logitcask_durable::{Claim, ClaimError, Holder, Watcher};

use crate::event::{Watch, info};

/// Claims `what`, a path in a folder that exists. A process that lives is given `patience` to end; one of whom that is not known is waited for until it is,
/// and who watches is told.
///
/// # Errors
/// If somebody else holds it, or what the file system reports.
pub fn claim(
    what: &Path,
    patience: Duration,
    stop: &AtomicBool,
    watch: &Watch<'_>,
) -> Result<Claim, ClaimError> {
    Watcher::default().claim(what, waiting(patience, stop, watch))
}

/// Whether to wait for a holder, for [`Watcher::claim`] and its like.
pub(crate) fn waiting(
    patience: Duration,
    stop: &AtomicBool,
    watch: &Watch<'_>,
) -> impl FnMut(&Holder) -> bool {
    let since = Instant::now();
    let mut told = None;
    move |holder| {
        if !holder.is_alive && told.as_ref() != Some(&holder.path) {
            let waits = format!(
                "waiting to see whether it still works: {holder}. Whoever is silent for 90 s is taken for dead"
            );
            info(watch, waits);
            told = Some(holder.path.clone());
        }
        let may_end = !holder.is_alive || since.elapsed() < patience;
        may_end && !stop.load(Ordering::Relaxed)
    }
}
