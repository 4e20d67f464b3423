//! Everything that a step changes, to and from a checkpoint.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use logitcask_losses::Objective;

use crate::checkpoint::{EMA, LOSS, OPTIMIZER, Position, STUDENT};
use crate::ema::Ema;
use crate::{Checkpoint, EpochRecord, Job, Network, Optimizer, StudentError};

/// A run on its way.
pub(crate) struct TrainState<'a> {
    pub(crate) network: &'a Network,
    pub(crate) objective: &'a Objective,
    /// The student's and the losses' own.
    pub(crate) parameters: Vec<(String, Var)>,
    pub(crate) optimizer: Optimizer,
    pub(crate) ema: Option<Ema>,
    pub(crate) position: Position,
    /// The epochs that are done.
    pub(crate) history: Vec<EpochRecord>,
}

impl<'a> TrainState<'a> {
    /// At the start, or where the run's checkpoint stands.
    pub(crate) fn open(
        job: &Job,
        network: &'a Network,
        objective: &'a Objective,
    ) -> Result<Self, StudentError> {
        let mut parameters = network.params().parameters();
        parameters.extend(objective.parameters());
        let ema = job.spec.ema.map(|decay| Ema::new(network, decay));
        let mut state = Self {
            network,
            objective,
            optimizer: Optimizer::new(parameters.clone(), &job.spec.optimizer),
            parameters,
            ema: ema.transpose()?,
            position: Position::start(&job.run_digest, network.shape()),
            history: EpochRecord::read_all(job.run)?,
        };
        state.resume(job)?;
        // An epoch whose line was written, but whose checkpoint was not, is trained again.
        state.history.truncate(state.position.epochs_done);
        if state.history.len() < state.position.epochs_done {
            return Err(StudentError::Checkpoint {
                path: job.run.join(Checkpoint::LAST),
                problem: format!(
                    "stands after epoch {}, but `{}` ends with epoch {}",
                    state.position.epochs_done,
                    EpochRecord::FILE,
                    state.history.len()
                ),
            });
        }
        Ok(state)
    }

    fn resume(&mut self, job: &Job) -> Result<(), StudentError> {
        let path = job.run.join(Checkpoint::LAST);
        let Some(checkpoint) = Checkpoint::read(&path)? else {
            return Ok(());
        };
        if checkpoint.position.run_digest != job.run_digest {
            return Err(StudentError::Checkpoint {
                path,
                problem: "belongs to another recipe, dataset or cache".into(),
            });
        }
        self.network.load(&checkpoint.part(STUDENT))?;
        let of_losses = checkpoint.part(LOSS);
        for (name, var) in self.objective.parameters() {
            let lacks = || StudentError::Checkpoint {
                path: path.clone(),
                problem: format!("lacks the loss parameter `{name}`"),
            };
            let saved = of_losses.get(&name).ok_or_else(lacks)?;
            var.set(&saved.to_device(var.device())?)?;
        }
        self.optimizer.load(&checkpoint.part(OPTIMIZER))?;
        if let Some(ema) = &mut self.ema {
            ema.load(&checkpoint.part(EMA))?;
        }
        self.position = checkpoint.position;
        Ok(())
    }

    /// One step down a gradient.
    pub(crate) fn step(&mut self, gradient: &GradStore, lr: f64) -> Result<(), StudentError> {
        self.optimizer.step(gradient, lr)?;
        match &mut self.ema {
            Some(ema) => ema.update(self.network),
            None => Ok(()),
        }
    }

    pub(crate) fn snapshot(&self) -> Result<Checkpoint, StudentError> {
        let mut tensors = HashMap::new();
        let mut add = |prefix: &str, part: Vec<(String, Tensor)>| {
            let named = part
                .into_iter()
                .map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
            tensors.extend(named);
        };
        add(STUDENT, self.network.state()?);
        let of_losses = self.objective.parameters().into_iter();
        add(
            LOSS,
            of_losses
                .map(|(name, var)| (name, var.as_tensor().clone()))
                .collect(),
        );
        add(OPTIMIZER, self.optimizer.to_tensors()?);
        if let Some(ema) = &self.ema {
            add(EMA, ema.to_tensors()?);
        }
        Ok(Checkpoint {
            position: self.position.clone(),
            tensors,
        })
    }

    pub(crate) fn save(&self, job: &Job) -> Result<(), StudentError> {
        let checkpoint = self.snapshot()?;
        job.still_ours()?;
        checkpoint.write(&job.run.join(Checkpoint::LAST))
    }
}
