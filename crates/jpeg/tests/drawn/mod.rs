//! A small JPEG encoder that writes what no other encoder does: every legal combination of sampling factors, scans and
//! markers, drawn from a seed. The pixels do not matter much, so components are drawn at their own resolution.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use logitcask_philox::{Purpose, Stream};

/// The file of this number: a picture, its sampling and its scans are all drawn.
pub(crate) fn file(seed: u64, index: u64) -> Vec<u8> {
    let mut draw = Draw(Stream::new(seed, Purpose::Synthetic, [0, index, 0]));
    let picture = Picture::draw(&mut draw);
    let scans = if picture.is_progressive {
        progressive_scans(&picture, &mut draw)
    } else {
        sequential_scans(&picture, &mut draw)
    };
    Writer::new(draw).file(&picture, &scans)
}

struct Draw(Stream);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Markers {
    None,
    Jfif,
    Adobe(u8),
}

struct Picture {
    height: usize,
    width: usize,
    is_progressive: bool,
    is_extended: bool,
    markers: Markers,
    components: Vec<Component>,
    restart_interval: usize,
    /// Whether all components use one quantization table, written anew before each scan.
    shares_quantization: bool,
}

struct Component {
    id: u8,
    across: usize,
    down: usize,
    /// Rows and columns of blocks with pixels in them, and columns with those that fill the MCUs.
    blocks: [usize; 2],
    stride: usize,
    quantization: [u16; 64],
    /// In zigzag order.
    coefficients: Vec<[i32; 64]>,
}

impl Picture {
    fn draw(draw: &mut Draw) -> Self {
        let side = |draw: &mut Draw| match draw.below(6) {
            0 => 18 + draw.below(60),
            _ => 1 + draw.below(17),
        };
        let (height, width) = (side(draw), side(draw));
        let (ids, markers): (&[u8], _) = match draw.below(16) {
            0..=2 => (b"\x01", draw.of(&[Markers::None, Markers::Jfif])),
            3..=5 => (b"\x01\x02\x03", Markers::Jfif),
            6..=7 => (
                b"\x01\x02\x03",
                draw.of(&[Markers::None, Markers::Adobe(1)]),
            ),
            8 => (b"\x00\x01\x02", Markers::None),
            9 => (b"RGB", draw.of(&[Markers::None, Markers::Jfif])),
            10..=11 => (b"\x01\x02\x03", Markers::Adobe(0)),
            12..=13 => (b"CMYK", draw.of(&[Markers::Adobe(0), Markers::None])),
            _ => (b"\x01\x02\x03\x04", Markers::Adobe(2)),
        };
        let factors = sampling(draw, ids.len());
        let largest = [0, 1].map(|i| factors.iter().map(|f| f[i]).max().unwrap());
        let mut picture = Self {
            height,
            width,
            is_progressive: draw.below(2) == 0,
            is_extended: draw.one_in(4),
            markers,
            components: Vec::new(),
            restart_interval: if draw.one_in(3) { 1 + draw.below(9) } else { 0 },
            shares_quantization: draw.one_in(4),
        };
        let steepness = draw.of(&[1, 8, 40, 120]);
        let noise = draw.of(&[1, 10, 100, 256]);
        let base = draw.of(&[1, 4, 30, 255, 900]);
        let mut tables = Vec::new();
        for (&id, [across, down]) in ids.iter().zip(factors) {
            let blocks = [
                (height * down).div_ceil(8 * largest[1]),
                (width * across).div_ceil(8 * largest[0]),
            ];
            let [n_rows, stride] = match ids.len() {
                1 => blocks,
                _ => [
                    blocks[0].next_multiple_of(down),
                    blocks[1].next_multiple_of(across),
                ],
            };
            if tables.is_empty() || !picture.shares_quantization {
                tables.push([0; 64].map(|_: u16| 1 + draw.below(base) as u16));
            }
            let quantization = *tables.last().unwrap();
            // Slopes, and noise on them.
            let (rise, run) = (draw.below(steepness) as f64, draw.below(steepness) as f64);
            let level = draw.below(256) as f64;
            let mut coefficients = Vec::with_capacity(n_rows * stride);
            for row in 0..n_rows {
                for column in 0..stride {
                    let mut block = [[0.0; 8]; 8];
                    for (y, line) in block.iter_mut().enumerate() {
                        for (x, value) in line.iter_mut().enumerate() {
                            let slope = rise * (row * 8 + y) as f64 + run * (column * 8 + x) as f64;
                            let sample = level + slope + draw.below(noise) as f64;
                            *value = sample.rem_euclid(512.0).min(255.0) - 128.0;
                        }
                    }
                    coefficients.push(quantized(&block, &quantization));
                }
            }
            picture.components.push(Component {
                id,
                across,
                down,
                blocks,
                stride,
                quantization,
                coefficients,
            });
        }
        picture
    }

