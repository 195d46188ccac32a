//! How glibc's allocator treats memory that is free again.

/// What an arena keeps at its end instead of giving it back at once. By default glibc makes up to 8 arenas for each core.
const KEPT_BYTES: libc::c_int = 16 << 20;

/// What is longer comes from the system by itself and goes back to it: more than a usual answer.
const MAPPED_BYTES: libc::c_int = 4 << 20;

/// Keeps memory for what is needed again soon.
///
/// A node that syncs or serves takes and frees some 256 KiB for each answer. Left alone, glibc gives that back to the
/// system and asks for it again, and the system clears what it gives: a page fault for nearly every block of 4 KiB.
/// docs/performance.md has what this saves.
#[allow(unsafe_code)]
pub(crate) fn keep_freed() {
    // SAFETY: `mallopt` takes two numbers and touches no memory of ours. It is called before there is a second thread. A
    // setting that it refuses stays as it was.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}
