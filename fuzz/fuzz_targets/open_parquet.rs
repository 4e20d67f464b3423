#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(init: {
    // libFuzzer's own hook ends the process at once; the decoder's assertions are caught and become errors. A panic that
    // nobody catches still ends in the target's wrapper, which aborts.
    std::panic::set_hook(Box::new(|_| {}));
}, |data: &[u8]| {
    common::open("parquet", &[("train.parquet", data)]);
});
