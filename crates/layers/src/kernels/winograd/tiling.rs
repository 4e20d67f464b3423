//! Tiles: how images are cut into them, and where their values lie once they are transformed.

use crate::kernels::simd::{Level, Simd};

/// Outputs of a tile, along one axis.
pub(super) const OUT: usize = 4;
/// Inputs of a tile, along one axis.
pub(super) const IN: usize = 6;
/// Elements of a transformed tile, and so the number of matrix products.
pub(super) const POINTS: usize = IN * IN;

/// The tiles of a batch of images: how the side that is cut into 4x4 is covered, and where the values of each tile lie
/// in the image that is read.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    /// Height and width of the image that is read, and its channels.
    h: usize,
    w: usize,
    pub(super) channels: usize,
    /// Zeros around it, at the top and at the left.
    padding: usize,
    /// Tiles down and across.
    down: usize,
    across: usize,
}

impl Tiling {
    pub(super) fn new([h, w, channels]: [usize; 3], padding: usize, [oh, ow]: [usize; 2]) -> Self {
        Self {
            h,
            w,
            channels,
            padding,
            down: oh.div_ceil(OUT),
            across: ow.div_ceil(OUT),
        }
    }

    pub(super) fn per_image(&self) -> usize {
        self.down * self.across
    }

    pub(super) fn image_len(&self) -> usize {
        self.h * self.w * self.channels
    }

    /// The tile's image, and its row and column of tiles.
    #[inline(always)]
    pub(super) fn place(&self, tile: usize) -> (usize, usize, usize) {
        let in_image = tile % self.per_image();
        (
            tile / self.per_image(),
            in_image / self.across,
            in_image % self.across,
        )
    }

    /// Where the pixels of a tile lie in `images`, row by row; those outside the image lie in `zeros`.
    #[inline(always)]
    pub(super) fn pixels<const SIDE: usize>(
        &self,
        tile: usize,
        images: &[f32],
        zeros: &[f32],
    ) -> [[*const f32; SIDE]; SIDE] {
        let (image, row, column) = self.place(tile);
        let image = &images[image * self.image_len()..][..self.image_len()];
        let mut pixels = [[zeros.as_ptr(); SIDE]; SIDE];
        for (i, pixels) in pixels.iter_mut().enumerate() {
            let Some(y) = (row * OUT + i)
                .checked_sub(self.padding)
                .filter(|&y| y < self.h)
            else {
                continue;
            };
            let line = &image[y * self.w * self.channels..][..self.w * self.channels];
            for (j, pixel) in pixels.iter_mut().enumerate() {
                let x = (column * OUT + j)
                    .checked_sub(self.padding)
                    .filter(|&x| x < self.w);
                if let Some(x) = x {
                    *pixel = line[x * self.channels..][..self.channels].as_ptr();
                }
            }
        }
        pixels
    }
}

/// Transformed tiles, `[point][tile][channel]`. Channels are filled up to whole vectors; points are one cache line
/// further apart than they need be, because at distances of a power of two all 36 would compete for the same cache sets.
#[derive(Clone, Copy)]
pub(super) struct Points {
    pub(super) channels: usize,
    pub(super) stride: usize,
}

impl Points {
    pub(super) fn new(level: Level, tiles: usize, channels: usize) -> Self {
        let channels = channels.next_multiple_of(level.lanes());
        Self {
            channels,
            stride: tiles * channels + 16,
        }
    }

    pub(super) fn len(&self) -> usize {
        POINTS * self.stride
    }
}

/// Panics unless `len` values hold `n` tiles at every point, and a tile whole vectors of its channels.
#[inline(always)]
pub(super) fn check_points<S: Simd>(points: &Points, n: usize, channels: usize, len: usize) {
    assert!(channels.next_multiple_of(S::LANES) <= points.channels);
    assert!(n * points.channels <= points.stride && POINTS * points.stride <= len);
}
