//! One set of names for the vectors of AVX-512, of AVX2 with FMA, and of no instruction set in particular.
//!
//! A kernel is written once, over [`Simd`], and compiled once per level by [`dispatch`]. Values of [`Simd`] are
//! proofs: one exists only where its instructions do, which is what makes arithmetic safe to call. Reading and writing
//! memory stays unsafe, since vectors reach beyond the address they are given.

use std::sync::atomic::{AtomicU8, Ordering};

/// Sets of instructions that kernels are compiled for, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Instructions {
    /// AVX-512F: sixteen lanes.
    Avx512 = 1,
    /// AVX2 with FMA: eight lanes.
    Avx2 = 2,
    /// Plain Rust; what the compiler makes of it.
    Portable = 3,
}

/// Instructions that this processor was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Instructions);

/// 0 until asked for the first time.
static CURRENT: AtomicU8 = AtomicU8::new(0);

impl Level {
    /// What kernels use: the best that this processor has, unless [`limit_instructions`] set less.
    pub(crate) fn current() -> Self {
        let wanted = match CURRENT.load(Ordering::Relaxed) {
            2 => Instructions::Avx2,
            3 => Instructions::Portable,
            _ => Instructions::Avx512,
        };
        let found = [Instructions::Avx512, Instructions::Avx2]
            .into_iter()
            .find(|&i| i >= wanted && is_available(i));
        Self(found.unwrap_or(Instructions::Portable))
    }

    pub(crate) fn lanes(self) -> usize {
        if self.0 == Instructions::Avx512 {
            16
        } else {
            8
        }
    }
}

/// Which instructions the kernels use in this process. Results of different instructions differ in their last digits,
/// so a run that is to be repeated exactly records this.
pub fn instructions() -> Instructions {
    Level::current().0
}

/// Lets kernels use no more than `best`, for the whole process, and returns what they will use: that, or the best that
/// this processor has below it.
pub fn limit_instructions(best: Instructions) -> Instructions {
    CURRENT.store(best as u8, Ordering::Relaxed);
    instructions()
}

fn is_available(instructions: Instructions) -> bool {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => {
            is_x86_feature_detected!("avx512f") && is_available(Instructions::Avx2)
        }
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        #[cfg(not(target_arch = "x86_64"))]
        Instructions::Avx512 | Instructions::Avx2 => false,
        Instructions::Portable => true,
    }
}

/// The vectors of one level.
pub(crate) trait Simd: Copy + Send + Sync {
    type V: Copy;
    const LANES: usize;
    /// How many rows of two vectors each a kernel may keep in registers.
    const ROWS: usize;

    fn splat(self, value: f32) -> Self::V;
    /// `a * b + c`
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `max(value, 0)`; what is no number stays none.
    fn relu(self, value: Self::V) -> Self::V;
    /// `value` where `gate > 0`, else 0.
    fn where_positive(self, gate: Self::V, value: Self::V) -> Self::V;

