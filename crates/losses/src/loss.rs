//! What a logit loss is to the rest of the program.

use candle_core::{DType, Device, Tensor, Var};
use serde::{Serialize, Serializer};

use crate::{LossError, OptionRow, Options, PreparedBatch, Spec};

/// One method: a function from a batch to its named, unweighted components.
///
/// A method knows neither weights nor epochs; [`Objective`](crate::Objective) holds those.
pub trait LogitLoss: Send + Sync {
    /// What the method cannot do without, with its present options.
    fn needs(&self) -> Needs;

    /// The components in the order of the method's [`MethodRow::components`], gradients attached.
    ///
    /// # Errors
    /// Where the batch lacks what the method [`needs`](Self::needs).
    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError>;

    /// Parameters of the method's own, to be optimised, saved and resumed with the student's.
    fn parameters(&self) -> Vec<(String, Var)> {
        Vec::new()
    }
}

/// The value of one component on one batch.
#[derive(Clone, Debug)]
pub struct Component {
    /// Unweighted; a scalar on the student's device, differentiable.
    pub value: Tensor,
    /// (B,): the losses whose mean `value` is, where the mathematics has them.
    pub per_sample: Option<Tensor>,
}

impl Component {
    /// (B,): a component that is the mean of B losses; rank 0: one that the batch has as a whole.
    ///
    /// # Errors
    /// Where the tensor library fails.
    pub fn new(values: Tensor) -> Result<Self, LossError> {
        let is_per_sample = values.rank() == 1;
        Ok(Self {
            value: values.mean_all()?,
            per_sample: is_per_sample.then_some(values),
        })
    }
}

/// One row of the registry, or a program's own: all that can be said of a method without running it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MethodRow {
    /// The name in a recipe.
    pub name: &'static str,
    /// The paper's title (or what the method is, where it has no single paper).
    pub title: &'static str,
    /// `arXiv:...`, or a citation.
    pub paper: &'static str,
    /// The components, in the order in which they are returned.
    pub components: &'static [ComponentSpec],
    /// The options of the method itself, from its [`Spec`]; weight, warm-up and the like are common to all.
    #[serde(serialize_with = "called")]
    pub options: fn() -> Vec<OptionRow>,
    /// Makes the method from its options, leaving the keys it does not know.
    #[serde(skip)]
    pub build: Build,
}

fn called<S: Serializer>(rows: &fn() -> Vec<OptionRow>, out: S) -> Result<S::Ok, S::Error> {
    rows().serialize(out)
}

/// The rows of a method that is described by its spec alone.
pub(crate) fn rows<S: Spec>() -> Vec<OptionRow> {
    S::rows("")
}

/// Makes a method that is its spec and nothing else.
pub(crate) fn build<S: Spec + LogitLoss + 'static>(
    options: &mut Options,
    _: &Setup<'_>,
) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(S::read(options, "")?))
}

/// Makes a method from its options.
pub type Build = fn(&mut Options, &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError>;

/// A component as the registry describes it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ComponentSpec {
    /// Its name, also the name of its table in a recipe.
    pub name: &'static str,
    /// What it compares, in a phrase that `logitcask list losses` prints.
    pub meaning: &'static str,
    /// Its weight where the recipe gives none; an entry's `weight` multiplies it.
    pub default_weight: f64,
    /// The paper's letter for the weight, accepted beside the table (`alpha`, `beta`).
    pub weight_key: Option<&'static str>,
    /// Its warm-up where the recipe gives none.
    pub default_warmup: Warmup,
    /// Why it has no loss per sample, if it has none.
    pub whole_batch_because: Option<&'static str>,
}

impl ComponentSpec {
    /// A component with weight 1, no warm-up, and a loss per sample.
    pub const fn new(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            meaning,
            default_weight: 1.0,
            weight_key: None,
            default_warmup: Warmup::None,
            whole_batch_because: None,
        }
    }

    /// With another default weight.
    pub const fn weight(mut self, weight: f64) -> Self {
        self.default_weight = weight;
        self
    }

    /// With a key of the entry that is its weight too.
    pub const fn weight_key(mut self, key: &'static str) -> Self {
        self.weight_key = Some(key);
        self
    }

    /// With a warm-up of its own.
    pub const fn warmup(mut self, warmup: Warmup) -> Self {
        self.default_warmup = warmup;
        self
    }

    /// Without a loss per sample, for this reason.
    pub const fn whole_batch(mut self, because: &'static str) -> Self {
        self.whole_batch_because = Some(because);
        self
    }
}

/// How a component's weight grows: `min(epoch / length, 1)`, with epochs counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// Full weight from the first epoch.
    None,
    /// A length in epochs.
    Epochs(f64),
    /// A length as a share of the run's epochs.
    Share(f64),
}

impl Warmup {
    /// The factor on the weight in `epoch`, counted from 1, of a run of `epochs`.
    pub fn factor(self, epoch: u32, epochs: u32) -> f64 {
        let length = match self {
            Warmup::None => 0.0,
            Warmup::Epochs(length) => length,
            Warmup::Share(share) => share * f64::from(epochs),
        };
        if length <= 0.0 {
            1.0
        } else {
            (f64::from(epoch) / length).min(1.0)
        }
    }
}

/// What a method cannot do without.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Needs {
    /// What it reads of the teacher.
    pub teacher: TeacherNeed,
    /// Whether adding a constant to the teacher's row changes the loss, so that rows recovered from probabilities do
    /// not serve.
    pub absolute_logits: bool,
    /// What it does with labels.
    pub labels: LabelNeed,
    /// Whether it wants the strong view.
    pub strong_view: bool,
    /// Rows drawn from the whole cache per step.
    pub bank: usize,
}

/// What a method reads of the teacher.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherNeed {
    /// No row: a recipe without a teacher serves it.
    Nothing,
    /// The largest few logits do, together with what the other classes add up to.
    TopK {
        /// The temperature at which the log-sum-exp of the others is needed.
        temperature: f64,
    },
    /// The logit of every class.
    Dense,
}

/// What a method does with labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelNeed {
    /// It ignores them, so mixed views serve it too.
    Ignored,
    /// It wants one per sample, and refuses mixed views.
    Single,
    /// It takes one or a mixture of two.
    Mixable,
}

impl Needs {
    /// Every class of the teacher, up to a constant, and no label.
    pub const DENSE: Needs = Needs {
        teacher: TeacherNeed::Dense,
        absolute_logits: false,
        labels: LabelNeed::Ignored,
        strong_view: false,
        bank: 0,
    };
}

/// What a method is built for.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// C, at least 2.
    pub n_classes: usize,
    /// The epochs of the whole run, for warm-ups given as a share of it.
    pub epochs: u32,
    /// The type of the methods' own parameters: that of the student's.
    pub dtype: DType,
    /// Where the methods' own parameters live: with the student's.
    pub device: &'a Device,
}
