//! What an evaluation holds in memory. The one test of its file, because the peak is the process's.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;

use candle_core::{DType, Device, Tensor};
use logitcask_layers::Mode;
use logitcask_student::{ImageShape, Network};

const MIB: u64 = 1 << 20;

/// An evaluation kept what a way back would have needed, every activation of every layer: 1,288 MiB for resnet20 at 256
/// images, where no layer's map takes more than 16 MiB, and the tokens of all twelve blocks of the transformer.
#[test]
fn an_evaluation_keeps_no_activation_of_the_layers_behind_it() {
    // The transformer's tokens are 5 for 32x32 pixels, 0.9 MiB of them for 256 images.
    for (student, most) in [("deit_tiny", 48 * MIB), ("resnet20", 6 * 16 * MIB)] {
        let image = ImageShape {
            channels: 3,
            height: 32,
            width: 32,
        };
        let network = Network::build(student, image, 100, 1, &Device::Cpu).unwrap();
        let pixels = Tensor::zeros((256, 32, 32, 3), DType::F32, &Device::Cpu).unwrap();
        for mode in ["logits", "features"] {
            logitcask_layers::release_memory();
            let before = start();
            let made = match mode {
                "logits" => network.forward(&pixels, Mode::Eval).unwrap(),
                _ => network.features(&pixels, Mode::Eval).unwrap(),
            };
            let grown = peak() - before;
            println!("{student}, {mode}: {} MiB", grown / MIB);
            assert!(!made.track_op(), "{student}: {mode} could be walked back");
            assert!(grown <= most, "{student}, {mode}: {} MiB", grown / MIB);
        }
    }
}

/// Bytes resident now; the peak counts from here.
fn start() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS:")
}

/// The most bytes that were resident since.
fn peak() -> u64 {
    status("VmHWM:")
}

fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}
