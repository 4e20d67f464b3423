//! Resizing, to the bit as PIL does it: a pass along the rows and one along the columns, with 22-bit fixed-point weights and
//! rounding to bytes after each. Shrinking widens the filter, so that no pixel is passed over (antialiasing).

use std::array::from_fn;
use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Image, ImageSize};

const PRECISION_BITS: u32 = 22;

/// Between which pixels a resized image interpolates, and how: PIL's filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// A triangle over 2 pixels: torchvision's default.
    #[default]
    Bilinear,
    /// Keys' cubic (a = -0.5) over 4 pixels: timm's default.
    Bicubic,
    /// A windowed sinc over 6 pixels.
    Lanczos,
    /// The pixel that lies there, without antialiasing.
    Nearest,
    /// The mean of the pixels that lie there.
    Box,
    /// A windowed sinc over 2 pixels.
    Hamming,
}

/// Whose order of passes: rounding to bytes between them lets it be seen, by one level in a tenth to a quarter of the values
/// where the orders differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Pillow {
    /// Pillow up to 12 (12.3 but for images more than 100 times as tall as wide): rows are brought to the new width first.
    #[default]
    V12,
    /// Pillow 13: columns are brought to the new height first where the height loses more than twice as many pixels as the
    /// width.
    V13,
}

/// How an image is resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resampling {
    /// The filter that weighs the input's pixels.
    pub interpolation: Interpolation,
    /// The order of passes.
    pub pillow: Pillow,
}

/// What resizing allocates, kept from image to image.
#[derive(Default)]
pub(crate) struct Buffers {
    columns: Weights,
    rows: Weights,
    between: Image,
}

/// Resizes the window [top, left, height, width], which lies in the image, to [height, width]. Pixels beside the window
/// have no say, as if it had been cut out first.
pub(super) fn resize_window(
    image: &Image,
    window: [usize; 4],
    to: [usize; 2],
    resampling: Resampling,
    into: &mut Image,
    buffers: &mut Buffers,
) {
    let [_, _, height, width] = window.map(|n| n as f64);
    let spans = [[0.0, height], [0.0, width]];
    resize(image, window, spans, to, resampling, into, buffers);
}

/// Resizes a box of the image: [first, length] of its rows and of its columns, which may lie between pixels.
pub(super) fn resize_box(
    image: &Image,
    spans: [[f64; 2]; 2],
    to: [usize; 2],
    resampling: Resampling,
    into: &mut Image,
    buffers: &mut Buffers,
) {
    let size = image.size();
    let window = [0, 0, size.height, size.width];
    resize(image, window, spans, to, resampling, into, buffers);
}

/// `spans`, of rows and of columns, count from the window's first pixel.
fn resize(
    image: &Image,
    window: [usize; 4],
    spans: [[f64; 2]; 2],
    to: [usize; 2],
    resampling: Resampling,
    into: &mut Image,
    buffers: &mut Buffers,
) {
    let interpolation = resampling.interpolation;
    if interpolation == Interpolation::Nearest {
        return nearest(image, window, spans, to, into);
    }
    let [top, left, window_height, window_width] = window;
    let Buffers {
        columns,
        rows,
        between,
    } = buffers;
    rows.set(window_height, spans[0], to[0], interpolation);
    columns.set(window_width, spans[1], to[1], interpolation);
    if resampling.pillow.begins_with_rows(spans, to) {
        vertical(image, window, rows, between);
        horizontal(between, [0, 0, to[0]], columns, into);
    } else {
        horizontal(image, [top, left, window_height], columns, between);
        vertical(between, [0, 0, window_height, to[1]], rows, into);
    }
}

impl Pillow {
    /// Found by 5,865 resizes of random sizes in Pillow 13.0.0, each compared with either order in two steps.
    fn begins_with_rows(self, [rows, columns]: [[f64; 2]; 2], to: [usize; 2]) -> bool {
        let lost = |[_, length]: [f64; 2], to: usize| length - to as f64;
        let lost_rows = lost(rows, to[0]);
        self == Self::V13 && lost_rows > 0.0 && lost_rows > 2.0 * lost(columns, to[1])
    }
}

impl TryFrom<u32> for Pillow {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            12 => Ok(Self::V12),
            13 => Ok(Self::V13),
            other => Err(format!("`pillow` is {other}: expected 12 or 13")),
        }
    }
}

