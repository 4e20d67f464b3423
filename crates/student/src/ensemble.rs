//! Several teachers as one: their rows of the same (sample, view) pairs, combined as the student reads them.

use std::sync::atomic::{AtomicU64, Ordering};

use logitcask_dataset::{Dataset, PixelBatch};
use logitcask_philox::{Purpose, Stream};
use serde::{Deserialize, Serialize};

use crate::tally::{argmax, log_sum_exp};
use crate::{StudentError, TeacherRows};

/// `[ensemble]` of a recipe that names several teachers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleSpec {
    /// What becomes of their rows.
    pub combine: Combine,
    /// What each teacher counts, in the order of the `[[teacher]]` sections; all alike where absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// The probability with which a step goes without a teacher, drawn for each; one always stays. In evaluation all do.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f64,
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

/// How rows of several teachers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The weighted mean of the logits.
    Logits,
    /// The logarithm of the weighted mean of the probabilities at temperature 1. Its rows are no network's own logits:
    /// losses that need those refuse them.
    Probabilities,
    /// The row of the teacher that gives the label the largest probability, the first of equals.
    PerSampleBest,
}

impl Combine {
    /// Whether rows remain logits as networks gave them.
    pub fn keeps_absolute_logits(self) -> bool {
        self != Combine::Probabilities
    }
}

/// Several teachers that answer as one.
///
/// They are aligned by what addresses a row: sample, view and class. The views are those of the one recipe, whose key
/// each cache bears, so other families or seeds are other caches; a teacher whose classes stand in another order says so
/// with `classes` when it is captured.
pub struct Ensemble<'a> {
    members: Vec<Member<'a>>,
    combine: Combine,
    dropout: f64,
    seed: u64,
    /// The step in work, which decides who is left out.
    step: AtomicU64,
}

struct Member<'a> {
    rows: &'a dyn TeacherRows,
    weight: f64,
}

impl<'a> Ensemble<'a> {
    /// `seed` is the recipe's: it decides which teachers are left out of which step.
    ///
    /// # Errors
    /// If the teachers differ in their number of classes, or the settings do not fit them.
    pub fn new(
        teachers: Vec<&'a dyn TeacherRows>,
        spec: &EnsembleSpec,
        seed: u64,
    ) -> Result<Self, StudentError> {
        let n = teachers.len();
        let wrong = |setting, problem| Err(StudentError::Setting { setting, problem });
        if n < 2 {
            return wrong("ensemble", format!("combines teachers, but there are {n}"));
        }
        if !(spec.weights.is_empty() || spec.weights.len() == n) {
            let given = spec.weights.len();
            return wrong(
                "ensemble.weights",
                format!("has {given} numbers for {n} teachers"),
            );
        }
        if spec
            .weights
            .iter()
            .any(|weight| !(*weight > 0.0 && weight.is_finite()))
        {
            return wrong(
                "ensemble.weights",
                "has a number that is not above 0".into(),
            );
        }
        if spec.combine == Combine::PerSampleBest && !spec.weights.is_empty() {
            return wrong(
                "ensemble.weights",
                "says nothing to `per_sample_best`".into(),
            );
        }
        if !(0.0..1.0).contains(&spec.dropout) {
            return wrong(
                "ensemble.dropout",
                format!("is {}, expected 0 up to below 1", spec.dropout),
            );
        }
        if let Some(other) = teachers
            .iter()
            .find(|other| other.n_classes() != teachers[0].n_classes())
        {
            return Err(StudentError::Classes {
                left_name: "the first teacher".into(),
                left: teachers[0].n_classes(),
                right_name: "another one of the ensemble".into(),
                right: other.n_classes(),
            });
        }
        let weight = |index: usize| spec.weights.get(index).copied().unwrap_or(1.0);
        let members = teachers
            .into_iter()
            .enumerate()
            .map(|(index, rows)| Member {
                rows,
                weight: weight(index),
            });
        Ok(Self {
            members: members.collect(),
            combine: spec.combine,
            dropout: spec.dropout,
            seed,
            step: AtomicU64::new(0),
        })
    }

