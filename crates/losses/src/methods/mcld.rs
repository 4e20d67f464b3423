//! Multi-perspective contrastive logit distillation.
//!
//! Wang and Zhou, "Multi-perspective Contrastive Logit Distillation", arXiv:2411.10693.
//!
//! Three contrastive losses on the logits themselves take the place of KL. With student rows `a_i`, teacher rows
//! `b_j` (normalised as `normalize` says) and `M_ij = <a_i, b_j> / temperature`, (B, B):
//!
//! | part | reading | loss of anchor i, averaged over B |
//! |---|---|---|
//! | `instance` | `icld` | `-log(e^M_ii / sum_j e^M_ij)`: its own teacher row against those of the other samples |
//! | | `icld_masked` | the same, samples of the same class left out of the sum |
//! | `sample` | `scld_teacher_anchor` | `-log(e^M_ii / sum_j e^M_ji)`: the teacher's row picks among the student's |
//! | | `scld_within` | `-log softmax_c(a_ic b_ic / temperature)[label]`: one sample, its classes against each other |
//! | `category` | `ccld_label_out` | `-mean over P_i of log(e^M_ij / sum_k e^M_ik)`, `P_i` = samples of i's class, i included |
//! | | `ccld_label_in` | `-log(sum over P_i of e^M_ij / sum_k e^M_ik)` |
//! | | `ccld_column` | classes as batch vectors `u_c`, `v_c`: `-log(e^N_cc / sum_d e^N_cd)`, `N_cd = <u_c, v_d> / temperature`, averaged over C |
//!
//! `bank = K` adds K teacher rows from the whole cache as negatives to `instance` and to `ccld_label_*`; rows of the
//! anchor's class are left out of `icld_masked` and of `ccld_label_*`, where they are not negatives.
//!
//! **What is certain.** No equation, temperature or weight of the paper was at hand: the parts are named readings of
//! its description (instance, sample and category level, a target mask, one to N, a warm-up of the category part, no
//! classification loss), and the defaults are the configuration that beat KD in a first measurement: unit rows,
//! temperature 0.3, `icld_masked + scld_teacher_anchor + ccld_label_in`, weights 1, category warm-up over the first
//! third of the run, no `ce`. Neither the temperature nor any part carries a factor T or T^2.
//!
//! On a batch of one, `instance` and `sample` are 0 with gradient 0. Logits are absolute: a shift changes every loss.

mod contrast;
mod normalize;

use crate::error::Need;
use crate::fused::fused;
use crate::loss::{
    Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, OptionRow, Setup, Warmup,
};
use crate::{LossError, Options, PreparedBatch};
use contrast::Evaluation;
use normalize::Normalize;

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "mcld",
    title: "Multi-perspective Contrastive Logit Distillation",
    paper: "arXiv:2411.10693",
    components: &[
        ComponentSpec::new(
            "instance",
            "a sample's student row against the teacher's rows of all samples",
        ),
        ComponentSpec::new(
            "sample",
            "a sample's teacher row against the student's rows (or its classes against each other)",
        ),
        ComponentSpec::new(
            "category",
            "a sample's student row against the teacher's rows of its class",
        )
        .warmup(Warmup::Share(1.0 / 3.0)),
    ],
    options: &[
        OptionRow::new(
            "temperature",
            "0.3",
            "divides similarities, in all parts that name none; chosen by measurement",
        ),
        OptionRow::new(
            "normalize",
            "l2",
            "`l2` (unit rows), `none` (raw), `softmax` (unit rows of probabilities), `teacher` (student raw, teacher unit)",
        ),
        OptionRow::new(
            "softmax_temperature",
            "4",
            "of the probabilities of `normalize = \"softmax\"`; as in kd",
        ),
        OptionRow::new(
            "target_mask",
            "true",
            "samples of the anchor's class are no negatives of the instance part",
        ),
        OptionRow::new(
            "bank",
            "0",
            "further teacher rows from the whole cache per step, as negatives",
        ),
        OptionRow::new(
            "instance.reading",
            "icld_masked",
            "`icld_masked` with the target mask, `icld` without",
        ),
        OptionRow::new("instance.temperature", "0.3", "see `temperature`"),
        OptionRow::new(
            "sample.reading",
            "scld_teacher_anchor",
            "`scld_teacher_anchor` or `scld_within`",
        ),
        OptionRow::new("sample.temperature", "0.3", "see `temperature`"),
        OptionRow::new(
            "category.reading",
            "ccld_label_in",
            "`ccld_label_in`, `ccld_label_out` or `ccld_column` (no loss per sample)",
        ),
        OptionRow::new("category.temperature", "0.3", "see `temperature`"),
    ],
    build,
};

