//! Networks of Candle's own layers as students: their variables come out of a [`Scope`], so that the loop trains, saves,
//! resumes, averages and exports them as it does those of the zoo.

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::init::{FanInOut, NormalOrUniform};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init as CandleInit, VarBuilder};
use logitcask_layers::{FeatureMap, Init, Mode, Result, Scope};

use crate::models::{Head, Student};

/// Running statistics are saved and never decayed, nor counted as parameters. These are candle-nn's names for them; any
/// other variable that no gradient reaches is left as it is too.
const STATISTICS: [&str; 2] = ["running_mean", "running_var"];

/// A builder whose variables are the scope's: f32, on its device, drawn from the recipe's seed in the order in which they are
/// asked for first; asked for again, under the same name and with the same shape, one is shared. Candle's own `VarMap` draws from the process's generator, so that no two runs would begin alike.
pub fn var_builder(scope: &Scope) -> VarBuilder<'static> {
    let device = scope.device().clone();
    let backend: Box<dyn SimpleBackend> = Box::new(Variables(scope.clone()));
    VarBuilder::from_backend(backend, DType::F32, device)
}

struct Variables(Scope);

impl SimpleBackend for Variables {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: CandleInit,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        if dtype != DType::F32 {
            candle_core::bail!("the variable `{name}` is wanted as {dtype:?}: students are f32");
        }
        if let Some(known) = self.known(name) {
            if known.shape() != &shape {
                candle_core::bail!(
                    "the variable `{name}` is wanted in shape {shape:?}, and was in {:?}",
                    known.shape()
                );
            }
            return Ok(known.into_inner());
        }
        let is_statistic = STATISTICS.contains(&name.rsplit('.').next().unwrap_or(name));
        let var = match init {
            CandleInit::Const(value) if is_statistic => self
                .0
                .buffer(name, &Tensor::full(value as f32, shape, device)?)?,
            _ => self
                .0
                .parameter(name, shape.dims(), 1, drawn(init, &shape))?,
        };
        Ok(var.into_inner())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("`{name}` has no shape: a new variable needs one")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.known(name).is_some()
    }
}

impl Variables {
    /// The variable of this name below the scope, if it was asked for before.
    fn known(&self, name: &str) -> Option<Var> {
        let full = self.0.enter(name);
        let params = self.0.params();
        let mut all = params.parameters().into_iter().chain(params.buffers());
        all.find(|(known, _)| known == full.name())
            .map(|(_, var)| var)
    }
}

/// Candle's initial values as ours, which a seed decides.
fn drawn(init: CandleInit, shape: &Shape) -> Init {
    match init {
        CandleInit::Const(value) => Init::Constant(value),
        CandleInit::Randn { mean, stdev } => Init::Normal { mean, std: stdev },
        CandleInit::Uniform { lo, up } => Init::Uniform { low: lo, high: up },
        CandleInit::Kaiming {
            dist,
            fan,
            non_linearity,
        } => {
            let fan: FanInOut = fan;
            let std = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
            match dist {
                NormalOrUniform::Normal => Init::Normal { mean: 0.0, std },
                NormalOrUniform::Uniform => {
                    let bound = 3f64.sqrt() * std;
                    Init::Uniform {
                        low: -bound,
                        high: bound,
                    }
                }
            }
        }
    }
}

/// A network of Candle's operations: what lies before its last layer, and that layer. Its variables are those of a
/// [`var_builder`].
///
/// ```
/// use candle_nn::{Module, ModuleT};
/// use logitcask_layers::Scope;
/// use logitcask_student::{CandleStudent, ImageShape, Student, StudentError, var_builder};
///
/// fn small(scope: &Scope, image: ImageShape, n_classes: usize) -> Result<Box<dyn Student>, StudentError> {
///     let vars = var_builder(scope);
///     let conv = candle_nn::conv2d(image.channels, 16, 3, Default::default(), vars.pp("conv"))?;
///     let norm = candle_nn::batch_norm(16, 1e-5, vars.pp("norm"))?;
///     let fc = candle_nn::linear(16, n_classes, vars.pp("fc"))?;
///     let features = move |pixels: &candle_core::Tensor, train: bool| {
///         norm.forward_t(&conv.forward(pixels)?, train)?.relu()?.mean((2, 3))
///     };
///     Ok(Box::new(CandleStudent::new(features, "fc", move |x: &_| fc.forward(x))))
/// }
/// # let image = ImageShape { channels: 3, height: 8, width: 8 };
/// # let row = logitcask_student::ModelRow::own("small", small);
/// # let network = logitcask_student::Network::of_row(&row, image, 10, 1, &candle_core::Device::Cpu)?;
/// # assert_eq!(network.n_parameters(), 3 * 16 * 9 + 16 + 2 * 16 + 16 * 10 + 10);
/// # Ok::<(), StudentError>(())
/// ```
pub struct CandleStudent<F, H> {
    features: F,
    head: &'static str,
    logits: H,
}

impl<F, H> CandleStudent<F, H>
where
    F: Fn(&Tensor, bool) -> candle_core::Result<Tensor> + Send + Sync,
    H: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync,
{
    /// `features` takes pixels (B, channels, height, width), normalised, and whether this is training, to (B, features);
    /// `logits` takes these to (B, classes), by parameters below the name `head`.
    pub fn new(features: F, head: &'static str, logits: H) -> Self {
        Self {
            features,
            head,
            logits,
        }
    }
}

impl<F, H> Student for CandleStudent<F, H>
where
    F: Fn(&Tensor, bool) -> candle_core::Result<Tensor> + Send + Sync,
    H: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync,
{
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let pixels = pixels.to_tensor()?.permute((0, 3, 1, 2))?.contiguous()?;
        of_mode((self.features)(&pixels, mode == Mode::Train)?, mode)
    }

    fn head(&self) -> &dyn Head {
        self
    }

    /// Candle keeps every map of a pass until its end: a guess, for dozens of layers whose maps are larger than the pixels.
    fn maps_at_once(&self) -> usize {
        256
    }
}

impl<F, H> Head for CandleStudent<F, H>
where
    F: Send + Sync,
    H: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync,
{
    fn name(&self) -> &str {
        self.head
    }

    fn logits(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        of_mode((self.logits)(features)?, mode)
    }
}

/// In evaluation the way back is let go, and with it the maps that it would need.
fn of_mode(made: Tensor, mode: Mode) -> Result<Tensor> {
    Ok(match mode {
        Mode::Train => made,
        Mode::Eval => made.detach(),
    })
}

#[cfg(test)]
mod tests {
    use logitcask_layers::Params;

    use super::*;

    /// As candle-nn's own maps do it: an embedding that is also the last layer's weight is one parameter.
    #[test]
    fn a_variable_that_is_asked_for_twice_is_one() {
        let params = Params::new(1, DType::F32, &Device::Cpu).unwrap();
        let vars = var_builder(&params.root().enter("net"));
        let once = vars.pp("tied").get((3, 2), "weight").unwrap();
        let again = vars.pp("tied").get((3, 2), "weight").unwrap();
        assert_eq!(once.id(), again.id());
        assert!(vars.pp("tied").contains_tensor("weight"));
        assert!(!vars.contains_tensor("weight"));
        let (name, _) = &params.parameters()[..][0];
        assert_eq!(
            (name.as_str(), params.parameters().len()),
            ("net.tied.weight", 1)
        );
        assert!(vars.pp("tied").get((2, 3), "weight").is_err());
    }
}
