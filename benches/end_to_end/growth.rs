//! How the cost of an event grows with the backlog, the number of partitions and the size of an event.

use crate::report::Row;
use crate::scenarios::{Size, emptied, shown};
use crate::world::{Shape, World};

#[allow(clippy::cast_precision_loss)] // far below 2^53
pub(crate) fn rows(w: &World, size: &Size) -> anyhow::Result<Vec<Row>> {
    let mut runs = Vec::new();
    for times in [1, 2, 4] {
        let count = size.events * times;
        let what = format!("{:.1} M events wait", count as f64 / 1e6);
        runs.push((what, Shape::plain(count)));
    }
    for partitions in [1, 3, 6, 12, 24] {
        let shape = Shape {
            partitions,
            // Enough events that each partition gets some.
            cities: 96,
            ..Shape::plain(size.events / 2)
        };
        runs.push((format!("{partitions} partitions, 96 cities"), shape));
    }
    for bytes in [163, 1_024, 4_096, 16_384] {
        let count = (size.events / 2).min(200_000_000 / bytes as u64);
        let shape = Shape {
            bytes,
            ..Shape::plain(count)
        };
        runs.push((format!("events of {bytes} bytes"), shape));
    }

    let sink = w.sink(0)?;
    let measure = |(number, (what, shape)): (usize, (String, Shape))| {
        let name = format!("growth-{}", number + 1);
        let log = w.log(&name, shape)?;
        let drained = emptied(w, &log, &name, &sink.url)?;
        Ok(Row::new(&what, shown(&drained), ""))
    };
    runs.into_iter().enumerate().map(measure).collect()
}
