use super::{Run, facts, table};

/// The report as Markdown.
pub(super) fn page(runs: &[Run]) -> String {
    let (header, rows) = table(runs);
    let mut lines = vec!["# Distillation report".to_owned(), String::new()];
    lines.push(row(&header
        .iter()
        .map(|h| h.to_string())
        .collect::<Vec<_>>()));
    lines.push(format!("|---|---|{}", "---:|".repeat(header.len() - 2)));
    lines.extend(rows.iter().map(|cells| row(cells)));
    lines.push(String::new());
    lines.push("![accuracy by epoch](curves.svg)".to_owned());
    lines.push(String::new());
    lines.extend(facts(runs).into_iter().map(|fact| format!("- {fact}")));
    for run in runs {
        lines.push(format!(
            "\n## {}\n\nin `{}`\n",
            run.name,
            run.folder.display()
        ));
        lines.push(format!("```toml\n{}\n```", run.recipe.trim_end()));
    }
    lines.join("\n") + "\n"
}

fn row(cells: &[String]) -> String {
    let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |", escaped.join(" | "))
}
