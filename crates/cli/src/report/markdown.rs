//! The report as Markdown.

use super::page::Page;
use crate::leaderboard;

/// The report as Markdown.
pub(super) fn page(page: &Page) -> String {
    let mut lines = vec!["# Distillation report".to_owned(), String::new()];
    let (header, rows) = leaderboard::table(&page.board);
    lines.extend(table(&header, &rows));
    lines.push(String::new());
    let facts = leaderboard::legend(&page.board)
        .into_iter()
        .chain(page.cost())
        .chain(page.facts());
    lines.extend(facts.map(|fact| format!("- {fact}")));
    lines.push(
        "\n![figures by epoch, mean and one standard deviation over seeds](curves.svg)".to_owned(),
    );
    lines.push("\n## Student against teacher\n".to_owned());
    for (name, look) in page.names.iter().zip(&page.looks) {
        lines.push(match look {
            Ok(look) => format!("- {name}: {}", super::html::compared(look)),
            Err(reason) => format!("- {name}: could not be looked at again: {reason}"),
        });
    }
    lines.push("\n## Every run\n".to_owned());
    let (header, rows) = page.every_run();
    lines.extend(table(&header, &rows));
    for name in &page.names {
        if let Some(run) = page.runs_of(name).next() {
            lines.push(format!(
                "\n## {name}\n\nseed {}\n\n```toml\n{}\n```",
                run.seed,
                run.recipe.trim_end()
            ));
        }
    }
    lines.join("\n") + "\n"
}

fn table(header: &[impl AsRef<str>], rows: &[Vec<String>]) -> Vec<String> {
    let header: Vec<String> = header.iter().map(|cell| cell.as_ref().to_owned()).collect();
    let mut lines = vec![
        row(&header),
        format!("|---|{}", "---:|".repeat(header.len() - 1)),
    ];
    lines.extend(rows.iter().map(|cells| row(cells)));
    lines
}

fn row(cells: &[String]) -> String {
    let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |", escaped.join(" | "))
}
