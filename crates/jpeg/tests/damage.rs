//! What is damaged is refused, or decoded to what libjpeg would show; it never panics, and never takes long.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use logitcask_jpeg::{Buffers, Error, Header, check};
use logitcask_philox::{Purpose, Stream};

mod drawn;

fn decoded(file: &[u8], reduction: usize, buffers: &mut Buffers) -> Result<Vec<u8>, Error> {
    let header = Header::read(file)?;
    let [height, width] = header.reduced(reduction);
    if height * width > 1 << 20 {
        return Err(Error::Damaged("too large for a test"));
    }
    let mut out = vec![0; height * width * header.channels()];
    header.decode(file, reduction, [0, 0, height, width], &mut out, buffers)?;
    Ok(out)
}

/// Bytes are changed, dropped and cut off. LOGITCASK_FULL=1 does it forty times as often. `check` has the same opinion as
/// the decoder of the whole image.
#[test]
fn damaged_files_never_panic() {
    let many = if std::env::var_os("LOGITCASK_FULL").is_some() {
        20_000
    } else {
        500
    };
    let mut stream = Stream::new(2, Purpose::Synthetic, [2, 0, 0]);
    let mut below = |n: usize| stream.below(n as u64) as usize;
    let mut buffers = Buffers::default();
    let mut n_refused = 0;
    for index in 0..many {
        let file = drawn::file(3, index);
        let data = (0..file.len() - 1)
            .find(|&at| file[at..at + 2] == [0xFF, 0xDA])
            .unwrap();
        for round in 0..20 {
            let mut damaged = file.clone();
            // The headers are left whole in half of the cases, so that the scans are reached.
            let from = if round % 2 == 0 { 2 } else { data };
            for _ in 0..1 + below(3) {
                let at = from + below(damaged.len() - from);
                match below(8) {
                    0 => {
                        damaged.remove(at);
                    }
                    1 => damaged[at] ^= 1 << below(8),
                    _ => damaged[at] = below(256) as u8,
                }
                damaged.extend([0xFF, 0xD9]);
            }
            damaged.truncate(damaged.len() - (round % 3) * below(40));
            let whole = decoded(&damaged, 1, &mut buffers);
            let checked = check(&damaged, &mut buffers);
            n_refused += usize::from(whole.is_err());
            if whole != Err(Error::Damaged("too large for a test")) {
                assert_eq!(whole.map(|_| ()), checked, "file {index}, round {round}");
            }
            let _ = decoded(&damaged, [2, 4, 8][round % 3], &mut buffers);
        }
    }
    assert!(n_refused > many as usize, "only {n_refused} were refused");
}

/// A window that ends above the damage does not see it; `check` does. Such an image was bad in some of its views only.
#[test]
fn damage_below_a_window_is_found_by_a_check() {
    let mut buffers = Buffers::default();
    let mut n = 0;
    for index in 0..200 {
        let mut file = drawn::file(4, index);
        let header = Header::read(&file).unwrap();
        if header.height < 40 {
            continue;
        }
        // The last bytes of the last scan go.
        let end = file.len() - 2;
        if file.len() < 300 || file[end - 16..end].contains(&0xFF) {
            continue;
        }
        file.drain(end - 16..end);
        if decoded(&file, 1, &mut buffers).is_ok() {
            continue; // the codes that are left happen to fill the image
        }
        assert!(check(&file, &mut buffers).is_err(), "file {index}");
        let mut out = vec![0; 8 * header.width * header.channels()];
        let window = [0, 0, 8, header.width];
        n += usize::from(
            header
                .decode(&file, 1, window, &mut out, &mut buffers)
                .is_ok(),
        );
    }
    assert!(n >= 2, "only {n} files show it");
}

/// Decoders fill the rest of a file that is cut off with grey, as browsers do. A teacher must not see that.
#[test]
fn a_file_that_is_cut_off_is_refused() {
    let mut buffers = Buffers::default();
    for index in 0..50 {
        let file = drawn::file(5, index);
        for end in [file.len() - 1, file.len() - 2, file.len() / 2] {
            let refused = decoded(&file[..end], 1, &mut buffers);
            assert!(refused.is_err(), "file {index} up to {end}");
        }
    }
}

/// A restart marker of another number than is due says that data are missing, and libjpeg guesses where.
#[test]
fn restart_markers_are_counted() {
    let mut buffers = Buffers::default();
    let mut n = 0;
    for index in 0..100 {
        let mut file = drawn::file(6, index);
        let marker = (0..file.len() - 1).find(|&at| file[at..at + 2] == [0xFF, 0xD0]);
        if let Some(at) = marker {
            file[at + 1] = 0xD3;
            assert!(check(&file, &mut buffers).is_err(), "file {index}");
            n += 1;
        }
    }
    assert!(n > 10, "only {n} files have any");
}
