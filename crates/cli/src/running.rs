//! Asking a running node: its run file says where its admin endpoint is.

use crate::{
    error::CliError,
    node_config::{NodeConfig, RunFile},
};
use serde::de::DeserializeOwned;
use std::{fs, net::SocketAddr, time::Duration};

/// How long the admin endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one answer: an address book that is full of the longest node infos has about 10 MiB.
const MAX_ANSWER_BYTES: u64 = 32 << 20;

/// Where the node of this configuration answers.
pub(crate) fn find(config: &NodeConfig) -> Result<RunFile, CliError> {
    let run_file = config.run_file();
    let text = fs::read_to_string(&run_file).map_err(|error| {
        CliError::failed(format!("no node runs with this configuration: {}: {error}", run_file.display()))
    })?;
    serde_json::from_str(&text)
        .map_err(|error| CliError::failed(format!("{} is not valid: {error}", run_file.display())))
}

/// Asks the node that runs with this configuration.
pub(crate) fn ask<T: DeserializeOwned>(config: &NodeConfig, path: &str) -> Result<T, CliError> {
    let running = find(config)?;
    fetch(running.admin, path).map_err(|error| {
        CliError::failed(format!(
            "the node of process {} does not answer on http://{}: {error}; it may have been killed",
            running.pid, running.admin
        ))
    })
}

/// Asks an admin endpoint.
pub(crate) fn fetch<T: DeserializeOwned>(admin: SocketAddr, path: &str) -> Result<T, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
    let mut response = agent.get(format!("http://{admin}{path}")).call()?;
    response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_json()
}