    /// Rows and columns of MCUs in a scan of these components.
    fn mcus(&self, components: &[usize]) -> [usize; 2] {
        let first = &self.components[components[0]];
        match components.len() {
            1 => first.blocks,
            _ => [
                first.blocks[0].div_ceil(first.down),
                first.blocks[1].div_ceil(first.across),
            ],
        }
    }

    fn fits_an_mcu(&self, components: &[usize]) -> bool {
        let blocks = components
            .iter()
            .map(|&i| self.components[i].across * self.components[i].down);
        components.len() == 1 || blocks.sum::<usize>() <= 10
    }

    /// All components in order, in groups that fit an MCU: one, if it can be and is not decided otherwise.
    fn groups(&self, draw: &mut Draw) -> Vec<Vec<usize>> {
        let (all, splits) = (0..self.components.len(), draw.one_in(3));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in all {
            if let Some(last) = groups.last_mut() {
                last.push(i);
                if self.fits_an_mcu(last) && !(splits && draw.one_in(2)) {
                    continue;
                }
                last.pop();
            }
            groups.push(vec![i]);
        }
        for group in &mut groups {
            // The only other order that libjpeg takes.
            if *group == [1, 2] && draw.one_in(3) {
                *group = vec![2, 1];
            }
        }
        groups
    }
}

/// Factors across and down that libjpeg takes: each divides the largest.
fn sampling(draw: &mut Draw, n: usize) -> Vec<[usize; 2]> {
    if n > 1 && draw.one_in(4) {
        let first = draw.of(&[[1, 1], [2, 1], [1, 2], [2, 2], [4, 1], [4, 2]]);
        let mut factors = vec![[1, 1]; n];
        factors[0] = first;
        if n == 4 {
            factors[3] = first;
        }
        return factors;
    }
    loop {
        let largest = draw.of(&[1, 2, 2, 3, 4, 4]);
        let mut one = || 1 + draw.below(largest);
        let factors: Vec<[usize; 2]> = (0..n).map(|_| [one(), one()]).collect();
        let divide = |i: usize| {
            let largest = factors.iter().map(|f| f[i]).max().unwrap();
            factors.iter().all(|f| largest % f[i] == 0)
        };
        if divide(0) && divide(1) {
            return factors;
        }
    }
}

fn quantized(block: &[[f64; 8]; 8], quantization: &[u16; 64]) -> [i32; 64] {
    let wave = |k: usize, x: usize| {
        let scale = if k == 0 { FRAC_1_SQRT_2 } else { 1.0 };
        scale * ((2 * x + 1) as f64 * k as f64 * PI / 16.0).cos() / 2.0
    };
    let mut coefficients = [0; 64];
    for (k, coefficient) in coefficients.iter_mut().enumerate() {
        let (u, v) = ZIGZAG[k];
        let mut sum = 0.0;
        for (y, line) in block.iter().enumerate() {
            for (x, value) in line.iter().enumerate() {
                sum += value * wave(u, y) * wave(v, x);
            }
        }
        *coefficient = (sum / f64::from(quantization[k])).round() as i32;
        *coefficient = (*coefficient).clamp(-1023, 1023);
    }
    coefficients
}

/// (row, column) of each place.
const ZIGZAG: [(usize, usize); 64] = {
    let mut order = [(0, 0); 64];
    let (mut k, mut diagonal) = (0, 0);
    while diagonal < 15 {
        let mut i = if diagonal < 8 { 0 } else { diagonal - 7 };
        while i <= diagonal && i < 8 {
            order[k] = if diagonal % 2 == 1 {
                (i, diagonal - i)
            } else {
                (diagonal - i, i)
            };
            k += 1;
            i += 1;
        }
        diagonal += 1;
    }
    order
};

#[derive(Clone, PartialEq)]
struct Scan {
    components: Vec<usize>,
    first: usize,
    last: usize,
    /// The lowest bit that it brings, and whether it brings only that.
    low: u32,
    refines: bool,
}

/// One scan or a few, sometimes without the last ones.
fn sequential_scans(picture: &Picture, draw: &mut Draw) -> Vec<Scan> {
    let groups = picture.groups(draw).into_iter();
    let mut scans: Vec<Scan> = groups
        .map(|components| Scan {
            components,
            first: 0,
            last: 63,
            low: 0,
            refines: false,
        })
        .collect();
    if draw.one_in(4) {
        scans.truncate(1 + draw.below(scans.len()));
    }
    scans
}

