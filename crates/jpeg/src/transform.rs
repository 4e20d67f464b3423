//! From a block's coefficients to its pixels, whole, at a half, a quarter or an eighth of the resolution.
//!
//! Coefficients of no picture (beyond 16 bits, times their quantization) overflow here otherwise than in libjpeg-turbo, where
//! they do so differently on each kind of processor.

const CONST_BITS: u32 = 13;
const PASS1_BITS: u32 = 2;

#[inline(always)]
fn descale(x: i32, bits: u32) -> i32 {
    x.wrapping_add(1 << (bits - 1)) >> bits
}

#[inline(always)]
fn to_byte(x: i32) -> u8 {
    (x + 128).clamp(0, 255) as u8
}

/// The block as one pixel. It is libjpeg's table of pixels that goes round after 1024 values.
#[inline(always)]
pub(crate) fn average(coefficients: &[i16; 64], quantization: &[u16; 64]) -> u8 {
    let value = i32::from(coefficients[0]) * i32::from(quantization[0]);
    to_byte(descale(value, 3) << 22 >> 22)
}

/// The 8 x 8 block (libjpeg's jidctint.c).
#[inline(always)]
pub(crate) fn full_block(
    coefficients: &[i16; 64],
    last: usize,
    quantization: &[u16; 64],
    out: &mut [u8],
    stride: usize,
) {
    if last == 0 {
        let value = i32::from(coefficients[0]) * i32::from(quantization[0]);
        let value = to_byte(descale(value, 3));
        for row in out.chunks_mut(stride).take(8) {
            row[..8].fill(value);
        }
        return;
    }
    let mut block = [0i32; 64];
    for ((out, &c), &q) in block.iter_mut().zip(coefficients).zip(quantization) {
        *out = i32::from(c) * i32::from(q);
    }
    let columns = eight_transforms(&block, CONST_BITS - PASS1_BITS);
    let rows = eight_transforms(&transposed(&columns), CONST_BITS + PASS1_BITS + 3);
    let block = transposed(&rows);
    for (row, values) in out.chunks_mut(stride).zip(block.chunks_exact(8)) {
        for (out, &value) in row[..8].iter_mut().zip(values) {
            *out = to_byte(value);
        }
    }
}

#[inline(always)]
fn transposed(block: &[i32; 64]) -> [i32; 64] {
    let mut out = [0; 64];
    for row in 0..8 {
        for column in 0..8 {
            out[column * 8 + row] = block[row * 8 + column];
        }
    }
    out
}

/// A one-dimensional transform of each column, eight at a time in vector instructions.
#[inline(always)]
fn eight_transforms(block: &[i32; 64], shift: u32) -> [i32; 64] {
    let mut out = [0i32; 64];
    for i in 0..8 {
        let x = |k: usize| block[k * 8 + i];
        let m = |x: i32, constant: i32| x.wrapping_mul(constant);
        // Even part.
        let z1 = m(x(2).wrapping_add(x(6)), 4433);
        let tmp2 = z1.wrapping_add(m(x(6), -15137));
        let tmp3 = z1.wrapping_add(m(x(2), 6270));
        let tmp0 = x(0).wrapping_add(x(4)).wrapping_shl(CONST_BITS);
        let tmp1 = x(0).wrapping_sub(x(4)).wrapping_shl(CONST_BITS);
        let even = [
            tmp0.wrapping_add(tmp3),
            tmp1.wrapping_add(tmp2),
            tmp1.wrapping_sub(tmp2),
            tmp0.wrapping_sub(tmp3),
        ];
        // Odd part.
        let (t0, t1, t2, t3) = (x(7), x(5), x(3), x(1));
        let z5 = m(t0.wrapping_add(t2).wrapping_add(t1).wrapping_add(t3), 9633);
        let z1 = m(t0.wrapping_add(t3), -7373);
        let z2 = m(t1.wrapping_add(t2), -20995);
        let z3 = m(t0.wrapping_add(t2), -16069).wrapping_add(z5);
        let z4 = m(t1.wrapping_add(t3), -3196).wrapping_add(z5);
        let odd = [
            m(t3, 12299).wrapping_add(z1).wrapping_add(z4),
            m(t2, 25172).wrapping_add(z2).wrapping_add(z3),
            m(t1, 16819).wrapping_add(z2).wrapping_add(z4),
            m(t0, 2446).wrapping_add(z1).wrapping_add(z3),
        ];
        for k in 0..4 {
            out[k * 8 + i] = descale(even[k].wrapping_add(odd[k]), shift);
            out[(7 - k) * 8 + i] = descale(even[k].wrapping_sub(odd[k]), shift);
        }
    }
    out
}

