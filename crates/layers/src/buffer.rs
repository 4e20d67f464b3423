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
pub(crate) struct Buffer {
    memory: Vec<f32>,
    /// Of `memory`, from its start.
    len: usize,
}

impl Buffer {
    /// For a caller that writes every element: the contents are left over from earlier use.
    pub(crate) fn for_overwrite(len: usize) -> Self {
        let recycled = free().get_mut(&len).and_then(Vec::pop);
        let memory = recycled.unwrap_or_else(|| vec![0.0; len]);
        Self { memory, len }
    }

    /// The same for what is soon given back, out of the shortest free memory that is long enough: a kernel's own space, and
    /// the maps of a pass that will not be walked back. Such a pass goes through many sizes and holds few maps at a time; free
    /// memory of each size would be several times what it needs.
    pub(crate) fn brief(len: usize) -> Self {
        let mut free = free();
        let recycled = free.range_mut(len..).find_map(|(_, memory)| memory.pop());
        drop(free);
        let memory = recycled.unwrap_or_else(|| vec![0.0; len]);
        Self { memory, len }
    }

    pub(crate) fn copy_of(values: &[f32]) -> Self {
        Self::for_overwrite(values.len()).filled_with(values)
    }

    /// With these values, which are as many as it holds.
    pub(crate) fn filled_with(mut self, values: &[f32]) -> Self {
        self.copy_from_slice(values);
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if !memory.is_empty() {
            free().entry(memory.len()).or_default().push(memory);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

/// A panic elsewhere cannot leave the lists half changed, so a poisoned lock is as good as a clean one.
fn free() -> std::sync::MutexGuard<'static, BTreeMap<usize, Vec<Vec<f32>>>> {
    FREE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
