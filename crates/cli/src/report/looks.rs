//! What a student says about the evaluation images, looked at again: how honest its confidence is, and where it and its
//! teacher name different classes.

use std::path::Path;

use logitcask_dataset::{contact_sheet, png};

use crate::args::Which;
use crate::watch::shown;
use logitcask_experiment::{
    Failure, Outcome, Rows, Split, Trained, eval_caches, rows, without_dropout,
};

/// Images that are looked at, at most: the first of the split.
const N_LOOKED_AT: usize = 2000;
/// Pictures that are shown, at most.
const N_SHOWN: usize = 12;
const N_BINS: usize = 10;

/// One student's answers to images of its evaluation split, counted, with some to look at.
pub(super) struct Look {
    pub(super) n_images: usize,
    /// Whether the split has more.
    pub(super) is_part: bool,
    /// (mean confidence, share that is right, images) of each bin of confidence that holds any.
    pub(super) bins: Vec<(f64, f64, usize)>,
    /// Both, only the teacher, only the student, neither is right; absent without the teacher's rows.
    pub(super) right: Option<[usize; 4]>,
    pub(super) n_disagree: usize,
    pub(super) cases: Vec<Case>,
}

/// An image on which student and teacher disagree.
pub(super) struct Case {
    pub(super) sample: u32,
    pub(super) label: String,
    pub(super) teacher: String,
    pub(super) student: String,
    /// The student's probability of its answer.
    pub(super) confidence: f64,
    /// The image as PNG.
    pub(super) png: Vec<u8>,
}

/// Runs the student of a finished run over its evaluation split.
pub(super) fn look(run: &Path, cache_dir: &Path) -> Outcome<Option<Look>> {
    let trained = Trained::open(run, Which::Last.file(), &[])?;
    if trained.recipe.data.eval.is_none() {
        return Ok(None);
    }
    let split = &Split::open_eval(&trained.recipe, &shown())?;
    trained.check_fits(split)?;
    let caches = eval_caches(&trained.recipe, split, cache_dir, run, &shown())?;
    let ensemble = without_dropout(trained.recipe.ensemble.as_ref());
    let teacher = rows(&caches, &ensemble, 0)?;
    let mut samples = split.dataset.selected();
    let is_part = samples.len() > N_LOOKED_AT;
    samples.truncate(N_LOOKED_AT);
    let found = trained.logits(split, &samples, teacher.as_ref().map(Rows::as_teacher))?;
    let n_classes = split.dataset.n_classes();
    let answers: Vec<(usize, f64)> = found.logits.chunks_exact(n_classes).map(answer).collect();
    let labels: Vec<usize> = found.labels.iter().map(|&label| label as usize).collect();
    let mut look = Look {
        n_images: samples.len(),
        is_part,
        bins: bins(&answers, &labels),
        right: None,
        n_disagree: 0,
        cases: Vec::new(),
    };
    if let Some(teacher) = &found.teacher {
        let teacher: Vec<usize> = teacher
            .chunks_exact(n_classes)
            .map(|row| answer(row).0)
            .collect();
        compare(&mut look, split, &samples, &labels, &answers, &teacher)?;
    }
    Ok(Some(look))
}

fn compare(
    look: &mut Look,
    split: &Split,
    samples: &[u32],
    labels: &[usize],
    answers: &[(usize, f64)],
    teacher: &[usize],
) -> Outcome {
    let mut right = [0; 4];
    let mut differing: Vec<usize> = Vec::new();
    for row in 0..labels.len() {
        let (student, label) = (answers[row].0, labels[row]);
        let place = match (teacher[row] == label, student == label) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        right[place] += 1;
        if student != teacher[row] {
            differing.push(row);
        }
    }
    look.right = Some(right);
    look.n_disagree = differing.len();
    // The most confident disagreements say most; equals by their place in the split.
    differing.sort_by(|&a, &b| answers[b].1.total_cmp(&answers[a].1));
    let names = split.dataset.class_names();
    let named = |class: usize| {
        names
            .get(class)
            .cloned()
            .unwrap_or_else(|| class.to_string())
    };
    for &row in differing.iter().take(N_SHOWN) {
        let sheet = contact_sheet(&split.dataset, &split.family, &[vec![(samples[row], 0)]])?;
        look.cases.push(Case {
            sample: samples[row],
            label: named(labels[row]),
            teacher: named(teacher[row]),
            student: named(answers[row].0),
            confidence: answers[row].1,
            png: png(&sheet).map_err(Failure::work)?,
        });
    }
    Ok(())
}

/// The largest logit's class, the first of equals, and its probability.
fn answer(row: &[f32]) -> (usize, f64) {
    let mut best = 0;
    for (class, &z) in row.iter().enumerate() {
        if z > row[best] {
            best = class;
        }
    }
    let sum: f64 = row.iter().map(|&z| f64::from(z - row[best]).exp()).sum();
    (best, 1.0 / sum)
}

fn bins(answers: &[(usize, f64)], labels: &[usize]) -> Vec<(f64, f64, usize)> {
    let mut sums = [(0.0, 0.0, 0); N_BINS];
    for (&(class, confidence), &label) in answers.iter().zip(labels) {
        let bin = &mut sums[((confidence * N_BINS as f64) as usize).min(N_BINS - 1)];
        bin.0 += confidence;
        bin.1 += f64::from(u8::from(class == label));
        bin.2 += 1;
    }
    let mean =
        |(confidence, right, n): (f64, f64, usize)| (confidence / n as f64, right / n as f64, n);
    sums.into_iter()
        .filter(|&(_, _, n)| n > 0)
        .map(mean)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_what_was_right_at_which_confidence() {
        // Two classes, confidences 0.75 (right), 0.75 (wrong) and nearly 1 (right).
        let z = 3f32.ln();
        let answers: Vec<(usize, f64)> = [[z, 0.0], [0.0, z], [50.0, 0.0]]
            .iter()
            .map(|row| answer(row))
            .collect();
        let found = bins(&answers, &[0, 0, 0]);
        assert_eq!(found.len(), 2);
        assert!((found[0].0 - 0.75).abs() < 1e-6 && found[0].1 == 0.5 && found[0].2 == 2);
        assert!(found[1].0 > 0.999 && found[1].1 == 1.0 && found[1].2 == 1);
    }
}
