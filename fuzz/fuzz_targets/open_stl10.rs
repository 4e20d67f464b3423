#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((labels, images)) = common::cut(data) {
        common::open("stl10", &[("train_y.bin", labels), ("train_X.bin", images)]);
    }
});
