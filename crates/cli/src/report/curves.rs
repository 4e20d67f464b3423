use logitcask_student::Metrics;
use plotters::prelude::*;

use super::Run;
use crate::exit::{Failure, Outcome};

/// Evaluation accuracy and negative log-likelihood by epoch, a line per run, as SVG.
pub(super) fn svg(runs: &[Run]) -> Outcome<String> {
    let mut text = String::new();
    draw(runs, &mut text)
        .map_err(|error| Failure::work(format!("cannot draw the curves: {error}")))?;
    // A viewBox lets the picture shrink with the page.
    Ok(text.replacen(
        &format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1),
        &format!("width=\"{0}\" height=\"{1}\" role=\"img\"", SIZE.0, SIZE.1),
        1,
    ))
}

const SIZE: (u32, u32) = (1000, 420);

/// Okabe and Ito's palette, which colour-blind readers can tell apart.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

fn draw(runs: &[Run], text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = area.split_evenly((1, 2));
    panel(&panels[0], runs, "top-1 accuracy, %", |eval| {
        100.0 * eval.top1
    })?;
    panel(&panels[1], runs, "negative log-likelihood, nats", |eval| {
        eval.nll
    })?;
    area.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    runs: &[Run],
    title: &str,
    value: impl Fn(&Metrics) -> f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<Vec<(f64, f64)>> = runs
        .iter()
        .map(|run| {
            let point = |record: &logitcask_student::EpochRecord| {
                record
                    .eval
                    .as_ref()
                    .map(|eval| (record.epoch as f64, value(eval)))
            };
            run.epochs.iter().filter_map(point).collect()
        })
        .collect();
    let ys = lines
        .iter()
        .flatten()
        .map(|&(_, y)| y)
        .filter(|y| y.is_finite());
    let (low, high) = ys.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| {
        (low.min(y), high.max(y))
    });
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = ((high - low) * 0.05).max(1e-3);
    let last = lines.iter().flatten().map(|&(x, _)| x).fold(2.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(1.0..last, (low - margin)..(high + margin))?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, (run, line)) in runs.iter().zip(&lines).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(
                line.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(run.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
