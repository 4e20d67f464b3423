//! What ails a run that does not learn, told from what it has written down.

use std::fmt;

use candle_core::Device;

use crate::checkpoint::STUDENT;
use crate::models::find;
use crate::{Checkpoint, EpochRecord, Metrics, ModelRow, Network, StudentError, StudentShape};

/// What a diagnosis looks at.
#[derive(Clone, Copy, Debug)]
pub struct Patient<'a> {
    /// The epochs that are done.
    pub history: &'a [EpochRecord],
    /// What the student tells apart.
    pub n_classes: usize,
    /// Parameters that no step has changed: [`untrained`] finds them.
    pub untrained: &'a [String],
    /// The teacher says the same of every image, or of every class.
    pub teacher_is_constant: bool,
}

/// One thing that is wrong, with its numbers. `Display` says what was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Symptom {
    /// Some parameters are as they were before the first step.
    NoGradient {
        /// Full names of the parameters.
        names: Vec<String>,
    },
    /// There is nothing in the teacher's rows that a student could learn.
    TeacherConstant,
    /// Training made the loss larger than it was for the untrained student.
    LossRises {
        /// Total loss of the very first step.
        untrained: f64,
        /// Mean total loss of the first epoch.
        first_epoch: f64,
    },
    /// The loss has given back more than half of what it had gained.
    LossReturns {
        /// The lowest mean loss of an epoch, weights of the terms as in the last epoch.
        lowest: f64,
        /// The epoch of the lowest loss, from 1.
        epoch: usize,
        /// Mean loss of the last epoch.
        last: f64,
    },
    /// The loss is where it started.
    LossStays {
        /// Loss of the untrained student; where weights have moved since, mean of the first epoch with the last one's.
        first: f64,
        /// Mean loss of the last epoch.
        last: f64,
        /// How many epochs that took.
        n_epochs: usize,
    },
    /// The teacher is no better than chance, within three standard errors.
    TeacherGuesses {
        /// The teacher's share of right answers on the evaluation images, 0 to 1.
        top1: f64,
        /// What guessing gives: 1 / C.
        chance: f64,
    },
    /// The student is better than its teacher by more than a standard error.
    WorseTeacher {
        /// The teacher's share of right answers on the evaluation images, 0 to 1.
        teacher: f64,
        /// The student's share on the same images, after the last epoch.
        student: f64,
    },
    /// Student and teacher agree no more than strangers would.
    Strangers {
        /// The share on which they agree.
        agreement: f64,
        /// What guessing gives: 1 / C.
        chance: f64,
        /// Accuracy on the training batches, which tells whether anything was learned at all.
        train_top1: f64,
    },
}

/// Everything that is wrong with a run as far as its figures tell; empty for a run in good health. The loss is judged
/// after three epochs, but a rise in the first one at once.
pub fn diagnose(patient: &Patient) -> Vec<Symptom> {
    let Some(last) = patient.history.last() else {
        return Vec::new();
    };
    let mut symptoms = Vec::new();
    if patient.teacher_is_constant {
        symptoms.push(Symptom::TeacherConstant);
    }
    if !patient.untrained.is_empty() {
        symptoms.push(Symptom::NoGradient {
            names: patient.untrained.to_vec(),
        });
    }
    symptoms.extend(of_loss(patient, last));
    if let Some(eval) = &last.eval {
        symptoms.extend(of_teacher(patient, last, eval));
    }
    // What follows from another symptom only distracts from it.
    let has = |wanted: fn(&Symptom) -> bool| symptoms.iter().any(wanted);
    let no_gradient = has(|symptom| matches!(symptom, Symptom::NoGradient { .. }));
    let rises = has(|symptom| matches!(symptom, Symptom::LossRises { .. }));
    symptoms.retain(|symptom| match symptom {
        Symptom::NoGradient { .. } | Symptom::TeacherGuesses { .. } => !patient.teacher_is_constant,
        Symptom::LossStays { .. } => !no_gradient && !patient.teacher_is_constant,
        Symptom::Strangers { .. } => !no_gradient && !rises,
        _ => true,
    });
    symptoms
}

