//! A network of Candle's own layers, trained by our loop against a cache:
//!
//! ```sh
//! cargo run --release --example own_student
//! ```
//!
//! Everything else is `pipelines/quick.toml`: the teacher's cache, the views, the loss, the schedule. To train a network of
//! yours, put it in `own` and name it in your recipe. The variables come from `var_builder`: so weights start from the
//! recipe's seed, a run that was stopped continues, and running statistics are neither decayed nor lost.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::Tensor;
use candle_nn::{Conv2dConfig, Module, ModuleT, batch_norm, conv2d, linear};
use logitcask_experiment::{Capture, Machine, Own, Training, capture, read_checked_with, train};
use logitcask_layers::Scope;
use logitcask_student::{CandleStudent, ImageShape, ModelRow, Student, StudentError, var_builder};

/// Two convolutions with batch norms, global average pooling, one linear layer.
fn small(
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    let vars = var_builder(scope);
    let config = Conv2dConfig {
        padding: 1,
        ..Default::default()
    };
    let conv1 = conv2d(image.channels, 16, 3, config, vars.pp("conv1"))?;
    let norm1 = batch_norm(16, 1e-5, vars.pp("norm1"))?;
    let conv2 = conv2d(16, 32, 3, config, vars.pp("conv2"))?;
    let norm2 = batch_norm(32, 1e-5, vars.pp("norm2"))?;
    let fc = linear(32, n_classes, vars.pp("fc"))?;

    let features = move |pixels: &Tensor, train: bool| {
        let x = norm1.forward_t(&conv1.forward(pixels)?, train)?.relu()?;
        let x = norm2.forward_t(&conv2.forward(&x)?, train)?.relu()?;
        x.mean((2, 3))
    };
    Ok(Box::new(CandleStudent::new(
        features,
        "fc",
        move |x: &Tensor| fc.forward(x),
    )))
}

pub(crate) static OWN: Own = Own {
    students: &[ModelRow::own("small", small)],
    ..Own::NONE
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(&PathBuf::from(
        std::env::args().nth(1).unwrap_or("data".into()),
    ))
}

/// With caches and runs below `place`.
pub(crate) fn run(place: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (cache_dir, folder) = (place.join("cache"), place.join("runs/own_student"));
    let recipe_file = Path::new("pipelines/quick.toml");
    let overrides = ["student.name=small".to_owned()];
    let recipe = read_checked_with(recipe_file, &overrides, OWN)?;
    let stop = AtomicBool::new(false);

    capture(
        recipe.clone(),
        &Capture {
            cache_dir: &cache_dir,
            machine: &Machine::cpu(2, &cache_dir),
            part: "1/1".parse()?,
            stop: &stop,
        },
        &|_| {},
    )?;
    let how = Training {
        out: Some(&folder),
        ..Training::new(recipe_file, &cache_dir, &stop)
    };
    let run = train(recipe, &how, &|_| {})?;
    let top1 = run.record.last.eval.map_or(0.0, |eval| eval.top1);
    println!(
        "`small`, {} parameters: {:.1} % of the test digits right; the run is in {}",
        run.record.n_parameters,
        100.0 * top1,
        run.folder.display()
    );
    Ok(())
}
