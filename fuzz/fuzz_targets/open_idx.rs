#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((labels, images)) = common::cut(data) {
        common::open(
            "mnist",
            &[
                ("train-labels-idx1-ubyte", labels),
                ("train-images-idx3-ubyte", images),
            ],
        );
    }
});