    /// The members that take part in the step in work.
    fn present(&self) -> Vec<&Member<'a>> {
        if self.dropout == 0.0 {
            return self.members.iter().collect();
        }
        let step = self.step.load(Ordering::Relaxed);
        let mut stream = Stream::new(self.seed, Purpose::TeacherDropout, [0, step, 0]);
        let stay: Vec<bool> = self
            .members
            .iter()
            .map(|_| stream.uniform() >= self.dropout)
            .collect();
        let alone = stream.below(self.members.len() as u64) as usize;
        let nobody = !stay.contains(&true);
        let is_here = |index: usize| stay[index] || (nobody && index == alone);
        let members = self
            .members
            .iter()
            .enumerate()
            .filter(|(index, _)| is_here(*index));
        members.map(|(_, member)| member).collect()
    }

    /// Gathers every present member's rows of the same pairs, and combines them.
    fn combined(
        &self,
        pairs: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
        gather: &Gather,
    ) -> Result<(), StudentError> {
        let present = self.present();
        let rows = gathered(&present, pairs, logits.len(), labels, gather)?;
        let total: f64 = present.iter().map(|member| member.weight).sum();
        let weights: Vec<f64> = present.iter().map(|member| member.weight / total).collect();
        let n_classes = self.n_classes();
        for (row, out) in logits.chunks_exact_mut(n_classes).enumerate() {
            let of_row: Vec<&[f32]> = rows
                .iter()
                .map(|rows| &rows[row * n_classes..][..n_classes])
                .collect();
            match self.combine {
                Combine::Logits => mean_logits(&of_row, &weights, out),
                Combine::Probabilities => mean_probabilities(&of_row, &weights, out),
                Combine::PerSampleBest => out.copy_from_slice(best(&of_row, labels[row] as usize)),
            }
        }
        Ok(())
    }
}

impl TeacherRows for Ensemble<'_> {
    fn n_classes(&self) -> usize {
        self.members[0].rows.n_classes()
    }

    fn begin_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    fn rows(
        &self,
        pixels: &PixelBatch,
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        self.combined(
            &pixels.requests,
            logits,
            labels,
            &|member, logits, labels| member.rows(pixels, logits, labels),
        )
    }

    fn bank(
        &self,
        pairs: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        self.combined(pairs, logits, labels, &|member, logits, labels| {
            member.bank(pairs, logits, labels)
        })
    }

    fn captured_views(&self, n_views: u32) -> u32 {
        let views = self
            .members
            .iter()
            .map(|member| member.rows.captured_views(n_views));
        views.min().unwrap_or(n_views)
    }
}

/// The rows of each member, (B, C) of `n_values` each, and in `labels` the labels, on which they have to agree.
fn gathered(
    members: &[&Member],
    pairs: &[(u32, u32)],
    n_values: usize,
    labels: &mut [u32],
    gather: &Gather,
) -> Result<Vec<Vec<f32>>, StudentError> {
    let mut rows = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        let mut own = vec![0.0; n_values];
        let mut own_labels = vec![0; labels.len()];
        gather(member.rows, &mut own, &mut own_labels)?;
        if index == 0 {
            labels.copy_from_slice(&own_labels);
        }
        if let Some(row) = labels.iter().zip(&own_labels).position(|(a, b)| a != b) {
            return Err(StudentError::Label {
                sample: pairs[row].0,
                dataset: labels[row],
                cache: own_labels[row],
            });
        }
        rows.push(own);
    }
    Ok(rows)
}

/// Asks one teacher for its rows: logits and labels.
type Gather<'g> = dyn Fn(&dyn TeacherRows, &mut [f32], &mut [u32]) -> Result<(), StudentError> + 'g;

