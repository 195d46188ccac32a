//! Settings from environment variables: `SOMA_P2P__P2P__LISTEN` sets `listen` of the section `[p2p]`.

use crate::error::CliError;
use figment::{
    Figment,
    error::Kind,
    providers::{Env, Serialized},
};
use serde::{Serialize, de::DeserializeOwned};

/// Start of the name of each variable.
pub(crate) const PREFIX: &str = "SOMA_P2P__";

/// Stands for a dot of the key.
const SEPARATOR: &str = "__";

/// A variable that sets a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    /// The setting, with its sections: `p2p.listen`.
    pub(crate) key: String,
    /// The variable's name.
    pub(crate) variable: String,
}

/// The variables that set settings, in the order of their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides(Vec<Override>);

/// Why settings of a file and of the environment are not a configuration.
pub(crate) enum WrongSetting {
    /// A variable has a wrong name or value.
    Variable(CliError),
    /// The file has a wrong key or value.
    File(String),
}

impl Overrides {
    /// The variables of this process.
    pub(crate) fn of_process() -> Result<Self, CliError> {
        let mut found = Vec::new();
        for (name, value) in std::env::vars_os() {
            let variable = name.to_string_lossy().into_owned();
            let prefix = variable.get(..PREFIX.len());
            if !prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX)) {
                continue;
            }
            let key = variable[PREFIX.len()..].to_ascii_lowercase().replace(SEPARATOR, ".");
            if key.is_empty() || name.to_str().is_none() || value.to_str().is_none() {
                return Err(wrong(&variable, "must name a setting, and must be UTF-8 text"));
            }
            found.push(Override { key, variable });
        }
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Self(found))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Override> {
        self.0.iter()
    }

    /// The settings of a file. A setting of the environment replaces that of the file.
    pub(crate) fn merge<T: DeserializeOwned>(&self, file: impl Serialize) -> Result<T, WrongSetting> {
        let settings = Figment::from(Serialized::defaults(file)).merge(Env::prefixed(PREFIX).split(SEPARATOR));
        settings.extract().map_err(|error: figment::Error| {
            let mut path = error.path.clone();
            if let Kind::UnknownField(name, _) = &error.kind {
                path.push(name.clone());
            }
            let (key, kind) = (path.join("."), &error.kind);
            let reason = if key.is_empty() { kind.to_string() } else { format!("{key}: {kind}") };
            self.blame(&key, &reason).map_or(WrongSetting::File(reason), WrongSetting::Variable)
        })
    }

    /// The error of the variable that sets this key, one below it, or the section around it, if there is one.
    pub(crate) fn blame(&self, key: &str, reason: &str) -> Option<CliError> {
        let is_below = |below: &str, above: &str| {
            below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let found = self.0.iter().find(|Override { key: set, .. }| is_below(key, set) || is_below(set, key))?;
        Some(wrong(&found.variable, reason))
    }
}

fn wrong(variable: &str, reason: &str) -> CliError {
    CliError::input(format!("environment variable {variable}: {reason}").replace('\n', " "))
}
