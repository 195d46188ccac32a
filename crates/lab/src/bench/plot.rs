//! Plots, as SVG.

use super::{node_io::Sample, record::SyncRecord};
use plotters::prelude::*;
use soma_p2p_cli::CliError;
use std::path::Path;

/// Width and height of a plot in pixels.
const SIZE: (u32, u32) = (900, 420);

/// Points of a throughput curve, and the least time between two points: commits come in batches.
const POINTS: f64 = 40.0;
const LEAST_SECONDS: f64 = 0.1;

/// Blocks per second over time. `samples` begin with the start and end with the end.
pub(super) fn throughput(path: &Path, title: &str, samples: &[Sample]) -> Result<(), CliError> {
    draw_throughput(path, title, &rates(samples)).map_err(|error| failed(path, &error))
}

/// The rate in each of as many equal parts of the time.
fn rates(samples: &[Sample]) -> Vec<(f64, f64)> {
    let end = samples.last().map_or(0.0, |last| last.seconds);
    let parts = (end / LEAST_SECONDS).floor().clamp(1.0, POINTS);
    let part = (end / parts).max(1e-6);
    let mut before = 0.0;
    let rate = |number: usize| {
        let seconds = part * (number + 1) as f64;
        let blocks = blocks_at(samples, seconds);
        let rate = (blocks - std::mem::replace(&mut before, blocks)) / part;
        (seconds, rate)
    };
    (0..parts as usize).map(rate).collect()
}

/// Blocks that had come at some time: between two samples, evenly.
fn blocks_at(samples: &[Sample], seconds: f64) -> f64 {
    let next = samples.partition_point(|sample| sample.seconds < seconds);
    match (samples.get(next.wrapping_sub(1)), samples.get(next)) {
        (Some(from), Some(to)) => {
            let share = (seconds - from.seconds) / (to.seconds - from.seconds).max(1e-9);
            from.blocks as f64 + share * (to.blocks - from.blocks) as f64
        }
        (None, Some(first)) => first.blocks as f64,
        (last, None) => last.map_or(0.0, |last| last.blocks as f64),
    }
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
    chart.configure_mesh().max_light_lines(1).x_desc("seconds").y_desc("blocks/s").draw()?;
    // From zero on, even with only one rate.
    let first = rates.first().map(|(_, rate)| (0.0, *rate));
    chart.draw_series(LineSeries::new(first.into_iter().chain(rates.iter().copied()), BLUE.stroke_width(2)))?;
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
        chart.configure_mesh().max_light_lines(1).x_desc("commits").y_desc(unit).draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
    }
    root.present()?;
    Ok(())
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_equal_time_slices_for_any_sample_times() {
        let sample = |seconds, blocks| Sample { seconds, cpu_s: 0.0, commit: 0, blocks, bytes: 0 };
        let samples = [sample(0.0, 0), sample(0.25, 100), sample(0.4, 400), sample(0.401, 401)];
        let found = rates(&samples);
        assert_eq!(found.len(), 4);
        let total: f64 = found.iter().map(|(_, rate)| rate * 0.401 / 4.0).sum();
        assert!((total - 401.0).abs() < 1e-6, "every block counts once: {found:?}");
        assert!((found[0].1 - 400.0).abs() < 1e-6, "{found:?}");
        assert_eq!(rates(&[Sample::default(), Sample::default()]).len(), 1);
    }
}
