//! JPEG, to the bit as libjpeg-turbo decodes it and therefore PIL: the slow integer DCT, "fancy" upsampling, colours in
//! 16-bit fixed point, smoothing between the blocks of unfinished progressive files. Only the blocks that a window of the
//! image needs are transformed, and they can be transformed at half, a quarter or an eighth of the resolution: random crops
//! mostly look at a part of an image, and mostly shrink it.
//!
//! Why not libjpeg-turbo itself? Its speed is in assembly, which takes nasm to build (and cmake, by `turbojpeg-sys`), and
//! the demo must need no new tool. Without, as `mozjpeg-sys` 2.2.4-beta.1 builds it with a C compiler alone, it takes 1.3
//! (progressive) to 2.0 times as long as what is here. Processor time per image of 500 x 375, one core of an EPYC with AVX2,
//! best of ten:
//!
//! | | libjpeg-turbo in C | here |
//! |---|---:|---:|
//! | chroma halved both ways, 43 kB | 1.85 ms | 0.91 ms |
//! | the same, at half the resolution | 0.96 ms | 0.58 ms |
//! | the same, 107 kB | 2.42 ms | 1.33 ms |
//! | chroma halved sideways | 1.86 ms | 1.13 ms |
//! | chroma whole | 2.35 ms | 1.47 ms |
//! | grey | 0.80 ms | 0.52 ms |
//! | progressive | 3.04 ms | 2.43 ms |
//!
//! Nor does it promise that a window of its has the pixels of the whole image, next to the window's edges.
//!
//! A file goes from its headers ([`header`], segment after segment: [`markers`]) through its entropy-coded data ([`entropy`];
//! [`scans`] and their [`coefficients`] where there are several, [`smooth`] where some never came) and the transformation of
//! its blocks ([`transform`]) to [`planes`], whose rows are upsampled ([`upsample`]) and become grey or RGB ([`colour`]).
//!
//! What is decoded has the pixels of `Image.open(file).convert("RGB")` in Pillow 12 and 13, at no level of difference. What
//! is refused: arithmetic coding, 12 bits, lossless and hierarchical files, each by name; what libjpeg refuses too; and what
//! it only warns of because its data are damaged, as pictures with invented parts are no samples.
//!
//! ```
//! use logitcask_jpeg::{Buffers, Error, Header, check};
//! # fn decode(bytes: &[u8]) -> Result<Vec<u8>, Error> {
//! let header = Header::read(bytes)?;
//! let [height, width] = header.reduced(2);
//! let mut pixels = vec![0; height * width * header.channels()];
//! let mut buffers = Buffers::default();
//! header.decode(bytes, 2, [0, 0, height, width], &mut pixels, &mut buffers)?;
//! // A window ends the reading where it ends. This reads on.
//! check(bytes, &mut buffers)?;
//! # Ok(pixels)
//! # }
//! # assert_eq!(decode(&[0xFF, 0xD8]), Err(Error::Damaged("it is cut off in its headers")));
//! ```

mod coefficients;
mod colour;
mod entropy;
mod error;
mod header;
mod markers;
mod planes;
mod scans;
mod smooth;
mod transform;
mod upsample;

pub use error::Error;
pub use header::Header;

/// Memory of a decoding, kept from image to image.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    planes: [planes::Plane; 4],
    rows: colour::Rows,
    coefficients: coefficients::Coefficients,
}

impl Header {
    /// Decodes the window [top, left, height, width] of the image at 1/`reduction` of its resolution; the window is in
    /// pixels of that resolution. Writes (height, width, channels) to `out`.
    ///
    /// `bytes` are those that the header was read from. `reduction` is 1, 2, 4 or 8; the reduced image has
    /// [`Header::reduced`] rows and columns.
    ///
    /// # Errors
    /// What is damaged in the data, up to the last row that the window needs: see [`check`].
    ///
    /// # Panics
    /// If there is no such reduction or window, or `out` does not fit it.
    pub fn decode(
        &self,
        bytes: &[u8],
        reduction: usize,
        window: [usize; 4],
        out: &mut [u8],
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let ([top, left, height, width], [rows, columns]) = (window, self.reduced(reduction));
        assert!(matches!(reduction, 1 | 2 | 4 | 8), "1/{reduction}");
        assert!(
            height > 0 && width > 0 && top + height <= rows && left + width <= columns,
            "a window {window:?} of {rows} x {columns} pixels"
        );
        assert_eq!(out.len(), height * width * self.channels());
        pulp::Arch::new().dispatch(Decoding {
            bytes,
            header: self,
            reduction,
            window,
            out,
            buffers,
        })
    }
}

/// Whether the data of the whole image can be read, without making pixels of them. A window does not see the damage below
/// it, and a damaged image is bad in all its views.
///
/// # Errors
/// As [`Header::read`] and [`Header::decode`] of the whole image.
pub fn check(bytes: &[u8], buffers: &mut Buffers) -> Result<(), Error> {
    let header = Header::read(bytes)?;
    if header.is_one_scan() {
        let n_rows = header.mcus()[0];
        return planes::decode_scan(bytes, &header, [[n_rows; 2], [0; 2]], &mut []);
    }
    scans::read(bytes, &header, &mut buffers.coefficients).map(|_| ())
}

/// A decoding, compiled for each level of vector instructions and chosen at run time. The arithmetic is in integers, so
/// every level gives the same bytes. A closure would do, were it sure to be inlined.
struct Decoding<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    reduction: usize,
    window: [usize; 4],
    out: &'a mut [u8],
    buffers: &'a mut Buffers,
}

impl pulp::NullaryFnOnce for Decoding<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self {
            bytes,
            header,
            reduction,
            window,
            out,
            buffers,
        } = self;
        let Buffers {
            planes,
            rows,
            coefficients,
        } = buffers;
        planes::decode(bytes, header, reduction, window, planes, coefficients)?;
        colour::write_pixels(header, reduction, window, planes, rows, out);
        Ok(())
    }
}
