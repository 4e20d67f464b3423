//! Writes drawn JPEGs and what we make of them: `cargo run --release -p logitcask-jpeg --example sweep -- N [SEED] > FILE`.
//! tests/jpeg_sweep.py decodes them with Pillow and compares.
//!
//! Of each file: its length (u32, little-endian, as all) and bytes; then for 1/1, 1/2, 1/4 and 1/8 of its resolution 0, height,
//! width, channels (u32 each) and the pixels, or 1 (refused) or 2 (panicked), and the length and bytes of a text.

#![expect(clippy::unwrap_used, reason = "a part of a test")]

use std::io::Write;
use std::panic::catch_unwind;

use logitcask_jpeg::{Buffers, Error, Header};

#[path = "../tests/drawn/mod.rs"]
mod drawn;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().unwrap());
    let (n, seed) = (arguments.next().unwrap(), arguments.next().unwrap_or(1));
    let mut out = std::io::stdout().lock();
    let mut put = |bytes: &[u8]| out.write_all(bytes).unwrap();
    for index in 0..n {
        let file = drawn::file(seed, index);
        put(&(file.len() as u32).to_le_bytes());
        put(&file);
        for reduction in [1, 2, 4, 8] {
            let (status, content) = match catch_unwind(|| decoded(&file, reduction)) {
                Ok(Ok((size, pixels))) => {
                    put(&[0u32, size[0], size[1], size[2]]
                        .map(u32::to_le_bytes)
                        .concat());
                    put(&pixels);
                    continue;
                }
                Ok(Err(error)) => (1u32, error.to_string()),
                Err(_) => (2, "panic".to_owned()),
            };
            put(&status.to_le_bytes());
            put(&(content.len() as u32).to_le_bytes());
            put(content.as_bytes());
        }
    }
}

fn decoded(file: &[u8], reduction: usize) -> Result<([u32; 3], Vec<u8>), Error> {
    let header = Header::read(file)?;
    let [height, width] = header.reduced(reduction);
    let mut pixels = vec![0; height * width * header.channels()];
    let window = [0, 0, height, width];
    header.decode(
        file,
        reduction,
        window,
        &mut pixels,
        &mut Buffers::default(),
    )?;
    let size = [height, width, header.channels()].map(|n| n as u32);
    Ok((size, pixels))
}
