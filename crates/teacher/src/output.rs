//! From the teacher's output tensor to rows of logits, one per image, in the dataset's order of classes.

use half::{bf16, f16};
use ort::value::{DynValue, Outlet, TensorElementType};

use crate::error::TeacherError;
use crate::model_file::ModelFile;
use crate::spec::OutputIs;

/// Which output holds the logits, and what is done to its rows.
#[derive(Clone, Debug)]
pub struct Output {
    /// The output's name in the graph.
    pub name: String,
    /// Values per row as the teacher gives them, where the export says so.
    pub width: Option<usize>,
    /// What the rows hold.
    pub holds: OutputIs,
    /// For each class of the dataset, the teacher's index of it.
    classes: Option<Vec<u32>>,
}

/// The output that is asked for, the only one, or the one called `logits`. Whoever asks for a tensor inside the graph gets
/// it.
pub(crate) fn name_in<'a>(
    file: &'a ModelFile,
    wanted: Option<&'a str>,
) -> Result<&'a str, TeacherError> {
    match wanted {
        // Of a file in ONNX Runtime's own format nothing is known.
        Some(name) if file.outputs.is_empty() || file.is_inner(name) => Ok(name),
        None if file.outputs.is_empty() => Ok(""),
        _ => {
            let names: Vec<&str> = file.outputs.iter().map(String::as_str).collect();
            Ok(names[choose(&names, wanted)?])
        }
    }
}

/// The same among a session's outputs, by position.
fn choose(names: &[&str], wanted: Option<&str>) -> Result<usize, TeacherError> {
    let owned = || names.iter().map(|name| (*name).to_owned()).collect();
    let called = |wanted: &str| names.iter().position(|name| *name == wanted);
    match (wanted, names) {
        (Some(name), _) => called(name).ok_or_else(|| TeacherError::NoSuchOutput {
            wanted: name.to_owned(),
            names: owned(),
        }),
        (None, [_]) => Ok(0),
        (None, _) => called("logits").ok_or_else(|| TeacherError::OutputUnclear { names: owned() }),
    }
}

impl Output {
    pub(crate) fn read(
        outputs: &[Outlet],
        wanted: Option<&str>,
        holds: OutputIs,
        classes: Option<Vec<u32>>,
    ) -> Result<Output, TeacherError> {
        let names: Vec<&str> = outputs.iter().map(Outlet::name).collect();
        let outlet = &outputs[choose(&names, wanted)?];
        check_type(outlet)?;
        let output = Output {
            name: outlet.name().to_owned(),
            width: stated_width(outlet)?,
            holds,
            classes,
        };
        if let Some(n_classes) = output.width {
            output.check_classes(n_classes)?;
        }
        Ok(output)
    }

    /// Values per stored row, where it is known before the first run.
    pub fn n_classes(&self) -> Option<usize> {
        self.classes.as_ref().map(Vec::len).or(self.width)
    }

    /// The same output just as the teacher gives it: every class in the teacher's order, nothing made of the values.
    pub(crate) fn as_given(&self) -> Output {
        Output {
            holds: OutputIs::Logits,
            classes: None,
            ..self.clone()
        }
    }

    fn check_classes(&self, n_classes: usize) -> Result<(), TeacherError> {
        let classes = self.classes.as_deref().unwrap_or_default();
        if let Some(&class) = classes.iter().find(|class| **class as usize >= n_classes) {
            return Err(TeacherError::ClassOutOfRange { class, n_classes });
        }
        let mut seen = vec![None; n_classes];
        for (index, &class) in classes.iter().enumerate() {
            if let Some(first) = seen[class as usize].replace(index) {
                return Err(TeacherError::ClassTwice {
                    class,
                    first,
                    second: index,
                });
            }
        }
        Ok(())
    }

    /// Appends the first `wanted` of `rows` rows to `into`, selected and reordered. Returns the values per row.
    pub(crate) fn read_rows(
        &self,
        value: &DynValue,
        rows: usize,
        wanted: usize,
        into: &mut Vec<f32>,
    ) -> Result<usize, TeacherError> {
        let width = self.width_of(value, rows)?;
        self.check_classes(width)?;
        let classes = self.classes.as_deref();
        match value.dtype().tensor_type() {
            Some(TensorElementType::Float32) => {
                append(extract::<f32>(value)?, width, wanted, classes, |v| v, into)
            }
            Some(TensorElementType::Float16) => append(
                extract::<f16>(value)?,
                width,
                wanted,
                classes,
                f16::to_f32,
                into,
            ),
            Some(TensorElementType::Bfloat16) => append(
                extract::<bf16>(value)?,
                width,
                wanted,
                classes,
                bf16::to_f32,
                into,
            ),
            Some(TensorElementType::Float64) => append(
                extract::<f64>(value)?,
                width,
                wanted,
                classes,
                |v| v as f32,
                into,
            ),
            _ => {
                return Err(TeacherError::OutputType {
                    name: self.name.clone(),
                    found: value.dtype().to_string(),
                });
            }
        }
        Ok(classes.map_or(width, <[u32]>::len))
    }

    fn width_of(&self, value: &DynValue, rows: usize) -> Result<usize, TeacherError> {
        let dims = value
            .dtype()
            .tensor_shape()
            .map_or(&[][..], |shape| &shape[..]);
        let wrong = || TeacherError::OutputShape {
            name: self.name.clone(),
            shape: format!("{dims:?}"),
        };
        // `squeeze()` in an export takes the side of a batch of one away with the others.
        let is_long = |dim: &&i64| **dim != 1;
        if rows == 1 && dims.iter().filter(is_long).count() <= 1 {
            let width = dims.iter().copied().find(|dim| *dim != 1).unwrap_or(1);
            return usize::try_from(width).map_err(|_| wrong());
        }
        let (first, rest) = dims.split_first().ok_or_else(wrong)?;
        if usize::try_from(*first) != Ok(rows) {
            return Err(wrong());
        }
        row_width(rest).map_err(|()| wrong())?.ok_or_else(wrong)
    }
}

