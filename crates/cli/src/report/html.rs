use super::{Run, facts, table};

/// The report as one self-contained page: no script, no font, no address to load from.
pub(super) fn page(runs: &[Run], curves: &str) -> String {
    let (header, rows) = table(runs);
    let head: String = header
        .iter()
        .map(|cell| format!("<th>{}</th>", escape(cell)))
        .collect();
    let body: String = rows
        .iter()
        .map(|cells| {
            let cells: String = cells
                .iter()
                .map(|cell| format!("<td>{}</td>", escape(cell)))
                .collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    let facts: String = facts(runs)
        .iter()
        .map(|fact| format!("<li>{}</li>\n", escape(fact)))
        .collect();
    let recipes: String = runs
        .iter()
        .map(|run| {
            format!(
                "<details><summary>{} <small>{}</small></summary><pre>{}</pre></details>\n",
                escape(&run.name),
                escape(&run.folder.display().to_string()),
                escape(run.recipe.trim_end())
            )
        })
        .collect();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Distillation report</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<h1>Distillation report</h1>
<div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody>
</table></div>
<figure>{curves}</figure>
<ul>
{facts}</ul>
<h2>Recipes</h2>
{recipes}</body>
</html>
"#
    )
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8884; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
figure { margin: 1.5rem 0; background: #fff; border-radius: .5rem; padding: .5rem; }
figure svg { width: 100%; height: auto; display: block; }
pre { overflow-x: auto; padding: .8rem; background: #8882; border-radius: .5rem; }
small { opacity: .7; }
";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
