//! The one source of randomness in logitcask.
//!
//! [`Stream`] is Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a pure
//! function of a key and a counter, so a draw depends on *what* is drawn and never on the order of drawing, on
//! threads or on the platform.
//!
//! The key is `[seed, purpose]`, the counter `[block, view, sample, position]`, and blocks count from 1. That makes
//! our stream the one that numpy prints:
//!
//! ```python
//! np.random.Philox(key=[seed, purpose], counter=[0, view, sample, position]).random_raw(n)
//! ```
//!
//! ```
//! use logitcask_philox::{Purpose, Stream};
//! let mut crop = Stream::new(1, Purpose::Augment, [/* view */ 3, /* sample */ 41, /* position */ 0]);
//! let top = crop.below(9);
//! assert!(top < 9);
//! ```

/// What a stream is drawn for: the second word of the key. The numbers are part of the cache format and never change.
///
/// | purpose | number | view word | sample word | position word |
/// |---|---|---|---|---|
/// | `FamilyOrder` | 1 | 0 | sample | 0 |
/// | `Augment` | 2 | view | sample | position of the augmentation in the recipe |
/// | `EpochView` | 3 | round through the captured views, or epoch | sample | 0 |
/// | `Shuffle` | 4 | epoch | 0 | 0 |
/// | `Init` | 5 | 0 | parameter number, in order of creation | 0 |
/// | `PixelCheck` | 6 | 0 | 0 | 0 |
/// | `Bank` | 7 | 0 | step | 0 |
/// | `Synthetic` | 8 | 0 | sample | 0 |
/// | `MixPartner` | 9 | view | sample | position of the augmentation in the recipe |
/// | `VerifyRows` | 10 | 0 | 0 | 0 |
/// | `TeacherDropout` | 11 | 0 | step | 0 |
/// | `HeldOut` | 12 | 0 | 0 | 0 |
/// | `Bench` | 13 | 0 | 0 | 0 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The order in which a finite family of views is walked, per sample.
    FamilyOrder = 1,
    /// The parameters of one augmentation in one view of one sample.
    Augment = 2,
    /// Which captured view a sample shows in an epoch.
    EpochView = 3,
    /// The order of samples in an epoch.
    Shuffle = 4,
    /// The initial value of a parameter.
    Init = 5,
    /// The (sample, view) pairs whose pixels are digested in a cache's manifest.
    PixelCheck = 6,
    /// Further negatives for MCLD, drawn from the whole cache.
    Bank = 7,
    /// The labels and pixels of the `synthetic` dataset.
    Synthetic = 8,
    /// The partner and the mixing weight of mixup and cutmix.
    MixPartner = 9,
    /// The rows that `cache verify --recompute` looks at.
    VerifyRows = 10,
    /// Which teacher of an ensemble is left out in a step.
    TeacherDropout = 11,
    /// Training images held out to fit a calibration temperature.
    HeldOut = 12,
    /// Random tensors for benchmarks.
    Bench = 13,
}

/// An endless stream of 64-bit draws for one (seed, purpose, view, sample, position).
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u64; 2],
    counter: [u64; 4],
    block: [u64; 4],
    used: usize,
}

impl Stream {
    /// `words` are the counter's `[view, sample, position]`; see [`Purpose`] for what each holds.
    pub fn new(seed: u64, purpose: Purpose, words: [u64; 3]) -> Self {
        let [view, sample, position] = words;
        Self {
            key: [seed, purpose as u64],
            counter: [0, view, sample, position],
            block: [0; 4],
            used: 4,
        }
    }

    /// The next raw draw.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == 4 {
            self.counter[0] += 1;
            self.block = philox4x64_10(self.key, self.counter);
            self.used = 0;
        }
        let draw = self.block[self.used];
        self.used += 1;
        draw
    }

    /// Uniform in [0, 1) with 53 bits: `(x >> 11) * 2^-53`.
    pub fn uniform(&mut self) -> f64 {
        const ULP: f64 = 1.0 / (1u64 << 53) as f64;
        (self.next_u64() >> 11) as f64 * ULP
    }

    /// An integer in 0..n: `(x * n) >> 64`, one draw, no rejection. The bias is below `n * 2^-64`.
    ///
    /// # Panics
    /// If `n` is 0: there is no such integer.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "no integer below 0");
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Shuffles `items` in place: Fisher-Yates from the last element down, one `below(i + 1)` per element.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }
}

