//! `stats.svg` of `cache stats --out`: a reliability plot and two histograms.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use logitcask_cache::{N_BINS, Stats};
use logitcask_experiment::{Failure, Outcome};
use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (1200, 400);
const BAR: RGBColor = RGBColor(0, 114, 178);
const LINE: RGBColor = RGBColor(213, 94, 0);

/// A reliability plot, and histograms of entropy and margin, as SVG.
pub(super) fn write(stats: &Stats, n_classes: usize, path: &Path) -> Outcome {
    let mut text = String::new();
    draw(stats, n_classes, &mut text)
        .map_err(|error| Failure::work(format!("cannot draw the statistics: {error}")))?;
    logitcask_durable::write_atomic(path, |file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))
}

fn draw(stats: &Stats, n_classes: usize, text: &mut String) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = area.split_evenly((1, 3));
    reliability(&panels[0], stats)?;
    let most = (n_classes as f64).ln();
    histogram(&panels[1], "entropy", "nats", most, &stats.entropy)?;
    histogram(
        &panels[2],
        "margin",
        "largest less second probability",
        1.0,
        &stats.margin,
    )?;
    area.present()?;
    Ok(())
}

/// Bars: how often rows of a confidence are right. The line: how often they would be if confidence were truth.
fn reliability(area: &DrawingArea<SVGBackend, Shift>, stats: &Stats) -> Result<(), Box<dyn Error>> {
    let title = format!("accuracy by confidence (ECE {:.3})", stats.ece);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("confidence")
        .light_line_style(TRANSPARENT)
        .draw()?;
    let bars = stats.reliability.iter().enumerate();
    chart.draw_series(bars.filter(|(_, bin)| bin.n_rows > 0).map(|(index, bin)| {
        let (left, right) = edges(index, 1.0);
        Rectangle::new([(left, 0.0), (right, bin.accuracy)], BAR.mix(0.6).filled())
    }))?;
    let diagonal = [(0.0, 0.0), (1.0, 1.0)];
    chart.draw_series(LineSeries::new(diagonal, LINE.stroke_width(2)))?;
    Ok(())
}

fn histogram(
    area: &DrawingArea<SVGBackend, Shift>,
    title: &str,
    unit: &str,
    most: f64,
    bins: &[u64],
) -> Result<(), Box<dyn Error>> {
    let n_rows: u64 = bins.iter().sum();
    let share = |n: u64| n as f64 / n_rows.max(1) as f64;
    let highest = bins.iter().map(|n| share(*n)).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{title}, share of rows"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..most, 0.0..highest * 1.05)?;
    chart
        .configure_mesh()
        .x_desc(unit)
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(bins.iter().enumerate().map(|(index, n)| {
        let (left, right) = edges(index, most);
        Rectangle::new([(left, 0.0), (right, share(*n))], BAR.mix(0.6).filled())
    }))?;
    Ok(())
}

fn edges(bin: usize, most: f64) -> (f64, f64) {
    let width = most / N_BINS as f64;
    (bin as f64 * width, (bin + 1) as f64 * width)
}
