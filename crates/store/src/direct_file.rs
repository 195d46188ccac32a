//! A file that is appended to past the page cache (`O_DIRECT`).
//!
//! A write through the page cache takes a page of memory for each 4 KiB and copies there, for nobody who reads it, and pushes
//! out what is read (docs/adr/0007 has what it costs). Here bytes are put together in one aligned buffer, which serves
//! again and again, and go from there to the disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
};

/// Addresses, offsets and lengths of direct writes are multiples of the disk's logical blocks: 512 bytes, or 4 KiB.
const ALIGNMENT: usize = 4 << 10;

/// Bytes that are written at once: half of a usual batch, of which the system has as much on its way as the disk takes.
const BUFFER_BYTES: usize = 4 << 20;

/// A new file, written from its start on. Where the system or the file system has no direct writes, through the page cache,
/// where it then stays.
pub(crate) struct DirectFile {
    file: File,
    /// Room for `BUFFER_BYTES` at an aligned address.
    buffer: Vec<u8>,
}

impl DirectFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // Not every file system takes it: then it is an ordinary file.
        let _ = set_direct(&file, true);
        Ok(Self { file, buffer: vec![0; BUFFER_BYTES + ALIGNMENT] })
    }

    /// Where the append behind one that ended at `end` begins: it has been filled up with zeros.
    pub(crate) fn aligned(end: u64) -> u64 {
        end.next_multiple_of(ALIGNMENT as u64)
    }

    /// Appends `pieces` one behind the other, and zeros up to what is [`aligned`](Self::aligned).
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

    /// Returns when all that was appended is on the disk.
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
            // Larger logical blocks, or a file system that says only now that it has no direct writes. What is wrong with an
            // ordinary write is found by that.
            Err(error) if error.kind() == ErrorKind::InvalidInput && set_direct(file, false)? => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes writes direct or not. Whether they were otherwise before.
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

/// Other systems have no such flag.
#[cfg(not(target_os = "linux"))]
fn set_direct(_: &File, _: bool) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_appended_lies_on_the_borders_that_are_told_with_zeros_between_direct_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let noise: Vec<u8> = (0..2 * BUFFER_BYTES + 10_000).map(|n| (n % 249) as u8 + 1).collect();
        for direct in [true, false] {
            let path = directory.path().join(format!("{direct}"));
            let mut file = DirectFile::create(&path).unwrap();
            if !direct {
                set_direct(&file.file, false).unwrap();
            }
            let (mut expected, mut end) = (Vec::new(), 0);
            // About a buffer and several of them, in pieces that end within and on borders, and an empty one.
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
