//! How the cost of an event grows with the backlog, the number of partitions and the size of an event. Produces rows
//! of the table, and plots in `docs/growth.svg`.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use crate::drain::Drained;
use crate::report::Row;
use crate::scenarios::{Size, emptied, shown};
use crate::world::{Shape, World};

/// One plot: the quantity that grows, and the runs at each of its values.
struct Plot {
    title: &'static str,
    runs: Vec<(f64, Drained)>,
}

#[allow(clippy::cast_precision_loss)] // far below 2^53
pub(crate) fn rows(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let sink = w.sink(0)?;
    let (mut rows, mut number) = (Vec::new(), 0);
    let mut run = |what: String, shape: Shape| -> anyhow::Result<Drained> {
        number += 1;
        let name = format!("growth-{number}");
        let log = w.log(&name, shape)?;
        let drained = emptied(w, &log, &name, &sink.url)?;
        rows.push(Row::new(&what, shown(&drained), ""));
        Ok(drained)
    };
    let mut events = Vec::new();
    for times in [1, 2, 4] {
        let count = size.events * times;
        let what = format!("{:.1} M events wait", count as f64 / 1e6);
        events.push((count as f64 / 1e6, run(what, Shape::plain(count))?));
    }
    let mut partitions = Vec::new();
    for n in [1, 3, 6, 12, 24] {
        let shape = Shape {
            partitions: n,
            // Enough events that each partition gets some.
            cities: 96,
            ..Shape::plain(size.events / 2)
        };
        partitions.push((
            f64::from(n),
            run(format!("{n} partitions, 96 cities"), shape)?,
        ));
    }
    let mut bytes = Vec::new();
    for n in [163, 1_024, 4_096, 16_384] {
        let shape = Shape {
            bytes: n,
            ..Shape::plain((size.events / 2).min(200_000_000 / n as u64))
        };
        bytes.push((
            n as f64 / 1_024.0,
            run(format!("events of {n} bytes"), shape)?,
        ));
    }
    let plots = [
        Plot {
            title: "million events that wait",
            runs: events,
        },
        Plot {
            title: "partitions",
            runs: partitions,
        },
        Plot {
            title: "KiB an event",
            runs: bytes,
        },
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/growth.svg");
    draw(&path, &plots).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    Ok(rows)
}

/// Draws the CPU time per event over the growing quantity, one plot next to the other.
fn draw(path: &Path, plots: &[Plot]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (960, 300)).into_drawing_area();
    area.fill(&WHITE)?;
    for (plot, part) in plots.iter().zip(area.split_evenly((1, plots.len()))) {
        let x_max = plot.runs.iter().map(|(x, _)| *x).fold(0.0, f64::max);
        let y_max = plot.runs.iter().map(|(_, d)| d.cpu_us).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&part)
            .margin(14)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..x_max * 1.05, 0.0..y_max * 1.25)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.5))
            .x_desc(plot.title)
            .y_desc("CPU µs an event")
            .x_labels(6)
            .y_labels(6)
            .draw()?;
        let line = plot.runs.iter().map(|(x, d)| (*x, d.cpu_us));
        let color = RGBColor(0x1f, 0x6f, 0xb2);
        chart.draw_series(LineSeries::new(line.clone(), color.stroke_width(2)))?;
        chart.draw_series(line.map(|at| Circle::new(at, 4, color.filled())))?;
    }
    area.present()?;
    Ok(())
}