impl From<Pillow> for u32 {
    fn from(pillow: Pillow) -> u32 {
        match pillow {
            Pillow::V12 => 12,
            Pillow::V13 => 13,
        }
    }
}

impl Interpolation {
    /// What a recipe calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
            Self::Nearest => "nearest",
            Self::Box => "box",
            Self::Hamming => "hamming",
        }
    }

    /// How far it reaches to either side, in pixels of the result or of the image, whichever are larger.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight of a pixel at a distance of `x`, before weights are brought to a sum of 1.
    #[inline]
    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Self::Bicubic if distance < 2.0 => {
                (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Nearest | Self::Box if -0.5 < x && x <= 0.5 => 1.0,
            // PIL has these two constants in single precision.
            Self::Hamming if distance == 0.0 => 1.0,
            Self::Hamming if distance < 1.0 => {
                let cosine = libm::cos(distance * PI);
                sinc(distance) * (f64::from(0.54_f32) + f64::from(0.46_f32) * cosine)
            }
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    match x * PI {
        0.0 => 1.0,
        x => libm::sin(x) / x,
    }
}

/// PIL's nearest pixel: positions are summed up along the side, and cut off.
fn nearest(
    image: &Image,
    [top, left, height, width]: [usize; 4],
    [rows, columns]: [[f64; 2]; 2],
    to: [usize; 2],
    into: &mut Image,
) {
    let channels = image.size().channels;
    into.reshape(ImageSize {
        height: to[0],
        width: to[1],
        channels,
    });
    let positions = |[first, length]: [f64; 2], to: usize, n: usize| {
        let step = length / to as f64;
        let after = move |at: &f64| Some(at + step);
        let positions = std::iter::successors(Some(first + step * 0.5), after);
        positions.map(move |at| (at as usize).min(n - 1))
    };
    let out = into.pixels_mut().chunks_exact_mut(to[1] * channels);
    for (out, y) in out.zip(positions(rows, to[0], height)) {
        let row = &image.row(top + y)[left * channels..];
        let pixels = out.chunks_exact_mut(channels);
        for (pixel, x) in pixels.zip(positions(columns, to[1], width)) {
            pixel.copy_from_slice(&row[x * channels..][..channels]);
        }
    }
}

/// For each output position, where its window of input positions begins and ends, and the weights in it.
#[derive(Default)]
struct Weights {
    /// What they were made for.
    made_for: (usize, [f64; 2], usize, Interpolation),
    windows: Vec<(usize, usize)>,
    values: Vec<i32>,
    /// Weights per output position, unused ones included.
    stride: usize,
}

impl Weights {
    /// From `length` positions at `first` of `from` to `to` positions.
    fn set(&mut self, from: usize, span: [f64; 2], to: usize, interpolation: Interpolation) {
        let wanted = (from, span, to, interpolation);
        if self.made_for == wanted {
            return;
        }
        self.made_for = wanted;
        let [first, length] = span;
        let scale = length / to as f64;
        // Enlarging interpolates between neighbours; shrinking widens the filter so that no pixel is passed over.
        let stretch = scale.max(1.0);
        let support = interpolation.support() * stretch;
        self.stride = support.ceil() as usize * 2 + 1;
        self.values.clear();
        self.values.resize(to * self.stride, 0);
        self.windows.clear();
        for (i, values) in self.values.chunks_exact_mut(self.stride).enumerate() {
            let center = first + (i as f64 + 0.5) * scale;
            let begin = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let inverse = 1.0 / stretch;
            let weight = |at: usize| interpolation.weight((at as f64 - center + 0.5) * inverse);
            let sum: f64 = (begin..end).map(weight).sum();
            for (value, at) in values.iter_mut().zip(begin..end) {
                let weight = weight(at) / sum * f64::from(1 << PRECISION_BITS);
                *value = (weight + 0.5_f64.copysign(weight)) as i32;
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

fn vertical(image: &Image, [top, left, _, width]: [usize; 4], weights: &Weights, into: &mut Image) {
    let size = image.size();
    let stride = size.width * size.channels;
    into.reshape(ImageSize {
        height: weights.windows.len(),
        width,
        ..size
    });
    let out = into.pixels_mut().chunks_exact_mut(width * size.channels);
    for (out, (first, weights)) in out.zip(weights.each()) {
        let rows = &image.pixels()[(top + first) * stride + left * size.channels..];
        let n_done = vectors::merge(rows, stride, weights, out);
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

    /// The vertical pass of rows that begin `stride` values apart, as many as there are weights, for the first columns, whose
    /// number is returned.
    pub(super) fn merge(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) -> usize {
        if !is_x86_feature_detected!("avx2") {
            return 0;
        }
        // SAFETY: as above.
        #[expect(
            unsafe_code,
            reason = "the processor's features are known at run time only"
        )]
        unsafe {
            merge_avx2(rows, stride, weights, out)
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
    fn merge_avx2(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) -> usize {
        const AT_ONCE: usize = 32;
        let stretches = out.as_chunks_mut::<AT_ONCE>().0;
        for (stretch, out) in stretches.iter_mut().enumerate() {
            let mut sums = [_mm256_set1_epi32(HALF); 4];
            for (row, &weight) in rows.chunks(stride).zip(weights) {
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

    pub(super) fn merge(_: &[u8], _: usize, _: &[i32], _: &mut [u8]) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use logitcask_philox::{Purpose, Stream};

    use super::*;

    /// Sum by sum as the module says it, without anything that is done side by side. [Height, width, channels] come with the
    /// pixels.
    fn along_rows(pixels: &[u8], [_, width, channels]: [usize; 3], weights: &Weights) -> Vec<u8> {
        let mut out = Vec::new();
        for row in pixels.chunks_exact(width * channels) {
            for (first, weights) in weights.each() {
                for channel in 0..channels {
                    let values = row[first * channels + channel..].iter().step_by(channels);
                    let sum: i32 = values.zip(weights).map(|(&v, w)| i32::from(v) * w).sum();
                    out.push(to_byte(HALF + sum));
                }
            }
        }
        out
    }

    fn along_columns(
        pixels: &[u8],
        [_, width, channels]: [usize; 3],
        weights: &Weights,
    ) -> Vec<u8> {
        let stride = width * channels;
        let mut out = Vec::new();
        for (first, weights) in weights.each() {
            for x in 0..stride {
                let values = pixels[first * stride + x..].iter().step_by(stride);
                let sum: i32 = values.zip(weights).map(|(&v, w)| i32::from(v) * w).sum();
                out.push(to_byte(HALF + sum));
            }
        }
        out
    }

    fn plainly(
        image: &Image,
        [top, left, height, width]: [usize; 4],
        to: [usize; 2],
        Resampling {
            interpolation,
            pillow,
        }: Resampling,
    ) -> Vec<u8> {
        let channels = image.size().channels;
        let [mut columns, mut rows] = [Weights::default(), Weights::default()];
        columns.set(width, [0.0, width as f64], to[1], interpolation);
        rows.set(height, [0.0, height as f64], to[0], interpolation);
        let window: Vec<u8> = (top..top + height)
            .flat_map(|y| image.row(y)[left * channels..][..width * channels].to_vec())
            .collect();
        let lost = |from: usize, to: usize| from as i64 - to as i64;
        let (lost_rows, lost_columns) = (lost(height, to[0]), lost(width, to[1]));
        if pillow == Pillow::V13 && lost_rows > 0 && lost_rows > 2 * lost_columns {
            let lower = along_columns(&window, [height, width, channels], &rows);
            along_rows(&lower, [to[0], width, channels], &columns)
        } else {
            let narrower = along_rows(&window, [height, width, channels], &columns);
            along_columns(&narrower, [height, to[1], channels], &rows)
        }
    }

    #[test]
    fn side_by_side_is_as_one_by_one() {
        let mut stream = Stream::new(4, Purpose::Synthetic, [0; 3]);
        let (mut image, mut into) = (Image::new(), Image::new());
        let mut buffers = Buffers::default();
        for round in 0..600 {
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
            let resampling = Resampling {
                interpolation: [
                    Interpolation::Bilinear,
                    Interpolation::Bicubic,
                    Interpolation::Lanczos,
                ][below(3)],
                pillow: [Pillow::V12, Pillow::V13][below(2)],
            };
            // Black and white among them: sums reach beyond a byte's ends by rounding and by negative weights.
            image
                .reshape(size)
                .fill_with(|| [0, 255, below(256) as u8][below(3)]);
            let window = [top, left, height, width];
            resize_window(&image, window, to, resampling, &mut into, &mut buffers);
            assert_eq!(
                into.pixels(),
                plainly(&image, window, to, resampling),
                "{size:?} {window:?} {to:?} {resampling:?}"
            );
        }
    }
}
