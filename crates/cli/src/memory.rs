//! How glibc's allocator treats memory that is free again.

use std::{io, thread, time::Duration};

/// What an arena keeps at its end instead of giving it back at once. By default glibc makes up to 8 arenas for each
/// core.
const KEPT_BYTES: libc::c_int = 16 << 20;

/// A longer allocation is mapped by itself and returned when it is freed. A usual answer is shorter.
const MAPPED_BYTES: libc::c_int = 4 << 20;

/// How often it is looked at what the arenas keep.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(30);

/// Free memory in all arenas from which on it is given back. After a burst, a sync or an attack, blocks in use that lie
/// between free ones keep an arena from giving anything back by itself.
const MAX_FREE_BYTES: usize = 64 << 20;

/// Keeps memory for the next use.
///
/// A node that syncs or serves takes and frees some 256 KiB for each answer. Left alone, glibc gives that back to the
/// system and asks for it again, and the system clears what it gives: a page fault for nearly every block of 4 KiB.
/// docs/lab-notebook.md, experiment 22, has what this saves.
#[allow(unsafe_code)]
pub(crate) fn keep_freed() {
    // SAFETY: `mallopt` takes two numbers and touches no memory of ours. It is called before there is a second
    // thread. A setting that it refuses stays as it was.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Gives free memory back to the system now and then, on a thread of its own, for as long as the process lives.
pub(crate) fn give_back_freed() -> io::Result<()> {
    let watching = || {
        loop {
            thread::sleep(GIVE_BACK_EVERY);
            if free_bytes() > MAX_FREE_BYTES {
                give_back();
            }
        }
    };
    thread::Builder::new().name("memory".into()).spawn(watching).map(drop)
}

/// Bytes that are free in all arenas and have not been given back.
#[allow(unsafe_code)]
fn free_bytes() -> usize {
    // SAFETY: it returns numbers, and locks each arena while it reads them.
    unsafe { libc::mallinfo2() }.fordblks
}

/// Gives back every whole page that is free, wherever it lies.
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: it locks each arena, and gives back only pages of which no byte is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const BLOCK: usize = 4 << 10;
    const BLOCKS: usize = 16 << 10;

    /// Bytes of the process that are in memory.
    fn resident() -> usize {
        let pages: usize = fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4_096
    }

    #[test]
    fn what_a_burst_leaves_free_between_blocks_in_use_goes_back_to_the_system() {
        keep_freed();
        let before = resident();
        // In arenas of their own, as threads have them.
        let burst = || {
            let mut blocks: Vec<Option<Vec<u8>>> = (0..BLOCKS).map(|_| Some(vec![1; BLOCK])).collect();
            // One block in a hundred stays, the last one among them.
            let freed = blocks.iter_mut().rev().enumerate().filter(|(number, _)| number % 100 != 0);
            freed.for_each(|(_, block)| *block = None);
            blocks
        };
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(burst)).collect();
        let kept: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let after = resident().saturating_sub(before);
        assert!(after > 4 * BLOCKS * BLOCK / 2, "the allocator has kept it: {after} bytes");
        assert!(free_bytes() > MAX_FREE_BYTES);
        give_back();
        let left = resident().saturating_sub(before);
        assert!(left < 4 * BLOCKS * BLOCK / 8, "{left} bytes are left of {after}");
        drop(kept);
    }
}
