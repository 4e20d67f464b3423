//! The sum that the student is trained on: weight times warm-up times component, over the `[[loss]]` entries.

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::adaptive::Adaptive;
use crate::error::Need;
use crate::methods;
use crate::{
    Component, ComponentSpec, LabelNeed, LogitBatch, LogitLoss, LossError, MethodRow, Needs,
    Options, Setup, TeacherNeed, Warmup,
};

/// One `[[loss]]` entry of a recipe: a name, and the options of that method.
///
/// ```
/// let entry: logitcask_losses::LossSpec =
///     serde_json::from_str(r#"{ "name": "kd", "weight": 0.9, "temperature": 4 }"#)?;
/// assert_eq!(entry.name, "kd");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossSpec {
    /// The method's name: one that `logitcask list losses` shows, or a program's own.
    pub name: String,
    /// Everything else in the entry.
    #[serde(flatten)]
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// The weighted sum of several methods' components.
///
/// ```
/// use candle_core::{DType, Device, Tensor, Var};
/// use logitcask_losses::{LogitBatch, LossSpec, Objective, Setup};
///
/// let entries: Vec<LossSpec> = serde_json::from_str(
///     r#"[{ "name": "ce", "weight": 0.1 }, { "name": "kd", "weight": 0.9, "temperature": 4 }]"#,
/// )?;
/// let device = Device::Cpu;
/// let setup = Setup { n_classes: 3, epochs: 240, dtype: DType::F32, device: &device };
/// let objective = Objective::new(&entries, &setup)?;
///
/// let student_logits = Var::new(&[[1f32, 2., 3.], [0., 0., 0.]], &device)?;
/// let teacher_logits = Tensor::new(&[[3f32, 0., 1.], [0., 2., 0.]], &device)?;
/// let labels = Tensor::new(&[0u32, 1], &device)?;
/// let batch = LogitBatch::new(&student_logits, Some(&teacher_logits), &labels);
///
/// let value = objective.forward(&batch, 1)?;
/// assert_eq!(value.terms.iter().map(|term| term.name.as_str()).collect::<Vec<_>>(), ["ce", "kd"]);
/// let gradients = value.total.backward()?;
/// assert!(gradients.get(&student_logits).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Objective {
    entries: Vec<Entry>,
    n_classes: usize,
    epochs: u32,
}

struct Entry {
    /// The method's name, with `#2` and so on where it occurs again.
    label: String,
    method: Box<dyn LogitLoss>,
    weighted: Vec<Weighted>,
    accept_shift: bool,
}

/// One component as the recipe weighs it.
struct Weighted {
    name: String,
    weight: f64,
    warmup: Warmup,
    adaptive: Adaptive,
    /// Whether it is a mean over samples, and no property of the whole batch.
    is_per_sample: bool,
}

/// The objective on one batch.
#[derive(Clone, Debug)]
pub struct ObjectiveValue {
    /// What to call `backward` on: a scalar on the student's device.
    pub total: Tensor,
    /// Its parts, in the order of the recipe.
    pub terms: Vec<Term>,
}

/// One component in the sum.
#[derive(Clone, Debug)]
pub struct Term {
    /// `mcld.instance`, or `kd` where a method is a single component; `kd#2` where an entry's name occurs again.
    pub name: String,
    /// Its weight in this epoch, after warm-up. A component of weight 0 is measured but not trained on.
    pub weight: f64,
    /// Its unweighted value (after `sample_weight` and `trim`): a scalar on the student's device.
    pub value: Tensor,
}

/// What the caches and views of a run can serve; see [`Objective::check`].
#[derive(Clone, Copy, Debug)]
pub struct Supply {
    /// Whether there is a teacher at all.
    pub teacher: bool,
    /// Whether every class's logit is there (and not only the top k).
    pub dense: bool,
    /// Where only the top k are there: the temperatures at which the log-sum-exp of the others is.
    pub rest_temperatures: &'static [f32],
    /// Whether rows are the network's own logits (and not recovered from probabilities).
    pub absolute_logits: bool,
    /// Whether views mix samples, so that labels come in pairs.
    pub mixed_labels: bool,
    /// Whether the recipe has `[views.strong]`.
    pub strong_view: bool,
    /// Whether samples have weights of their own.
    pub sample_weights: bool,
}