fn of_loss(patient: &Patient, last: &EpochRecord) -> Option<Symptom> {
    let history = patient.history;
    let first = &history[0];
    if let Some(untrained) = first.first_loss
        && first.loss - untrained > 0.25 * untrained.abs()
    {
        return Some(Symptom::LossRises {
            untrained,
            first_epoch: first.loss,
        });
    }
    if history.len() < 3 {
        return None;
    }
    // Warm-up moves the weights of terms, and the total with them: all epochs are held against the last one's weights.
    let weighed = |epoch: &EpochRecord| weighed(epoch, last);
    let start = match first.first_loss {
        Some(untrained) if same_weights(first, last) => untrained,
        _ => weighed(first),
    };
    let lowest = history
        .iter()
        .min_by(|a, b| weighed(a).total_cmp(&weighed(b)))?;
    let (low, now) = (weighed(lowest), weighed(last));
    let learns = last.train_top1 > chance(patient) + 0.2 * (1.0 - chance(patient));
    if start - low > 0.02 * start.abs() {
        return (now - low > 0.5 * (start - low)).then_some(Symptom::LossReturns {
            lowest: low,
            epoch: lowest.epoch,
            last: now,
        });
    }
    (!learns).then_some(Symptom::LossStays {
        first: start,
        last: now,
        n_epochs: history.len(),
    })
}

fn of_teacher(patient: &Patient, last: &EpochRecord, eval: &Metrics) -> Option<Symptom> {
    let (teacher, agreement) = (eval.teacher_top1?, eval.agreement?);
    let chance = chance(patient);
    let standard_error = |share: f64| (share * (1.0 - share) / eval.n_samples.max(1) as f64).sqrt();
    let is_chance = |share: f64| share <= chance + 3.0 * standard_error(chance);
    if is_chance(teacher) {
        return Some(Symptom::TeacherGuesses {
            top1: teacher,
            chance,
        });
    }
    if is_chance(agreement) {
        return Some(Symptom::Strangers {
            agreement,
            chance,
            train_top1: last.train_top1,
        });
    }
    (eval.top1 - teacher > standard_error(teacher)).then_some(Symptom::WorseTeacher {
        teacher,
        student: eval.top1,
    })
}

fn chance(patient: &Patient) -> f64 {
    1.0 / patient.n_classes.max(1) as f64
}

/// An epoch's loss with the weights that the terms have in another.
fn weighed(epoch: &EpochRecord, weights: &EpochRecord) -> f64 {
    match same_weights(epoch, weights) {
        true => epoch.loss,
        false => {
            let terms = epoch.terms.iter().zip(&weights.terms);
            terms.map(|(term, other)| other.weight * term.value).sum()
        }
    }
}

fn same_weights(a: &EpochRecord, b: &EpochRecord) -> bool {
    let mut pairs = a.terms.iter().zip(&b.terms);
    pairs.all(|(a, b)| a.weight == b.weight)
}

impl Symptom {
    /// What it is about, in a word.
    pub fn about(&self) -> &'static str {
        match self {
            Symptom::NoGradient { .. } => "gradients",
            Symptom::LossRises { .. } | Symptom::LossReturns { .. } | Symptom::LossStays { .. } => {
                "loss"
            }
            Symptom::TeacherConstant
            | Symptom::TeacherGuesses { .. }
            | Symptom::WorseTeacher { .. } => "teacher",
            Symptom::Strangers { .. } => "agreement",
        }
    }

    /// What to look at, and what to change.
    pub fn remedy(&self) -> &'static str {
        match self {
            Symptom::NoGradient { .. } => {
                "no loss reaches them: look for a `weight = 0`, a teacher that says the same of every image (`logitcask cache \
                 show`), or a student whose layers do not lead to its logits"
            }
            Symptom::TeacherConstant => {
                "no loss can teach that: look at the teacher's export, its `output`, and `mean`, `std` and `scale` of \
                 `[[teacher]]`; then capture again"
            }
            Symptom::LossRises { .. } | Symptom::LossReturns { .. } => {
                "the learning rate is too high: lower `train.optimizer.lr`, add `warmup_epochs` to the schedule, or set \
                 `train.clip_norm = 1`"
            }
            Symptom::LossStays { .. } => {
                "the learning rate is far too low or far too high, every loss weighs almost nothing, or the pixels say \
                 nothing: look at them with `logitcask dataset show RECIPE --png sheet.png`, and at `student.mean` and \
                 `student.std`"
            }
            Symptom::TeacherGuesses { .. } => {
                "its input is not what it was trained on: check `mean`, `std`, `scale` and `channel_order` of \
                 `[[teacher]]`, and that its classes are the dataset's in the same order; `min_accuracy` refuses such a \
                 teacher before the long work"
            }
            Symptom::WorseTeacher { .. } => {
                "check the teacher's normalisation; if it is right, give the labels more weight (`ce`), or take a better \
                 teacher"
            }
            Symptom::Strangers { train_top1, .. } if *train_top1 > 0.5 => {
                "it learned the training batches, but not with the running statistics of its batch norms: train more \
                 steps, or lower the learning rate"
            }
            Symptom::Strangers { .. } => {
                "the student's pixels say nothing to it: check `student.mean` and `student.std` (left out, they are the \
                 teacher's), then the learning rate"
            }
        }
    }
}

impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: &f64| format!("{:.2} %", 100.0 * share);
        match self {
            Symptom::NoGradient { names } => {
                let n = names.len();
                let first: Vec<String> = names.iter().take(3).map(|n| format!("`{n}`")).collect();
                write!(f, "no step has changed {}", first.join(", "))?;
                match n {
                    0..=3 => Ok(()),
                    _ => write!(f, " and {} more parameters", n - 3),
                }
            }
            Symptom::TeacherConstant => f.write_str(
                "the teacher is constant: it says the same of every image, or of every class",
            ),
            Symptom::LossRises {
                untrained,
                first_epoch,
            } => write!(
                f,
                "training made the loss larger: {untrained:.4} before the first step, {first_epoch:.4} on average over \
                 the first epoch"
            ),
            Symptom::LossReturns {
                lowest,
                epoch,
                last,
            } => write!(
                f,
                "the loss rises again: {lowest:.4} in epoch {epoch}, {last:.4} in the last one"
            ),
            Symptom::LossStays {
                first,
                last,
                n_epochs,
            } => write!(
                f,
                "the loss does not fall: {first:.4} at the start, {last:.4} after {n_epochs} epochs"
            ),
            Symptom::TeacherGuesses { top1, chance } => write!(
                f,
                "the teacher guesses: it is right on {} of the evaluation images, and guessing gives {}",
                percent(top1),
                percent(chance)
            ),
            Symptom::WorseTeacher { teacher, student } => write!(
                f,
                "the teacher is worse than the student: {} of the evaluation images are right, {} of the student's",
                percent(teacher),
                percent(student)
            ),
            Symptom::Strangers {
                agreement,
                chance,
                train_top1,
            } => write!(
                f,
                "student and teacher agree on {} of the evaluation images, and guessing gives {}; on its training batches \
                 the student is right on {}",
                percent(agreement),
                percent(chance),
                percent(train_top1)
            ),
        }
    }
}

