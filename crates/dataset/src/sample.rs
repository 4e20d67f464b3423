//! An image in memory, and the buffers that serve the next one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The size of an image: rows, columns, and values per pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageSize {
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
}

impl ImageSize {
    /// The number of bytes of such an image.
    pub fn n_bytes(self) -> usize {
        self.height * self.width * self.channels
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            height,
            width,
            channels,
        } = self;
        let s = if *channels == 1 { "" } else { "s" };
        write!(f, "{height} x {width} pixels of {channels} channel{s}")
    }
}

/// Decoded pixels: u8, rows of pixels, channels interleaved (H, W, C).
///
/// Meant to be reused: the buffers keep their capacity from image to image, so that a warm one costs no allocation.
#[derive(Clone, Debug, Default)]
pub struct Image {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
    /// Scratch of `Dataset::decode`: the file's bytes before decoding.
    pub(crate) encoded: Vec<u8>,
    /// Scratch of the JPEG decoder.
    pub(crate) jpeg: logitcask_jpeg::Buffers,
}

impl Image {
    /// An image of no pixels, to decode into.
    pub fn new() -> Self {
        Self::default()
    }

    /// An image of given pixels, (H, W, C).
    ///
    /// # Panics
    /// If there are more or fewer pixels than `size` says.
    pub fn from_pixels(size: ImageSize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), size.n_bytes(), "bytes of {size}");
        let ImageSize {
            height,
            width,
            channels,
        } = size;
        Self {
            height,
            width,
            channels,
            pixels,
            encoded: Vec::new(),
            jpeg: logitcask_jpeg::Buffers::default(),
        }
    }

    /// Rows, columns and values per pixel; all 0 before anything was put into it.
    pub fn size(&self) -> ImageSize {
        ImageSize {
            height: self.height,
            width: self.width,
            channels: self.channels,
        }
    }

    /// The pixels, (H, W, C).
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels, (H, W, C).
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Where a [`Source`](crate::Source) puts the bytes of a file that is still to be decoded, in place of what was there.
    pub fn encoded_mut(&mut self) -> &mut Vec<u8> {
        &mut self.encoded
    }

    /// Makes this an image of `size` and returns its pixels. Their values are whatever the buffer held.
    pub fn reshape(&mut self, size: ImageSize) -> &mut [u8] {
        (self.height, self.width, self.channels) = (size.height, size.width, size.channels);
        self.pixels.resize(size.n_bytes(), 0);
        &mut self.pixels
    }

    /// Makes this a copy of `other`'s pixels.
    pub fn copy_from(&mut self, other: &Image) {
        self.reshape(other.size()).copy_from_slice(&other.pixels);
    }

    /// The bytes of one row.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        let stride = self.width * self.channels;
        &self.pixels[y * stride..(y + 1) * stride]
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        self.size() == other.size() && self.pixels == other.pixels
    }
}