impl Objective {
    /// Reads the entries, and builds their methods.
    ///
    /// # Errors
    /// An entry that names an unknown loss or option, or an option out of range.
    pub fn new(specs: &[LossSpec], setup: &Setup<'_>) -> Result<Self, LossError> {
        Self::new_with(specs, setup, &[])
    }

    /// The same, where entries may also name a program's `own` methods.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_with(
        specs: &[LossSpec],
        setup: &Setup<'_>,
        own: &'static [MethodRow],
    ) -> Result<Self, LossError> {
        if specs.is_empty() {
            return Err(LossError::NoLoss);
        }
        if setup.n_classes < 2 {
            return Err(LossError::Shape {
                what: "logits",
                expected: "(B, C) with at least 2 classes".to_owned(),
                found: format!("{} classes", setup.n_classes),
            });
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(specs.len());
        for spec in specs {
            let seen = entries.iter().filter(|entry| {
                let name = entry.label.split('#').next();
                name == Some(spec.name.as_str())
            });
            let label = match seen.count() {
                0 => spec.name.clone(),
                earlier => format!("{}#{}", spec.name, earlier + 1),
            };
            entries.push(Entry::new(spec, label, setup, own)?);
        }
        Ok(Self {
            entries,
            n_classes: setup.n_classes,
            epochs: setup.epochs,
        })
    }

    /// The objective on `batch` in `epoch`, counted from 1.
    ///
    /// The losses are computed where the student's logits lie, in f32 (f64 for f64 logits).
    ///
    /// # Errors
    /// A batch of the wrong shape, with a label out of range or a logit that is not finite, or one that lacks what a
    /// method needs.
    pub fn forward(&self, batch: &LogitBatch<'_>, epoch: u32) -> Result<ObjectiveValue, LossError> {
        let batch = batch.prepare(self.n_classes)?;
        let mut terms = Vec::new();
        let mut total: Option<Tensor> = None;
        for entry in &self.entries {
            let components = entry.method.forward(&batch)?;
            for (component, weighted) in components.into_iter().zip(&entry.weighted) {
                let Component { value, per_sample } = component;
                let is_plain = weighted.adaptive.is_plain();
                let value = match &per_sample {
                    Some(losses) if !is_plain || batch.sample_weights().is_some() => {
                        weighted.adaptive.mean(losses, &batch, &weighted.name)?
                    }
                    None if !is_plain => return Err(no_loss_per_sample(&weighted.name)),
                    _ => value,
                };
                let weight = weighted.weight * weighted.warmup.factor(epoch, self.epochs);
                if weight != 0.0 {
                    let part = (&value * weight)?;
                    total = Some(match total {
                        None => part,
                        Some(total) => (total + part)?,
                    });
                }
                terms.push(Term {
                    name: weighted.name.clone(),
                    weight,
                    value,
                });
            }
        }
        let total = match total {
            Some(total) => total,
            // Every weight is 0: a constant, so that the caller need not know.
            None => Tensor::zeros((), batch.student().dtype(), batch.student().device())?,
        };
        Ok(ObjectiveValue { total, terms })
    }

    /// Refuses losses that a run's caches and views cannot serve, before the first step.
    ///
    /// Returns a sentence, for the report, for each loss that is served from the top k, or only because of its
    /// `accept_shift`, or that weights of samples do not touch.
    ///
    /// # Errors
    /// [`LossError::Unserved`] for the first loss that needs what there is not.
    pub fn check(&self, supply: &Supply) -> Result<Vec<String>, LossError> {
        let mut notes = Vec::new();
        for entry in &self.entries {
            let needs = entry.method.needs();
            let refuse = |needs, supplied| {
                Err(LossError::Unserved {
                    loss: entry.label.clone(),
                    needs,
                    supplied,
                })
            };
            if needs.teacher != TeacherNeed::Nothing && !supply.teacher {
                return refuse(Need::Teacher, "the recipe has no [[teacher]]");
            }
            if needs.teacher == TeacherNeed::Dense && !supply.dense {
                return refuse(Need::DenseLogits, "the cache holds the top k");
            }
            if let TeacherNeed::TopK { temperature } = needs.teacher
                && !supply.dense
            {
                let is_kept = |kept: &f32| f64::from(*kept) == temperature;
                if !supply.rest_temperatures.iter().any(is_kept) {
                    return refuse(
                        Need::RestAt(temperature),
                        "the cache holds the top k and the rest at other temperatures",
                    );
                }
                if !entry.is_unweighted() {
                    return refuse(
                        Need::DenseLogits,
                        "the cache holds the top k, which do not tell how a sample is weighted",
                    );
                }
                notes.push(format!(
                    "`{}` is computed from a top-k cache: over the teacher's k largest classes and one bucket for the \
                     rest. Over these it is exact; it is not the loss over all classes.",
                    entry.label
                ));
            }
            if needs.absolute_logits && !supply.absolute_logits {
                if !entry.accept_shift {
                    return refuse(
                        Need::AbsoluteLogits,
                        "the cache holds logits recovered from probabilities",
                    );
                }
                notes.push(format!(
                    "`{}` is not invariant to shifts, and was given logits recovered from probabilities (`accept_shift`)",
                    entry.label
                ));
            }
            if supply.sample_weights {
                let whole = entry.weighted.iter().filter(|part| !part.is_per_sample);
                notes.extend(whole.map(|part| {
                    format!(
                        "`{}` is a property of the whole batch: the samples' weights do not touch it",
                        part.name
                    )
                }));
            }
            if needs.labels == LabelNeed::Single && supply.mixed_labels {
                return refuse(Need::SingleLabel, "the views mix two samples");
            }
            if needs.strong_view && !supply.strong_view {
                return refuse(Need::StrongView, "the recipe has no [views.strong]");
            }
        }
        Ok(notes)
    }

    /// What all methods together need: the largest bank, any strong view, and so on.
    pub fn needs(&self) -> Needs {
        let mut all = Needs {
            teacher: TeacherNeed::Nothing,
            ..Needs::DENSE
        };
        for needs in self.entries.iter().map(|entry| entry.method.needs()) {
            all.teacher = match (all.teacher, needs.teacher) {
                (TeacherNeed::Dense, _) | (_, TeacherNeed::Dense) => TeacherNeed::Dense,
                (TeacherNeed::Nothing, other) => other,
                (top_k, _) => top_k,
            };
            all.absolute_logits |= needs.absolute_logits;
            all.labels = match (all.labels, needs.labels) {
                (LabelNeed::Single, _) | (_, LabelNeed::Single) => LabelNeed::Single,
                (LabelNeed::Ignored, other) => other,
                (mixable, _) => mixable,
            };
            all.strong_view |= needs.strong_view;
            all.bank = all.bank.max(needs.bank);
        }
        if !self.entries.iter().all(Entry::is_unweighted) {
            all.teacher = TeacherNeed::Dense;
            all.labels = LabelNeed::Single;
        }
        all
    }

    /// The methods' own parameters by name (`vid.log_scale`), to be optimised, saved and resumed with the student's.
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let named = |entry: &Entry| {
            let label = entry.label.clone();
            entry
                .method
                .parameters()
                .into_iter()
                .map(move |(name, var)| (format!("{label}.{name}"), var))
        };
        self.entries.iter().flat_map(named).collect()
    }
}

