//! In which order the values of pixels are handed to a model: preprocessing writes them so, and a batch holds them so.

/// The order of a batch's values in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelLayout {
    /// (B, C, H, W): what ONNX models take.
    Nchw,
    /// (B, H, W, C): what our own layers take.
    Nhwc,
}
