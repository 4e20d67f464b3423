//! `student`: stage two, told line by line; the work is `logitcask_experiment::train`.

mod dump;
mod show;

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use crate::args::Student;
use crate::watch::Terminal;
use dump::Dump;
use logitcask_experiment::{Event, Outcome, Training, read_checked, train};
use show::{Show, print};

pub(crate) fn run(args: &Student, stop: &AtomicBool) -> Outcome {
    let recipe = read_checked(&args.recipe.recipe, &args.recipe.overrides)?;
    let how = Training {
        recipe: &args.recipe.recipe,
        cache_dir: &args.recipe.cache_dir,
        out: args.out.as_deref(),
        fresh: args.fresh,
        verify_data: args.verify_data,
        expect: args.expect.as_deref(),
        options: args.io.options(),
        device: &args.device,
        tf32: args.tf32,
        threads: args.threads,
        stop,
    };
    let dump = match &args.dump_batches {
        Some(folder) => Some(Dump::new(folder, args.dump_steps)?),
        None => None,
    };
    let terminal = Terminal::default();
    let at_work: RefCell<Option<Show>> = RefCell::default();
    let run = train(recipe, &how, &|event| match event {
        Event::Training {
            network,
            epochs,
            event,
        } => {
            if let Some(dump) = &dump {
                dump.event(network, &event);
            }
            let mut at_work = at_work.borrow_mut();
            at_work
                .get_or_insert_with(|| Show::new(network, epochs))
                .event(event);
        }
        Event::Ended => {
            if let Some(show) = at_work.take() {
                show.bar.finish();
            }
            terminal.event(&event);
        }
        event => terminal.event(&event),
    })?;
    if let Some(dump) = dump {
        dump.finish()?;
    }
    print(&run, args.recipe.json)
}