impl Entry {
    /// Whether no component looks at the teacher to weigh samples.
    fn is_unweighted(&self) -> bool {
        let weighted = self.weighted.iter();
        weighted
            .map(|weighted| &weighted.adaptive)
            .all(Adaptive::is_unweighted)
    }

    fn new(
        spec: &LossSpec,
        label: String,
        setup: &Setup<'_>,
        own: &'static [MethodRow],
    ) -> Result<Self, LossError> {
        let row = methods::find(&spec.name, own)?;
        let mut options = Options::new(&spec.name, spec.options.clone());
        let method = (row.build)(&mut options, setup)?;
        let mut common = Common::read(&mut options)?;
        common.read_letters(&mut options, row.components)?;
        let weighted: Result<Vec<Weighted>, LossError> = row
            .components
            .iter()
            .map(|component| Weighted::read(&mut options, component, row.name, &label, &common))
            .collect();
        let weighted = weighted?;
        options.finish()?;
        Ok(Self {
            label,
            method,
            weighted,
            accept_shift: common.accept_shift,
        })
    }
}

/// Keys beside `name` that hold for all components of an entry.
struct Common {
    /// Multiplies the weight of every component.
    weight: f64,
    /// Weights by the paper's letter, which several components may share.
    letters: Vec<(&'static str, f64)>,
    warmup: Option<Warmup>,
    adaptive: Adaptive,
    accept_shift: bool,
}

impl Common {
    fn read(options: &mut Options) -> Result<Self, LossError> {
        Ok(Self {
            weight: options
                .optional_number("weight", WEIGHT, |x| x >= 0.0)?
                .unwrap_or(1.0),
            letters: Vec::new(),
            warmup: warmup(options, "")?,
            adaptive: Adaptive::read(options, "", Adaptive::PLAIN)?,
            accept_shift: options.flag("accept_shift", false)?,
        })
    }

