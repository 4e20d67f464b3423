#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::open("image_folder", &[("train/a/0.jpg", data)]);
});