/// The block at half its resolution, 4 x 4 (libjpeg's jidctred.c).
#[inline(always)]
pub(crate) fn half_block(
    coefficients: &[i16; 64],
    quantization: &[u16; 64],
    out: &mut [u8],
    stride: usize,
) {
    let mut block = [0i32; 64];
    for ((out, &c), &q) in block.iter_mut().zip(coefficients).zip(quantization) {
        *out = i32::from(c) * i32::from(q);
    }
    let columns = half_transforms(&block, CONST_BITS - PASS1_BITS + 1);
    // Four rows of eight become eight columns of four for the second pass.
    let mut turned = [0i32; 64];
    for row in 0..4 {
        for column in 0..8 {
            turned[column * 8 + row] = columns[row * 8 + column];
        }
    }
    let rows = half_transforms(&turned, CONST_BITS + PASS1_BITS + 3 + 1);
    for (y, row) in out.chunks_mut(stride).take(4).enumerate() {
        for (x, out) in row[..4].iter_mut().enumerate() {
            *out = to_byte(rows[x * 8 + y]);
        }
    }
}

/// Eight coefficients down each column become four values.
#[inline(always)]
fn half_transforms(block: &[i32; 64], shift: u32) -> [i32; 32] {
    let mut out = [0i32; 32];
    for i in 0..8 {
        let x = |k: usize| block[k * 8 + i];
        let m = |k: usize, constant: i32| x(k).wrapping_mul(constant);
        let tmp0 = x(0).wrapping_shl(CONST_BITS + 1);
        let tmp2 = m(2, 15137).wrapping_add(m(6, -6270));
        let (tmp10, tmp12) = (tmp0.wrapping_add(tmp2), tmp0.wrapping_sub(tmp2));
        let low = m(7, -1730)
            .wrapping_add(m(5, 11893))
            .wrapping_add(m(3, -17799))
            .wrapping_add(m(1, 8697));
        let high = m(7, -4176)
            .wrapping_add(m(5, -4926))
            .wrapping_add(m(3, 7373))
            .wrapping_add(m(1, 20995));
        out[i] = descale(tmp10.wrapping_add(high), shift);
        out[8 + i] = descale(tmp12.wrapping_add(low), shift);
        out[16 + i] = descale(tmp12.wrapping_sub(low), shift);
        out[24 + i] = descale(tmp10.wrapping_sub(high), shift);
    }
    out
}

/// The block at a quarter of its resolution, 2 x 2 (libjpeg's jidctred.c).
#[inline(always)]
pub(crate) fn quarter_block(
    coefficients: &[i16; 64],
    quantization: &[u16; 64],
    out: &mut [u8],
    stride: usize,
) {
    let pair = |x: [i32; 5], shift: u32| {
        let [x0, x1, x3, x5, x7] = x;
        let even = x0.wrapping_shl(CONST_BITS + 2);
        let odd = x7
            .wrapping_mul(-5906)
            .wrapping_add(x5.wrapping_mul(6967))
            .wrapping_add(x3.wrapping_mul(-10426))
            .wrapping_add(x1.wrapping_mul(29692));
        [
            descale(even.wrapping_add(odd), shift),
            descale(even.wrapping_sub(odd), shift),
        ]
    };
    const USED: [usize; 5] = [0, 1, 3, 5, 7];
    let columns = USED.map(|column| {
        let x = USED.map(|row| {
            let at = row * 8 + column;
            i32::from(coefficients[at]) * i32::from(quantization[at])
        });
        pair(x, CONST_BITS - PASS1_BITS + 2)
    });
    for (y, row) in out.chunks_mut(stride).take(2).enumerate() {
        let values = pair(
            columns.map(|column| column[y]),
            CONST_BITS + PASS1_BITS + 3 + 2,
        );
        row[..2].copy_from_slice(&values.map(to_byte));
    }
}