    fn read_letters(
        &mut self,
        options: &mut Options,
        components: &[ComponentSpec],
    ) -> Result<(), LossError> {
        for letter in components.iter().filter_map(|part| part.weight_key) {
            if let Some(weight) = options.optional_number(letter, WEIGHT, |x| x >= 0.0)? {
                self.letters.push((letter, weight));
            }
        }
        Ok(())
    }
}

const WEIGHT: &str = "a number, 0 or more";

impl Weighted {
    /// A component's own table first, then the keys beside the name, then the method's defaults.
    fn read(
        options: &mut Options,
        component: &ComponentSpec,
        method: &str,
        label: &str,
        common: &Common,
    ) -> Result<Self, LossError> {
        // A method of one component that bears its name needs no table.
        if component.name == method {
            refuse_adaptive_whole(component, &common.adaptive, label)?;
            return Ok(Self {
                name: label.to_owned(),
                weight: component.default_weight * common.weight,
                warmup: common.warmup.unwrap_or(component.default_warmup),
                adaptive: common.adaptive,
                is_per_sample: component.whole_batch_because.is_none(),
            });
        }
        let prefix = format!("{}.", component.name);
        let weight_key = format!("{prefix}weight");
        let in_table = options.optional_number(&weight_key, WEIGHT, |x| x >= 0.0)?;
        let mut letters = common.letters.iter();
        let by_letter = letters.find(|(letter, _)| Some(*letter) == component.weight_key);
        let by_letter = by_letter.map(|(_, weight)| *weight);
        if let (Some(_), Some(letter), Some(twice)) = (in_table, component.weight_key, by_letter) {
            return Err(options.bad(
                &weight_key,
                &format!("left out, as `{letter}` is the same weight"),
                twice,
            ));
        }
        let inherited = match component.whole_batch_because {
            None => common.adaptive,
            Some(_) => Adaptive::PLAIN,
        };
        let adaptive = Adaptive::read(options, &prefix, inherited)?;
        let name = format!("{label}.{}", component.name);
        refuse_adaptive_whole(component, &adaptive, &name)?;
        Ok(Self {
            weight: in_table.or(by_letter).unwrap_or(component.default_weight) * common.weight,
            warmup: warmup(options, &prefix)?
                .or(common.warmup)
                .unwrap_or(component.default_warmup),
            adaptive,
            is_per_sample: component.whole_batch_because.is_none(),
            name,
        })
    }
}

/// `warmup_epochs` or `warmup_share`, with 0 meaning none.
fn warmup(options: &mut Options, prefix: &str) -> Result<Option<Warmup>, LossError> {
    let epochs = options.optional_number(
        &format!("{prefix}warmup_epochs"),
        "a number of epochs, 0 or more",
        |x| x >= 0.0,
    )?;
    let in_share = |x| (0.0..=1.0).contains(&x);
    let key = format!("{prefix}warmup_share");
    let share = options.optional_number(&key, "a share of the run's epochs, 0 to 1", in_share)?;
    match (epochs, share) {
        (Some(_), Some(share)) => {
            Err(options.bad(&key, "left out where `warmup_epochs` is given", share))
        }
        (Some(epochs), None) => Ok(Some(Warmup::Epochs(epochs))),
        (None, Some(share)) => Ok(Some(Warmup::Share(share))),
        (None, None) => Ok(None),
    }
}

fn refuse_adaptive_whole(
    component: &ComponentSpec,
    adaptive: &Adaptive,
    name: &str,
) -> Result<(), LossError> {
    match component.whole_batch_because {
        Some(_) if !adaptive.is_plain() => Err(no_loss_per_sample(name)),
        _ => Ok(()),
    }
}

fn no_loss_per_sample(name: &str) -> LossError {
    LossError::Unserved {
        loss: name.to_owned(),
        needs: Need::PerSample,
        supplied: "it is a property of the whole batch",
    }
}
