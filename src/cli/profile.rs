//! Where the appliance is and who asks: command line, then environment, then `salama/client.toml`.
//! Trusts: the user's own files.
//! Touches: the environment, the profile, the two PEM files.
//! Next: [`super::client`].

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::Connection;
use super::failure::Failure;

/// The port when the address names none.
const PORT: u16 = 8443;

/// A complete connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// PEM: certificate and key.
    pub identity: PathBuf,
    /// PEM: the appliance's authority.
    pub authority: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    server: Option<String>,
    identity: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl Settings {
    /// As told.
    pub fn load(given: &Connection) -> Result<Self, Failure> {
        Self::resolve(given, &|name| std::env::var_os(name))
    }

    fn resolve(given: &Connection, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let file = profile_path(environment);
        let profile = read_profile(&file)?;
        let beside = |path: PathBuf| file.parent().map_or_else(|| path.clone(), |parent| parent.join(&path));
        let missing = |what, option, variable, field| Failure::NotConfigured { what, option, variable, field, file: file.clone() };
        let server = given
            .server
            .clone()
            .or_else(|| environment("SALAMA_SERVER").and_then(|value| value.into_string().ok()))
            .or(profile.server)
            .ok_or_else(|| missing("the appliance's address", "--server https://HOST:PORT", "SALAMA_SERVER", "server"))?;
        let path = |given: &Option<PathBuf>, variable: &str, in_profile: Option<PathBuf>| {
            given.clone().or_else(|| environment(variable).map(PathBuf::from)).or_else(|| in_profile.map(beside))
        };
        let identity = path(&given.identity, "SALAMA_IDENTITY", profile.identity)
            .ok_or_else(|| missing("your certificate", "--identity FILE", "SALAMA_IDENTITY", "identity"))?;
        let authority = path(&given.authority, "SALAMA_CA", profile.ca)
            .ok_or_else(|| missing("the certificate of the appliance's authority", "--ca FILE", "SALAMA_CA", "ca"))?;
        let (host, port) = address(&server)?;
        Ok(Self { host, port, identity, authority })
    }

    /// For messages and the `Host` header.
    pub fn server(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

fn profile_path(environment: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config"))).unwrap_or_default();
    base.join("salama/client.toml")
}

fn read_profile(file: &Path) -> Result<Profile, Failure> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Profile::default()),
        Err(cause) => return Err(Failure::Read { path: file.to_owned(), cause }),
    };
    toml::from_str(&text).map_err(|error| Failure::Configuration(format!("{} is not a valid profile: {}", file.display(), error.message())))
}

/// Host and port of `https://HOST[:PORT]`.
fn address(server: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::Configuration(format!("`{server}` is not an address of the form https://HOST:PORT"));
    let uri: http::Uri = server.parse().map_err(|_| wrong())?;
    let plain = uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@')).ok_or_else(wrong)?;
    let port = match authority.port() {
        Some(port) => port.as_str().parse().map_err(|_| wrong())?,
        // What is written behind the host is no port.
        None if authority.as_str() != authority.host() => return Err(wrong()),
        None => PORT,
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(directory: &Path) -> impl Fn(&str) -> Option<OsString> {
        move |name| match name {
            "XDG_CONFIG_HOME" => Some(directory.into()),
            "SALAMA_SERVER" => Some("https://from-environment:1".into()),
            _ => None,
        }
    }

    fn profile(text: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("salama")).unwrap();
        fs::write(directory.path().join("salama/client.toml"), text).unwrap();
        directory
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_profile() {
        let directory = profile("server = \"https://from-profile\"\nidentity = \"me.pem\"\nca = \"/ca.pem\"\n");
        let told = environment(directory.path());
        let settings = Settings::resolve(&Connection::default(), &told).unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("from-environment", 1));
        assert_eq!(settings.identity, directory.path().join("salama/me.pem"));
        assert_eq!(settings.authority, Path::new("/ca.pem"));
        let given = Connection { server: Some("https://given".to_owned()), ..Connection::default() };
        assert_eq!(Settings::resolve(&given, &told).unwrap().server(), "given:8443");
    }

    #[test]
    fn unknown_settings_are_refused() {
        let directory = profile("insecure = true\n");
        let refused = Settings::resolve(&Connection::default(), &environment(directory.path())).unwrap_err();
        assert!(matches!(refused, Failure::Configuration(_)), "{refused}");
    }

    #[test]
    fn what_is_missing_is_named_with_all_three_ways_to_say_it() {
        let directory = tempfile::tempdir().unwrap();
        let refused = Settings::resolve(&Connection::default(), &environment(directory.path())).unwrap_err().to_string();
        for word in ["--identity", "SALAMA_IDENTITY", "client.toml"] {
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn only_https_addresses_without_extras_are_taken() {
        for wrong in ["http://a", "a:1", "https://", "https://a/b", "https://u@a", "https://a:99999", "https://a?b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(address("https://[::1]:9/").unwrap(), ("::1".to_owned(), 9));
    }
}
