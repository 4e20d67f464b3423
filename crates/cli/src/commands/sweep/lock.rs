//! Locks that outlive a thread that panicked.

use std::sync::Mutex;

/// A thread that panicked while it held one of these has already taken its slot down; what they hold stays true.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
