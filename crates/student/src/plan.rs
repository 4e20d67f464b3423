//! Which samples an epoch shows, in which order and in which views.

use std::collections::HashSet;

use logitcask_dataset::epoch_view;
use logitcask_philox::{Purpose, Stream};

use crate::{Job, Shown};

/// Batches of (sample, view).
pub(crate) type Plan = Vec<Vec<(u32, u32)>>;

/// The samples that training uses, and those it leaves out for a calibration temperature: `train.held_out` of the
/// selected ones, drawn by the seed alone. Both in ascending order.
pub fn hold_out(seed: u64, selected: &[u32], held_out: usize) -> (Vec<u32>, Vec<u32>) {
    let mut order = selected.to_vec();
    Stream::new(seed, Purpose::HeldOut, [0; 3]).shuffle(&mut order);
    let held_out: HashSet<u32> = order.into_iter().take(held_out).collect();
    selected
        .iter()
        .partition(|sample| !held_out.contains(sample))
}

/// The epoch's batches in each of the job's families. Seed and epoch decide the order of samples; seed, sample and
/// epoch decide the view. Batches of the strong family hold the same samples in the same places.
pub(crate) fn epoch_plan(job: &Job, samples: &[u32], epoch: usize) -> (Plan, Option<Plan>) {
    let mut order = samples.to_vec();
    Stream::new(job.seed, Purpose::Shuffle, [epoch as u64, 0, 0]).shuffle(&mut order);
    let spec = job.spec;
    let batches: Vec<&[u32]> = order
        .chunks(spec.batch_size)
        .filter(|batch| batch.len() == spec.batch_size || (batch.len() > 1 && !spec.drop_last))
        .collect();
    let of = |shown: &Shown| {
        let batch = |samples: &&[u32]| views_of(job, shown, samples, epoch);
        batches.iter().map(batch).collect()
    };
    (of(&job.views), job.strong.as_ref().map(of))
}

/// With several views per step an epoch takes several turns of the cycle, so that a batch shows a sample in different
/// views. They stand side by side: the loader then decodes the sample once.
fn views_of(job: &Job, shown: &Shown, samples: &[u32], epoch: usize) -> Vec<(u32, u32)> {
    let per_step = job.views_per_step;
    let pairs = samples.iter().flat_map(|&sample| {
        (0..per_step).map(move |turn| {
            let turn = epoch as u32 * per_step + turn;
            let view = epoch_view(job.seed, sample, turn, shown.n_views, shown.draw);
            (sample, view)
        })
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_samples_are_the_seeds_choice_and_a_larger_choice_contains_a_smaller() {
        let selected: Vec<u32> = (10..60).collect();
        let (kept, held_out) = hold_out(1, &selected, 8);
        assert_eq!((kept.len(), held_out.len()), (42, 8));
        assert!(held_out.iter().all(|sample| !kept.contains(sample)));
        assert!(kept.is_sorted() && held_out.is_sorted());
        let (_, more) = hold_out(1, &selected, 16);
        assert!(held_out.iter().all(|sample| more.contains(sample)));
        assert_ne!(hold_out(2, &selected, 8).1, held_out);
        assert_eq!(hold_out(1, &selected, 0).0, selected);
    }
}
