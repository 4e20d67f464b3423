#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(init: {
    // libFuzzer's own hook ends the process at once; the decoder's assertions are caught and become errors. A panic that
    // nobody catches still ends in the target's wrapper, which aborts.
    // LOUD=1 shows them all.
    let is_loud = std::env::var_os("LOUD").is_some();
    std::panic::set_hook(Box::new(move |panic| {
        if is_loud {
            eprintln!("{panic}");
        }
    }));
}, |data: &[u8]| {
    common::open("parquet", &[("train.parquet", data)]);
});
