//! The teacher's input: which order of dimensions, which element type, which sizes, and how a batch of pixels is
//! handed over as that.

use half::f16;
use logitcask_dataset::{PixelBatch, PixelLayout};
use ort::session::SessionInputValue;
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use crate::error::TeacherError;
use crate::spec::Layout;

/// What the teacher wants to be fed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The input's name in the graph.
    pub name: String,
    /// Images per run, where the export fixed it: in its shape, or in some node that works with no other number.
    pub fixed_batch: Option<usize>,
    /// Images per run, where the answers depend on it and the recipe states it. The last run of a batch may hold fewer.
    pub at_once: Option<usize>,
    /// What one pixel's channel is given as.
    pub element: Element,
    /// The order of dimensions.
    pub layout: PixelLayout,
    /// Channels, height and width, each where the export fixed it.
    pub channels: Option<usize>,
    /// Rows of pixels, where the export fixed them.
    pub height: Option<usize>,
    /// Columns of pixels, where the export fixed them.
    pub width: Option<usize>,
    rank: Rank,
    /// Neither the recipe nor sizes nor names tell the order of dimensions.
    pub(crate) layout_is_guessed: bool,
    /// The shape as ONNX Runtime writes it, for messages.
    shown: String,
}

/// The element types that an image can be given as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point, handed over without a copy.
    F32,
    /// 16-bit floating point, to which each value is rounded.
    F16,
    /// Bytes: the teacher normalises by itself.
    U8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// (B, C, H, W) or (B, H, W, C)
    Image,
    /// (B, H, W): one channel
    Plane,
    /// (B, values): all values of an image in a row
    Flat { values: Option<usize> },
}

impl Input {
    /// Reads the one input of a session.
    pub(crate) fn read(inputs: &[Outlet], stated: Option<Layout>) -> Result<Input, TeacherError> {
        let [outlet] = inputs else {
            let names = inputs.iter().map(|input| input.name().to_owned()).collect();
            return Err(TeacherError::SeveralInputs { names });
        };
        let name = outlet.name().to_owned();
        let ValueType::Tensor {
            ty,
            shape,
            dimension_symbols,
        } = outlet.dtype()
        else {
            return Err(TeacherError::InputType {
                name,
                found: outlet.dtype().to_string(),
            });
        };
        let element = match ty {
            TensorElementType::Float32 => Element::F32,
            TensorElementType::Float16 => Element::F16,
            TensorElementType::Uint8 => Element::U8,
            other => {
                return Err(TeacherError::InputType {
                    name,
                    found: other.to_string(),
                });
            }
        };
        let symbols: Vec<&str> = dimension_symbols.iter().map(String::as_str).collect();
        let shown = show(shape, &symbols);
        let sizes: Vec<Option<usize>> = shape
            .iter()
            .map(|dim| usize::try_from(*dim).ok().filter(|dim| *dim > 0))
            .collect();
        if shape.contains(&0) {
            return Err(TeacherError::InputRank { name, shape: shown });
        }
        let mut input = Input {
            name,
            fixed_batch: sizes.first().copied().flatten(),
            at_once: None,
            element,
            layout: PixelLayout::Nchw,
            channels: None,
            height: None,
            width: None,
            rank: Rank::Image,
            layout_is_guessed: false,
            shown,
        };
        match sizes[..] {
            [_, a, b, c] => {
                input.layout_is_guessed =
                    stated.is_none() && [a, b, c] == [None; 3] && named_layout(&symbols).is_none();
                input.layout = match stated {
                    Some(Layout::Nchw) => PixelLayout::Nchw,
                    Some(Layout::Nhwc) => PixelLayout::Nhwc,
                    None => guess_layout([a, b, c], &symbols).ok_or_else(|| {
                        TeacherError::LayoutUnclear {
                            name: input.name.clone(),
                            shape: input.shown.clone(),
                        }
                    })?,
                };
                (input.channels, input.height, input.width) = match input.layout {
                    PixelLayout::Nchw => (a, b, c),
                    PixelLayout::Nhwc => (c, a, b),
                };
            }
            [_, height, width] => {
                input.rank = Rank::Plane;
                (input.channels, input.height, input.width) = (Some(1), height, width);
            }
            [_, values] => {
                input.rank = Rank::Flat { values };
                if stated == Some(Layout::Nhwc) {
                    input.layout = PixelLayout::Nhwc;
                }
            }
            _ => {
                return Err(TeacherError::InputRank {
                    name: input.name,
                    shape: input.shown,
                });
            }
        }
        Ok(input)
    }

