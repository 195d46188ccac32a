//! The control socket of a node.

use super::messages::{Answer, MAX_REQUEST_BYTES, Request};
use crate::logging::LogFilter;
use soma_p2p::{Handle, PeerManagementError, TraceConfig};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

/// Connections at once. Further ones are closed.
const MAX_CONNECTIONS: usize = 8;

/// How long a client may take to send its request, and to read the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause after a failed accept, say because the process has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Asks for a reload of the configuration.
pub(super) type Reload = oneshot::Sender<Result<String, String>>;

/// What the commands change.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) system: Handle,
    pub(super) log: LogFilter,
    pub(super) reload: mpsc::Sender<Reload>,
}

/// Makes the socket. Only the owner of its file may connect, from the first moment on: it is made in a directory that
/// other users cannot enter. Then it replaces the socket of a killed node.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let private =
        tempfile::Builder::new().prefix(".ctl").permissions(fs::Permissions::from_mode(0o700)).tempdir_in(directory)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
    fs::rename(&made, path)?;
    Ok(listener)
}

/// Answers until the node stops.
pub(super) async fn serve(listener: UnixListener, control: Control) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::warn!("control socket: {MAX_CONNECTIONS} connections are open, a further one is closed");
            continue;
        };
        let control = control.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &control).await {
                tracing::debug!(%error, "control socket");
            }
            drop(permit);
        });
    }
}

/// Reads one request, carries it out, and answers.
async fn answer(mut stream: UnixStream, control: &Control) -> io::Result<()> {
    let client = stream.peer_cred()?;
    let mut line = Vec::new();
    let mut limited = BufReader::new((&mut stream).take(MAX_REQUEST_BYTES as u64));
    timeout(CLIENT_TIMEOUT, limited.read_until(b'\n', &mut line)).await??;
    let (command, answer) = match parse(&line) {
        Ok(request) => (serde_json::to_string(&request)?, perform_in_time(control, request).await),
        Err(reason) => ("none".into(), Answer::Failed(reason)),
    };
    let result = match &answer {
        Answer::Done(done) => format!("done: {done}"),
        Answer::Checkpoint(_) => "done: a checkpoint was sent".into(),
        Answer::Failed(reason) => format!("failed: {reason}"),
    };
    tracing::info!(target: "audit", uid = client.uid(), pid = client.pid(), %command, ?result, "control");
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(CLIENT_TIMEOUT, stream.write_all(&line)).await?
}

fn parse(line: &[u8]) -> Result<Request, String> {
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err(format!("a request is one line of JSON of at most {MAX_REQUEST_BYTES} bytes"));
    };
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
}

async fn perform_in_time(control: &Control, request: Request) -> Answer {
    match timeout(COMMAND_TIMEOUT, perform(control, request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(reason)) => Answer::Failed(reason),
        Err(_) => Answer::Failed(format!("not complete after {COMMAND_TIMEOUT:?}: see `soma-p2p status`")),
    }
}

async fn perform(control: &Control, request: Request) -> Result<Answer, String> {
    let Control { system, log, reload } = control;
    let text = |error: PeerManagementError| error.to_string();
    let done = match request {
        Request::AddPeer { seed } => {
            let done = format!("{seed} is a seed peer");
            system.add_seed(seed).await.map_err(text)?;
            done
        }
        Request::DropPeer { peer } => {
            system.remove_seed(peer).await.map_err(text)?;
            system.disconnect_peer(peer).await.map_err(text)?;
            format!("{peer} is no seed peer and is disconnected; it may connect again, a ban prevents that")
        }
        Request::Trust { peer } => {
            system.add_trusted_peer(peer).await.map_err(text)?;
            format!("{peer} is trusted")
        }
        Request::Distrust { peer } => {
            system.remove_trusted_peer(peer).await.map_err(text)?;
            format!("{peer} is not trusted")
        }
        Request::Ban { peer, time, reason } => {
            system.ban_peer(peer, time, reason).await.map_err(text)?;
            format!("{peer} is banned for {}", humantime::format_duration(time))
        }
        Request::Unban { peer } => {
            system.unban_peer(peer).await.map_err(text)?;
            format!("{peer} is not banned")
        }
        Request::LogLevel { filter } => {
            log.set(&filter)?;
            format!("the log filter is {filter}")
        }
        Request::Checkpoint { epoch, .. } => {
            let checkpoint = system.checkpoint(epoch).await.map_err(|error| error.to_string())?;
            return Ok(Answer::Checkpoint(hex::encode(checkpoint.encode())));
        }
        Request::Trace { out, time, ring_mib, actors } => trace(system, out, time, ring_mib, actors).await?,
        Request::Reload => {
            let (reply, reloaded) = oneshot::channel();
            reload.send(reply).await.map_err(|_| "the node is stopping")?;
            reloaded.await.map_err(|_| "the node is stopping")??
        }
    };
    Ok(Answer::Done(done))
}

async fn trace(
    system: &Handle,
    out: PathBuf,
    time: Duration,
    ring_mib: u64,
    actors: Vec<String>,
) -> Result<String, String> {
    if !out.is_absolute() {
        return Err(format!("{}: name the whole path, the node has another working directory", out.display()));
    }
    let done = format!("recording into {} for {}", out.display(), humantime::format_duration(time));
    let mut trace = TraceConfig::new(out);
    trace.ring_mib = ring_mib;
    trace.actors = actors;
    system.record_trace(trace, time).await.map_err(|error| error.to_string())?;
    Ok(done)
}