/// The share of a split's selected samples on whose clean view a teacher, or an ensemble, names the label.
///
/// # Errors
/// If a row is absent or damaged.
pub fn teacher_accuracy(teacher: &dyn TeacherRows, dataset: &Dataset) -> Result<f64, StudentError> {
    let n_classes = teacher.n_classes();
    let selected = dataset.selected();
    let mut n_right = 0;
    for samples in selected.chunks(1024) {
        let pairs: Vec<(u32, u32)> = samples.iter().map(|&sample| (sample, 0)).collect();
        let mut logits = vec![0.0; pairs.len() * n_classes];
        let mut labels = vec![0; pairs.len()];
        teacher.bank(&pairs, &mut logits, &mut labels)?;
        let rows = logits.chunks_exact(n_classes).zip(&labels);
        n_right += rows
            .filter(|(row, label)| argmax(row) == **label as usize)
            .count();
    }
    Ok(n_right as f64 / selected.len().max(1) as f64)
}

fn mean_logits(rows: &[&[f32]], weights: &[f64], out: &mut [f32]) {
    for (class, out) in out.iter_mut().enumerate() {
        let weighted = rows
            .iter()
            .zip(weights)
            .map(|(row, weight)| weight * f64::from(row[class]));
        *out = weighted.sum::<f64>() as f32;
    }
}

/// In log space: a class that every teacher thinks impossible keeps a finite logit.
fn mean_probabilities(rows: &[&[f32]], weights: &[f64], out: &mut [f32]) {
    let shifts: Vec<f64> = rows
        .iter()
        .zip(weights)
        .map(|(row, weight)| weight.ln() - log_sum_exp(row))
        .collect();
    for (class, out) in out.iter_mut().enumerate() {
        let terms: Vec<f64> = rows
            .iter()
            .zip(&shifts)
            .map(|(row, shift)| f64::from(row[class]) + shift)
            .collect();
        let max = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = terms.iter().map(|term| (term - max).exp()).sum();
        *out = (max + sum.ln()) as f32;
    }
}