    /// # Safety
    /// `LANES` values can be read from `from`.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// Zeros after the first `n`.
    ///
    /// # Safety
    /// `n` values, at most `LANES`, can be read from `from`.
    unsafe fn load_first(self, n: usize, from: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` values can be written to `to`.
    unsafe fn store(self, value: Self::V, to: *mut f32);
    /// # Safety
    /// `n` values, at most `LANES`, can be written to `to`.
    unsafe fn store_first(self, n: usize, value: Self::V, to: *mut f32);
}

/// Something to compute at any level. `run` must be `#[inline(always)]`, down to the arithmetic: only what ends inside
/// the function that enables the instructions is compiled for them.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` at `level`.
pub(crate) fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Level` is made only after the processor reported its features.
        Instructions::Avx512 => unsafe { x86::avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Instructions::Avx2 => unsafe { x86::avx2(kernel) },
        _ => kernel.run(Portable),
    }
}

/// Compiles a loop of plain Rust for `level`, and runs it. It should be one loop, written out in the closure: what it
/// calls is compiled for the baseline unless it is inlined.
pub(crate) fn vectorized(level: Level, work: impl FnOnce()) {
    struct Loop<F>(F);
    impl<F: FnOnce()> Kernel for Loop<F> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, _: S) {
            self.0();
        }
    }
    dispatch(level, Loop(work));
}

/// Eight lanes in plain Rust: two registers of NEON or SSE.
#[derive(Clone, Copy)]
struct Portable;

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; 8]
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Two roundings: `f32::mul_add` would call a function where the baseline has no such instruction.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn relu(self, value: Self::V) -> Self::V {
        value.map(|value| if value < 0.0 { 0.0 } else { value })
    }

    #[inline(always)]
    fn where_positive(self, gate: Self::V, value: Self::V) -> Self::V {
        std::array::from_fn(|i| if gate[i] > 0.0 { value[i] } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for eight values; an array of f32 needs no more alignment than f32.
        unsafe { from.cast::<[f32; 8]>().read() }
    }

    #[inline(always)]
    unsafe fn load_first(self, n: usize, from: *const f32) -> Self::V {
        // SAFETY: only the first n are read, for which the caller vouches.
        std::array::from_fn(|i| {
            if i < n {
                unsafe { from.add(i).read() }
            } else {
                0.0
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, value: Self::V, to: *mut f32) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[f32; 8]>().write(value) }
    }

    #[inline(always)]
    unsafe fn store_first(self, n: usize, value: Self::V, to: *mut f32) {
        for (i, value) in value.into_iter().enumerate().take(n) {
            // SAFETY: only the first n are written, for which the caller vouches.
            unsafe { to.add(i).write(value) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Simd};

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512(()))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2(()))
    }

    /// Exists only inside [`avx512`].
    #[derive(Clone, Copy)]
    struct Avx512(());

    // SAFETY, for each arithmetic intrinsic below: it needs AVX-512F, and `self` proves that it is there.
    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const ROWS: usize = 12;

        #[inline(always)]
        fn splat(self, value: f32) -> __m512 {
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        fn relu(self, value: __m512) -> __m512 {
            // Of two operands of which one is no number, the instruction answers the second.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), value) }
        }

        #[inline(always)]
        fn where_positive(self, gate: __m512, value: __m512) -> __m512 {
            unsafe {
                let open = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps());
                _mm512_maskz_mov_ps(open, value)
            }
        }

        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m512 {
            // SAFETY: the caller vouches for sixteen values; the load may be unaligned.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_first(self, n: usize, from: *const f32) -> __m512 {
            // SAFETY: masked lanes are neither read nor do they fault.
            unsafe { _mm512_maskz_loadu_ps(first16(n), from) }
        }

        #[inline(always)]
        unsafe fn store(self, value: __m512, to: *mut f32) {
            // SAFETY: as for `load`.
            unsafe { _mm512_storeu_ps(to, value) }
        }

        #[inline(always)]
        unsafe fn store_first(self, n: usize, value: __m512, to: *mut f32) {
            // SAFETY: masked lanes are neither written nor do they fault.
            unsafe { _mm512_mask_storeu_ps(to, first16(n), value) }
        }
    }

    #[inline(always)]
    fn first16(n: usize) -> __mmask16 {
        ((1u32 << n.min(16)) - 1) as __mmask16
    }

    /// Exists only inside [`avx2`].
    #[derive(Clone, Copy)]
    struct Avx2(());

    // SAFETY, for each arithmetic intrinsic below: it needs AVX2 or FMA, and `self` proves that both are there.
    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const ROWS: usize = 6;

        #[inline(always)]
        fn splat(self, value: f32) -> __m256 {
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }

        #[inline(always)]
        fn relu(self, value: __m256) -> __m256 {
            // Of two operands of which one is no number, the instruction answers the second.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), value) }
        }

        #[inline(always)]
        fn where_positive(self, gate: __m256, value: __m256) -> __m256 {
            unsafe {
                _mm256_and_ps(
                    _mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps()),
                    value,
                )
            }
        }

        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m256 {
            // SAFETY: the caller vouches for eight values; the load may be unaligned.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_first(self, n: usize, from: *const f32) -> __m256 {
            // SAFETY: masked lanes are neither read nor do they fault.
            unsafe { _mm256_maskload_ps(from, first8(n)) }
        }

        #[inline(always)]
        unsafe fn store(self, value: __m256, to: *mut f32) {
            // SAFETY: as for `load`.
            unsafe { _mm256_storeu_ps(to, value) }
        }

        #[inline(always)]
        unsafe fn store_first(self, n: usize, value: __m256, to: *mut f32) {
            // SAFETY: masked lanes are neither written nor do they fault.
            unsafe { _mm256_maskstore_ps(to, first8(n), value) }
        }
    }

    #[inline(always)]
    fn first8(n: usize) -> __m256i {
        // SAFETY: only called by `Avx2`, which proves that AVX2 is there.
        unsafe {
            _mm256_cmpgt_epi32(
                _mm256_set1_epi32(n as i32),
                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
            )
        }
    }
}