/// Chains of scans, each bringing a band of coefficients to its last bit, woven into each other; some are cut.
fn progressive_scans(picture: &Picture, draw: &mut Draw) -> Vec<Scan> {
    let mut chains = Vec::new();
    for components in picture.groups(draw) {
        chains.push(chain(draw, components, 0, 0));
    }
    let n_averages = chains.len();
    for i in 0..picture.components.len() {
        let mut first = 1;
        while first < 64 {
            let last = if draw.one_in(2) {
                63
            } else {
                (first + draw.below(12)).min(63)
            };
            chains.push(chain(draw, vec![i], first, last));
            first = last + 1;
        }
    }
    let mut scans = Vec::new();
    if !draw.one_in(10) {
        // As it should be, averages first.
        scans.extend(chains[..n_averages].iter_mut().map(|chain| chain.remove(0)));
    }
    while !chains.is_empty() {
        let at = draw.below(chains.len());
        if chains[at].is_empty() || draw.one_in(25) {
            // Done, or never completed.
            chains.remove(at);
            continue;
        }
        scans.push(chains[at].remove(0));
    }
    if scans.is_empty() || draw.one_in(2) {
        scans.truncate(1 + draw.below(scans.len().max(1)));
    }
    if scans.is_empty() {
        return vec![chain(draw, vec![0], 0, 0).remove(0)];
    }
    scans
}

fn chain(draw: &mut Draw, components: Vec<usize>, first: usize, last: usize) -> Vec<Scan> {
    let low = draw.of(&[0, 0, 1, 2, 3]);
    let scan = |low, refines| Scan {
        components: components.clone(),
        first,
        last,
        low,
        refines,
    };
    let mut scans = vec![scan(low, false)];
    scans.extend((0..low).rev().map(|low| scan(low, true)));
    scans
}

enum Token {
    /// A symbol of a table (0 to 3 are of first coefficients, 4 to 7 of the others) and the bits after it.
    Symbol(usize, u8, u32, u32),
    Bits(u32, u32),
    Restart,
}

struct Writer {
    draw: Draw,
    out: Vec<u8>,
}

impl Writer {
    fn new(draw: Draw) -> Self {
        Self {
            draw,
            out: vec![0xFF, 0xD8],
        }
    }

    fn file(mut self, picture: &Picture, scans: &[Scan]) -> Vec<u8> {
        match picture.markers {
            Markers::None => {}
            Markers::Jfif => self.segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            Markers::Adobe(transform) => {
                let mut segment = *b"Adobe\0\x64\0\0\0\0\0";
                segment[11] = transform;
                self.segment(0xEE, &segment);
            }
        }
        let marker = match (picture.is_progressive, picture.is_extended) {
            (true, _) => 0xC2,
            (false, true) => 0xC1,
            (false, false) => 0xC0,
        };
        let mut frame = vec![8];
        frame.extend((picture.height as u16).to_be_bytes());
        frame.extend((picture.width as u16).to_be_bytes());
        frame.push(picture.components.len() as u8);
        for (i, component) in picture.components.iter().enumerate() {
            let table = if picture.shares_quantization {
                0
            } else {
                i as u8
            };
            let factors = (component.across << 4 | component.down) as u8;
            frame.extend([component.id, factors, table]);
        }
        self.segment(marker, &frame);
        if picture.restart_interval > 0 {
            self.segment(0xDD, &(picture.restart_interval as u16).to_be_bytes());
        }
        let mut seen = Vec::new();
        for scan in scans {
            for &i in &scan.components {
                if !seen.contains(&i) {
                    seen.push(i);
                    self.quantization(picture, i);
                }
            }
            if self.draw.one_in(8) {
                self.segment(0xFE, b"a comment \xFF\xD9");
            }
            self.scan(picture, scan);
        }
        self.out.extend([0xFF, 0xD9]);
        self.out
    }

    fn segment(&mut self, marker: u8, content: &[u8]) {
        if self.draw.one_in(12) {
            self.out.push(0xFF); // padding
        }
        self.out.extend([0xFF, marker]);
        self.out.extend((content.len() as u16 + 2).to_be_bytes());
        self.out.extend(content);
    }

    fn quantization(&mut self, picture: &Picture, i: usize) {
        let table = &picture.components[i].quantization;
        let slot = if picture.shares_quantization {
            0
        } else {
            i as u8
        };
        let mut content = Vec::new();
        if table.iter().any(|&q| q > 255) || self.draw.one_in(6) {
            content.push(0x10 | slot);
            content.extend(table.iter().flat_map(|q| q.to_be_bytes()));
        } else {
            content.push(slot);
            content.extend(table.iter().map(|&q| q as u8));
        }
        self.segment(0xDB, &content);
    }

