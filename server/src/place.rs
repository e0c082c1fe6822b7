//! Where a database is: `file:FOLDER` or `ws://HOST:PORT/NAME`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A database on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a folder of this machine.
    File(PathBuf),
    /// At a server.
    Server(Remote),
}

/// A database at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// `ws://HOST:PORT` or `wss://HOST:PORT`.
    pub url: String,
    /// Its name there, or the UUID of its store.
    pub name: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:") {
            return match path {
                "" => Err("file: needs a folder, such as file:data/cities".to_owned()),
                path => Ok(Self::File(path.into())),
            };
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!(
                "{text:?} is neither file:FOLDER nor ws://HOST:PORT/NAME; \
                 for a folder of that name say file:{text}"
            ));
        };
        if scheme != "ws" && scheme != "wss" {
            return Err(format!("{scheme}:// is not known; use ws://, wss:// or file:"));
        }
        match rest.split_once('/') {
            Some((host, name)) if !host.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Server(Remote {
                    url: format!("{scheme}://{host}"),
                    name: name.to_owned(),
                }))
            }
            _ => Err(format!("{text} names no database; use {scheme}://HOST:PORT/NAME")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Server(remote) => write!(f, "{}/{}", remote.url, remote.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_as_they_print() {
        for text in ["file:data/cities", "ws://127.0.0.1:4444/cities", "wss://example.org/x"] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
        for text in
            ["cities", "file:", "http://x/y", "ws://host", "ws://host/", "ws:///a", "ws://h/a/b"]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
