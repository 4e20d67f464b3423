//! The leaderboard, as text.

use crate::progress::duration;
use logitcask_experiment::{Board, Cost, Interval, Row, Summary};

/// The table as text: a header and a row per configuration. The first column is text, the others are numbers.
pub(crate) fn table(board: &Board) -> (Vec<String>, Vec<Vec<String>>) {
    let header = [
        "configuration",
        "seeds",
        "top-1 last",
        "top-1 best (epoch)",
        &format!("against {}, points", board.reference),
        "NLL",
        "ECE",
        "agrees with teacher",
        "training",
    ];
    let paired = board.rows.iter().any(|row| row.difference.is_some());
    let agrees = board.rows.iter().any(|row| row.agreement.is_some());
    let kept = |column: &usize| (*column != 4 || paired) && (*column != 7 || agrees);
    let columns: Vec<usize> = (0..header.len()).filter(kept).collect();
    let rows = board.rows.iter().map(|row| {
        let cells = cells(row);
        columns
            .iter()
            .map(|&column| cells[column].clone())
            .collect()
    });
    (
        columns
            .iter()
            .map(|&column| header[column].to_owned())
            .collect(),
        rows.collect(),
    )
}

/// What the columns mean, for below the table.
pub(crate) fn legend(board: &Board) -> Vec<String> {
    let several = board.rows.iter().any(|row| row.seeds.len() > 1);
    let mut lines = Vec::new();
    if several {
        lines.push("± is the standard deviation over seeds.".to_owned());
    }
    if board.rows.iter().any(|row| row.difference.is_some()) {
        lines.push(format!(
            "Differences are top-1 after the last epoch minus that of `{}` with the same seed, in points, with the \
             95 % confidence interval of their mean (Student's t); one seed alone has none.",
            board.reference
        ));
    }
    lines.push(
        "`best` is chosen and judged by the same images, so it flatters; `last` is the figure to compare.".to_owned(),
    );
    lines
}

fn cells(row: &Row) -> Vec<String> {
    let first = row.best_epochs.iter().min().copied().unwrap_or_default();
    let epochs = match row.best_epochs.iter().max() {
        Some(&last) if last > first => format!("{first} to {last}"),
        _ => first.to_string(),
    };
    vec![
        row.configuration.clone(),
        row.seeds.len().to_string(),
        percent(row.last),
        format!("{} ({epochs})", percent(row.best)),
        row.difference.map_or("-".to_owned(), points),
        plain(row.nll),
        percent(row.ece),
        percent(row.agreement),
        row.train_seconds
            .map_or("-".to_owned(), |seconds| duration(seconds.mean)),
    ]
}

/// One sentence; `None` where no teacher was asked.
pub(crate) fn cost(cost: &Cost, n_runs: usize) -> Option<String> {
    (cost.teacher_seconds > 0.0).then(|| {
        format!(
            "The teacher ran once, for {}; reading its cache instead of asking again saved {} over {n_runs} runs, \
             which trained for {}.",
            duration(cost.teacher_seconds),
            duration(cost.teacher_seconds_saved),
            duration(cost.student_seconds)
        )
    })
}

/// `93.12 ± 0.40 %`
fn percent(summary: Option<Summary>) -> String {
    match summary {
        None => "-".to_owned(),
        Some(Summary { mean, sd: None, .. }) => format!("{:.2} %", 100.0 * mean),
        Some(Summary {
            mean, sd: Some(sd), ..
        }) => format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * sd),
    }
}

fn plain(summary: Option<Summary>) -> String {
    match summary {
        None => "-".to_owned(),
        Some(Summary { mean, sd: None, .. }) => format!("{mean:.3}"),
        Some(Summary {
            mean, sd: Some(sd), ..
        }) => format!("{mean:.3} ± {sd:.3}"),
    }
}

/// A difference in percentage points, and its interval: `+1.20 [+0.31, +2.09]`.
fn points(interval: Interval) -> String {
    let mean = 100.0 * interval.mean;
    match interval.low.zip(interval.high) {
        None => format!("{mean:+.2}"),
        Some((low, high)) => format!("{mean:+.2} [{:+.2}, {:+.2}]", 100.0 * low, 100.0 * high),
    }
}
