//! The teacher's accuracy on labelled samples, before hours are spent on its logits; and if it is too low, why.

use std::sync::atomic::AtomicBool;

use logitcask_dataset::{ChannelOrder, Preprocess, PreprocessSpec, Scale};

use crate::capture::argmax;
use crate::error::TeacherError;
use crate::pipeline::{self, Pixels, Step, Task, Times};
use crate::teacher::Teacher;

/// How often the teacher is right.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accuracy {
    /// Samples asked about; those that could not be decoded do not count.
    pub n_samples: usize,
    /// Samples whose largest logit was the label's.
    pub correct: usize,
    /// Samples whose label was among the five largest.
    pub correct_top5: usize,
}

impl Accuracy {
    /// 0 to 1.
    pub fn top1(&self) -> f64 {
        self.correct as f64 / self.n_samples.max(1) as f64
    }

    /// 0 to 1.
    pub fn top5(&self) -> f64 {
        self.correct_top5 as f64 / self.n_samples.max(1) as f64
    }
}

/// Images in a batch of the gate; it is too short for a trial to pay.
const BATCH: usize = 32;

/// Asks the teacher about these samples, view 0 of the pixels' family.
pub fn measure_accuracy(
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    samples: &[u32],
    decoders: usize,
    stop: &AtomicBool,
) -> Result<Accuracy, TeacherError> {
    let labels = pixels.dataset.labels();
    let tasks = samples.chunks(BATCH).map(|samples| Task {
        view: 0,
        chunk: 0,
        requests: samples.iter().map(|sample| (*sample, 0)).collect(),
    });
    let tasks: Vec<Vec<Task>> = tasks.map(|task| vec![task]).collect();
    let mut accuracy = Accuracy::default();
    pipeline::run(
        teacher,
        pixels,
        tasks.into_iter(),
        decoders,
        stop,
        &Times::default(),
        &mut |step| {
            let Step::Answered(answered) = step else {
                return Ok(());
            };
            let rows = answered
                .answer
                .rows
                .chunks_exact(answered.answer.width.max(1));
            for (index, (&(sample, _), row)) in answered.task.requests.iter().zip(rows).enumerate()
            {
                if answered.bad.iter().any(|bad| bad.row == index) {
                    continue;
                }
                let label = labels[sample as usize] as usize;
                let better = row.get(label).map_or(usize::MAX, |own| {
                    row.iter().filter(|value| *value > own).count()
                });
                accuracy.n_samples += 1;
                accuracy.correct += usize::from(argmax(row) == label);
                accuracy.correct_top5 += usize::from(better < 5);
            }
            Ok(())
        },
    )?;
    Ok(accuracy)
}

/// Evenly spread samples: a folder is sorted by class, so its first thousand would be of one.
pub fn spread(selected: &[u32], wanted: usize) -> Vec<u32> {
    let n = selected.len();
    if n <= wanted {
        return selected.to_vec();
    }
    (0..wanted)
        .map(|index| selected[index * n / wanted])
        .collect()
}

/// Refuses an accuracy below the recipe's `min_accuracy`, after a look at which other preprocessing would have passed.
pub fn gate(
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    samples: &[u32],
    accuracy: &Accuracy,
    decoders: usize,
    stop: &AtomicBool,
) -> Result<(), TeacherError> {
    let Some(wanted) = teacher.spec().min_accuracy else {
        return Ok(());
    };
    if accuracy.top1() >= wanted || accuracy.n_samples == 0 {
        return Ok(());
    }
    let n_samples = accuracy.n_samples;
    let would_pass = explain(teacher, pixels, samples, wanted, decoders, stop)?;
    Err(TeacherError::TooInaccurate {
        accuracy: accuracy.top1(),
        wanted,
        n_samples,
        would_pass,
    })
}

/// Samples on which a suspicion is tried.
const TRIAL: usize = 256;

