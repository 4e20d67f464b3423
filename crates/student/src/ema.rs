//! The exponential moving average of a student's weights, which often generalises better than the weights themselves.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::{Network, StudentError};

/// `average = decay * average + (1 - decay) * weight` after each step, running statistics included. It starts at the
/// initial weights, and early steps use `(1 + n) / (10 + n)` where that is below `decay`, so that the start is soon
/// forgotten.
pub struct Ema {
    decay: f64,
    n_steps: u32,
    of: Vec<(String, Tensor)>,
}

const N_STEPS: &str = "ema_steps";

impl Ema {
    /// Of the network as it is now.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn new(network: &Network, decay: f64) -> Result<Self, StudentError> {
        Ok(Self {
            decay,
            n_steps: 0,
            of: network.state()?,
        })
    }

    /// After a step.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn update(&mut self, network: &Network) -> Result<(), StudentError> {
        self.n_steps += 1;
        let n = f64::from(self.n_steps);
        let decay = self.decay.min((1.0 + n) / (10.0 + n));
        for ((_, average), (_, now)) in self.of.iter_mut().zip(network.state()?) {
            *average = match now.dtype() {
                DType::F32 => (average.affine(decay, 0.0)? + now.affine(1.0 - decay, 0.0)?)?,
                _ => now, // a count of batches
            };
        }
        Ok(())
    }

    /// Runs `work` with the average in the network's place.
    ///
    /// # Errors
    /// What `work` or Candle report.
    pub fn lend<T>(
        &self,
        network: &Network,
        work: impl FnOnce() -> Result<T, StudentError>,
    ) -> Result<T, StudentError> {
        let own: HashMap<String, Tensor> = network.state()?.into_iter().collect();
        network.load(&self.of.iter().cloned().collect())?;
        let outcome = work();
        network.load(&own)?;
        outcome
    }

    pub(crate) fn to_tensors(&self) -> Result<Vec<(String, Tensor)>, StudentError> {
        let mut tensors = self.of.clone();
        tensors.push((N_STEPS.to_owned(), Tensor::new(self.n_steps, &Device::Cpu)?));
        Ok(tensors)
    }

    pub(crate) fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<(), StudentError> {
        let find = |name: &String| {
            let missing = || logitcask_layers::Error::Names {
                missing: vec![name.clone()],
                unexpected: vec![],
            };
            tensors.get(name).cloned().ok_or_else(missing)
        };
        self.n_steps = find(&N_STEPS.to_owned())?.to_scalar()?;
        for (name, average) in &mut self.of {
            *average = find(name)?.to_device(average.device())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageShape;

    /// The first weight w goes to w + 1 and w + 2. At a decay of 0.2 the first step still uses 2/11, so the average is
    /// w + 9/11, then 0.2 (w + 9/11) + 0.8 (w + 2) = w + 97/55.
    #[test]
    fn two_steps_by_hand() {
        let image = ImageShape {
            channels: 1,
            height: 8,
            width: 8,
        };
        let network = Network::build("resnet8", image, 2, 1, &Device::Cpu).unwrap();
        let (_, var) = network.params().parameters().remove(0);
        let first = || var.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        let start = first();
        let mut ema = Ema::new(&network, 0.2).unwrap();
        for _ in 0..2 {
            var.set(&(var.as_tensor() + 1.0).unwrap()).unwrap();
            ema.update(&network).unwrap();
        }
        let average = ema.lend(&network, || Ok(first())).unwrap();
        assert!((average - start - 97.0 / 55.0).abs() < 1e-5, "{average}");
        assert!(
            (first() - start - 2.0).abs() < 1e-5,
            "the weights came back"
        );
    }
}
