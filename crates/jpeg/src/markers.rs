//! Markers, which stand between the parts of a file, and the segments that belong to them.

use crate::error::Error::{self, Damaged};

/// The next marker and what belongs to it; `at` moves behind it. The end of the image has nothing. As libjpeg, passes
/// over what stands between segments, and over markers that mean nothing there.
pub(crate) fn next_segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<(u8, &'a [u8]), Error> {
    const CUT_OFF: Error = Damaged("it is cut off in its headers");
    loop {
        let marker = next_marker(bytes, *at).ok_or(CUT_OFF)?;
        *at = marker + 2;
        match bytes[marker + 1] {
            END_OF_IMAGE => return Ok((END_OF_IMAGE, &[])),
            0xD8 => return Err(Damaged("an image begins within it")),
            0x01 | 0xD0..=0xD7 => {}
            marker => {
                let Some(&[high, low]) = bytes.get(*at..*at + 2) else {
                    return Err(CUT_OFF);
                };
                let length = usize::from(u16::from_be_bytes([high, low])).max(2);
                let segment = bytes.get(*at + 2..*at + length).ok_or(CUT_OFF)?;
                *at += length;
                return Ok((marker, segment));
            }
        }
    }
}

/// Where the next marker begins, from `at` on: 0xFF and what is neither another one nor a stuffed zero.
pub(crate) fn next_marker(bytes: &[u8], at: usize) -> Option<usize> {
    let pairs = bytes.get(at..)?.windows(2);
    let position = { pairs }.position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
    position.map(|position| at + position)
}

pub(crate) const START_OF_SCAN: u8 = 0xDA;
pub(crate) const END_OF_IMAGE: u8 = 0xD9;
