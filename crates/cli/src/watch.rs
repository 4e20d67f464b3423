//! What happens in an experiment, on a terminal.

use std::cell::RefCell;

use crate::progress::{Progress, say};
use logitcask_experiment::Event;

/// Shows sentences as lines and long work as a bar. What commands show in their own way they take out before.
#[derive(Default)]
pub(crate) struct Terminal {
    /// The bar of the work that goes on.
    at_work: RefCell<Option<Progress>>,
}

impl Terminal {
    pub(crate) fn event(&self, event: &Event<'_>) {
        match event {
            Event::Info(text) => say(text),
            Event::Note(text) => say(format!("note: {text}")),
            Event::Warning { what, hint } => say(format!("warning: {what}\n  hint: {hint}")),
            Event::Progress {
                what,
                unit,
                done,
                total,
            } => {
                let mut at_work = self.at_work.borrow_mut();
                let bar = at_work.get_or_insert_with(|| Progress::new(*what, *total, unit));
                bar.set_total(*total);
                bar.set(*done, "");
            }
            Event::Ended => {
                if let Some(bar) = self.at_work.take() {
                    bar.finish();
                }
            }
            _ => {}
        }
    }
}

/// Shows one event as [`Terminal`] does, for work that tells of no more than sentences and bars.
pub(crate) fn shown() -> impl Fn(Event<'_>) {
    let terminal = Terminal::default();
    move |event| terminal.event(&event)
}
