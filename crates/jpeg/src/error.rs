//! Why a JPEG has no pixels: damage, or a kind that is not decoded.

/// Why there are no pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is damaged, in these words.
    #[error("not a valid JPEG: {0}")]
    Damaged(&'static str),
    /// Fewer bytes than one bit a block.
    #[error(
        "not a valid JPEG: the header claims {width} x {height} pixels, more than {n_bytes} bytes can hold"
    )]
    TooShort {
        /// Bytes of the whole file.
        n_bytes: usize,
        /// Columns of pixels, by the frame header.
        width: usize,
        /// Rows of pixels, by the frame header.
        height: usize,
    },
    /// Arithmetic instead of Huffman coding.
    #[error("a JPEG of arithmetic coding, which is not decoded")]
    Arithmetic,
    /// A frame that predicts pixels and has no cosine transform.
    #[error("a lossless JPEG, which is not decoded")]
    Lossless,
    /// Several frames, each a correction of the last.
    #[error("a hierarchical JPEG, which is not decoded")]
    Hierarchical,
    /// More or fewer bits than 8, usually 12.
    #[error("a JPEG of {0} bits a sample, where 8 are decoded")]
    Precision(u8),
    /// PIL knows no such pictures either.
    #[error("a JPEG of {0} components, where 1, 3 and 4 are decoded")]
    Components(u8),
    /// libjpeg does not decode them either.
    #[error(
        "a JPEG whose sampling factors do not divide the largest of them, which is not decoded"
    )]
    Sampling,
}
