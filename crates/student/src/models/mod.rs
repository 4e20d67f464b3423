//! The zoo. To add a student here, write its file and add its rows to [`models`]; a program hands in a [`ModelRow::own`].

use logitcask_suggest::nearest;

use crate::StudentError;

mod conv_bn;

mod deit;
mod mobilenet;
mod resnet;
mod shufflenet;
mod student;
mod vgg;
mod wide_resnet;

pub use student::{Build, Head, ImageShape, ModelRow, Student};

/// Every student there is, family by family.
pub fn models() -> impl Iterator<Item = &'static ModelRow> {
    let families = [
        resnet::ROWS,
        wide_resnet::ROWS,
        vgg::ROWS,
        mobilenet::ROWS,
        shufflenet::ROWS,
        deit::ROWS,
    ];
    families.into_iter().flatten()
}

/// The row of a name, in the zoo or among a program's `own`.
///
/// # Errors
/// If there is none, with the nearest name there is.
pub fn find(name: &str, own: &'static [ModelRow]) -> Result<&'static ModelRow, StudentError> {
    models()
        .chain(own)
        .find(|row| row.name == name)
        .ok_or_else(|| StudentError::UnknownStudent {
            name: name.to_owned(),
            nearest: nearest(name, models().chain(own).map(|row| row.name)),
        })
}
