//! The check of a row: CRC-32C over its address, its label and its bytes.

use crc_fast::{CrcAlgorithm, Digest};

use crate::gather::{ABREAST, MAX_COLUMNS};

/// What stands before a row's bytes: sample (u64), view and label (u32 each), all little-endian.
pub(crate) fn head(sample: u32, view: u32, label: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[..8].copy_from_slice(&u64::from(sample).to_le_bytes());
    head[8..12].copy_from_slice(&view.to_le_bytes());
    head[12..].copy_from_slice(&label.to_le_bytes());
    head
}

/// CRC-32C over the head and then the row's bytes column by column. A row that is not there has no bytes.
pub(crate) fn row_check(head: [u8; 16], columns: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&head);
    for bytes in columns {
        digest.update(bytes);
    }
    digest.finalize() as u32
}

/// The same of several rows at once, each column of which is as long in one as in the other.
#[inline]
pub(crate) fn row_checks(
    heads: &[[u8; 16]; ABREAST],
    columns: &[[&[u8]; ABREAST]],
) -> [u32; ABREAST] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the only demand of `by_instruction` is the feature that was just asked for. It works on slices, with
        // their bounds checked.
        #[expect(
            unsafe_code,
            reason = "the instruction has no safe name; four rows side by side take a third of crc-fast's time"
        )]
        unsafe {
            return by_instruction(heads, columns);
        }
    }
    std::array::from_fn(|row| {
        let mut own: [&[u8]; MAX_COLUMNS] = Default::default();
        for (own, column) in own.iter_mut().zip(columns) {
            *own = column[row];
        }
        row_check(heads[row], &own[..columns.len()])
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(heads: &[[u8; 16]; ABREAST], columns: &[[&[u8]; ABREAST]]) -> [u32; ABREAST] {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let mut checks = [u64::from(u32::MAX); ABREAST];
    let heads = std::array::from_fn(|row| heads[row].as_slice());
    for rows in std::iter::once(&heads).chain(columns) {
        let words = |row: usize| rows[row].as_chunks().0.iter();
        // Named one by one, so that each stays in a register: the loop over them is as fast as the instruction.
        let [mut a, mut b, mut c, mut d] = checks;
        for (((in_a, in_b), in_c), in_d) in words(0).zip(words(1)).zip(words(2)).zip(words(3)) {
            a = _mm_crc32_u64(a, u64::from_le_bytes(*in_a));
            b = _mm_crc32_u64(b, u64::from_le_bytes(*in_b));
            c = _mm_crc32_u64(c, u64::from_le_bytes(*in_c));
            d = _mm_crc32_u64(d, u64::from_le_bytes(*in_d));
        }
        checks = [a, b, c, d];
        if rows[0].len() % 8 == 0 {
            continue;
        }
        for (row, check) in rows.iter().zip(&mut checks) {
            let mut left = row.as_chunks::<8>().1;
            let mut short = *check as u32;
            if let Some((half, rest)) = left.split_first_chunk() {
                short = _mm_crc32_u32(short, u32::from_le_bytes(*half));
                left = rest;
            }
            for &byte in left {
                short = _mm_crc32_u8(short, byte);
            }
            *check = u64::from(short);
        }
    }
    checks.map(|check| !(check as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_at_once_are_what_each_is_alone() {
        let bytes: Vec<u8> = (0..4000u32).map(|i| (i * 193 % 251) as u8).collect();
        for n_bytes in (0..70).chain([199, 200, 255, 256, 999]) {
            let heads = std::array::from_fn(|row| head(row as u32, 7, u32::MAX - row as u32));
            let first: [&[u8]; ABREAST] = std::array::from_fn(|row| &bytes[3 * row..][..8]);
            let second = std::array::from_fn(|row| &bytes[17 * row..][..n_bytes]);
            let together = row_checks(&heads, &[first, second]);
            for row in 0..ABREAST {
                let alone = row_check(heads[row], &[first[row], second[row]]);
                assert_eq!(together[row], alone, "{n_bytes} bytes, row {row}");
            }
        }
    }

    #[test]
    fn it_is_the_castagnoli_polynomial() {
        // The check value of CRC-32C (RFC 3720) is of these nine digits alone; here they follow a head of zeros.
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(b"123456789");
        assert_eq!(digest.finalize() as u32, 0xe306_9283);
    }
}
