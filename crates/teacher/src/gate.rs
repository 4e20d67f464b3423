//! The teacher's accuracy on labelled samples, before hours are spent on its logits; and if it is too low, why.

use std::sync::atomic::AtomicBool;

use logitcask_dataset::{ChannelOrder, Preprocess, PreprocessSpec, Scale};

use crate::class_order;
use crate::error::TeacherError;
use crate::pipeline::{self, Pixels, Step, Task, Times};
use crate::remedy::Remedy;
use crate::rows::argmax;
use crate::spread::spread;
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
    /// Share of the samples whose largest logit was the label's, 0 to 1; 0 of none.
    pub fn top1(&self) -> f64 {
        self.correct as f64 / self.n_samples.max(1) as f64
    }

    /// Share of the samples whose label was among the five largest, 0 to 1; 0 of none.
    pub fn top5(&self) -> f64 {
        self.correct_top5 as f64 / self.n_samples.max(1) as f64
    }
}

/// Images in a batch of the gate; it is too short for a trial to pay.
const BATCH: usize = 32;

/// Asks the teacher about these samples, view 0 of the pixels' family. Samples without a label do not count.
pub fn measure_accuracy(
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    samples: &[u32],
    decoders: usize,
    stop: &AtomicBool,
) -> Result<Accuracy, TeacherError> {
    let guesses = ask(teacher, pixels, samples, decoders, stop)?;
    Ok(Accuracy {
        n_samples: guesses.len(),
        correct: guesses.iter().filter(|guess| guess.is_right()).count(),
        correct_top5: guesses.iter().filter(|guess| guess.n_better < 5).count(),
    })
}

/// The teacher's answer to a labelled sample.
#[derive(Clone, Copy, Debug)]
struct Guess {
    sample: u32,
    label: u32,
    /// The class of the largest logit.
    class: u32,
    /// Classes whose logit is larger than the label's.
    n_better: usize,
}

impl Guess {
    fn is_right(&self) -> bool {
        self.class == self.label
    }
}

/// In the order of samples, whatever order they were answered in. Where memory runs out, fewer are asked at once.
fn ask(
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    samples: &[u32],
    decoders: usize,
    stop: &AtomicBool,
) -> Result<Vec<Guess>, TeacherError> {
    let mut at_once = BATCH;
    loop {
        match ask_by(at_once, teacher, pixels, samples, decoders, stop) {
            Err(TeacherError::OutOfMemory { .. }) if at_once > 1 => at_once /= 2,
            answer => return answer,
        }
    }
}

fn ask_by(
    at_once: usize,
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    samples: &[u32],
    decoders: usize,
    stop: &AtomicBool,
) -> Result<Vec<Guess>, TeacherError> {
    let labels = pixels.dataset.labels();
    let tasks = samples.chunks(at_once).map(|samples| Task {
        view: 0,
        chunk: 0,
        requests: samples.iter().map(|sample| (*sample, 0)).collect(),
    });
    let tasks: Vec<Vec<Task>> = tasks.map(|task| vec![task]).collect();
    let mut guesses = Vec::with_capacity(samples.len());
    let take = &mut |step| {
        let Step::Answered(answered) = step else {
            return Ok(());
        };
        let rows = answered
            .answer
            .rows
            .chunks_exact(answered.answer.width.max(1));
        for (index, (&(sample, _), row)) in answered.task.requests.iter().zip(rows).enumerate() {
            let label = labels[sample as usize];
            let Some(own) = row.get(label as usize) else {
                continue;
            };
            if !answered.bad.iter().any(|bad| bad.row == index) {
                guesses.push(Guess {
                    sample,
                    label,
                    class: argmax(row) as u32,
                    n_better: row.iter().filter(|value| *value > own).count(),
                });
            }
        }
        Ok(())
    };
    let tasks = tasks.into_iter();
    pipeline::run(
        teacher,
        pixels,
        tasks,
        decoders,
        stop,
        &Times::default(),
        take,
    )?;
    guesses.sort_unstable_by_key(|guess| guess.sample);
    Ok(guesses)
}

/// Fewer samples than this may be below the bar by bad luck.
pub const ENOUGH: usize = 256;

