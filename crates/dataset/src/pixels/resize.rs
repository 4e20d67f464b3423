//! Antialiased bilinear resizing, to the bit as PIL does it: horizontal pass, then vertical, with 22-bit fixed-point
//! weights and rounding to bytes after each.

use std::array::from_fn;

use crate::{Image, ImageSize};

const PRECISION_BITS: u32 = 22;

/// What resizing allocates, kept from image to image.
#[derive(Default)]
pub(crate) struct Buffers {
    columns: Weights,
    rows: Weights,
    narrowed: Image,
}

/// Resizes the window [top, left, height, width], which lies in the image, to `height` x `width`. Pixels beside the
/// window have no say, as if it had been cut out first.
pub(super) fn resize_window(
    image: &Image,
    [top, left, window_height, window_width]: [usize; 4],
    height: usize,
    width: usize,
    into: &mut Image,
    buffers: &mut Buffers,
) {
    let whole = |n: usize| [0.0, n as f64];
    buffers
        .columns
        .set(window_width, whole(window_width), width);
    buffers
        .rows
        .set(window_height, whole(window_height), height);
    resize([top, left, window_height], image, into, buffers);
}

/// Resizes a box of the image: [first, length] of its rows and columns, which may lie between pixels.
pub(super) fn resize_box(
    image: &Image,
    rows: [f64; 2],
    columns: [f64; 2],
    [height, width]: [usize; 2],
    into: &mut Image,
    buffers: &mut Buffers,
) {
    let size = image.size();
    buffers.columns.set(size.width, columns, width);
    buffers.rows.set(size.height, rows, height);
    resize([0, 0, size.height], image, into, buffers);
}

fn resize(place: [usize; 3], image: &Image, into: &mut Image, buffers: &mut Buffers) {
    let Buffers {
        columns,
        rows,
        narrowed,
    } = buffers;
    horizontal(image, place, columns, narrowed);
    vertical(narrowed, rows, into);
}

/// For each output position, where its window of input positions begins and ends, and the weights in it.
#[derive(Default)]
struct Weights {
    /// What they were made for.
    made_for: (usize, [f64; 2], usize),
    windows: Vec<(usize, usize)>,
    values: Vec<i32>,
    /// Weights per output position, unused ones included.
    stride: usize,
}

impl Weights {
    /// From `length` positions at `first` of `from` to `to` positions.
    fn set(&mut self, from: usize, [first, length]: [f64; 2], to: usize) {
        if self.made_for == (from, [first, length], to) {
            return;
        }
        self.made_for = (from, [first, length], to);
        let scale = length / to as f64;
        // Enlarging interpolates between neighbours; shrinking widens the triangle so that no pixel is passed over.
        let support = scale.max(1.0);
        self.stride = support.ceil() as usize * 2 + 1;
        self.values.clear();
        self.values.resize(to * self.stride, 0);
        self.windows.clear();
        for (i, values) in self.values.chunks_exact_mut(self.stride).enumerate() {
            let center = first + (i as f64 + 0.5) * scale;
            let begin = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let inverse = 1.0 / support;
            let triangle =
                |at: usize| (1.0 - ((at as f64 - center + 0.5) * inverse).abs()).max(0.0);
            let sum: f64 = (begin..end).map(triangle).sum();
            for (value, at) in values.iter_mut().zip(begin..end) {
                let weight = triangle(at) / sum;
                *value = (0.5 + weight * f64::from(1 << PRECISION_BITS)) as i32;
            }
            self.windows.push((begin, end));
        }
    }

    fn each(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let values = self.values.chunks_exact(self.stride);
        self.windows
            .iter()
            .zip(values)
            .map(|(&(first, last), values)| (first, &values[..last - first]))
    }
}

fn horizontal(image: &Image, [top, left, height]: [usize; 3], weights: &Weights, into: &mut Image) {
    let channels = image.size().channels;
    let width = weights.windows.len();
    into.reshape(ImageSize {
        height,
        width,
        channels,
    });
    let (pixels, columns) = (image.pixels(), image.size().width);
    let row = |y: usize| &pixels[((top + y) * columns + left) * channels..];
    let out = into.pixels_mut().chunks_mut(ABREAST * width * channels);
    for (y, out) in (0..).step_by(ABREAST).zip(out) {
        let n_rows = out.len() / (width * channels);
        if n_rows == ABREAST
            && channels == 3
            && vectors::narrow(from_fn(|i| row(y + i)), weights, out)
        {
            continue;
        }
        for (y, out) in (y..).zip(out.chunks_exact_mut(width * channels)) {
            match channels {
                1 => horizontal_row::<1>(row(y), weights, out),
                _ => horizontal_row::<3>(row(y), weights, out),
            }
        }
    }
}

