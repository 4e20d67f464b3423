//! Further negatives for MCLD: teacher rows of samples outside the batch, drawn from the whole cache.
//!
//! Methods without a cache keep a memory of past batches, whose rows are stale. Here any row is one read away, so
//! "across all training samples" is meant literally. Whoever holds the cache asks [`draw`] which rows to read, and
//! hands them over as [`BankRows`](crate::BankRows).

use std::collections::HashSet;

use logitcask_philox::{Purpose, Stream};

use crate::LossError;

/// The `bank` distinct (sample, view) pairs of `step`, none of a sample in the batch.
///
/// `samples` are the indices that training uses, `n_views` the captured views of each. The draw depends on the seed,
/// the step and what it may choose from, and on nothing else.
///
/// # Errors
/// [`LossError::BankTooLarge`] where there are fewer such pairs.
///
/// ```
/// let samples: Vec<u32> = (0..1000).collect();
/// let pairs = logitcask_losses::bank::draw(1, 42, 256, &samples, 16, &[3, 5])?;
/// assert_eq!(pairs.len(), 256);
/// assert!(pairs.iter().all(|&(sample, view)| sample != 3 && sample != 5 && view < 16));
/// # Ok::<(), logitcask_losses::LossError>(())
/// ```
pub fn draw(
    seed: u64,
    step: u64,
    bank: usize,
    samples: &[u32],
    n_views: u32,
    batch: &[u32],
) -> Result<Vec<(u32, u32)>, LossError> {
    let in_batch: HashSet<u32> = batch.iter().copied().collect();
    let outside = samples
        .iter()
        .filter(|sample| !in_batch.contains(sample))
        .count() as u64;
    let eligible = outside * u64::from(n_views);
    if eligible < bank as u64 {
        return Err(LossError::BankTooLarge { bank, eligible });
    }
    let mut stream = Stream::new(seed, Purpose::Bank, [0, step, 0]);
    // Where the bank takes most of what there is, refusing repeats would take long: shuffle instead.
    if bank as u64 * 2 > eligible {
        let pairs = shuffled(&mut stream, samples, n_views);
        let pairs = pairs.filter(|(sample, _)| !in_batch.contains(sample));
        return Ok(pairs.take(bank).collect());
    }
    let n_pairs = samples.len() as u64 * u64::from(n_views);
    let mut drawn = HashSet::with_capacity(bank);
    let mut pairs = Vec::with_capacity(bank);
    while pairs.len() < bank {
        let pair = stream.below(n_pairs);
        let (sample, view) = unpack(pair, samples, n_views);
        if !in_batch.contains(&sample) && drawn.insert(pair) {
            pairs.push((sample, view));
        }
    }
    Ok(pairs)
}

/// Every (sample, view) pair once, those of the batch included, in an order drawn from `stream`.
fn shuffled(
    stream: &mut Stream,
    samples: &[u32],
    n_views: u32,
) -> impl Iterator<Item = (u32, u32)> {
    let n_pairs = samples.len() as u64 * u64::from(n_views);
    let mut all: Vec<u64> = (0..n_pairs).collect();
    stream.shuffle(&mut all);
    all.into_iter()
        .map(move |pair| unpack(pair, samples, n_views))
}

fn unpack(pair: u64, samples: &[u32], n_views: u32) -> (u32, u32) {
    let (position, view) = (pair / u64::from(n_views), pair % u64::from(n_views));
    (samples[position as usize], view as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_distinct_outside_the_batch_and_decided_by_seed_and_step() {
        let samples: Vec<u32> = (100..140).collect();
        for bank in [0, 1, 10, 60, 76] {
            let pairs = draw(1, 7, bank, &samples, 2, &[101, 139]).unwrap();
            let distinct: HashSet<_> = pairs.iter().collect();
            assert_eq!((pairs.len(), distinct.len()), (bank, bank));
            assert!(
                pairs
                    .iter()
                    .all(|(s, v)| samples.contains(s) && ![101, 139].contains(s) && *v < 2)
            );
            assert_eq!(pairs, draw(1, 7, bank, &samples, 2, &[101, 139]).unwrap());
        }
        assert_ne!(
            draw(1, 7, 10, &samples, 2, &[]).unwrap(),
            draw(1, 8, 10, &samples, 2, &[]).unwrap()
        );
        assert_ne!(
            draw(1, 7, 10, &samples, 2, &[]).unwrap(),
            draw(2, 7, 10, &samples, 2, &[]).unwrap()
        );
    }

    #[test]
    fn a_bank_larger_than_the_rest_of_the_cache_is_refused() {
        let error = draw(1, 0, 77, &(0..40).collect::<Vec<_>>(), 2, &[1, 39]).unwrap_err();
        assert!(matches!(
            error,
            LossError::BankTooLarge {
                bank: 77,
                eligible: 76
            }
        ));
    }
}