/// Refuses an accuracy below the recipe's `min_accuracy`, after a look at what would have been right. On few samples it must
/// be below it by three standard errors.
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
    let n_samples = accuracy.n_samples;
    let luck = match n_samples {
        0..ENOUGH => 3.0 * (wanted * (1.0 - wanted) / n_samples.max(1) as f64).sqrt(),
        _ => 0.0,
    };
    if accuracy.top1() >= wanted - luck || n_samples == 0 {
        return Ok(());
    }
    let best = explain(teacher, pixels, samples, decoders, stop)?;
    Err(TeacherError::TooInaccurate {
        accuracy: accuracy.top1(),
        wanted,
        n_samples,
        best,
    })
}

/// Whether so many are right as guessing gives, or hardly more: three standard errors, but never twice as many.
pub fn is_chance(accuracy: &Accuracy, n_classes: usize) -> bool {
    let (n, chance) = (
        accuracy.n_samples.max(1) as f64,
        1.0 / n_classes.max(1) as f64,
    );
    let luck = 3.0 * (chance * (1.0 - chance) / n).sqrt();
    accuracy.n_samples > 0 && accuracy.top1() <= chance + luck.min(chance)
}

/// Tries common normalisations, both channel orders, and other orders of the classes; returns the best that was found, if
/// anything is clearly better than what the recipe says.
pub fn explain(
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    samples: &[u32],
    decoders: usize,
    stop: &AtomicBool,
) -> Result<Option<Remedy>, TeacherError> {
    let n_classes = pixels.dataset.n_classes();
    // An order of classes shows only where each has been asked for a few times.
    let samples = spread(samples, (8 * n_classes).clamp(ENOUGH, 2048));
    let stated = ask(teacher, pixels, &samples, decoders, stop)?;
    let mut tried = vec![(String::new(), stated.clone())];
    let few = spread(&samples, ENOUGH);
    for (text, spec) in suspicions(&teacher.spec().preprocess.clone()) {
        let Ok(preprocess) = Preprocess::new(&spec) else {
            continue;
        };
        let pixels = Pixels {
            preprocess: &preprocess,
            ..pixels
        };
        // A teacher of bytes refuses what normalisation has touched.
        if let Ok(guesses) = ask(teacher, pixels, &few, decoders, stop) {
            tried.push((text, guesses));
        }
    }
    let mut remedies = Vec::new();
    for (text, guesses) in &tried {
        let is_asked = |guess: &&Guess| {
            guesses
                .binary_search_by_key(&guess.sample, |other| other.sample)
                .is_ok()
        };
        let as_stated: Vec<Guess> = stated.iter().filter(is_asked).copied().collect();
        let remedy = |setting, accuracy| Remedy {
            setting,
            accuracy,
            stated: share(&as_stated),
            n_samples: guesses.len(),
        };
        let pairs: Vec<(u32, u32)> = guesses
            .iter()
            .map(|guess| (guess.label, guess.class))
            .collect();
        if let Some((order, accuracy)) = class_order::find(&pairs, n_classes) {
            let comma = if text.is_empty() { "" } else { ", " };
            let classes = class_order::composed(&order, teacher.spec().classes.as_deref());
            remedies.push(remedy(
                format!("{text}{comma}classes = {classes:?}"),
                accuracy,
            ));
        }
        remedies.push(remedy(text.clone(), share(guesses)));
    }
    remedies.retain(|remedy| remedy.accuracy > remedy.stated + CLEARLY);
    Ok(remedies
        .into_iter()
        .max_by(|a, b| a.accuracy.total_cmp(&b.accuracy)))
}

/// A remedy that gains less than this may be luck.
const CLEARLY: f64 = 0.03;

fn share(guesses: &[Guess]) -> f64 {
    let right = guesses.iter().filter(|guess| guess.is_right()).count();
    right as f64 / guesses.len().max(1) as f64
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
        for (name, mean) in [("bytes", [0.0; 3]), ("Caffe", [123.68, 116.779, 103.939])] {
            let text = format!("mean = {mean:?}, std = [1.0, 1.0, 1.0], scale = \"byte\" ({name})");
            settings.push((text, with(&mean, &[1.0; 3], Scale::Byte)));
        }
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