    /// Whether images of this size can be given. If it is only the number of channels that does not fit, that is said:
    /// `n_means` is how many values the recipe's `mean` has.
    pub(crate) fn check_size(
        &self,
        channels: usize,
        height: usize,
        width: usize,
        n_means: usize,
    ) -> Result<(), TeacherError> {
        let fits =
            |wanted: Option<usize>, found: usize| wanted.is_none_or(|wanted| wanted == found);
        let all_fit = match self.rank {
            Rank::Flat { values } => fits(values, channels * height * width),
            _ => {
                fits(self.channels, channels)
                    && fits(self.height, height)
                    && fits(self.width, width)
            }
        };
        if all_fit {
            return Ok(());
        }
        let wanted = match self.rank {
            Rank::Flat { values } => values.map(|values| values / (height * width).max(1)),
            _ => self.channels,
        };
        let planes_fit = match self.rank {
            Rank::Flat { values } => {
                values.is_some_and(|values| values % (height * width).max(1) == 0)
            }
            _ => fits(self.height, height) && fits(self.width, width),
        };
        if let Some(wanted @ (1 | 3)) = wanted.filter(|_| planes_fit) {
            return Err(TeacherError::Channels {
                wanted,
                found: channels,
                n_means,
            });
        }
        let side = |size: Option<usize>| size.map_or("any".to_owned(), |size| size.to_string());
        let expected = match self.rank {
            Rank::Flat { values } => format!("{} values", side(values)),
            _ => format!(
                "{}x{}x{}",
                side(self.channels),
                side(self.height),
                side(self.width)
            ),
        };
        Err(TeacherError::ImageSize {
            expected,
            found: format!("{channels}x{height}x{width}"),
        })
    }

    /// The shape of `rows` images.
    fn shape(&self, rows: usize, channels: usize, height: usize, width: usize) -> Vec<usize> {
        match (self.rank, self.layout) {
            (Rank::Image, PixelLayout::Nchw) => vec![rows, channels, height, width],
            (Rank::Image, PixelLayout::Nhwc) => vec![rows, height, width, channels],
            (Rank::Plane, _) => vec![rows, height, width],
            (Rank::Flat { .. }, _) => vec![rows, channels * height * width],
        }
    }
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let element = match self.element {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::U8 => "u8",
        };
        let layout = match (self.rank, self.layout) {
            (Rank::Image, PixelLayout::Nchw) => " (B, C, H, W)",
            (Rank::Image, PixelLayout::Nhwc) => " (B, H, W, C)",
            _ => "",
        };
        write!(f, "`{}` {element} {}{layout}", self.name, self.shown)
    }
}

/// Tells (B, C, H, W) from (B, H, W, C) by where a number of channels can stand; failing that, by the dimensions' names.
/// Where nothing is known at all it is the order that ONNX's own convolutions use.
fn guess_layout([a, b, c]: [Option<usize>; 3], symbols: &[&str]) -> Option<PixelLayout> {
    let is_channels = |size: Option<usize>| size.is_some_and(|size| size <= 4);
    match (is_channels(a), is_channels(c)) {
        (true, false) => Some(PixelLayout::Nchw),
        (false, true) => Some(PixelLayout::Nhwc),
        (true, true) => None,
        (false, false) => named_layout(symbols)
            .or((a.is_none() && b.is_none() && c.is_none()).then_some(PixelLayout::Nchw)),
    }
}

/// By which dimension is called `channels` or the like.
fn named_layout(symbols: &[&str]) -> Option<PixelLayout> {
    let named = |index: usize| {
        let name = symbols.get(index)?.to_lowercase();
        (name.contains("chan") || name == "c").then_some(())
    };
    let first = named(1).map(|()| PixelLayout::Nchw);
    first.or_else(|| named(3).map(|()| PixelLayout::Nhwc))
}

