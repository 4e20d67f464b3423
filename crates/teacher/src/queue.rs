//! A bounded queue between threads that measures how long its users wait.
//!
//! The standard channels have one receiver and do not tell how long a call was blocked; both are what a capture needs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    has_item: Condvar,
    has_room: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// Producers that may still push. At zero, the queue ends once it is empty.
    producers: usize,
    /// Set when the work is given up: nothing goes in or out any more.
    abandoned: bool,
}

/// An item, or why [`Queue::pop_within`] has none.
pub(crate) enum Popped<T> {
    Item(T),
    /// Nothing came in the given time.
    Late,
    /// Nothing will come any more.
    End,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize, producers: usize) -> Queue<T> {
        let state = State {
            items: VecDeque::with_capacity(capacity),
            producers,
            abandoned: false,
        };
        Queue {
            state: Mutex::new(state),
            capacity,
            has_item: Condvar::new(),
            has_room: Condvar::new(),
        }
    }

    /// Waits for room and puts `item` in. Gives it back where the work was abandoned.
    pub(crate) fn push(&self, item: T) -> Result<Duration, T> {
        let start = Instant::now();
        let mut state = self.lock();
        while state.items.len() >= self.capacity && !state.abandoned {
            state = self
                .has_room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.abandoned {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.has_item.notify_one();
        Ok(start.elapsed())
    }

    /// Waits for an item; `None` at the end.
    pub(crate) fn pop(&self) -> Option<T> {
        loop {
            match self.pop_within(Duration::from_secs(3600)) {
                Popped::Item(item) => return Some(item),
                Popped::Late => {}
                Popped::End => return None,
            }
        }
    }

    /// Waits for an item, but not longer than `limit`.
    pub(crate) fn pop_within(&self, limit: Duration) -> Popped<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if state.abandoned {
                return Popped::End;
            }
            if let Some(item) = state.items.pop_front() {
                drop(state);
                self.has_room.notify_one();
                return Popped::Item(item);
            }
            if state.producers == 0 {
                return Popped::End;
            }
            let Some(left) = deadline
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                return Popped::Late;
            };
            (state, _) = self
                .has_item
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives the work up: everyone who waits is woken, what lies in the queue is dropped.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.items.clear();
        self.has_item.notify_all();
        self.has_room.notify_all();
    }

    /// A token of one producer. When the last one is dropped, even by a panic, the queue ends.
    pub(crate) fn producer(&self) -> Producer<'_, T> {
        Producer(self)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Producer<'a, T>(&'a Queue<T>);

impl<T> Drop for Producer<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.producers = state.producers.saturating_sub(1);
        if state.producers == 0 {
            self.0.has_item.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_once_and_then_the_end() {
        let queue = Queue::new(3, 2);
        let mut seen = std::thread::scope(|scope| {
            for half in 0..2 {
                let (queue, token) = (&queue, queue.producer());
                scope.spawn(move || {
                    let _token = token;
                    for item in (half..100).step_by(2) {
                        queue.push(item).unwrap();
                    }
                });
            }
            let readers: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| std::iter::from_fn(|| queue.pop()).collect::<Vec<i32>>()))
                .collect();
            readers
                .into_iter()
                .flat_map(|reader| reader.join().unwrap())
                .collect::<Vec<_>>()
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn abandoning_wakes_a_blocked_producer() {
        let queue = Queue::new(1, 1);
        queue.push(1).unwrap();
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| queue.push(2));
            std::thread::sleep(Duration::from_millis(20));
            queue.abandon();
            assert_eq!(blocked.join().unwrap(), Err(2));
        });
        assert!(matches!(queue.pop_within(Duration::ZERO), Popped::End));
    }
}
