//! Encoded bytes to pixels: PNG, JPEG and WebP, as PIL's `convert("RGB")` or `convert("L")` of a grey image has them.
//!
//! Alpha is dropped, palettes are expanded, sixteen bits become the upper eight, but of grey without alpha: there PIL takes
//! whole numbers and clips them at 255. EXIF orientation is not looked at here.

use std::io::Cursor;

use crate::pixels::{clip_16_bits, drop_alpha, repeat_grey};
use crate::{Image, ImageError, ImageSize};

/// What a recipe says about reading encoded images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// 1 or 3; without a wish, as many as the image has.
    pub(crate) channels: Option<usize>,
    /// The most pixels an image may claim.
    pub(crate) max_pixels: u64,
}

/// What the first bytes say a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Png,
    Jpeg,
    WebP,
}

impl Codec {
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        match bytes {
            [] => Err(ImageError::Empty),
            [0x89, b'P', b'N', b'G', ..] => Ok(Self::Png),
            [0xFF, 0xD8, ..] => Ok(Self::Jpeg),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Ok(Self::WebP),
            _ => {
                let head = &bytes[..bytes.len().min(4)];
                Err(ImageError::UnknownCodec(head.escape_ascii().to_string()))
            }
        }
    }
}

/// Whether decoding gives the same pixels with every correct decoder. Lossy formats leave room to the decoder, so
/// their identity is that of the file.
pub(crate) fn is_lossless(bytes: &[u8]) -> bool {
    match Codec::of(bytes) {
        Ok(Codec::Png) => true,
        Ok(Codec::WebP) => bytes.get(12..16) == Some(b"VP8L"),
        Ok(Codec::Jpeg) | Err(_) => false,
    }
}

/// Decodes `bytes` into `image`.
pub(crate) fn decode(bytes: &[u8], how: Reading, image: &mut Image) -> Result<(), ImageError> {
    match Codec::of(bytes)? {
        Codec::Png => decode_png(bytes, how.max_pixels, image).or_else(|error| {
            let ended = with_end(bytes).ok_or(error)?;
            decode_png(&ended, how.max_pixels, image)
        })?,
        Codec::Jpeg => decode_jpeg(bytes, how.max_pixels, image)?,
        Codec::WebP => decode_webp(bytes, how.max_pixels, image)?,
    }
    to_channels(how.channels, image)
}

/// The size of an image of which every part can be decoded, as [`decode`] would bring it. Pixels are made in `image` only
/// where there is no other way to know.
pub(crate) fn check(
    bytes: &[u8],
    how: Reading,
    image: &mut Image,
) -> Result<ImageSize, ImageError> {
    if Codec::of(bytes)? != Codec::Jpeg {
        decode(bytes, how, image)?;
        return Ok(image.size());
    }
    let header = jpeg_header(bytes, how.max_pixels)?;
    if (how.channels, header.channels()) == (Some(1), 3) {
        return Err(ImageError::Colour);
    }
    logitcask_jpeg::check(bytes, &mut image.jpeg).map_err(ImageError::Jpeg)?;
    Ok(Partial { header }.size(how.channels))
}

fn to_channels(channels: Option<usize>, image: &mut Image) -> Result<(), ImageError> {
    match (channels, image.size().channels) {
        (None, _) | (Some(1), 1) | (Some(3), 3) => Ok(()),
        (Some(3), 1) => {
            repeat_grey(image);
            Ok(())
        }
        (Some(1), _) => Err(ImageError::Colour),
        (Some(n), _) => Err(ImageError::Unsupported(format!(
            "a dataset of {n} channels"
        ))),
    }
}

fn decode_png(bytes: &[u8], max_pixels: u64, image: &mut Image) -> Result<(), ImageError> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(ImageError::Png)?;
    let is_clipped = (header.color_type, header.bit_depth)
        == (png::ColorType::Grayscale, png::BitDepth::Sixteen);
    let (width, height) = checked_size(header.width.into(), header.height.into(), max_pixels)?;
    // Sixteen bits of grey are left as they are; a colour that is transparent would make a channel of alpha of itself.
    decoder.set_transformations(match is_clipped {
        true => png::Transformations::IDENTITY,
        false => png::Transformations::EXPAND | png::Transformations::STRIP_16,
    });
    let mut reader = decoder.read_info().map_err(ImageError::Png)?;
    if let Some(animation) = reader.info().animation_control()
        && animation.num_frames > 1
    {
        return Err(ImageError::Animated(animation.num_frames));
    }
    let (color, _) = reader.output_color_type();
    let size = ImageSize {
        height,
        width,
        channels: if is_clipped { 2 } else { color.samples() },
    };
    reader
        .next_frame(image.reshape(size))
        .map_err(ImageError::Png)?;
    if is_clipped {
        clip_16_bits(image);
    } else if matches!(color, png::ColorType::GrayscaleAlpha | png::ColorType::Rgba) {
        drop_alpha(image);
    }
    Ok(())
}

