//! A command as its users meet it: the real binary, real files, real sockets and signals.
//!
//! Every [`Home`] is a directory of its own. What runs in the background ends when its test ends, whether the test
//! passes or not.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// How long a condition may take: far longer than it does on a busy machine, so that only a hang ends it.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// A directory with everything that a node needs, and the command run in it.
pub struct Home {
    program: &'static str,
    /// The directory.
    pub dir: TempDir,
}

impl Home {
    /// An empty directory for `program`.
    pub fn empty(program: &'static str) -> Self {
        Self { program, dir: tempfile::tempdir().unwrap() }
    }

    /// With node.key, chain/genesis.bin and node.toml, as the command makes them.
    pub fn new(program: &'static str) -> Self {
        let home = Self::empty(program);
        home.run(["keygen", "--out", "node.key"]).ok();
        home.run(["genesis", "--out", "chain"]).ok();
        home.write("node.toml", &config("", ""));
        home
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in the directory.
    pub fn write(&self, name: &str, contents: &str) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// The command with arguments, to run in the directory.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.program);
        command.current_dir(self.dir.path()).env_remove("RUST_LOG").args(args);
        command
    }

    /// Runs the command to its end.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        Running::start(&mut self.command(args)).wait()
    }

    /// Starts a node with a configuration file and waits until it is ready.
    pub fn start_node(&self, config: &str) -> Running {
        let node = Running::start(&mut self.command(["node", "--config", config]));
        node.until("it is ready", |output| output.stdout.starts_with("ready: "));
        node
    }

    /// All files in the directory, with their contents.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files_below(self.dir.path())
    }

    /// Runs the command with input that it must refuse: exit code 2, nothing printed but one line that names all of
    /// `named`, and nothing written.
    pub fn refuses(&self, args: &[&str], named: &[&str]) -> String {
        let before = self.files();
        let error = self.run(args).refused(named);
        assert_eq!(self.files(), before, "something was written");
        error
    }
}

/// A node's configuration with ports that the system chooses, `top` among its first keys and `p2p` among those of
/// its networking.
pub fn config(top: &str, p2p: &str) -> String {
    let mut text = "data_dir = \"data\"\ngenesis = \"chain/genesis.bin\"\nkey = \"node.key\"\n".to_owned();
    if !top.contains("admin = ") {
        text.push_str("admin = \"127.0.0.1:0\"\n");
    }
    text.push_str(&format!("{top}\n[p2p]\n"));
    if !p2p.contains("listen =") {
        text.push_str("listen = \"/ip4/127.0.0.1/tcp/0\"\n");
    }
    text + p2p
}

/// All files and directories below a directory, with their contents.
fn files_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The directory itself counts: an empty one is something written, too.
            files.extend(files_below(&path));
            files.insert(path, Vec::new());
        } else {
            let contents = fs::read(&path).unwrap();
            files.insert(path, contents);
        }
    }
    files
}

/// What a command has printed so far.
#[derive(Default)]
pub struct Output {
    /// On standard output.
    pub stdout: String,
    /// On standard error.
    pub stderr: String,
    /// Of the two, how many it has closed; both when it has ended.
    closed: usize,
}

/// A command that runs. Killed when dropped.
pub struct Running {
    /// The process.
    pub child: Child,
    /// Filled by two threads as it prints, each time with a notice.
    output: Arc<(Mutex<Output>, Condvar)>,
}

impl Running {
    /// Starts a command without input.
    pub fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let output = Arc::new((Mutex::new(Output::default()), Condvar::new()));
        follow(child.stdout.take().unwrap(), &output, |output| &mut output.stdout);
        follow(child.stderr.take().unwrap(), &output, |output| &mut output.stderr);
        Self { child, output }
    }

    /// Waits until what it has printed is such; looked at whenever there is more of it.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Output) -> bool) {
        let (output, changed) = &*self.output;
        let waits = |output: &mut Output| !holds(output) && output.closed < 2;
        let (output, timeout) = changed.wait_timeout_while(output.lock().unwrap(), DEADLINE, waits).unwrap();
        assert!(!timeout.timed_out(), "waited {DEADLINE:?} in vain until {what}: {}", output.stderr);
        assert!(holds(&output), "it ended before {what}: {}", output.stderr);
    }

    /// What it has printed on standard output so far.
    pub fn printed(&self) -> String {
        self.output.0.lock().unwrap().stdout.clone()
    }

    /// Sends a signal, by name: `"TERM"`.
    pub fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits until the command ends.
    pub fn wait(mut self) -> Finished {
        self.until("it has ended", |output| output.closed == 2);
        let status = self.child.wait().unwrap();
        let mut output = self.output.0.lock().unwrap();
        let (stdout, stderr) = (std::mem::take(&mut output.stdout), std::mem::take(&mut output.stderr));
        Finished { status, stdout, stderr }
    }

    /// Sends a signal and waits until the command ends.
    pub fn stop(self, signal: &str) -> Finished {
        self.signal(signal);
        self.wait()
    }
}

/// Reads a pipe to its end.
pub fn follow(
    mut pipe: impl Read + Send + 'static,
    output: &Arc<(Mutex<Output>, Condvar)>,
    text: fn(&mut Output) -> &mut String,
) {
    let output = output.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let count = pipe.read(&mut buffer).unwrap_or(0);
            let mut now = output.0.lock().unwrap();
            match count {
                0 => now.closed += 1,
                count => text(&mut now).push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
            output.1.notify_all();
            if count == 0 {
                return;
            }
        }
    });
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails for one that has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Finished {
    /// Its exit code.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {self:?}", self.status.signal()))
    }

    /// It went well; what it printed.
    pub fn ok(self) -> String {
        assert_eq!(self.code(), 0, "{self:?}");
        self.stdout
    }

    /// It went well and printed JSON.
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// It refused its input with one line that names all of `named`.
    pub fn refused(self, named: &[&str]) -> String {
        assert_eq!(self.code(), 2, "{self:?}");
        self.one_error(named)
    }

    /// It failed on the way with one line that names all of `named`.
    pub fn failed(self, named: &[&str]) -> String {
        assert_eq!(self.code(), 1, "{self:?}");
        self.one_error(named)
    }

    fn one_error(self, named: &[&str]) -> String {
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.ends_with('\n'), "{self:?}");
        for name in named {
            assert!(self.stderr.contains(name), "{name:?} is not named: {self:?}");
        }
        self.stderr
    }
}
