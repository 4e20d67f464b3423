//! A window of an image is a part of the whole, whatever its sampling and resolution.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use logitcask_jpeg::{Buffers, Header, check};
use logitcask_philox::{Purpose, Stream};

mod drawn;

#[test]
fn a_window_is_a_part_of_the_whole() {
    let mut stream = Stream::new(1, Purpose::Synthetic, [1, 0, 0]);
    let mut buffers = Buffers::default();
    for index in 0..400 {
        let file = drawn::file(2, index);
        let header = Header::read(&file).unwrap();
        check(&file, &mut buffers).unwrap();
        for reduction in [1, 2, 4, 8] {
            let ([rows, columns], channels) = (header.reduced(reduction), header.channels());
            let mut decode = |window: [usize; 4]| {
                let mut out = vec![0; window[2] * window[3] * channels];
                header
                    .decode(&file, reduction, window, &mut out, &mut buffers)
                    .unwrap();
                out
            };
            let whole = decode([0, 0, rows, columns]);
            for _ in 0..8 {
                let mut below = |n: usize| stream.below(n as u64) as usize;
                let (height, width) = (1 + below(rows), 1 + below(columns));
                let (top, left) = (below(rows - height + 1), below(columns - width + 1));
                let part = decode([top, left, height, width]);
                for (y, part) in (top..).zip(part.chunks_exact(width * channels)) {
                    let row = &whole[(y * columns + left) * channels..][..width * channels];
                    assert!(
                        part == row,
                        "file {index} at 1/{reduction}: {height} x {width} at {top}, {left}"
                    );
                }
            }
        }
    }
}