/// One part: which comparison, at which temperature.
#[derive(Clone, Copy, Debug)]
struct Part<R> {
    reading: R,
    temperature: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instance {
    Plain,
    Masked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    TeacherAnchor,
    Within,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    LabelOut,
    LabelIn,
    Column,
}

#[derive(Debug)]
struct Mcld {
    instance: Part<Instance>,
    sample: Part<Sample>,
    category: Part<Category>,
    normalize: Normalize,
    bank: usize,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let temperature = options.positive("temperature", 0.3)?;
    let softmax_temperature = options.positive("softmax_temperature", 4.0)?;
    let normalize = options
        .choice(
            "normalize",
            &[
                ("l2", Normalize::Unit),
                ("none", Normalize::Raw),
                (
                    "softmax",
                    Normalize::Softmax {
                        temperature: softmax_temperature,
                    },
                ),
                ("teacher", Normalize::TeacherOnly),
            ],
        )?
        .unwrap_or(Normalize::Unit);
    let mask = options.optional_flag("target_mask")?;
    let readings = [("icld", Instance::Plain), ("icld_masked", Instance::Masked)];
    let instance = match (options.choice("instance.reading", &readings)?, mask) {
        (Some(Instance::Plain), Some(true)) => {
            return Err(options.bad(
                "target_mask",
                "false or left out with `instance.reading = \"icld\"`",
                true,
            ));
        }
        (Some(Instance::Masked), Some(false)) => {
            return Err(options.bad(
                "target_mask",
                "true or left out with `instance.reading = \"icld_masked\"`",
                false,
            ));
        }
        (Some(reading), _) => reading,
        (None, Some(false)) => Instance::Plain,
        (None, _) => Instance::Masked,
    };
    let readings = [
        ("scld_teacher_anchor", Sample::TeacherAnchor),
        ("scld_within", Sample::Within),
    ];
    let sample = options
        .choice("sample.reading", &readings)?
        .unwrap_or(Sample::TeacherAnchor);
    let readings = [
        ("ccld_label_in", Category::LabelIn),
        ("ccld_label_out", Category::LabelOut),
        ("ccld_column", Category::Column),
    ];
    let category = options
        .choice("category.reading", &readings)?
        .unwrap_or(Category::LabelIn);
    Ok(Box::new(Mcld {
        instance: Part {
            reading: instance,
            temperature: options.positive("instance.temperature", temperature)?,
        },
        sample: Part {
            reading: sample,
            temperature: options.positive("sample.temperature", temperature)?,
        },
        category: Part {
            reading: category,
            temperature: options.positive("category.temperature", temperature)?,
        },
        normalize,
        bank: options.count("bank", 0)?,
    }))
}

impl LogitLoss for Mcld {
    fn needs(&self) -> Needs {
        Needs {
            // Unit rows are as little invariant to shifts as raw ones; probabilities are invariant.
            absolute_logits: !matches!(self.normalize, Normalize::Softmax { .. }),
            labels: LabelNeed::Single,
            bank: self.bank,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let labels = batch.single_labels("mcld")?;
        let bank = match (self.bank, &batch.bank) {
            (0, _) => None,
            (wanted, Some((rows, labels))) if labels.len() >= wanted => {
                Some((rows.narrow(0, 0, wanted)?.contiguous()?, &labels[..wanted]))
            }
            (wanted, _) => {
                return Err(LossError::Unserved {
                    loss: "mcld".to_owned(),
                    needs: Need::Bank(wanted),
                    supplied: "the batch brings fewer",
                });
            }
        };
        let evaluation = Evaluation { method: self, bank };
        let values = fused(&evaluation, batch.student(), batch.teacher("mcld")?, labels)?;
        values.into_iter().map(Component::from_values).collect()
    }
}
