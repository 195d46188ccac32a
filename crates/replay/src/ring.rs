//! A trace on disk: files of one run in a directory, the oldest dropped when there are too many bytes.

use crate::{Recorder, format::start_file, record::Header};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

/// How a trace file's name ends.
pub(crate) const EXTENSION: &str = "trace";

/// Files in a full ring: dropping the oldest loses that share of it.
const FILES: u64 = 8;

/// Batches of records on their way to the writer.
const QUEUE_BATCHES: usize = 4_096;

/// Bytes on their way to the writer.
const QUEUE_BYTES: usize = 8 << 20;

/// Where and how much to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Made if it is not there. Traces of former runs in it count for the size.
    pub directory: PathBuf,
    /// Bytes that all files may have together; one eighth of it more while a file is being written.
    pub max_bytes: u64,
    /// Names of the cores to record; empty: all.
    pub only: Vec<String>,
}

enum Message {
    Records(Vec<u8>),
    Finish,
}

/// The way to the writer.
pub(crate) struct Queue {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    file: AtomicU64,
}

impl Queue {
    /// The number of the file that is being written.
    pub(crate) fn file(&self) -> u64 {
        self.shared.file.load(Ordering::Acquire)
    }

    /// Queues records, if there is room.
    pub(crate) fn put(&self, records: Vec<u8>) -> bool {
        let bytes = records.len();
        if self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes <= QUEUE_BYTES
            && self.sender.try_send(Message::Records(records)).is_ok()
        {
            return true;
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        false
    }
}

/// The thread that writes; finish it when the last actor is gone.
pub struct TraceWriter {
    sender: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl TraceWriter {
    /// Starts to write into a directory. Fails when it cannot be written to.
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

    /// Writes what is queued and ends.
    pub fn finish(mut self) {
        // It fails when the thread has ended already.
        let _ = self.sender.send(Message::Finish);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes until it is told to finish. After an error nothing more is written, and what comes is missed.
fn write(mut ring: Ring, queue: &mpsc::Receiver<Message>, shared: &Shared) {
    while let Ok(Message::Records(records)) = queue.recv() {
        shared.queued_bytes.fetch_sub(records.len(), Ordering::AcqRel);
        match ring.write(&records) {
            Ok(file) => shared.file.store(file, Ordering::Release),
            Err(error) => {
                let directory = ring.directory.display();
                tracing::error!(%directory, %error, "the trace cannot be written and ends here; the node goes on");
                return;
            }
        }
    }
}

struct Ring {
    directory: PathBuf,
    run: u64,
    max_bytes: u64,
    /// The file being written, its number and its size.
    file: File,
    number: u64,
    size: u64,
    /// Finished files with their sizes, oldest first.
    finished: VecDeque<(PathBuf, u64)>,
}

impl Ring {
    /// Begins a run; its name is `run`, or the next number that is free.
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

    /// Writes, and says in which file the next records will be.
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

/// Names sort by run, then by number.
fn path(directory: &Path, run: u64, number: u64) -> PathBuf {
    directory.join(format!("{run:013}-{number:06}.{EXTENSION}"))
}

fn start(directory: &Path, run: u64, number: u64) -> io::Result<(File, u64)> {
    let header = start_file(&Header { software: env!("CARGO_PKG_VERSION").into(), run, file: number });
    let mut file = File::create_new(path(directory, run, number))?;
    file.write_all(&header)?;
    Ok((file, header.len() as u64))
}

/// `RUN-NUMBER.trace`.
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
        // Whatever else lies there is none of ours, and must not be dropped.
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_trace_file) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