fn horizontal_row<const CHANNELS: usize>(row: &[u8], weights: &Weights, out: &mut [u8]) {
    let pixels = row.as_chunks::<CHANNELS>().0;
    let out = out.as_chunks_mut::<CHANNELS>().0;
    for (out, (first, weights)) in out.iter_mut().zip(weights.each()) {
        let mut sums = [HALF; CHANNELS];
        for (pixel, &weight) in pixels[first..].iter().zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(value) * weight;
            }
        }
        *out = sums.map(to_byte);
    }
}

fn vertical(image: &Image, weights: &Weights, into: &mut Image) {
    let size = image.size();
    let stride = size.width * size.channels;
    into.reshape(ImageSize {
        height: weights.windows.len(),
        ..size
    });
    let out = into.pixels_mut().chunks_exact_mut(stride);
    for (out, (first, weights)) in out.zip(weights.each()) {
        let rows = &image.pixels()[first * stride..][..weights.len() * stride];
        let n_done = vectors::merge(rows, weights, out);
        for (x, out) in out.iter_mut().enumerate().skip(n_done) {
            let column = rows.iter().skip(x).step_by(stride).zip(weights);
            let sum: i32 = column
                .map(|(&value, weight)| i32::from(value) * weight)
                .sum();
            *out = to_byte(HALF + sum);
        }
    }
}

/// Rows that are narrowed side by side: they share the weights.
const ABREAST: usize = 4;