fn show(shape: &[i64], symbols: &[&str]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .enumerate()
        .map(|(index, dim)| match (dim, symbols.get(index)) {
            (-1, Some(name)) if !name.is_empty() => (*name).to_owned(),
            (-1, _) => "?".to_owned(),
            _ => dim.to_string(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

/// Buffers that one worker reuses from run to run; f32 batches of the right size pass by them untouched.
#[derive(Default)]
pub(crate) struct Staging {
    floats: Vec<f32>,
    halves: Vec<f16>,
    bytes: Vec<u8>,
}

impl Input {
    /// The images `from..to` of a batch as the session wants them, filled up with black to `rows`.
    pub(crate) fn tensor<'a>(
        &self,
        batch: &'a PixelBatch,
        from: usize,
        to: usize,
        rows: usize,
        staging: &'a mut Staging,
    ) -> Result<SessionInputValue<'a>, TeacherError> {
        let values = batch.channels * batch.height * batch.width;
        let pixels = &batch.pixels[from * values..to * values];
        let shape = self.shape(rows, batch.channels, batch.height, batch.width);
        let refused = |source| TeacherError::Run { rows, source };
        Ok(match self.element {
            Element::F32 if rows == to - from => TensorRef::from_array_view((shape, pixels))
                .map_err(refused)?
                .into(),
            Element::F32 => {
                staging.floats.clear();
                staging.floats.extend_from_slice(pixels);
                staging.floats.resize(rows * values, 0.0);
                TensorRef::from_array_view((shape, &staging.floats[..]))
                    .map_err(refused)?
                    .into()
            }
            Element::F16 => {
                staging.halves.clear();
                staging
                    .halves
                    .extend(pixels.iter().map(|value| f16::from_f32(*value)));
                staging.halves.resize(rows * values, f16::ZERO);
                TensorRef::from_array_view((shape, &staging.halves[..]))
                    .map_err(refused)?
                    .into()
            }
            Element::U8 => {
                staging.bytes.clear();
                for value in pixels {
                    staging
                        .bytes
                        .push(as_byte(*value).ok_or(TeacherError::NotBytes { value: *value })?);
                }
                staging.bytes.resize(rows * values, 0);
                TensorRef::from_array_view((shape, &staging.bytes[..]))
                    .map_err(refused)?
                    .into()
            }
        })
    }
}

/// The byte that a preprocessed value is; `None` for anything that normalisation has touched.
fn as_byte(value: f32) -> Option<u8> {
    let byte = value as u8; // saturates; the comparison notices
    (f32::from(byte) == value).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let check = |sizes, symbols: [&str; 4], expected| {
            assert_eq!(
                guess_layout(sizes, &symbols),
                expected,
                "{sizes:?} {symbols:?}"
            )
        };
        let none = [""; 4];
        check(
            [Some(3), Some(224), Some(224)],
            none,
            Some(PixelLayout::Nchw),
        );
        check(
            [Some(224), Some(224), Some(3)],
            none,
            Some(PixelLayout::Nhwc),
        );
        check([Some(1), Some(28), Some(28)], none, Some(PixelLayout::Nchw));
        check([Some(3), None, None], none, Some(PixelLayout::Nchw));
        check([None, None, Some(1)], none, Some(PixelLayout::Nhwc));
        check(
            [None, None, None],
            ["batch", "num_channels", "height", "width"],
            Some(PixelLayout::Nchw),
        );
        check(
            [None, None, None],
            ["batch", "height", "width", "channels"],
            Some(PixelLayout::Nhwc),
        );
        check([None, None, None], none, Some(PixelLayout::Nchw));
        check([Some(3), Some(8), Some(3)], none, None);
        check([Some(16), Some(16), Some(16)], none, None);
    }

    #[test]
    fn only_whole_bytes_pass_as_bytes() {
        assert_eq!(
            [0.0, 255.0, 17.0].map(as_byte),
            [Some(0), Some(255), Some(17)]
        );
        assert_eq!([0.5, -1.0, 256.0, f32::NAN].map(as_byte), [None; 4]);
    }
}
