//! What the irreducible parts of a fetch cost alone, on bytes of the same sizes: TLS, BLAKE3, and writing.

use super::super::{cost::Cost, tls_stream, usage};
use bytes::Bytes;
use soma_p2p::ObjectId;
use soma_p2p_cli::CliError;
use std::{
    fs::{self, File},
    hint::black_box,
    io::Write,
    path::Path,
    time::Instant,
};

/// Bytes that TLS and BLAKE3 are measured with; the result is scaled.
const MEASURED_BYTES: usize = 256 << 20;

/// The least time that a fetch can take, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) seconds: f64,
    pub(super) cpu_s: f64,
}

impl Limit {
    /// For objects of `object_bytes` that are `total` bytes together. With a directory, they are written there, too.
    pub(super) fn measure(object_bytes: usize, total: u64, directory: Option<&Path>) -> Result<Self, CliError> {
        // So few that they stay in a cache, which nothing that does more work can count on.
        let sample: Vec<Bytes> = (0..(4 << 20) / object_bytes).map(|at| vec![at as u8; object_bytes].into()).collect();
        let passes = MEASURED_BYTES / (sample.len() * object_bytes);
        let scale = total as f64 / MEASURED_BYTES as f64;
        let tls = tls_stream::measure(&sample, passes).map_err(CliError::failed)?;
        let scaled = |cost: Cost| (cost.cpu_s * scale, cost.wall.as_secs_f64() * scale);
        let mut parts = vec![scaled(tls), scaled(hash(&sample, passes))];
        if let Some(directory) = directory {
            // All bytes: a disk may take the first ones faster than the rest.
            let passes = total.div_ceil((sample.len() * object_bytes) as u64) as usize;
            let cost = write(&sample, passes, &directory.join("write.raw")).map_err(CliError::failed)?;
            parts.push((cost.cpu_s, cost.wall.as_secs_f64()));
        }
        let cpu_s: f64 = parts.iter().map(|(cpu_s, _)| cpu_s).sum();
        let slowest = parts.iter().map(|(_, wall_s)| *wall_s).fold(0.0, f64::max);
        Ok(Self { seconds: slowest.max(cpu_s / usage::cores() as f64), cpu_s })
    }
}

/// The name of each object.
fn hash(sample: &[Bytes], passes: usize) -> Cost {
    let (cpu_s, started) = (usage::thread_cpu_s(), Instant::now());
    for object in std::iter::repeat_n(sample, passes).flatten() {
        black_box(ObjectId::of(&[object]));
    }
    // Any number of cores may share it.
    Cost { cpu_s: usage::thread_cpu_s() - cpu_s, wall: started.elapsed() / usage::cores() as u32 }
}

/// One file, made durable at its end.
fn write(sample: &[Bytes], passes: usize, path: &Path) -> std::io::Result<Cost> {
    let mut file = File::create(path)?;
    let (cpu_s, started) = (usage::thread_cpu_s(), Instant::now());
    for object in std::iter::repeat_n(sample, passes).flatten() {
        file.write_all(object)?;
    }
    file.sync_all()?;
    let cost = Cost { cpu_s: usage::thread_cpu_s() - cpu_s, wall: started.elapsed() };
    fs::remove_file(path)?;
    Ok(cost)
}