const HALF: i32 = 1 << (PRECISION_BITS - 1);

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The same sums in AVX2. The compiler makes no such code of the loops above by itself: three channels are no power of two,
/// and it leaves the vectors for scalars.
#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::*;

    use super::{ABREAST, HALF, PRECISION_BITS, Weights};

    /// The horizontal pass of rows of three channels. False where it was not done.
    pub(super) fn narrow(rows: [&[u8]; ABREAST], weights: &Weights, out: &mut [u8]) -> bool {
        // Pixels are read as four bytes: behind the last one there must be one more.
        let n_pixels = weights.windows.iter().map(|&(_, end)| end).max();
        let has_room = |row: &&[u8]| row.len() > 3 * n_pixels.unwrap_or(0);
        if !is_x86_feature_detected!("avx2") || !rows.iter().all(has_room) {
            return false;
        }
        // SAFETY: the function's only demand is the feature that was just asked for; its slices are accessed with bounds
        // checked.
        #[expect(
            unsafe_code,
            reason = "the processor's features are known at run time only"
        )]
        unsafe {
            narrow_avx2(rows, weights, out);
        }
        true
    }

    /// The vertical pass of rows that lie one after the other, as long as `out` each, for the first columns, whose number is
    /// returned.
    pub(super) fn merge(rows: &[u8], weights: &[i32], out: &mut [u8]) -> usize {
        if !is_x86_feature_detected!("avx2") {
            return 0;
        }
        // SAFETY: as above.
        #[expect(
            unsafe_code,
            reason = "the processor's features are known at run time only"
        )]
        unsafe {
            merge_avx2(rows, weights, out)
        }
    }

    #[target_feature(enable = "avx2")]
    fn narrow_avx2(rows: [&[u8]; ABREAST], weights: &Weights, out: &mut [u8]) {
        let width = out.len() / ABREAST;
        for (x, (first, weights)) in weights.each().enumerate() {
            // Four lanes to a row: three channels, and one that is computed for nothing.
            let mut upper = _mm256_set1_epi32(HALF);
            let mut lower = upper;
            for (at, &weight) in (3 * first..).step_by(3).zip(weights) {
                let pixel = |row: usize| {
                    let four = rows[row][at..].first_chunk();
                    four.map_or(0, |four| i32::from_le_bytes(*four))
                };
                let weight = _mm256_set1_epi32(weight);
                let values = _mm256_cvtepu8_epi32(_mm_set_epi32(0, 0, pixel(1), pixel(0)));
                upper = _mm256_add_epi32(upper, _mm256_mullo_epi32(values, weight));
                let values = _mm256_cvtepu8_epi32(_mm_set_epi32(0, 0, pixel(3), pixel(2)));
                lower = _mm256_add_epi32(lower, _mm256_mullo_epi32(values, weight));
            }
            // Packing works within halves of a vector: rows 0 and 2 come into one, 1 and 3 into the other.
            let words = _mm256_packs_epi32(whole(upper), whole(lower));
            let bytes = _mm256_packus_epi16(words, words);
            let even = _mm_cvtsi128_si64(_mm256_castsi256_si128(bytes)).to_le_bytes();
            let odd = _mm_cvtsi128_si64(_mm256_extracti128_si256::<1>(bytes)).to_le_bytes();
            let pixels = [&even[..3], &odd[..3], &even[4..7], &odd[4..7]];
            for (row, pixel) in pixels.into_iter().enumerate() {
                out[row * width + 3 * x..][..3].copy_from_slice(pixel);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn merge_avx2(rows: &[u8], weights: &[i32], out: &mut [u8]) -> usize {
        const AT_ONCE: usize = 32;
        let stride = out.len();
        let stretches = out.as_chunks_mut::<AT_ONCE>().0;
        for (stretch, out) in stretches.iter_mut().enumerate() {
            let mut sums = [_mm256_set1_epi32(HALF); 4];
            for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
                let weight = _mm256_set1_epi32(weight);
                let values = row[stretch * AT_ONCE..][..AT_ONCE].as_chunks::<8>().0;
                for (sum, &eight) in sums.iter_mut().zip(values) {
                    let eight = _mm_cvtsi64_si128(i64::from_le_bytes(eight));
                    let product = _mm256_mullo_epi32(_mm256_cvtepu8_epi32(eight), weight);
                    *sum = _mm256_add_epi32(*sum, product);
                }
            }
            let [a, b, c, d] = sums;
            let words = [
                _mm256_packs_epi32(whole(a), whole(b)),
                _mm256_packs_epi32(whole(c), whole(d)),
            ];
            // Packing works within halves of a vector, and leaves groups of four bytes in another order.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let bytes = _mm256_packus_epi16(words[0], words[1]);
            let bytes = _mm256_permutevar8x32_epi32(bytes, order);
            let parts = [
                _mm256_extract_epi64::<0>(bytes),
                _mm256_extract_epi64::<1>(bytes),
                _mm256_extract_epi64::<2>(bytes),
                _mm256_extract_epi64::<3>(bytes),
            ];
            for (out, part) in out.as_chunks_mut::<8>().0.iter_mut().zip(parts) {
                *out = part.to_le_bytes();
            }
        }
        stretches.len() * AT_ONCE
    }

    /// The whole part of fixed-point numbers; packing clamps it to bytes afterwards.
    #[target_feature(enable = "avx2")]
    fn whole(sums: __m256i) -> __m256i {
        _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(sums)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod vectors {
    pub(super) fn narrow(_: [&[u8]; super::ABREAST], _: &super::Weights, _: &mut [u8]) -> bool {
        false
    }

    pub(super) fn merge(_: &[u8], _: &[i32], _: &mut [u8]) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use logitcask_philox::{Purpose, Stream};

    use super::*;

    /// Sum by sum as the module says it, without anything that is done side by side.
    fn plainly(image: &Image, [top, left, height, width]: [usize; 4], to: [usize; 2]) -> Vec<u8> {
        let channels = image.size().channels;
        let [mut columns, mut rows] = [Weights::default(), Weights::default()];
        columns.set(width, [0.0, width as f64], to[1]);
        rows.set(height, [0.0, height as f64], to[0]);
        let narrowed = |y: usize, x: usize, channel: usize| {
            let (first, weights) = columns.each().nth(x).unwrap();
            let pixels = image.row(top + y)[(left + first) * channels..].iter();
            let values = pixels.skip(channel).step_by(channels);
            let sum: i32 = values.zip(weights).map(|(&v, w)| i32::from(v) * w).sum();
            i32::from(to_byte(HALF + sum))
        };
        let mut out = Vec::new();
        for (first, weights) in rows.each() {
            for x in 0..to[1] {
                for channel in 0..channels {
                    let values = (first..).map(|y| narrowed(y, x, channel));
                    let sum: i32 = weights.iter().zip(values).map(|(w, v)| v * w).sum();
                    out.push(to_byte(HALF + sum));
                }
            }
        }
        out
    }

    #[test]
    fn side_by_side_is_as_one_by_one() {
        let mut stream = Stream::new(4, Purpose::Synthetic, [0; 3]);
        let (mut image, mut into) = (Image::new(), Image::new());
        let mut buffers = Buffers::default();
        for round in 0..300 {
            let mut below = |n: usize| stream.below(n as u64) as usize;
            let size = ImageSize {
                height: 1 + below(24),
                width: 1 + below(24),
                channels: if round % 4 == 0 { 1 } else { 3 },
            };
            let (height, width) = (1 + below(size.height), 1 + below(size.width));
            let (top, left) = (
                below(size.height - height + 1),
                below(size.width - width + 1),
            );
            let to = [1 + below(20), 1 + below(40)];
            // Black and white among them: sums reach beyond a byte's ends by rounding.
            image
                .reshape(size)
                .fill_with(|| [0, 255, below(256) as u8][below(3)]);
            let window = [top, left, height, width];
            resize_window(&image, window, to[0], to[1], &mut into, &mut buffers);
            assert_eq!(
                into.pixels(),
                plainly(&image, window, to),
                "{size:?} {window:?} {to:?}"
            );
        }
    }
}