const MULTIPLIERS: [u64; 2] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157];
const WEYL: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];

/// One block of Philox4x64 with ten rounds.
pub fn philox4x64_10(mut key: [u64; 2], mut counter: [u64; 4]) -> [u64; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let (high0, low0) = multiply(MULTIPLIERS[0], counter[0]);
        let (high1, low1) = multiply(MULTIPLIERS[1], counter[2]);
        counter = [
            high1 ^ counter[1] ^ key[0],
            low1,
            high0 ^ counter[3] ^ key[1],
            low0,
        ];
    }
    counter
}

fn multiply(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    ((product >> 64) as u64, product as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_reference_implementation() {
        // Random123's kat_vectors, "philox4x64 10".
        assert_eq!(
            philox4x64_10([0, 0], [0, 0, 0, 0]),
            [
                0x16554d9eca36314c,
                0xdb20fe9d672d0fdc,
                0xd7e772cee186176b,
                0x7e68b68aec7ba23b
            ]
        );
        assert_eq!(
            philox4x64_10([u64::MAX; 2], [u64::MAX; 4]),
            [
                0x87b092c3013fe90b,
                0x438c3c67be8d0224,
                0x9cc7d7c69cd777b6,
                0xa09caebf594f0ba0
            ]
        );
    }

    #[test]
    fn the_stream_is_the_one_numpy_prints() {
        // np.random.Philox(key=[1, 2], counter=[0, 3, 41, 0]).random_raw(6)
        let mut stream = Stream::new(1, Purpose::Augment, [3, 41, 0]);
        let drawn: Vec<u64> = (0..6).map(|_| stream.next_u64()).collect();
        assert_eq!(drawn, NUMPY);
    }
    const NUMPY: [u64; 6] = [
        11457280039770936481,
        779404354137954976,
        16771419795780456422,
        12277321492149408034,
        11424379202634362009,
        15333243268522587125,
    ];

    /// By hand from the draws above: `(x >> 11) * 2^-53`, `(x * 9) >> 64`, and Fisher-Yates with the latter.
    #[test]
    fn numbers_below_and_permutations_are_those_of_the_definition() {
        let stream = || Stream::new(1, Purpose::Augment, [3, 41, 0]);
        let mut uniform = stream();
        assert_eq!(UNIFORM, [(); 2].map(|()| uniform.uniform()));
        let mut below = stream();
        assert_eq!(BELOW, [(); 6].map(|()| below.below(9)));
        let mut items = [0, 1, 2, 3, 4, 5];
        stream().shuffle(&mut items);
        assert_eq!(items, SHUFFLED);
    }
    const UNIFORM: [f64; 2] = [0.6211003954947227, 0.042251594700051576];
    const BELOW: [u64; 6] = [5, 0, 8, 5, 5, 7];
    const SHUFFLED: [u32; 6] = [4, 2, 1, 5, 0, 3];

    #[test]
    #[should_panic(expected = "no integer below 0")]
    fn there_is_no_integer_below_0() {
        Stream::new(1, Purpose::Bench, [0; 3]).below(0);
    }

    #[test]
    fn uniform_and_below_stay_in_range_and_reach_the_ends() {
        let mut stream = Stream::new(7, Purpose::Bench, [0; 3]);
        let mut seen = [0u32; 9];
        for _ in 0..9_000 {
            let u = stream.uniform();
            assert!((0.0..1.0).contains(&u));
            seen[stream.below(9) as usize] += 1;
        }
        // Each of nine values is expected 1,000 times with a standard deviation of 30.
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
    }

    #[test]
    fn shuffle_is_a_permutation_that_the_seed_decides() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..100).collect();
            Stream::new(seed, Purpose::Shuffle, [0; 3]).shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
