//! `soma-p2p control`

use super::messages::{Answer, Request};
use crate::{checkpoint, error::CliError, files, node_config::NodeConfig, running};
use soma_p2p::{Checkpoint, types::limits::MAX_CHECKPOINT_BYTES};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// How long the node may take: longer than it gives a command.
const TIMEOUT: Duration = Duration::from_secs(45);

/// Bytes of an answer: a checkpoint in hex, and the rest of the line.
const MAX_ANSWER_BYTES: u64 = 2 * MAX_CHECKPOINT_BYTES as u64 + (64 << 10);

#[derive(clap::Args)]
pub struct Args {
    /// The configuration file of the running node.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    request: Request,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = NodeConfig::read(&args.config)?;
    let mut request = args.request.clone();
    if let Request::Trace { out, .. } = &mut request {
        *out = std::path::absolute(&*out).map_err(CliError::input)?;
    }
    if let Request::Checkpoint { out, .. } = &request {
        files::check_new(out)?;
    }
    let running = running::find(&config)?;
    if running.control.is_none() {
        return Err(CliError::failed("the node has no control socket; its log says why"));
    }
    // Not the path that the node noted: the same as seen from here may be short enough for a socket.
    let socket = config.control_socket();
    let answer = ask(&socket, &request).map_err(|error| {
        CliError::failed(format!(
            "the node of process {} does not answer on {}: {error}",
            running.pid,
            socket.display()
        ))
    })?;
    match (answer, &request) {
        (Answer::Failed(reason), _) => Err(CliError::failed(reason)),
        (Answer::Done(done), _) => {
            println!("{done}");
            Ok(ExitCode::SUCCESS)
        }
        (Answer::Checkpoint(encoded), Request::Checkpoint { out, json, .. }) => write(&config, &encoded, out, *json),
        (Answer::Checkpoint(_), _) => Err(CliError::failed("the node answered with a checkpoint, of another version?")),
    }
}

fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::other("it closed the connection: too many commands at once, or it is stopping"));
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Writes a checkpoint that proves itself against the genesis of the configuration.
fn write(config: &NodeConfig, encoded: &str, out: &Path, json: bool) -> Result<ExitCode, CliError> {
    let wrong = |error: String| CliError::failed(format!("the checkpoint of the node: {error}"));
    let bytes = hex::decode(encoded).map_err(|error| wrong(error.to_string()))?;
    let checkpoint = Checkpoint::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
    let genesis = files::read_genesis(&config.genesis)?;
    files::write_new(out, &bytes)?;
    checkpoint::print(&genesis, &checkpoint, out, json, &wrong)
}
