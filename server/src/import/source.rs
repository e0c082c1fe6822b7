use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;

use crate::failure::Failure;
use crate::progress;

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// What a file holds, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Csv,
    JsonLines,
    Edn,
}

/// The file to import.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    packed: bool,
    bytes: u64,
}

impl Source {
    pub(super) fn of(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.to_lowercase();
        let (name, packed) = match name.strip_suffix(".gz") {
            Some(name) => (name, true),
            None => (&*name, false),
        };
        let kind = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("csv") => Kind::Csv,
            Some("jsonl" | "ndjson") => Kind::JsonLines,
            Some("edn") => Kind::Edn,
            _ => {
                let text = format!("{}: what is in it?", path.display());
                return Err(Failure::usage(text)
                    .hint("the name must end in .csv, .jsonl or .edn, or one of these and .gz"));
            }
        };
        let bytes = std::fs::metadata(path).map_err(|e| Failure::from(e).at(path.display()))?.len();
        Ok(Self { path: path.to_owned(), kind, packed, bytes })
    }

    /// Reads it from the beginning, unpacked.
    pub(super) fn open(&self) -> Result<Box<dyn BufRead + Send>, Failure> {
        self.read(ProgressBar::hidden())
    }

    /// The same with a progress bar.
    pub(super) fn open_shown(&self) -> Result<(Box<dyn BufRead + Send>, ProgressBar), Failure> {
        let bar = progress::bytes(self.bytes, "importing");
        Ok((self.read(bar.clone())?, bar))
    }

    fn read(&self, bar: ProgressBar) -> Result<Box<dyn BufRead + Send>, Failure> {
        let file = File::open(&self.path).map_err(|e| Failure::from(e).at(self.path.display()))?;
        let file = BufReader::with_capacity(BUFFER, Counted { file, bar });
        Ok(match self.packed {
            true => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))),
            false => Box::new(file),
        })
    }

    /// A failure in this file.
    pub(super) fn failure(&self, error: impl Into<Failure>) -> Failure {
        error.into().at(self.path.display())
    }
}

struct Counted {
    file: File,
    bar: ProgressBar,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bar.inc(read as u64);
        Ok(read)
    }
}
