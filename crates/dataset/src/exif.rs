//! Which way up an image is, as its file says it: the orientation that cameras write, read and obeyed as PIL's
//! `ImageOps.exif_transpose` does. Of EXIF in JPEG (APP1), PNG (eXIf) and WebP (EXIF); the same in XMP, where PIL falls back
//! to it, only in JPEG and WebP.

use crate::codec::Codec;
use crate::{Image, ImageSize};

/// What is to be done to the stored image, by EXIF's number of it; 1, which is nothing, is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// Mirrored: left becomes right.
    FlipColumns = 2,
    /// By half a turn.
    HalfTurn = 3,
    /// Mirrored the other way: top becomes bottom.
    FlipRows = 4,
    /// Rows become columns, the first ones first.
    Transpose = 5,
    /// By a quarter, clockwise.
    Clockwise = 6,
    /// Rows become columns, the last ones first.
    Transverse = 7,
    /// By a quarter, anticlockwise.
    Anticlockwise = 8,
}

impl Orientation {
    /// None where the file says nothing, or that it is upright already. What cannot be read says nothing: metadata are no
    /// reason to lose an image.
    pub(crate) fn of(file: &[u8]) -> Option<Self> {
        let metadata = match Codec::of(file).ok()? {
            Codec::Jpeg => of_jpeg(file),
            Codec::Png => of_png(file),
            Codec::WebP => of_webp(file),
        };
        let said = in_tiff(&metadata.exif).or_else(|| in_xmp(&metadata.xmp))?;
        Some(match said {
            2 => Self::FlipColumns,
            3 => Self::HalfTurn,
            4 => Self::FlipRows,
            5 => Self::Transpose,
            6 => Self::Clockwise,
            7 => Self::Transverse,
            8 => Self::Anticlockwise,
            _ => return None,
        })
    }

    /// The size of an image of `stored` size after [`Self::apply`].
    pub(crate) fn size(self, stored: ImageSize) -> ImageSize {
        if self.exchanges_sides() {
            ImageSize {
                height: stored.width,
                width: stored.height,
                ..stored
            }
        } else {
            stored
        }
    }

    /// Turns a stored image upright.
    pub(crate) fn apply(self, image: &mut Image) {
        let stored = image.size();
        let ImageSize {
            height,
            width,
            channels,
        } = stored;
        let mut upright = Vec::with_capacity(image.pixels().len());
        let size = self.size(stored);
        for y in 0..size.height {
            for x in 0..size.width {
                let (row, column) = match self {
                    Self::FlipColumns => (y, width - 1 - x),
                    Self::HalfTurn => (height - 1 - y, width - 1 - x),
                    Self::FlipRows => (height - 1 - y, x),
                    Self::Transpose => (x, y),
                    Self::Clockwise => (height - 1 - x, y),
                    Self::Transverse => (height - 1 - x, width - 1 - y),
                    Self::Anticlockwise => (x, width - 1 - y),
                };
                let at = (row * width + column) * channels;
                upright.extend_from_slice(&image.pixels()[at..at + channels]);
            }
        }
        image.reshape(size).copy_from_slice(&upright);
    }

    fn exchanges_sides(self) -> bool {
        use Orientation::{Anticlockwise, Clockwise, Transpose, Transverse};
        matches!(self, Transpose | Clockwise | Transverse | Anticlockwise)
    }
}

#[derive(Default)]
struct Metadata {
    /// A TIFF file without its pixels.
    exif: Vec<u8>,
    /// XML text that may name an orientation.
    xmp: Vec<u8>,
}