/// The parameters of a checkpoint's student that are as `seed` drew them. A parameter without a gradient does not even
/// decay, so none of them moves without a reason. The student is one of the zoo or of `own`.
///
/// # Errors
/// If there is no such student, or the checkpoint's tensors are not those of it.
pub fn untrained(
    checkpoint: &Checkpoint,
    own: &'static [ModelRow],
    seed: u64,
) -> Result<Vec<String>, StudentError> {
    let StudentShape {
        name,
        image,
        n_classes,
    } = &checkpoint.position.student;
    let row = find(name, own)?;
    let drawn = Network::of_row(row, *image, *n_classes, seed, &Device::Cpu)?;
    let trained = checkpoint.part(STUDENT);
    let parameters = drawn.params().parameters();
    let is_parameter = |name: &String| parameters.iter().any(|(known, _)| known == name);
    let mut untrained = Vec::new();
    for (name, start) in drawn.state()? {
        let Some(now) = trained.get(&name).filter(|_| is_parameter(&name)) else {
            continue;
        };
        let values = |tensor: &candle_core::Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        if values(now)? == values(&start)? {
            untrained.push(name);
        }
    }
    Ok(untrained)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Term;

    /// Epochs of one term of weight 1 on ten classes, at these mean losses and accuracies.
    fn history(first_loss: f64, epochs: &[(f64, f64)]) -> Vec<EpochRecord> {
        let epoch = |(index, &(loss, train_top1)): (usize, &(f64, f64))| EpochRecord {
            epoch: index + 1,
            lr: 0.1,
            loss,
            first_loss: Some(if index == 0 { first_loss } else { loss }),
            terms: vec![Term {
                name: "ce".into(),
                weight: 1.0,
                value: loss,
            }],
            train_top1,
            eval: None,
        };
        epochs.iter().enumerate().map(epoch).collect()
    }

    fn evaluated(top1: f64, teacher_top1: f64, agreement: f64) -> Vec<EpochRecord> {
        let mut history = history(2.3, &[(1.5, 0.6), (1.0, 0.7), (0.8, 0.8)]);
        history[2].eval = Some(Metrics {
            n_samples: 1000,
            top1,
            agreement: Some(agreement),
            teacher_top1: Some(teacher_top1),
            ..Metrics::default()
        });
        history
    }

    /// What is found must be about these things, in this order.
    fn check(history: &[EpochRecord], untrained: &[String], expected: &[&str]) -> Vec<Symptom> {
        let found = diagnose(&Patient {
            history,
            n_classes: 10,
            untrained,
            teacher_is_constant: false,
        });
        let about: Vec<&str> = found.iter().map(Symptom::about).collect();
        assert_eq!(about, expected, "{found:?}");
        found
    }

    #[test]
    fn a_healthy_run_has_no_symptoms() {
        check(&evaluated(0.8, 0.9, 0.8), &[], &[]);
        check(&history(2.3, &[(1.9, 0.3)]), &[], &[]);
        check(&[], &[], &[]);
        // A contrastive loss may hardly fall while the student learns well.
        check(
            &history(8.0, &[(7.95, 0.4), (7.93, 0.6), (7.92, 0.7)]),
            &[],
            &[],
        );
        // A late epoch may be a little worse than the best one.
        check(
            &history(2.3, &[(1.0, 0.7), (0.1, 0.9), (0.15, 0.9)]),
            &[],
            &[],
        );
    }

    #[test]
    fn a_loss_that_stays_rises_or_returns_is_told_apart() {
        let stays = history(2.303, &[(2.303, 0.1), (2.303, 0.11), (2.302, 0.1)]);
        let found = check(&stays, &[], &["loss"]);
        assert!(matches!(found[0], Symptom::LossStays { n_epochs: 3, .. }));
        // Two epochs say too little.
        check(&stays[..2], &[], &[]);

        let rises = history(2.3, &[(9.7, 0.1), (2.4, 0.1), (2.3, 0.1)]);
        let found = check(&rises, &[], &["loss"]);
        assert!(found[0].to_string().contains("9.7000"), "{}", found[0]);
        assert!(found[0].remedy().contains("too high"));

        let returns = history(2.3, &[(1.5, 0.5), (1.0, 0.6), (2.1, 0.2)]);
        let found = check(&returns, &[], &["loss"]);
        assert!(matches!(found[0], Symptom::LossReturns { epoch: 2, .. }));
    }

    /// A term that warms up makes the total grow; the student learns all the same.
    #[test]
    fn warm_up_is_no_rising_loss() {
        let mut warm = history(0.2, &[(0.2, 0.5), (0.3, 0.6), (0.4, 0.7)]);
        for (epoch, weight) in warm.iter_mut().zip([0.1, 0.2, 0.4]) {
            epoch.terms[0].weight = weight;
            epoch.terms[0].value = epoch.loss / weight;
        }
        check(&warm, &[], &[]);
    }

    #[test]
    fn teachers_are_judged_by_what_they_know() {
        let found = check(&evaluated(0.8, 0.11, 0.12), &[], &["teacher"]);
        assert!(matches!(found[0], Symptom::TeacherGuesses { .. }));
        let found = check(&evaluated(0.8, 0.7, 0.7), &[], &["teacher"]);
        assert!(matches!(found[0], Symptom::WorseTeacher { .. }));
        // Half a standard error better means nothing.
        check(&evaluated(0.707, 0.7, 0.7), &[], &[]);
        let found = check(&evaluated(0.1, 0.9, 0.1), &[], &["agreement"]);
        assert!(found[0].remedy().contains("running statistics"));
    }

    #[test]
    fn untouched_parameters_are_named() {
        let names: Vec<String> = (0..5).map(|i| format!("layer{i}.weight")).collect();
        let found = check(&evaluated(0.8, 0.9, 0.8), &names, &["gradients"]);
        // That the loss stays, too, follows from it.
        let stays = history(2.303, &[(2.303, 0.1), (2.303, 0.11), (2.302, 0.1)]);
        check(&stays, &names, &["gradients"]);
        let text = found[0].to_string();
        assert!(
            text.contains("`layer0.weight`") && text.contains("2 more"),
            "{text}"
        );
    }

    #[test]
    fn a_constant_teacher_is_told_as_such_and_nothing_else_is() {
        let stays = history(2.3, &[(2.3, 0.1); 3]);
        let found = diagnose(&Patient {
            history: &stays,
            n_classes: 10,
            untrained: &["fc.weight".to_owned()],
            teacher_is_constant: true,
        });
        assert_eq!(found, [Symptom::TeacherConstant]);
        assert!(!found[0].remedy().contains("weight = 0"));
    }
}
