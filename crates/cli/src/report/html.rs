//! The report as one self-contained page.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::charts::{Chart, css_colour};
use super::escape::escape;
use super::looks::{Case, Look};
use super::page::Page;
use crate::leaderboard;
use logitcask_experiment::Outcome;

/// The report as one self-contained page: no script, no font, no address to load from.
pub(super) fn page(page: &Page) -> Outcome<String> {
    let (header, rows) = leaderboard::table(&page.board);
    let board = table(&header, &rows);
    let legend = items(&leaderboard::legend(&page.board));
    let curves = figures(&page.curves(), false)?;
    let losses = figures(&page.losses(), true)?;
    let calibration = match page.reliability() {
        Some(chart) => figures(&[chart], false)?,
        None => String::new(),
    };
    let looks: String = page
        .names
        .iter()
        .zip(&page.looks)
        .enumerate()
        .map(|(index, (name, look))| section_of(index, name, look))
        .collect();
    let (header, rows) = page.every_run();
    let every_run = table(&header, &rows);
    let recipes: String = page
        .names
        .iter()
        .filter_map(|name| {
            let run = page.runs_of(name).next()?;
            Some(format!(
                "<details><summary>{} <small>seed {}</small></summary><pre>{}</pre></details>\n",
                escape(name),
                run.seed,
                escape(run.recipe.trim_end())
            ))
        })
        .collect();
    let keys = keys(page.names.iter().map(String::as_str));
    let (cost, facts) = (items(&page.cost()), items(&page.facts()));
    Ok(format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Distillation report</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<h1>Distillation report</h1>
<h2>Leaderboard</h2>
{board}
{legend}
<h2>Learning curves</h2>
<p>On the evaluation images; mean over seeds, and one standard deviation around it.</p>
{keys}
{curves}
<h2>Parts of the loss</h2>
<p>Each part as it is, unweighted, averaged over the steps of an epoch.</p>
{losses}
<h2>Calibration</h2>
<p>An honest student is right as often as it is confident: on the diagonal. NLL and ECE stand in the leaderboard and,
by epoch, in the curves above. One student of each configuration, the first seed.</p>
{keys}
{calibration}
<h2>Student against teacher</h2>
<p>One student of each configuration, the first seed, after its last epoch.</p>
{looks}
<h2>Cost</h2>
{cost}
<h2>Where the numbers come from</h2>
{facts}
<details><summary>Every run</summary>{every_run}</details>
<h3>Recipes</h3>
{recipes}</body>
</html>
"#
    ))
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; --line: #8884; --card: #8881; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; }
h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .35rem .5rem; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border-radius: .5rem; padding: .5rem; max-width: 34rem; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; padding: 0 .5rem .3rem; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .6rem 0; list-style: none; font-size: .9rem; }
.keys i { display: inline-block; width: 1.3rem; height: .22rem; border-radius: .1rem; margin-right: .45rem; vertical-align: middle; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; margin: .8rem 0; }
.cases div { font-size: .82rem; line-height: 1.35; overflow-wrap: anywhere; }
.cases img { display: block; width: 100%; max-width: 6rem; image-rendering: pixelated; border-radius: .3rem; margin-bottom: .3rem; }
ul { padding-left: 1.2rem; overflow-wrap: anywhere; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; padding: .8rem; background: var(--card); border-radius: .5rem; font-size: .85rem; }
small { opacity: .7; }
";

fn table(header: &[impl AsRef<str>], rows: &[Vec<String>]) -> String {
    let head: String = header
        .iter()
        .map(|cell| format!("<th>{}</th>", escape(cell.as_ref())))
        .collect();
    let body: String = rows
        .iter()
        .map(|cells| {
            let cells: String = cells
                .iter()
                .map(|cell| format!("<td>{}</td>", unbroken(&escape(cell))))
                .collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>"
    )
}

/// Numbers stay with their units; a line may break before a bracket.
fn unbroken(cell: &str) -> String {
    cell.replace(' ', "\u{a0}")
        .replace("\u{a0}(", " (")
        .replace("\u{a0}[", " [")
}

/// What stands between backticks becomes code.
fn with_code(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in text.split('`').enumerate() {
        match index % 2 {
            0 => html += part,
            _ => html += &format!("<code>{part}</code>"),
        }
    }
    html
}

fn items(lines: &[String]) -> String {
    let items: String = lines
        .iter()
        .map(|line| format!("<li>{}</li>\n", with_code(&escape(line))))
        .collect();
    format!("<ul>\n{items}</ul>")
}

/// Charts in a grid; with a legend of their own where they share none.
fn figures(charts: &[Chart], own_legend: bool) -> Outcome<String> {
    let mut text = String::from("<div class=\"charts\">\n");
    for chart in charts {
        let names = chart.series.iter().map(|series| series.name.as_str());
        let legend = match own_legend {
            true => format!("<figcaption>{}</figcaption>", keys(names)),
            false => String::new(),
        };
        text += &format!("<figure>{}{legend}</figure>\n", chart.inline()?);
    }
    Ok(text + "</div>")
}

fn keys<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let keys = names.enumerate().map(|(index, name)| {
        format!(
            "<li><i style=\"background:{}\"></i>{}</li>",
            css_colour(index),
            escape(name)
        )
    });
    format!("<ul class=\"keys\">{}</ul>", keys.collect::<String>())
}

fn section_of(index: usize, name: &str, look: &Result<Look, String>) -> String {
    let look = match look {
        Ok(look) => look,
        Err(reason) => {
            return format!(
                "<h3>{}</h3>\n<p>It could not be looked at again: {}.</p>\n",
                escape(name),
                escape(reason)
            );
        }
    };
    let cases: String = look.cases.iter().map(case).collect();
    let cases = match look.cases.is_empty() {
        true => String::new(),
        // The first gallery is open, so that a reader sees what they hold.
        false => format!(
            "<details{}><summary>The {} most confident disagreements</summary><div class=\"cases\">{cases}</div></details>\n",
            if index == 0 { " open" } else { "" },
            look.cases.len()
        ),
    };
    format!(
        "<h3>{}</h3>\n<p>{}</p>\n{cases}",
        escape(name),
        escape(&compared(look))
    )
}

/// Who is right, as a sentence.
pub(super) fn compared(look: &Look) -> String {
    let which = if look.is_part { "the first " } else { "" };
    match look.right {
        None => format!(
            "The teacher's rows for {which}{} images are not in the cache folder.",
            look.n_images
        ),
        Some([both, teacher, student, neither]) => format!(
            "Of {which}{} images both are right on {both}, only the teacher on {teacher}, only the student on {student}, \
             neither on {neither}; they name different classes for {}.",
            look.n_images, look.n_disagree
        ),
    }
}

fn case(case: &Case) -> String {
    format!(
        "<div><img alt=\"sample {0}\" src=\"data:image/png;base64,{1}\"><b>{2}</b> <small>sample {0}</small><br>\
         teacher: {3}<br>student: {4} <small>{5:.0} %</small></div>",
        case.sample,
        BASE64_STANDARD.encode(&case.png),
        escape(&case.label),
        escape(&case.teacher),
        escape(&case.student),
        100.0 * case.confidence
    )
}
