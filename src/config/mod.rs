//! The one settings file: read once at start-up, checked whole, then only values that cannot be wrong.
//! Trusts: nothing in the file; a setting that nobody reads is refused, not ignored.
//! Touches: one TOML file.
//! Next: `lifecycle` hands each section to the module it belongs to.

mod jobs;
mod keeper;
mod limits;
mod listen;
mod models;
mod process;
mod read;
mod state;
mod units;

use std::fmt;
use std::path::{Path, PathBuf};

pub use jobs::Jobs;
pub use keeper::{Keeper, Tcti};
pub use limits::{Limits, Rates};
pub use listen::Listen;
pub use models::Models;
pub use process::Process;
pub use read::Fault;
pub use state::State;

/// Largest settings file, bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Every setting of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens and how many may come.
    pub listen: Listen,
    /// Where calls lie, sealed.
    pub state: State,
    /// Where the keys are.
    pub keeper: Keeper,
    /// Which models are used.
    pub models: Models,
    /// How calls are worked on.
    pub jobs: Jobs,
    /// Time limits and rates.
    pub limits: Limits,
    /// Which users the processes become.
    pub process: Process,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings file {path} cannot be read; does it exist and may this user read it?")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is far longer than settings are.
    #[error("the settings file {path} is longer than {FILE_MAX} bytes; it is no settings file")]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// Not TOML.
    #[error("the settings are not valid TOML; correct the marked place")]
    Syntax(#[source] Box<toml::de::Error>),
    /// TOML, but not our settings. All faults at once.
    #[error("{0}")]
    Faults(Faults),
}

/// All faults of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings have {} fault(s); correct each of:", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`]; faults come all at once, each with the path of its key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read_error)?.len() > FILE_MAX {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read_error)?)
    }

    /// Checks the text of a settings file. An empty one gives the defaults.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error| ConfigError::Syntax(Box::new(error)))?;
        let mut file = read::File::new(table);
        let config = Self {
            listen: file.section("listen", Listen::read),
            state: file.section("state", State::read),
            keeper: file.section("keeper", Keeper::read),
            models: file.section("models", Models::read),
            jobs: file.section("jobs", Jobs::read),
            limits: file.section("limits", Limits::read),
            process: file.section("process", Process::read),
        };
        let faults = file.finish();
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::Faults(Faults(faults))) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn faults(text: &str) -> Vec<String> {
        match Config::parse(text).unwrap_err() {
            ConfigError::Faults(Faults(faults)) => faults.into_iter().map(|fault| fault.key).collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_shipped_example_is_valid_and_says_the_defaults() {
        let example = include_str!("../../config/salama.toml");
        assert_eq!(Config::parse(example).unwrap(), Config::parse("").unwrap());
    }

    #[test]
    fn the_shipped_example_names_every_setting() {
        let example: toml::Table = include_str!("../../config/salama.toml").parse().unwrap();
        let keys: usize = example.values().map(|section| section.as_table().unwrap().len()).sum();
        let mut file = read::File::new(toml::Table::new());
        file.section("listen", Listen::read);
        file.section("state", State::read);
        file.section("keeper", Keeper::read);
        file.section("models", Models::read);
        file.section("jobs", Jobs::read);
        file.section("limits", Limits::read);
        file.section("process", Process::read);
        assert_eq!(keys, file.known_keys());
    }

    #[test]
    fn all_faults_are_reported_at_once_with_their_key_paths() {
        let text = r#"
            surprise = 1
            [listen]
            address = "no address"
            max_connections = -1
            insecure = true
            [limits]
            body_timeout = "5 parsecs"
            header_timeout = 5
            [limits.rates]
            uploads = 0
            [state]
            directory = "relative/path"
        "#;
        let expected = [
            "listen.address",
            "listen.max_connections",
            "listen.insecure",
            "state.directory",
            "limits.header_timeout",
            "limits.body_timeout",
            "limits.rates",
            "surprise",
        ];
        assert_eq!(faults(text), expected);
    }

    #[test]
    fn limits_can_be_tightened_but_not_lifted() {
        assert_eq!(faults("[jobs]\nmax_audio = \"501 MB\"\nmax_duration = \"5 h\""), ["jobs.max_audio", "jobs.max_duration"]);
        let config = Config::parse("[jobs]\nmax_audio = \"20 MB\"\nmax_duration = \"90 min\"").unwrap();
        assert_eq!((config.jobs.max_audio, config.jobs.max_duration), (20_000_000, Duration::from_secs(5400)));
    }

    #[test]
    fn what_is_no_toml_names_the_place() {
        let ConfigError::Syntax(source) = Config::parse("[listen\n").unwrap_err() else { panic!("not a syntax error") };
        assert!(source.to_string().contains("line 1"));
    }

    #[test]
    fn settings_that_are_in_another_file_by_now_are_refused_with_its_name() {
        let text = Config::parse("[keeper]\nunwraps_per_minute = 240\nhandshakes_per_minute = 3000").unwrap_err().to_string();
        for word in [
            "keeper.unwraps_per_minute: ",
            "keeper.handshakes_per_minute: ",
            "[job] and [read] in limits.toml",
            "[handshake] in limits.toml",
        ] {
            assert!(text.contains(word), "{text}");
        }
        assert!(text.starts_with("the settings have 2 fault(s)"), "{text}");
    }

    #[test]
    fn the_operator_reads_what_is_wrong_and_what_is_allowed() {
        let text = Config::parse("[jobs]\nqueue = 0").unwrap_err().to_string();
        assert_eq!(text, "the settings have 1 fault(s); correct each of:\n  jobs.queue: must be a whole number from 1 to 100000");
    }
}
