//! An append-only file that bypasses the page cache (`O_DIRECT`).
//!
//! A write through the page cache takes and fills a page of memory for each 4 KiB, which is not read again, and evicts
//! pages that are read (docs/adr/0007 has the costs). This file collects bytes in one aligned, reused buffer and writes
//! them directly to the disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
};

/// Alignment of direct writes: a multiple of the disk's logical block size, which is 512 bytes or 4 KiB.
const ALIGNMENT: usize = 4 << 10;

/// Bytes per write: half of a usual batch. The system splits it into as many requests as the disk takes at once.
const BUFFER_BYTES: usize = 4 << 20;

/// A new file, written from its start. If the system or file system has no direct writes, it uses the page cache, where
/// the data then stays.
pub(crate) struct DirectFile {
    file: File,
    /// Holds `BUFFER_BYTES` at an aligned address.
    buffer: Vec<u8>,
}

impl DirectFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // Some file systems do not support direct writes; then it is an ordinary file.
        let _ = set_direct(&file, true);
        Ok(Self { file, buffer: vec![0; BUFFER_BYTES + ALIGNMENT] })
    }

    /// Offset of the append after one that ended at `end`. The gap is filled with zeros.
    pub(crate) fn aligned(end: u64) -> u64 {
        end.next_multiple_of(ALIGNMENT as u64)
    }

    /// Appends consecutive `pieces`, and zeros up to the [`aligned`](Self::aligned) end.
    pub(crate) fn append<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut self.buffer[start..start + BUFFER_BYTES];
        let mut filled = 0;
        for mut piece in pieces {
            while !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(BUFFER_BYTES - filled));
                buffer[filled..filled + now.len()].copy_from_slice(now);
                filled += now.len();
                piece = later;
                if filled == BUFFER_BYTES {
                    write_all(&mut self.file, buffer)?;
                    filled = 0;
                }
            }
        }
        let end = filled.next_multiple_of(ALIGNMENT);
        buffer[filled..end].fill(0);
        write_all(&mut self.file, &buffer[..end])
    }

    /// Waits until all appended bytes are on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Larger logical blocks, or a file system that reports only now that it has no direct writes. If an
            // ordinary write would fail too, the next attempt shows it.
            Err(error) if error.kind() == ErrorKind::InvalidInput && set_direct(file, false)? => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Switches direct writes on or off. Returns whether the mode has changed.
#[cfg(target_os = "linux")]
fn set_direct(file: &File, direct: bool) -> io::Result<bool> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    let before = fcntl_getfl(file)?;
    let mut after = before;
    after.set(OFlags::DIRECT, direct);
    if before != after {
        fcntl_setfl(file, after)?;
    }
    Ok(before != after)
}

/// Other systems do not have this flag.
#[cfg(not(target_os = "linux"))]
fn set_direct(_: &File, _: bool) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn appends_begin_at_aligned_offsets_with_zeros_between_direct_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let noise: Vec<u8> = (0..2 * BUFFER_BYTES + 10_000).map(|n| (n % 249) as u8 + 1).collect();
        for direct in [true, false] {
            let path = directory.path().join(format!("{direct}"));
            let mut file = DirectFile::create(&path).unwrap();
            if !direct {
                set_direct(&file.file, false).unwrap();
            }
            let (mut expected, mut end) = (Vec::new(), 0);
            // Around one buffer and several, in pieces that end within and on borders, and an empty append.
            for length in [1, ALIGNMENT, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, noise.len(), 0, 7_000] {
                for piece in [1_000, ALIGNMENT, BUFFER_BYTES + 5] {
                    file.append(noise[..length].chunks(piece)).unwrap();
                    expected.resize(DirectFile::aligned(end) as usize, 0);
                    expected.extend_from_slice(&noise[..length]);
                    end = expected.len() as u64;
                }
            }
            file.sync().unwrap();
            expected.resize(DirectFile::aligned(end) as usize, 0);
            assert!(fs::read(&path).unwrap() == expected, "direct: {direct}");
        }
        let path = directory.path().join("true");
        let again = DirectFile::create(&path).err().unwrap();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists, "a file is never written twice");
    }
}
