//! Memory for feature maps and their gradients, recycled from step to step.
//!
//! A training step asks for the same sizes again and again. Fresh memory costs a page fault per 4 KiB, which is more
//! than many of the passes that fill it, so a dropped buffer waits in a pool for the next one of its size.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::Mutex,
};

/// Free memory by length, for the whole process.
static FREE: Mutex<BTreeMap<usize, Vec<Vec<f32>>>> = Mutex::new(BTreeMap::new());

/// Gives the memory that waits for reuse back to the allocator: for a process that goes on with other sizes, such as a
/// sweep that trains one student after another.
pub fn release_memory() {
    free().clear();
}

/// A run of f32 that goes back to the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// For a caller that writes every element: the contents are left over from earlier use.
    pub(crate) fn for_overwrite(len: usize) -> Self {
        let recycled = free().get_mut(&len).and_then(Vec::pop);
        Self(recycled.unwrap_or_else(|| vec![0.0; len]))
    }

    pub(crate) fn copy_of(values: &[f32]) -> Self {
        let mut buffer = Self::for_overwrite(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0);
        if !memory.is_empty() {
            free().entry(memory.len()).or_default().push(memory);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// A panic elsewhere cannot leave the lists half changed, so a poisoned lock is as good as a clean one.
fn free() -> std::sync::MutexGuard<'static, BTreeMap<usize, Vec<Vec<f32>>>> {
    FREE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
