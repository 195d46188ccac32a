//! Plots, as SVG.

use super::{node::Sample, report::SyncRecord};
use crate::error::CliError;
use plotters::prelude::*;
use std::path::Path;

/// Width and height of a plot in pixels.
const SIZE: (u32, u32) = (900, 420);

/// Points of a curve of throughput: neighbours are taken together until there are no more than these.
const POINTS: usize = 60;

/// Blocks per second over time. `samples` begin with the start and end with the end.
pub(super) fn throughput(path: &Path, title: &str, samples: &[Sample]) -> Result<(), CliError> {
    let step = samples.len().div_ceil(POINTS).max(1);
    let mut kept: Vec<Sample> = samples.iter().copied().step_by(step).collect();
    if let Some(last) = samples.last()
        && kept.last().is_some_and(|kept| kept.commit < last.commit)
    {
        kept.push(*last);
    }
    let rates = kept.windows(2).map(|pair| {
        let seconds = (pair[1].seconds - pair[0].seconds).max(1e-6);
        (pair[1].seconds, (pair[1].blocks - pair[0].blocks) as f64 / seconds)
    });
    let rates: Vec<_> = [(0.0, 0.0)].into_iter().chain(rates).collect();
    draw_throughput(path, title, &rates).map_err(|error| failed(path, &error))
}

fn draw_throughput(path: &Path, title: &str, rates: &[(f64, f64)]) -> Result<(), Box<dyn std::error::Error>> {
    let most = |value: fn(&(f64, f64)) -> f64| rates.iter().map(value).fold(1e-3, f64::max) * 1.05;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..most(|point| point.0), 0.0..most(|point| point.1))?;
    chart.configure_mesh().x_desc("seconds").y_desc("blocks/s").draw()?;
    chart.draw_series(LineSeries::new(rates.iter().copied(), BLUE.stroke_width(2)))?;
    root.present()?;
    Ok(())
}

/// Blocks per second, and below it peak memory, over the length of the chain.
pub(super) fn growth(path: &Path, records: &[SyncRecord]) -> Result<(), CliError> {
    let rates: Vec<_> = records.iter().map(|record| (f64::from(record.commits), record.blocks_per_s)).collect();
    let memory = records.iter().filter_map(|record| Some((f64::from(record.commits), record.peak_rss_mib?)));
    draw_growth(path, &rates, &memory.collect::<Vec<_>>()).map_err(|error| failed(path, &error))
}

fn draw_growth(path: &Path, rates: &[(f64, f64)], memory: &[(f64, f64)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (SIZE.0, 2 * SIZE.1)).into_drawing_area();
    root.fill(&WHITE)?;
    let curves = [("throughput", "blocks/s", rates, BLUE), ("peak memory of the syncing node", "MiB", memory, RED)];
    for (area, (title, unit, points, colour)) in root.split_evenly((2, 1)).iter().zip(curves) {
        let first = points.first().map_or(1.0, |point| point.0);
        let last = points.last().map_or(2.0, |point| point.0).max(first + 1.0);
        let most = points.iter().map(|point| point.1).fold(1e-3, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d((first..last).log_scale(), 0.0..most)?;
        chart.configure_mesh().x_desc("commits").y_desc(unit).draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
    }
    root.present()?;
    Ok(())
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
}