/// Tries common normalisations and both channel orders; returns those whose accuracy reaches `wanted`, best first, as
/// they would be written in a recipe.
pub fn explain(
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    samples: &[u32],
    wanted: f64,
    decoders: usize,
    stop: &AtomicBool,
) -> Result<Vec<(String, f64)>, TeacherError> {
    let samples = spread(samples, TRIAL);
    let stated = teacher.spec().preprocess.clone();
    let mut passing = Vec::new();
    for (text, spec) in suspicions(&stated) {
        let Ok(preprocess) = Preprocess::new(&spec) else {
            continue;
        };
        let pixels = Pixels {
            preprocess: &preprocess,
            ..pixels
        };
        let accuracy = measure_accuracy(teacher, pixels, &samples, decoders, stop)?.top1();
        if accuracy >= wanted {
            passing.push((text, accuracy));
        }
    }
    passing.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(passing)
}

/// Preprocessings that teachers are commonly trained with, each in the stated channel order and the other one, without
/// the stated one itself.
fn suspicions(stated: &PreprocessSpec) -> Vec<(String, PreprocessSpec)> {
    /// (name, mean, std) of values in 0..=1
    const COMMON: [(&str, [f32; 3], [f32; 3]); 6] = [
        ("ImageNet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        (
            "CIFAR-10",
            [0.4914, 0.4822, 0.4465],
            [0.2023, 0.1994, 0.2010],
        ),
        (
            "CIFAR-100",
            [0.5071, 0.4867, 0.4408],
            [0.2675, 0.2565, 0.2761],
        ),
        ("-1..1", [0.5; 3], [0.5; 3]),
        (
            "CLIP",
            [0.481_454_66, 0.457_827_5, 0.408_210_73],
            [0.268_629_54, 0.261_302_6, 0.275_777_1],
        ),
        ("0..1", [0.0; 3], [1.0; 3]),
    ];
    let grey = stated.mean.len().max(stated.std.len()) == 1 || stated.channels == Some(1);
    let with = |mean: &[f32], std: &[f32], scale| PreprocessSpec {
        mean: mean.to_vec(),
        std: std.to_vec(),
        scale,
        ..stated.clone()
    };
    let mut settings = vec![(String::new(), stated.clone())];
    if grey {
        for (name, mean, std) in [
            ("0..1", 0.0, 1.0),
            ("-1..1", 0.5, 0.5),
            ("MNIST", 0.1307, 0.3081),
        ] {
            let text = format!("mean = [{mean}], std = [{std}] ({name})");
            settings.push((text, with(&[mean], &[std], Scale::Unit)));
        }
        settings.push((
            "mean = [0], std = [1], scale = \"byte\"".to_owned(),
            with(&[0.0], &[1.0], Scale::Byte),
        ));
    } else {
        for (name, mean, std) in COMMON {
            let text = format!("mean = {mean:?}, std = {std:?} ({name})");
            settings.push((text, with(&mean, &std, Scale::Unit)));
        }
        settings.push((
            "mean = [0, 0, 0], std = [1, 1, 1], scale = \"byte\"".to_owned(),
            with(&[0.0; 3], &[1.0; 3], Scale::Byte),
        ));
        settings.extend(
            settings
                .clone()
                .into_iter()
                .map(|(text, spec)| swapped(text, spec)),
        );
    }
    // The numbers may be right and only the order wrong, so the stated ones were kept until here.
    settings.retain(|(_, spec)| spec != stated);
    settings
}

/// The same with the other channel order. Mean and std are given in the order that the model sees, so they turn too.
fn swapped(text: String, spec: PreprocessSpec) -> (String, PreprocessSpec) {
    let (order, name) = match spec.channel_order {
        ChannelOrder::Rgb => (ChannelOrder::Bgr, "bgr"),
        ChannelOrder::Bgr => (ChannelOrder::Rgb, "rgb"),
    };
    let turned = |values: &[f32]| values.iter().rev().copied().collect::<Vec<f32>>();
    let order_text = format!("channel_order = \"{name}\"");
    let spec = PreprocessSpec {
        channel_order: order,
        mean: turned(&spec.mean),
        std: turned(&spec.std),
        ..spec
    };
    let text = if text.is_empty() {
        format!("{order_text}, mean = {:?}, std = {:?}", spec.mean, spec.std)
    } else {
        format!(
            "{order_text} and, in its order, mean = {:?}, std = {:?}",
            spec.mean, spec.std
        )
    };
    (text, spec)
}
