//! A trace on disk: files in a directory. The ring drops the oldest files when they exceed its size.

use crate::{
    Recorder,
    format::start_file,
    queue::{Message, QUEUE_BATCHES, Queue, Shared},
    record::Header,
};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

/// Extension of a trace file.
pub(crate) const EXTENSION: &str = "trace";

/// Number of files in a full ring. Dropping the oldest file loses one part in this many.
const FILES: u64 = 8;

/// Directory and size of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// The directory, created if it does not exist. Traces of earlier runs in it count towards the size.
    pub directory: PathBuf,
    /// Maximum bytes of all finished files. The current file adds up to one eighth.
    pub max_bytes: u64,
    /// Names of the cores to record; empty means all.
    pub only: Vec<String>,
}

/// The writer's thread. Call [`finish`](Self::finish) after the last actor has ended.
pub struct TraceWriter {
    sender: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl TraceWriter {
    /// Starts to write into a directory.
    ///
    /// # Errors
    /// Fails if the directory or the first file cannot be created or read.
    pub fn start(config: RingConfig) -> io::Result<(Recorder, Self)> {
        fs::create_dir_all(&config.directory)?;
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let shared = Arc::new(Shared::default());
        let ring = Ring::open(&config, u64::try_from(run).unwrap_or(u64::MAX))?;
        let (sender, receiver) = mpsc::sync_channel(QUEUE_BATCHES);
        let writing = shared.clone();
        let thread =
            thread::Builder::new().name("soma-trace".into()).spawn(move || write(ring, &receiver, &writing))?;
        let queue = Queue { sender: sender.clone(), shared };
        Ok((Recorder::to_ring(queue, config.only), Self { sender, thread: Some(thread) }))
    }

    /// Writes all queued records and ends the thread.
    pub fn finish(mut self) {
        // Sending fails if the thread has already ended.
        let _ = self.sender.send(Message::Finish);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes until the finish message. After an error the thread ends, and later records are missed.
fn write(mut ring: Ring, queue: &mpsc::Receiver<Message>, shared: &Shared) {
    while let Ok(Message::Records(records)) = queue.recv() {
        shared.queued_bytes.fetch_sub(records.len(), Ordering::AcqRel);
        match ring.write(&records) {
            Ok(file) => shared.file.store(file, Ordering::Release),
            Err(error) => {
                let directory = ring.directory.display();
                tracing::error!(%directory, %error, "the trace cannot be written and ends here; the node continues");
                return;
            }
        }
    }
}

struct Ring {
    directory: PathBuf,
    run: u64,
    max_bytes: u64,
    /// The current file, its number and its size.
    file: File,
    number: u64,
    size: u64,
    /// Finished files with their sizes, oldest first.
    finished: VecDeque<(PathBuf, u64)>,
}

impl Ring {
    /// Starts a run under the number `run`, or the next free number.
    fn open(config: &RingConfig, mut run: u64) -> io::Result<Self> {
        let mut finished = VecDeque::new();
        for path in files(&config.directory)? {
            let size = fs::metadata(&path)?.len();
            finished.push_back((path, size));
        }
        let (file, size) = loop {
            match start(&config.directory, run, 0) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => run += 1,
                started => break started?,
            }
        };
        let (directory, max_bytes) = (config.directory.clone(), config.max_bytes);
        let mut ring = Self { directory, run, max_bytes, file, number: 0, size, finished };
        ring.drop_oldest()?;
        Ok(ring)
    }

    /// Writes records. Returns the number of the file for the next records.
    fn write(&mut self, records: &[u8]) -> io::Result<u64> {
        self.file.write_all(records)?;
        self.size += records.len() as u64;
        if self.size >= self.max_bytes / FILES {
            self.finished.push_back((path(&self.directory, self.run, self.number), self.size));
            self.number += 1;
            (self.file, self.size) = start(&self.directory, self.run, self.number)?;
            self.drop_oldest()?;
        }
        Ok(self.number)
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        let mut bytes: u64 = self.finished.iter().map(|(_, size)| size).sum();
        while bytes > self.max_bytes
            && let Some((oldest, size)) = self.finished.pop_front()
        {
            fs::remove_file(oldest)?;
            bytes -= size;
        }
        Ok(())
    }
}

/// Path of a file. Names sort by run, then by number.
fn path(directory: &Path, run: u64, number: u64) -> PathBuf {
    directory.join(format!("{run:013}-{number:06}.{EXTENSION}"))
}

fn start(directory: &Path, run: u64, number: u64) -> io::Result<(File, u64)> {
    let header = start_file(&Header { software: env!("CARGO_PKG_VERSION").into(), run, file: number });
    let mut file = File::create_new(path(directory, run, number))?;
    file.write_all(&header)?;
    Ok((file, header.len() as u64))
}

/// Whether a file is called `RUN-NUMBER.trace`.
fn is_trace_file(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers =
        name.strip_suffix(EXTENSION).and_then(|rest| rest.strip_suffix('.')).and_then(|rest| rest.split_once('-'));
    numbers.is_some_and(|(run, number)| digits(run) && digits(number))
}

/// The trace files in a directory, oldest first.
pub(crate) fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // Other files are not the ring's, and the ring must not drop them.
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_trace_file) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
