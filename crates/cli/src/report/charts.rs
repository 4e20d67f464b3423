//! Charts: lines with a band around them, drawn as SVG.

use logitcask_experiment::{Failure, Outcome};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::escape::escape;

/// A line of a chart: (x, mean, standard deviation), the last 0 where there is one run.
pub(super) struct Series {
    pub(super) name: String,
    /// Its place among the report's configurations, or the parts of a loss: it decides the colour.
    pub(super) index: usize,
    pub(super) points: Vec<(f64, f64, f64)>,
}

/// What a chart shows.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x_title: &'a str,
    pub(super) series: Vec<Series>,
    /// Both axes from 0 to 1, with the diagonal: a reliability diagram.
    pub(super) unit_square: bool,
}

/// Small enough that a phone shows a chart at nearly its own size, so that its text stays legible.
pub(super) const SIZE: (u32, u32) = (460, 300);

impl Chart<'_> {
    /// For the page: no background, and text and axes in the page's own colour, light or dark.
    pub(super) fn inline(&self) -> Outcome<String> {
        let mut text = String::new();
        drawn(
            SVGBackend::with_string(&mut text, SIZE).into_drawing_area(),
            |area| self.draw(area),
        )?;
        let fixed = format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1);
        // Without a size of its own it fills its place.
        Ok(text
            .replacen(
                &fixed,
                &format!("role=\"img\" aria-label=\"{}\"", escape(self.title)),
                1,
            )
            .replace("\"#000000\"", "\"currentColor\""))
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, plotters::coord::Shift>) -> Drawn<B> {
        let (x, y) = self.ranges();
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 16))
            .margin(8)
            .margin_right(14)
            .x_label_area_size(38)
            .y_label_area_size(50)
            .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        let digits = digits(y.1 - y.0);
        let whole = !self.unit_square;
        chart
            .configure_mesh()
            .x_desc(self.x_title)
            .axis_desc_style(("sans-serif", 13))
            .label_style(("sans-serif", 12))
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| match whole {
                true if x.fract().abs() < 1e-9 => format!("{x:.0}"),
                true => String::new(),
                false => format!("{x:.1}"),
            })
            .y_label_formatter(&|y| format!("{y:.digits$}"))
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.5))
            .draw()?;
        if self.unit_square {
            chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4)))?;
        }
        for series in &self.series {
            let colour = COLOURS[series.index % COLOURS.len()];
            let has_band = series.points.iter().any(|&(_, _, sd)| sd > 0.0);
            if has_band {
                let above = series.points.iter().map(|&(x, mean, sd)| (x, mean + sd));
                let below = series
                    .points
                    .iter()
                    .rev()
                    .map(|&(x, mean, sd)| (x, mean - sd));
                let outline: Vec<(f64, f64)> = above.chain(below).collect();
                chart.draw_series([Polygon::new(outline, colour.mix(0.18))])?;
            }
            let line = series.points.iter().map(|&(x, mean, _)| (x, mean));
            chart.draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))?;
            // A line of few points shows them.
            if series.points.len() <= 20 && self.unit_square || series.points.len() == 1 {
                chart.draw_series(line.map(|point| Circle::new(point, 3, colour.filled())))?;
            }
        }
        Ok(())
    }

    /// The ranges of both axes, around lines and bands.
    fn ranges(&self) -> ((f64, f64), (f64, f64)) {
        if self.unit_square {
            return ((0.0, 1.0), (0.0, 1.0));
        }
        let points = || self.series.iter().flat_map(|series| &series.points);
        let last = points().map(|&(x, ..)| x).fold(2.0, f64::max);
        let ends = points().flat_map(|&(_, mean, sd)| [mean - sd, mean + sd]);
        let (low, high) = ends
            .filter(|y| y.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| {
                (low.min(y), high.max(y))
            });
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let margin = ((high - low) * 0.05).max(1e-6);
        ((1.0, last), (low - margin, high + margin))
    }
}

/// The charts side by side with one legend, on white: for Markdown, which cannot do it itself.
pub(super) fn sheet(charts: &[Chart], names: &[String]) -> Outcome<String> {
    const COLUMNS: usize = 2;
    const LEGEND_ROW: u32 = 22;
    let rows = charts.len().div_ceil(COLUMNS);
    let legend_height = LEGEND_ROW * names.len().div_ceil(COLUMNS) as u32 + 10;
    let size = (
        SIZE.0 * COLUMNS as u32,
        SIZE.1 * rows as u32 + legend_height,
    );
    let mut text = String::new();
    drawn(
        SVGBackend::with_string(&mut text, size).into_drawing_area(),
        |area| {
            area.fill(&WHITE)?;
            let (legend, rest) = area.split_vertically(legend_height);
            for (index, name) in names.iter().enumerate() {
                let column = (index % COLUMNS) as i32;
                let (x, y) = (
                    60 + column * SIZE.0 as i32,
                    16 + (index / COLUMNS) as i32 * LEGEND_ROW as i32,
                );
                let colour = COLOURS[index % COLOURS.len()];
                legend.draw(&PathElement::new(
                    [(x, y), (x + 24, y)],
                    colour.stroke_width(3),
                ))?;
                let style = ("sans-serif", 14)
                    .into_text_style(&legend)
                    .pos(Pos::new(HPos::Left, VPos::Center));
                legend.draw(&Text::new(name.clone(), (x + 32, y), style))?;
            }
            for (panel, chart) in rest.split_evenly((rows, COLUMNS)).iter().zip(charts) {
                chart.draw(panel)?;
            }
            Ok(())
        },
    )?;
    Ok(text)
}

/// Okabe and Ito's palette, which colour-blind readers can tell apart; the last one is the page's text colour.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(148, 130, 30),
    RGBColor(0, 0, 0),
];

/// The colour of a place, as the page's legend writes it.
pub(super) fn css_colour(index: usize) -> String {
    match COLOURS[index % COLOURS.len()] {
        RGBColor(0, 0, 0) => "currentColor".to_owned(),
        RGBColor(red, green, blue) => format!("rgb({red} {green} {blue})"),
    }
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn drawn<B: DrawingBackend>(
    area: DrawingArea<B, plotters::coord::Shift>,
    draw: impl FnOnce(&DrawingArea<B, plotters::coord::Shift>) -> Drawn<B>,
) -> Outcome {
    draw(&area)
        .and_then(|()| area.present())
        .map_err(|error| Failure::work(format!("cannot draw a chart: {error}")))
}

/// Decimals that tell the labels of an axis of this length apart.
fn digits(length: f64) -> usize {
    match length {
        _ if length >= 10.0 => 0,
        _ if length >= 1.0 => 1,
        _ if length >= 0.1 => 2,
        _ => 3,
    }
}