/// EXIF that fills more than one segment goes on in the next ones.
fn of_jpeg(file: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = file.get(at..at + 4) {
        if marker == 0xFF {
            at += 1; // padding
            continue;
        }
        let n_bytes = usize::from(u16::from_be_bytes([high, low]));
        let segment = file.get(at + 4..at + 2 + n_bytes);
        let (Some(segment), true) = (segment, marker != 0xDA) else {
            break;
        };
        if let (0xE1, Some(exif)) = (marker, segment.strip_prefix(b"Exif\0\0")) {
            metadata.exif.extend_from_slice(exif);
        }
        if let (0xE1, Some(xmp)) = (
            marker,
            segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0"),
        ) {
            metadata.xmp = xmp.to_vec();
        }
        at += 2 + n_bytes;
    }
    metadata
}

fn of_png(file: &[u8]) -> Metadata {
    let mut rest = file.get(8..).unwrap_or_default();
    while let Some((n_bytes, after)) = rest.split_first_chunk() {
        let n_bytes = u32::from_be_bytes(*n_bytes) as usize;
        let (Some(name), Some(content)) = (after.get(..4), after.get(4..4 + n_bytes)) else {
            break;
        };
        if name == b"eXIf" {
            return Metadata {
                exif: content.to_vec(),
                xmp: Vec::new(),
            };
        }
        rest = after.get(8 + n_bytes..).unwrap_or_default();
    }
    Metadata::default()
}

fn of_webp(file: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    let mut rest = file.get(12..).unwrap_or_default();
    while let Some((name, after)) = rest.split_first_chunk::<4>() {
        let Some((n_bytes, content)) = after.split_first_chunk() else {
            break;
        };
        let n_bytes = u32::from_le_bytes(*n_bytes) as usize;
        let whole = content.get(..n_bytes).unwrap_or_default();
        match name {
            b"EXIF" => {
                let exif = whole.strip_prefix(b"Exif\0\0").unwrap_or(whole);
                metadata.exif = exif.to_vec();
            }
            b"XMP " => metadata.xmp = whole.to_vec(),
            _ => {}
        }
        // Chunks begin at even places.
        rest = content
            .get(n_bytes.saturating_add(n_bytes % 2)..)
            .unwrap_or_default();
    }
    metadata
}

/// The tag 0x0112 of the first directory; of several the last, and of several numbers in it the first.
fn in_tiff(tiff: &[u8]) -> Option<u32> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let number = |bytes: &[u8]| {
        let digit = |number: u32, &byte: &u8| number << 8 | u32::from(byte);
        match little {
            true => bytes.iter().rev().fold(0, digit),
            false => bytes.iter().fold(0, digit),
        }
    };
    let directory = tiff.get(number(tiff.get(4..8)?) as usize..)?;
    let (n_entries, entries) = directory.split_at_checked(2)?;
    let entries = entries.chunks_exact(12).take(number(n_entries) as usize);
    let mut found = None;
    for entry in entries.filter(|entry| number(&entry[..2]) == 0x0112) {
        let n_bytes = match number(&entry[2..4]) {
            3 => 2_usize, // SHORT
            4 => 4,       // LONG
            _ => {
                found = None;
                continue;
            }
        };
        let n_all = n_bytes.saturating_mul(number(&entry[4..8]) as usize);
        // What is longer than four bytes lies elsewhere.
        let values = match n_all {
            0..=4 => &entry[8..8 + n_all],
            _ => tiff
                .get(number(&entry[8..]) as usize..)
                .and_then(|rest| rest.get(..n_all))
                .unwrap_or_default(),
        };
        found = values.get(..n_bytes).map(number).or(found);
    }
    found
}

/// The digit of the first `tiff:Orientation="6"` or `tiff:Orientation>6`.
fn in_xmp(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let places = xmp.windows(NAME.len()).enumerate();
    let mut said = places
        .filter(|(_, window)| *window == NAME)
        .filter_map(|(at, _)| {
            let rest = &xmp[at + NAME.len()..];
            let value = rest.strip_prefix(b"=\"").or(rest.strip_prefix(b">"))?;
            let digit = value.first().filter(|byte| byte.is_ascii_digit())?;
            Some(u32::from(digit - b'0'))
        });
    said.next()
}