    fn scan(&mut self, picture: &Picture, scan: &Scan) {
        let tables: Vec<[usize; 2]> = scan
            .components
            .iter()
            .map(|_| [self.draw.below(4), self.draw.below(4)])
            .collect();
        let tokens = tokens(picture, scan, &tables);
        let mut codes: Vec<[(u32, u32); 256]> = Vec::new();
        for table in 0..8 {
            codes.push(self.huffman_table(&tokens, table));
        }
        let mut header = vec![scan.components.len() as u8];
        for (&i, [dc, ac]) in scan.components.iter().zip(&tables) {
            header.extend([picture.components[i].id, (dc << 4 | ac) as u8]);
        }
        let before = if scan.refines { scan.low + 1 } else { 0 };
        let bits = (before << 4 | scan.low) as u8;
        header.extend([scan.first as u8, scan.last as u8, bits]);
        self.segment(0xDA, &header);
        let (mut word, mut n_bits, mut n_restarts) = (0u64, 0, 0);
        let mut put = |out: &mut Vec<u8>, bits: u32, n: u32| {
            (word, n_bits) = (word << n | u64::from(bits), n_bits + n);
            while n_bits >= 8 {
                n_bits -= 8;
                let byte = (word >> n_bits) as u8;
                out.push(byte);
                if byte == 0xFF {
                    out.push(0);
                }
            }
            n_bits
        };
        for token in &tokens {
            match *token {
                Token::Symbol(table, symbol, bits, n) => {
                    let (code, length) = codes[table][usize::from(symbol)];
                    put(&mut self.out, code, length);
                    put(&mut self.out, bits, n);
                }
                Token::Bits(bits, n) => {
                    put(&mut self.out, bits, n);
                }
                Token::Restart => {
                    let fill = (8 - put(&mut self.out, 0, 0)) % 8;
                    put(&mut self.out, (1 << fill) - 1, fill);
                    self.out.extend([0xFF, 0xD0 + n_restarts]);
                    n_restarts = (n_restarts + 1) % 8;
                }
            }
        }
        let fill = (8 - put(&mut self.out, 0, 0)) % 8;
        put(&mut self.out, (1 << fill) - 1, fill);
    }

    /// Draws a table for the symbols that are used, from codes of one bit to sixteen, and writes it. Returns (code, length)
    /// by symbol.
    fn huffman_table(&mut self, tokens: &[Token], table: usize) -> [(u32, u32); 256] {
        let mut symbols: Vec<u8> = Vec::new();
        for token in tokens {
            if let Token::Symbol(of, symbol, ..) = *token
                && of == table
                && !symbols.contains(&symbol)
            {
                symbols.push(symbol);
            }
        }
        let mut codes = [(0, 0); 256];
        if symbols.is_empty() {
            return codes;
        }
        self.draw.0.shuffle(&mut symbols);
        // A tree grows until it has a leaf for each symbol and one more, as no code may be all ones.
        let mut lengths = vec![0u32];
        let deep = self.draw.one_in(2);
        while lengths.len() <= symbols.len() {
            let last = lengths.len() - 1;
            let at = if deep && self.draw.below(3) > 0 {
                last
            } else {
                self.draw.below(lengths.len())
            };
            if lengths[at] < 16 {
                lengths[at] += 1;
                lengths.push(lengths[at]);
            }
        }
        lengths.sort_unstable();
        let (mut counts, mut code) = ([0u8; 16], 0);
        for (i, &symbol) in symbols.iter().enumerate() {
            if i > 0 {
                code = (code + 1) << (lengths[i] - lengths[i - 1]);
            }
            codes[usize::from(symbol)] = (code, lengths[i]);
            counts[lengths[i] as usize - 1] += 1;
        }
        let mut content = vec![(16 * (table / 4) + table % 4) as u8];
        content.extend(counts);
        content.extend(symbols);
        self.segment(0xC4, &content);
        codes
    }
}

/// A run of blocks that bring nothing more, and bits of theirs to come after it.
#[derive(Default)]
struct Ends {
    n_blocks: u32,
    bits: Vec<u32>,
}