/// A PNG of which only the end is missing, with it: the pixels are whole before the mark that says so, and PIL takes them.
/// None where that is not what the file lacks.
fn with_end(bytes: &[u8]) -> Option<Vec<u8>> {
    const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
    let mut at = 8;
    let mut pixels_end = None;
    while let Some(&[a, b, c, d]) = bytes.get(at..at + 4) {
        let n_bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        let kind = bytes.get(at + 4..at + 8);
        let end = (at + 8).checked_add(n_bytes)?;
        if kind == Some(b"IEND") && end + 4 <= bytes.len() {
            return None;
        }
        if kind == Some(b"IDAT") && end <= bytes.len() {
            pixels_end = Some((at, end));
        }
        at = end + 4;
    }
    let (start, end) = pixels_end?;
    let mut ended = bytes[..end].to_vec();
    match bytes.get(end..end + 4) {
        Some(check) => ended.extend(check),
        None => {
            let mut check = flate2::Crc::new();
            check.update(&bytes[start + 4..end]);
            ended.extend(check.sum().to_be_bytes());
        }
    }
    ended.extend(END);
    Some(ended)
}

/// A JPEG that a part of can be decoded, at a fraction of its resolution.
pub(crate) struct Partial {
    header: logitcask_jpeg::Header,
}

impl Partial {
    /// None where only the whole image can be had: other codecs.
    pub(crate) fn of(bytes: &[u8], max_pixels: u64) -> Result<Option<Self>, ImageError> {
        if Codec::of(bytes)? != Codec::Jpeg {
            return Ok(None);
        }
        let header = jpeg_header(bytes, max_pixels)?;
        Ok(Some(Self { header }))
    }

    /// The size of the whole image, as [`decode`] would bring it to `channels`.
    pub(crate) fn size(&self, channels: Option<usize>) -> ImageSize {
        ImageSize {
            height: self.header.height,
            width: self.header.width,
            channels: channels.unwrap_or(self.header.channels()),
        }
    }

    /// Rows and columns of the image at 1/`reduction` of its resolution.
    pub(crate) fn reduced(&self, reduction: usize) -> [usize; 2] {
        self.header.reduced(reduction)
    }

    /// Decodes the window [top, left, height, width] of the reduced image.
    pub(crate) fn decode(
        &self,
        bytes: &[u8],
        channels: Option<usize>,
        reduction: usize,
        window: [usize; 4],
        image: &mut Image,
    ) -> Result<(), ImageError> {
        let size = ImageSize {
            height: window[2],
            width: window[3],
            channels: self.header.channels(),
        };
        let mut buffers = std::mem::take(&mut image.jpeg);
        let out = image.reshape(size);
        let decoded = self
            .header
            .decode(bytes, reduction, window, out, &mut buffers);
        image.jpeg = buffers;
        decoded.map_err(ImageError::Jpeg)?;
        to_channels(channels, image)
    }
}

fn decode_jpeg(bytes: &[u8], max_pixels: u64, image: &mut Image) -> Result<(), ImageError> {
    let partial = Partial {
        header: jpeg_header(bytes, max_pixels)?,
    };
    let [height, width] = partial.reduced(1);
    partial.decode(bytes, None, 1, [0, 0, height, width], image)
}

fn jpeg_header(bytes: &[u8], max_pixels: u64) -> Result<logitcask_jpeg::Header, ImageError> {
    let header = logitcask_jpeg::Header::read(bytes).map_err(ImageError::Jpeg)?;
    checked_size(header.width as u64, header.height as u64, max_pixels)?;
    Ok(header)
}

fn decode_webp(bytes: &[u8], max_pixels: u64, image: &mut Image) -> Result<(), ImageError> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(ImageError::WebP)?;
    if decoder.is_animated() {
        return Err(ImageError::Animated(decoder.num_frames()));
    }
    let (width, height) = decoder.dimensions();
    let (width, height) = checked_size(width.into(), height.into(), max_pixels)?;
    let alpha = decoder.has_alpha();
    let size = ImageSize {
        height,
        width,
        channels: if alpha { 4 } else { 3 },
    };
    decoder
        .read_image(image.reshape(size))
        .map_err(ImageError::WebP)?;
    if alpha {
        drop_alpha(image);
    }
    Ok(())
}

fn checked_size(width: u64, height: u64, limit: u64) -> Result<(usize, usize), ImageError> {
    match width.checked_mul(height) {
        Some(0) => Err(ImageError::Empty),
        Some(pixels) if pixels <= limit => Ok((width as usize, height as usize)),
        _ => Err(ImageError::TooLarge {
            width,
            height,
            limit,
        }),
    }
}
