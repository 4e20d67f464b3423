//! `--dump-batches`: a run's first steps, in files that another framework can repeat.
//!
//! `initial.safetensors` holds the weights before the first of them under PyTorch's names, `batch-00001.safetensors`
//! what that step saw, and `steps.jsonl` a line per step: its learning rate, its loss, and the loss's weighted terms.
//! `benches/peers/trajectory.py` reads them.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};

use logitcask_experiment::{Failure, Outcome};
use logitcask_student::{Event, Network, to_safetensors};
use serde_json::{Value, json};

pub(super) struct Dump {
    folder: PathBuf,
    n_steps: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    lines: Vec<Value>,
    /// Training goes on without the files; the command then ends with this.
    failure: Option<Failure>,
}

impl Dump {
    pub(super) fn new(folder: &Path, n_steps: usize) -> Outcome<Self> {
        logitcask_durable::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
        Ok(Self {
            folder: folder.to_owned(),
            n_steps,
            state: RefCell::default(),
        })
    }

    pub(super) fn event(&self, network: &Network, event: &Event<'_>) {
        let state = &mut *self.state.borrow_mut();
        if state.failure.is_none() {
            state.failure = self.note(network, event, &mut state.lines).err();
        }
    }

    fn note(&self, network: &Network, event: &Event<'_>, lines: &mut Vec<Value>) -> Outcome {
        match event {
            Event::Batch {
                epoch,
                step,
                lr,
                batch,
            } if lines.len() < self.n_steps => {
                if lines.is_empty() {
                    self.write("initial.safetensors", &to_safetensors(network)?)?;
                }
                lines.push(json!({ "epoch": epoch, "step": step, "lr": lr }));
                let name = format!("batch-{:05}.safetensors", lines.len());
                self.write(&name, &batch.to_safetensors()?)
            }
            Event::Step {
                epoch,
                step,
                loss,
                terms,
                ..
            } => {
                // Steps beyond the last one that is written have no line.
                let line = lines
                    .last_mut()
                    .filter(|line| line["epoch"] == *epoch && line["step"] == *step);
                if let Some(line) = line {
                    line["loss"] = json!(loss);
                    line["terms"] = json!(terms);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Outcome {
        let State { lines, failure } = self.state.take();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.write("steps.jsonl", text.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Outcome {
        let path = self.folder.join(name);
        logitcask_durable::write_atomic(&path, |w| w.write_all(bytes))
            .map_err(|error| cannot(&path, error))
    }
}

fn cannot(path: &Path, error: std::io::Error) -> Failure {
    Failure::work(format!("cannot write `{}`: {error}", path.display()))
}