fn best<'a>(rows: &[&'a [f32]], label: usize) -> &'a [f32] {
    let log_probability = |row: &[f32]| f64::from(row[label]) - log_sum_exp(row);
    let mut best = rows[0];
    for row in &rows[1..] {
        if log_probability(row) > log_probability(best) {
            best = row;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A teacher that says the same of every sample, and whose labels are the samples' numbers modulo its classes.
    struct Fixed(Vec<f32>);

    impl TeacherRows for Fixed {
        fn n_classes(&self) -> usize {
            self.0.len()
        }

        fn rows(
            &self,
            pixels: &PixelBatch,
            logits: &mut [f32],
            labels: &mut [u32],
        ) -> Result<(), StudentError> {
            self.bank(&pixels.requests, logits, labels)
        }

        fn bank(
            &self,
            pairs: &[(u32, u32)],
            logits: &mut [f32],
            labels: &mut [u32],
        ) -> Result<(), StudentError> {
            for (row, &(sample, _)) in pairs.iter().enumerate() {
                logits[row * self.0.len()..][..self.0.len()].copy_from_slice(&self.0);
                labels[row] = sample % self.0.len() as u32;
            }
            Ok(())
        }
    }

    fn spec(combine: Combine) -> EnsembleSpec {
        EnsembleSpec {
            combine,
            weights: Vec::new(),
            dropout: 0.0,
        }
    }

    fn answer(ensemble: &Ensemble, sample: u32) -> Vec<f32> {
        let mut logits = vec![0.0; ensemble.n_classes()];
        ensemble
            .bank(&[(sample, 0)], &mut logits, &mut [0])
            .unwrap();
        logits
    }

    fn check(spec: &EnsembleSpec, teachers: [&[f32]; 2], sample: u32, expected: &[f32]) {
        let [a, b] = teachers.map(|row| Fixed(row.to_vec()));
        let ensemble = Ensemble::new(vec![&a, &b], spec, 1).unwrap();
        for (found, expected) in answer(&ensemble, sample).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn rows_are_combined_by_the_formula() {
        let teachers: [&[f32]; 2] = [&[1.0, 3.0], &[5.0, -1.0]];
        check(&spec(Combine::Logits), teachers, 0, &[3.0, 1.0]);
        let weighted = EnsembleSpec {
            weights: vec![3.0, 1.0],
            ..spec(Combine::Logits)
        };
        check(&weighted, teachers, 0, &[2.0, 2.0]);
        // Probabilities (1/4, 3/4) and (1/2, 1/2): their mean is (3/8, 5/8).
        let teachers: [&[f32]; 2] = [&[0.0, 3f32.ln()], &[7.0, 7.0]];
        check(
            &spec(Combine::Probabilities),
            teachers,
            0,
            &[0.375f32.ln(), 0.625f32.ln()],
        );
    }

    #[test]
    fn the_best_teacher_of_a_sample_is_the_one_that_knows_its_label() {
        let teachers: [&[f32]; 2] = [&[9.0, 0.0, 0.0], &[0.0, 2.0, 1.0]];
        for (label, expected) in [(0, teachers[0]), (1, teachers[1]), (2, teachers[1])] {
            check(&spec(Combine::PerSampleBest), teachers, label, expected);
        }
    }

    #[test]
    fn impossible_classes_keep_finite_logits() {
        let [a, b] = [[1e4, -1e4], [1e4, -1e4]].map(|row| Fixed(row.to_vec()));
        let ensemble = Ensemble::new(vec![&a, &b], &spec(Combine::Probabilities), 1).unwrap();
        // The two halves add up to one but for the last digits of their logarithms: 1.7e-13 was measured.
        let found = answer(&ensemble, 0);
        assert!(found[0].abs() < 1e-12, "{found:?}");
        assert_eq!(found[1], -2e4);
    }

    #[test]
    fn dropout_leaves_out_each_teacher_as_often_as_asked_and_never_all() {
        let [a, b] = [[0.0, 0.0], [4.0, 0.0]].map(|row: [f32; 2]| Fixed(row.to_vec()));
        let spec = EnsembleSpec {
            dropout: 0.5,
            ..spec(Combine::Logits)
        };
        let ensemble = Ensemble::new(vec![&a, &b], &spec, 3).unwrap();
        let mut seen = [0; 3];
        for step in 0..4000 {
            ensemble.begin_step(step);
            let first = answer(&ensemble, 0)[0];
            assert_eq!(
                first,
                answer(&ensemble, 1)[0],
                "one draw holds for the whole step"
            );
            seen[(first / 2.0) as usize] += 1;
        }
        // Both stay in 1/4 of the steps; nobody would in another 1/4, where one of the two is kept: 3/8 each alone.
        for (count, expected) in seen.iter().zip([1500.0, 1000.0, 1500.0]) {
            // Four standard deviations of a binomial count.
            assert!(
                (f64::from(*count) - expected).abs() < 4.0 * 31.0,
                "{seen:?}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let [two, other, three] = [2, 2, 3].map(|n| Fixed(vec![0.0; n]));
        let refused = |teachers: Vec<&dyn TeacherRows>, spec: &EnsembleSpec| {
            Ensemble::new(teachers, spec, 1).err().unwrap().to_string()
        };
        let logits = spec(Combine::Logits);
        assert!(refused(vec![&two, &three], &logits).contains("classes"));
        assert!(refused(vec![&two], &logits).contains("there are 1"));
        let weights = |weights: &[f64]| EnsembleSpec {
            weights: weights.to_vec(),
            ..logits.clone()
        };
        assert!(refused(vec![&two, &other], &weights(&[1.0])).contains("1 numbers for 2 teachers"));
        assert!(refused(vec![&two, &other], &weights(&[1.0, 0.0])).contains("not above 0"));
        let dropout = EnsembleSpec {
            dropout: 1.0,
            ..logits.clone()
        };
        assert!(refused(vec![&two, &other], &dropout).contains("below 1"));
    }
}
