#![no_main]

use std::cell::RefCell;

use logitcask_jpeg::{Buffers, Error, Header, check};

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

// Whole and at half its resolution; a window of it; and a check, which agrees with the whole.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    BUFFERS.with_borrow_mut(|buffers| {
        let _ = decode(data, buffers);
    });
});

fn decode(data: &[u8], buffers: &mut Buffers) -> Result<(), Error> {
    let header = Header::read(data)?;
    let [height, width] = header.reduced(1);
    if height * width > 1 << 18 {
        return Ok(());
    }
    let mut out = Vec::new();
    let mut decoded = |reduction, window: [usize; 4]| {
        out.resize(window[2] * window[3] * header.channels(), 0);
        header.decode(data, reduction, window, &mut out, buffers)
    };
    let (top, left) = (height / 3, width / 3);
    let _ = decoded(1, [top, left, height - 2 * top, width - 2 * left]);
    let [half_height, half_width] = header.reduced(2);
    let _ = decoded(2, [0, 0, half_height, half_width]);
    let whole = decoded(1, [0, 0, height, width]);
    assert_eq!(check(data, buffers), whole);
    Ok(())
}