fn tokens(picture: &Picture, scan: &Scan, tables: &[[usize; 2]]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut predictions, mut until_restart) = ([0; 4], picture.restart_interval);
    let mut ends = Ends::default();
    let [n_rows, n_columns] = picture.mcus(&scan.components);
    for mcu in 0..n_rows * n_columns {
        if picture.restart_interval > 0 {
            if until_restart == 0 {
                end_blocks(&mut ends, tables[0][1], &mut tokens);
                tokens.push(Token::Restart);
                (predictions, until_restart) = ([0; 4], picture.restart_interval);
            }
            until_restart -= 1;
        }
        for (&i, &[dc, ac]) in scan.components.iter().zip(tables) {
            let component = &picture.components[i];
            let (down, across) = match scan.components.len() {
                1 => (1, 1),
                _ => (component.down, component.across),
            };
            for block in 0..down * across {
                let row = mcu / n_columns * down + block / across;
                let column = mcu % n_columns * across + block % across;
                let values = &component.coefficients[row * component.stride + column];
                if scan.first == 0 {
                    let value = values[0] >> scan.low;
                    if scan.refines {
                        tokens.push(Token::Bits((value & 1) as u32, 1));
                    } else {
                        tokens.push(valued(dc, 0, value - predictions[i]));
                        predictions[i] = value;
                    }
                }
                let band = scan.first.max(1)..=scan.last;
                if scan.refines && scan.first > 0 {
                    refine(&values[band], scan.low, 4 + ac, &mut ends, &mut tokens);
                } else if !band.is_empty() {
                    let is_sequential = !picture.is_progressive;
                    bring(
                        &values[band],
                        scan.low,
                        4 + ac,
                        is_sequential,
                        &mut ends,
                        &mut tokens,
                    );
                }
            }
        }
    }
    end_blocks(&mut ends, tables[0][1], &mut tokens);
    tokens
}

fn valued(table: usize, run: u8, value: i32) -> Token {
    let size = 32 - value.unsigned_abs().leading_zeros();
    let bits = if value < 0 { value - 1 } else { value } as u32;
    Token::Symbol(table, run << 4 | size as u8, bits & ((1 << size) - 1), size)
}

/// The band of a block for the first time.
fn bring(
    band: &[i32],
    low: u32,
    table: usize,
    is_sequential: bool,
    ends: &mut Ends,
    tokens: &mut Vec<Token>,
) {
    let mut run = 0;
    for &value in band {
        let value = value.signum() * (value.abs() >> low);
        if value == 0 {
            run += 1;
            continue;
        }
        end_blocks(ends, table - 4, tokens);
        while run > 15 {
            tokens.push(Token::Symbol(table, 0xF0, 0, 0));
            run -= 16;
        }
        tokens.push(valued(table, run, value));
        run = 0;
    }
    if run > 0 {
        ends.n_blocks += 1;
        if is_sequential || ends.n_blocks == 0x7FFF {
            end_blocks(ends, table - 4, tokens);
        }
    }
}

/// One bit more of the band of a block.
fn refine(band: &[i32], low: u32, table: usize, ends: &mut Ends, tokens: &mut Vec<Token>) {
    let sizes: Vec<u32> = band
        .iter()
        .map(|value| value.unsigned_abs() >> low)
        .collect();
    let last_new = sizes.iter().rposition(|&size| size == 1);
    let (mut run, mut bits) = (0, Vec::new());
    for (k, &size) in sizes.iter().enumerate() {
        if size == 0 {
            run += 1;
            continue;
        }
        while run > 15 && last_new.is_some_and(|last| k <= last) {
            end_blocks(ends, table - 4, tokens);
            tokens.push(Token::Symbol(table, 0xF0, 0, 0));
            tokens.extend(bits.drain(..).map(|bit| Token::Bits(bit, 1)));
            run -= 16;
        }
        if size > 1 {
            bits.push(size & 1);
            continue;
        }
        end_blocks(ends, table - 4, tokens);
        let sign = u32::from(band[k] > 0);
        tokens.push(Token::Symbol(table, (run << 4 | 1) as u8, sign, 1));
        tokens.extend(bits.drain(..).map(|bit| Token::Bits(bit, 1)));
        run = 0;
    }
    if run > 0 || !bits.is_empty() {
        ends.n_blocks += 1;
        ends.bits.append(&mut bits);
        if ends.n_blocks == 0x7FFF {
            end_blocks(ends, table - 4, tokens);
        }
    }
}

fn end_blocks(ends: &mut Ends, ac: usize, tokens: &mut Vec<Token>) {
    if ends.n_blocks > 0 {
        let size = ends.n_blocks.ilog2();
        let rest = ends.n_blocks - (1 << size);
        tokens.push(Token::Symbol(4 + ac, (size << 4) as u8, rest, size));
    }
    ends.n_blocks = 0;
    tokens.extend(ends.bits.drain(..).map(|bit| Token::Bits(bit, 1)));
}
