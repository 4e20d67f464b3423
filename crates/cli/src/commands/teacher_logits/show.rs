//! A capture at work, for a person and for a program.

use std::cell::Cell;
use std::time::Instant;

use logitcask_experiment::CacheWant;
use logitcask_teacher::Event;
use serde_json::{Value, json};

use super::json_lines::print_event;
use crate::progress::{Progress, bytes};

/// Turns events into a bar, and into lines of JSON where these are wanted.
pub(super) struct Show {
    pub(super) bar: Progress,
    what: String,
    as_json: bool,
    last_progress: Cell<Option<Instant>>,
}

impl Show {
    pub(super) fn new(want: &CacheWant<'_>, as_json: bool) -> Self {
        Self {
            bar: Progress::new(want.split.what(), 0, "img"),
            what: want.split.what(),
            as_json,
            last_progress: Cell::new(None),
        }
    }

    pub(super) fn event(&self, event: Event) {
        match event {
            Event::Started(plan) => {
                self.bar.line(format!(
                    "{}: {} images, {} at once; at most {} of pixels and rows in work",
                    self.what,
                    plan.images,
                    plan.batch_size,
                    bytes(plan.buffer_bytes)
                ));
                self.bar.set_total(plan.images);
                self.json(
                    "started",
                    json!({
                        "images": plan.images,
                        "batch_size": plan.batch_size,
                        "sessions": plan.sessions,
                        "decoders": plan.decoders,
                        "buffer_bytes": plan.buffer_bytes,
                    }),
                );
            }
            Event::Progress(progress) => {
                let shares = progress.shares;
                let waiting = format!(
                    "model {:.0} %, waiting for pixels {:.0} %, for the disk {:.0} %",
                    100.0 * shares.model,
                    100.0 * shares.decode,
                    100.0 * shares.disk
                );
                self.bar.set(progress.done, waiting);
                if self.is_due() || progress.done == progress.total {
                    self.json(
                        "progress",
                        json!({
                            "done": progress.done,
                            "total": progress.total,
                            "images_per_s": progress.images_per_s,
                            "eta_s": progress.eta_s(),
                            "model": shares.model,
                            "decode": shares.decode,
                            "disk": shares.disk,
                        }),
                    );
                }
            }
            Event::ViewFinished { view } => self.json("view", json!({ "view": view })),
            Event::BadSample { sample, error } => {
                self.bar.line(format!(
                    "sample {sample} cannot be read and gets no row: {error}"
                ));
                self.json(
                    "bad_sample",
                    json!({ "sample": sample, "error": error.to_string() }),
                );
            }
            Event::Halved { from, to } => {
                self.bar.line(format!(
                    "out of memory with {from} images at once; going on with {to}"
                ));
                self.json("halved", json!({ "from": from, "to": to }));
            }
            _ => {}
        }
    }

    /// Once a second is enough for a log that is kept.
    fn is_due(&self) -> bool {
        let due = self
            .last_progress
            .get()
            .is_none_or(|last| last.elapsed().as_secs_f64() >= 1.0);
        if due {
            self.last_progress.set(Some(Instant::now()));
        }
        due
    }

    pub(super) fn json(&self, event: &str, mut fields: Value) {
        if self.as_json {
            fields["split"] = self.what.clone().into();
            print_event(event, fields);
        }
    }
}
