#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::open("cifar10", &[("data_batch_1.bin", data)]);
    common::open("cifar100", &[("train.bin", data)]);
});
