//! What a person sees of a training run.

use std::cell::Cell;
use std::time::Instant;

use logitcask_experiment::{Failure, Outcome, Run};
use logitcask_student::{EpochRecord, Event, Network, Term, Times};

use crate::progress::{Progress, duration, say};

/// Turns events into a bar, and a line per epoch.
pub(super) struct Show {
    pub(super) bar: Progress,
    epochs: usize,
    steps_per_epoch: Cell<usize>,
    n_images: Cell<usize>,
    started: Instant,
}

/// `data 2 %, forward 38 %, loss 1 %, backward 55 %, step 4 %`
fn shares(times: &Times) -> String {
    let parts = [
        ("data", times.data_seconds),
        ("forward", times.forward_seconds),
        ("loss", times.loss_seconds),
        ("backward", times.backward_seconds),
        ("step", times.step_seconds),
    ];
    let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    let share = |(name, seconds): &(&str, f64)| format!("{name} {:.0} %", 100.0 * seconds / total);
    parts.iter().map(share).collect::<Vec<_>>().join(", ")
}

impl Show {
    pub(super) fn new(network: &Network, epochs: usize) -> Self {
        let what = format!("{} ({} parameters)", network.name(), network.n_parameters());
        Self {
            bar: Progress::tall(what, 0, "steps"),
            epochs,
            steps_per_epoch: Cell::default(),
            n_images: Cell::default(),
            started: Instant::now(),
        }
    }

    pub(super) fn event(&self, event: Event) {
        match event {
            Event::Started {
                n_train,
                steps_per_epoch,
                epochs_done,
                steps_done,
            } => {
                self.steps_per_epoch.set(steps_per_epoch);
                let done = epochs_done * steps_per_epoch + steps_done;
                self.bar.set_total((self.epochs * steps_per_epoch) as u64);
                self.bar.resume_at(done as u64);
                let again = match (epochs_done, steps_done) {
                    (0, 0) => String::new(),
                    (_, 0) => format!(", continuing after epoch {epochs_done}"),
                    _ => format!(
                        ", continuing after step {steps_done} of epoch {}",
                        epochs_done + 1
                    ),
                };
                self.bar.line(format!(
                    "training on {n_train} samples, {steps_per_epoch} steps per epoch{again}"
                ));
            }
            Event::Unreached(names) => self.bar.line(match names {
                [name] => format!("note: no gradient reaches `{name}`: it stays as it starts"),
                [first, others @ ..] => format!(
                    "note: no gradient reaches `{first}` and {} more parameters: they stay as they start",
                    others.len()
                ),
                [] => return,
            }),
            Event::Batch { .. } => {}
            Event::Step {
                epoch,
                step,
                loss,
                terms,
                top1,
                batch_size,
                times,
            } => {
                let position = (epoch - 1) * self.steps_per_epoch.get() + step;
                self.n_images.set(self.n_images.get() + batch_size);
                self.bar.set_with(position as u64, || {
                    self.step_line(epoch, loss, terms, top1, times)
                });
            }
            Event::Epoch(record) => self.bar.line(self.epoch_line(record)),
        }
    }

    /// Loss and terms, accuracy, images per second, and where the time of a step goes.
    fn step_line(
        &self,
        epoch: usize,
        loss: f64,
        terms: &[Term],
        top1: f64,
        times: &Times,
    ) -> String {
        let mut line = format!("epoch {epoch}/{}  loss {loss:.3}", self.epochs);
        if terms.len() > 1 {
            let terms = terms
                .iter()
                .map(|term| format!("{} {:.3}", term.name, term.value));
            line += &format!(" ({})", terms.collect::<Vec<_>>().join(", "));
        }
        let rate = self.n_images.get() as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let top1 = 100.0 * top1;
        format!(
            "{line}  train {top1:.1} %  {rate:.0} img/s\n{}",
            shares(times)
        )
    }

    fn epoch_line(&self, record: &EpochRecord) -> String {
        let terms: Vec<String> = record
            .terms
            .iter()
            .map(|term| format!("{} {:.3}", term.name, term.value))
            .collect();
        let eval = record.eval.map_or(String::new(), |eval| {
            format!("  eval {:.2} %", 100.0 * eval.top1)
        });
        format!(
            "epoch {:>3}/{}  loss {:.3} ({})  train {:.2} %{eval}",
            record.epoch,
            self.epochs,
            record.loss,
            terms.join(", "),
            100.0 * record.train_top1
        )
    }
}

/// The record of a finished run, for a person or as a line of JSON; the run's folder goes to stdout.
pub(super) fn print(run: &Run, json: bool) -> Outcome {
    let Run { folder, record } = run;
    if json {
        let mut line = serde_json::to_value(record).map_err(Failure::work)?;
        line["run"] = folder.display().to_string().into();
        println!("{line}");
        return Ok(());
    }
    if let Some(notes) = record.recorded.get("notes") {
        say(format!("note: {notes}"));
    }
    if let Some(eval) = record.last.eval {
        let best = record.best.eval.unwrap_or(eval);
        say(format!(
            "top-1 {:.2} % after the last epoch, {:.2} % at best (epoch {}); trained for {} ({})",
            100.0 * eval.top1,
            100.0 * best.top1,
            record.best.epoch,
            duration(record.times.train_seconds),
            shares(&record.times)
        ));
    }
    println!("{}", folder.display());
    Ok(())
}
