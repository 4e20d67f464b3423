//! A loss of one's own, in a recipe beside ours:
//!
//! ```sh
//! cargo run --release --example own_loss
//! ```
//!
//! It has an option that a recipe may set and that is refused where it is misspelt or out of range, one value per sample, so
//! that weights of samples and `trim` reach it, and gradients by Candle's autograd.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::{D, Tensor};
use logitcask_experiment::{Capture, Machine, Own, Training, capture, read_checked_with, train};
use logitcask_losses::{
    Component, ComponentSpec, LogitLoss, LossError, MethodRow, Needs, OptionRow, PreparedBatch,
};

/// `1 - cos(p, q)` of the student's and the teacher's probabilities at a temperature, of each sample.
struct Angle {
    temperature: f64,
}

impl LogitLoss for Angle {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let unit = |logits: &Tensor| {
            let p = candle_nn::ops::softmax(&(logits / self.temperature)?, D::Minus1)?;
            p.broadcast_div(&p.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
        };
        let cosine = (unit(batch.student())? * unit(batch.teacher("angle")?)?)?.sum(D::Minus1)?;
        Ok(vec![Component::new((1.0 - cosine)?)?])
    }
}

const ANGLE: MethodRow = MethodRow {
    name: "angle",
    title: "Angle between probabilities",
    paper: "this example",
    components: &[ComponentSpec::new("angle", "probabilities as vectors")],
    options: || {
        vec![OptionRow {
            key: "temperature".into(),
            default: "4".into(),
            meaning: "divides both networks' logits".into(),
        }]
    },
    build: |options, _| {
        let given = options.optional_number("temperature", "a number above 0", |t| t > 0.0)?;
        Ok(Box::new(Angle {
            temperature: given.unwrap_or(4.0),
        }))
    },
};

pub(crate) static OWN: Own = Own {
    losses: &[ANGLE],
    ..Own::NONE
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(&PathBuf::from(
        std::env::args().nth(1).unwrap_or("data".into()),
    ))
}

/// With caches and runs below `place`.
pub(crate) fn run(place: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (cache_dir, folder) = (place.join("cache"), place.join("runs/own_loss"));
    let recipe_file = Path::new("pipelines/quick.toml");
    let overrides = [r#"loss=[
        { name = "ce", weight = 0.1 },
        { name = "angle", weight = 5, temperature = 2 },
    ]"#
    .to_owned()];
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
    for term in &run.record.last.terms {
        println!("{} {:.4}, weight {}", term.name, term.value, term.weight);
    }
    let top1 = run.record.last.eval.map_or(0.0, |eval| eval.top1);
    println!("{:.1} % of the test digits right", 100.0 * top1);
    Ok(())
}