/// Rows may be (C) or carry sides of length one, as in (C, 1, 1); anything else is no row of logits. `Ok(None)` where a
/// side is not known yet.
fn row_width(rest: &[i64]) -> Result<Option<usize>, ()> {
    let long = |dim: &&i64| **dim != 1;
    match rest {
        [] => Err(()),
        _ if rest.iter().filter(long).count() > 1 => Err(()),
        _ => match rest.iter().find(long) {
            None => Ok(Some(1)),
            Some(dim) => Ok(usize::try_from(*dim).ok()),
        },
    }
}

/// Refuses an output whose values are no floating-point numbers.
fn check_type(outlet: &Outlet) -> Result<(), TeacherError> {
    let found = match outlet.dtype().tensor_type() {
        Some(element) if is_float(element) => return Ok(()),
        Some(element) => element.to_string(),
        None => outlet.dtype().to_string(),
    };
    Err(TeacherError::OutputType {
        name: outlet.name().to_owned(),
        found,
    })
}

/// Values per row, where the export says so.
fn stated_width(outlet: &Outlet) -> Result<Option<usize>, TeacherError> {
    let dims = outlet
        .dtype()
        .tensor_shape()
        .map_or(&[][..], |shape| &shape[..]);
    // An empty shape means that the exporter left it out, not that the output is a scalar; running will tell. So it will
    // where there is a single side: a batch of one may have been squeezed away.
    match dims {
        [] | [_] => Ok(None),
        [_, rest @ ..] => row_width(rest).map_err(|()| TeacherError::OutputShape {
            name: outlet.name().to_owned(),
            shape: format!("{dims:?}"),
        }),
    }
}

fn is_float(element: TensorElementType) -> bool {
    use TensorElementType::{Bfloat16, Float16, Float32, Float64};
    matches!(element, Float32 | Float16 | Bfloat16 | Float64)
}

fn extract<T: ort::value::PrimitiveTensorElementType>(
    value: &DynValue,
) -> Result<&[T], TeacherError> {
    value
        .try_extract_tensor::<T>()
        .map(|(_, data)| data)
        .map_err(|source| TeacherError::Run { rows: 0, source })
}

fn append<T: Copy>(
    data: &[T],
    width: usize,
    rows: usize,
    classes: Option<&[u32]>,
    to_f32: impl Fn(T) -> f32,
    into: &mut Vec<f32>,
) {
    match classes {
        None => into.extend(data[..rows * width].iter().map(|value| to_f32(*value))),
        Some(classes) => {
            for row in data[..rows * width].chunks_exact(width) {
                into.extend(classes.iter().map(|class| to_f32(row[*class as usize])));
            }
        }
    }
}

/// Turns rows of probabilities or log-probabilities into centred logits, in place. Returns how many values had to be
/// clipped: a probability below `floor` (the smallest normal number of the type it came in) has no finite logarithm
/// worth storing.
pub(crate) fn centre(rows: &mut [f32], width: usize, holds: OutputIs, floor: f32) -> u64 {
    let mut clipped = 0;
    for row in rows.chunks_exact_mut(width) {
        if holds == OutputIs::Probabilities {
            for value in row.iter_mut() {
                // A NaN is kept, to be found and named with its sample later.
                if *value < floor {
                    clipped += 1;
                    *value = floor;
                }
                *value = value.ln();
            }
        }
        let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / row.len() as f64;
        for value in row.iter_mut() {
            *value = (f64::from(*value) - mean) as f32;
        }
    }
    clipped
}

/// The smallest normal number of an output's type.
pub(crate) fn smallest_normal(element: Option<TensorElementType>) -> f32 {
    match element {
        Some(TensorElementType::Float16) => f16::MIN_POSITIVE.to_f32(),
        _ => f32::MIN_POSITIVE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_may_carry_sides_of_one() {
        assert_eq!(row_width(&[10]), Ok(Some(10)));
        assert_eq!(row_width(&[1000, 1, 1]), Ok(Some(1000)));
        assert_eq!(row_width(&[-1]), Ok(None));
        assert_eq!(row_width(&[1]), Ok(Some(1)));
        assert_eq!(row_width(&[7, 7]), Err(()));
        assert_eq!(row_width(&[]), Err(()));
    }

    #[test]
    fn probabilities_become_centred_logits() {
        // softmax([0, ln 2, ln 5]) = [1, 2, 5] / 8
        let mut rows = [0.125, 0.25, 0.625];
        assert_eq!(
            centre(&mut rows, 3, OutputIs::Probabilities, f32::MIN_POSITIVE),
            0
        );
        let mean = (2f32.ln() + 5f32.ln()) / 3.0;
        for (value, expected) in rows.iter().zip([-mean, 2f32.ln() - mean, 5f32.ln() - mean]) {
            assert!((value - expected).abs() < 1e-6, "{rows:?}");
        }
        let mut rows = [1.0, 0.0];
        assert_eq!(
            centre(&mut rows, 2, OutputIs::Probabilities, f32::MIN_POSITIVE),
            1
        );
        assert!(rows.iter().all(|value| value.is_finite()) && (rows[0] + rows[1]).abs() < 1e-5);
    }
}
