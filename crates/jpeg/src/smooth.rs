//! Smoothing between blocks: what libjpeg does to a progressive picture whose first coefficients have not all come, or not
//! to the last bit. It guesses them from the averages of the 5 x 5 blocks around (jdcoefct.c of libjpeg-turbo 2.1 and
//! later).

use crate::coefficients::Coefficients;
use crate::header::Header;

/// Of the first ten coefficients in zigzag order, the lowest bit that came; -1 where none did.
pub(crate) type Known = [i32; 10];

/// What it takes to guess.
pub(crate) struct Smoothing {
    quantization: [[u16; 64]; 4],
    known: [Known; 4],
}

/// A guess: where the coefficient stands, and what its weights are over the 25 averages, row by row.
type Guess = (usize, [i32; 25]);

impl Smoothing {
    /// None where all is known, or where there is nothing to guess from.
    pub(crate) fn new(
        header: &Header,
        quantization: &[Option<[u16; 64]>; 4],
        known: &[Known; 4],
    ) -> Option<Self> {
        let n = header.components.len();
        let mut tables = [[0; 64]; 4];
        for i in 0..n {
            tables[i] = quantization[i]?;
            let divides = PLACES.iter().all(|&place| tables[i][place] != 0);
            if !header.is_progressive || !divides || known[i][0] < 0 {
                return None;
            }
        }
        let all_came = known[..n].iter().all(|known| known[1..] == [0; 9]);
        (!all_came).then_some(Self {
            quantization: tables,
            known: *known,
        })
    }

    /// The block with its guesses.
    pub(crate) fn block(
        &self,
        header: &Header,
        coefficients: &Coefficients,
        component: usize,
        place: [usize; 2],
    ) -> [i16; 64] {
        let mut block = *coefficients.block(component, place[0], place[1]);
        let averages = averages(header, coefficients, component, place);
        let known = &self.known[component];
        let quantization = &self.quantization[component].map(i64::from);
        let nothing_came = known[1..] == [-1; 9];
        let guesses: &[Guess] = if nothing_came { &FROM_ALL } else { &FROM_SOME };
        for (&(place, weights), &lowest) in guesses.iter().zip(&known[1..]) {
            if lowest != 0 && block[place] == 0 {
                let most = if lowest > 0 {
                    (1 << lowest) - 1
                } else {
                    i64::MAX
                };
                block[place] = guess(&averages, &weights, quantization, place, most);
            }
        }
        if nothing_came {
            block[0] = guess(&averages, &AVERAGE, quantization, 0, i64::MAX);
        }
        block
    }
}

/// The weighted sum in units of the coefficient's own quantization, rounded, and at most `most` either way.
fn guess(
    averages: &[i32; 25],
    weights: &[i32; 25],
    quantization: &[i64; 64],
    place: usize,
    most: i64,
) -> i16 {
    let sum: i32 = averages.iter().zip(weights).map(|(a, w)| a * w).sum();
    let sum = quantization[0] * i64::from(sum);
    let unit = quantization[place];
    let size = ((unit << 7) + sum.abs()) / (unit << 8);
    // libjpeg cuts a large guess off as it stores it.
    (size.min(most) * sum.signum()) as i32 as i16
}

/// The first coefficients of the 5 x 5 blocks around a place, row by row. Beyond an edge the block at the edge stands.
fn averages(
    header: &Header,
    coefficients: &Coefficients,
    i: usize,
    [row, column]: [usize; 2],
) -> [i32; 25] {
    let component = &header.components[i];
    let [n_rows, n_columns] = header.blocks_in(component);
    let rows = rows_around(row, n_rows, component.stated_down);
    let last = n_columns - 1;
    let columns = [
        column.saturating_sub(2),
        column.saturating_sub(1),
        column,
        column + 1,
        column + 2,
    ];
    let mut averages = [0; 25];
    for (averages, row) in averages.chunks_exact_mut(5).zip(rows) {
        for (average, column) in averages.iter_mut().zip(columns) {
            *average = coefficients.average(i, row, column.min(last));
        }
    }
    averages
}

/// The rows above and below, as libjpeg finds them: it counts in groups of `down` rows, the rows that fill the last group
/// among them (they hold what came, or zeros), and in the last group as if all had as many rows as that one.
fn rows_around(row: usize, n_rows: usize, down: usize) -> [usize; 5] {
    let n_groups = n_rows.div_ceil(down);
    let group = row / down;
    let in_group = match (group + 1 < n_groups, n_rows % down) {
        (true, _) | (_, 0) => down,
        (false, rest) => rest,
    };
    let counted = group * in_group + row % down;
    let n_counted = n_groups * in_group;
    let above = if counted > 0 { row - 1 } else { row };
    let below = if counted + 1 < n_counted {
        row + 1
    } else {
        row
    };
    [
        if counted > 1 { row - 2 } else { above },
        above,
        row,
        below,
        if counted + 2 < n_counted {
            row + 2
        } else {
            below
        },
    ]
}

/// Where the first ten coefficients stand.
const PLACES: [usize; 10] = [0, 1, 8, 16, 9, 2, 3, 10, 17, 24];

/// Where some coefficients came, the rest of the first five is guessed from the averages of a cross or a ring.
#[rustfmt::skip]
const FROM_SOME: [Guess; 5] = [
    (1, [
        0, 0, 0, 0, 0,
        0, 0, 0, 0, 0,
        -7, 50, 0, -50, 7,
        0, 0, 0, 0, 0,
        0, 0, 0, 0, 0,
    ]),
    (8, [
        0, 0, -7, 0, 0,
        0, 0, 50, 0, 0,
        0, 0, 0, 0, 0,
        0, 0, -50, 0, 0,
        0, 0, 7, 0, 0,
    ]),
    (16, [
        0, 0, -1, 0, 0,
        0, 0, 13, 0, 0,
        0, 0, -24, 0, 0,
        0, 0, 13, 0, 0,
        0, 0, -1, 0, 0,
    ]),
    (9, [
        0, -1, 0, 1, 0,
        -1, 10, 0, -10, 1,
        0, 0, 0, 0, 0,
        1, -10, 0, 10, -1,
        0, 1, 0, -1, 0,
    ]),
    (2, [
        0, 0, 0, 0, 0,
        0, 0, 0, 0, 0,
        -1, 13, -24, 13, -1,
        0, 0, 0, 0, 0,
        0, 0, 0, 0, 0,
    ]),
];

/// Where nothing but averages came, nine coefficients are guessed.
#[rustfmt::skip]
const FROM_ALL: [Guess; 9] = [
    (1, [
        -1, -1, 0, 1, 1,
        -3, 13, 0, -13, 3,
        -3, 38, 0, -38, 3,
        -3, 13, 0, -13, 3,
        -1, -1, 0, 1, 1,
    ]),
    (8, [
        -1, -3, -3, -3, -1,
        -1, 13, 38, 13, -1,
        0, 0, 0, 0, 0,
        1, -13, -38, -13, 1,
        1, 3, 3, 3, 1,
    ]),
    (16, [
        0, 0, 1, 0, 0,
        0, 2, 7, 2, 0,
        0, -5, -14, -5, 0,
        0, 2, 7, 2, 0,
        0, 0, 1, 0, 0,
    ]),
    (9, [
        -1, 0, 0, 0, 1,
        0, 9, 0, -9, 0,
        0, 0, 0, 0, 0,
        0, -9, 0, 9, 0,
        1, 0, 0, 0, -1,
    ]),
    (2, [
        0, 0, 0, 0, 0,
        0, 2, -5, 2, 0,
        1, 7, -14, 7, 1,
        0, 2, -5, 2, 0,
        0, 0, 0, 0, 0,
    ]),
    (3, [
        0, 0, 0, 0, 0,
        0, 1, 0, -1, 0,
        0, 2, 0, -2, 0,
        0, 1, 0, -1, 0,
        0, 0, 0, 0, 0,
    ]),
    (10, [
        0, 0, 0, 0, 0,
        0, 1, -3, 1, 0,
        0, 0, 0, 0, 0,
        0, -1, 3, -1, 0,
        0, 0, 0, 0, 0,
    ]),
    (17, [
        0, 0, 0, 0, 0,
        0, 1, 0, -1, 0,
        0, -3, 0, 3, 0,
        0, 1, 0, -1, 0,
        0, 0, 0, 0, 0,
    ]),
    (24, [
        0, 0, 0, 0, 0,
        0, 1, 2, 1, 0,
        0, 0, 0, 0, 0,
        0, -1, -2, -1, 0,
        0, 0, 0, 0, 0,
    ]),
];

/// And the average itself is smoothed.
#[rustfmt::skip]
const AVERAGE: [i32; 25] = [
    -2, -6, -8, -6, -2,
    -6, 6, 42, 6, -6,
    -8, 42, 152, 42, -8,
    -6, 6, 42, 6, -6,
    -2, -6, -8, -6, -2,
];
