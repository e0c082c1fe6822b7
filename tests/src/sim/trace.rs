//! What can happen in a simulation, and how it is told.

use std::{fmt, time::Duration};

use bytes::Bytes;
use datahike_sync::{
    envelope::Opener,
    message::Request,
    replica::{Outcome, Task},
    source::{Answer, Ask},
};

pub(super) enum Event {
    Commit,
    Fault,
    Calm,
    Connect { node: usize, life: u64 },
    Start { node: usize },
    ServerStart { restored: bool },
    ToServer { node: usize, session: u64, payload: Bytes },
    ToMirror { node: usize, session: u64, payload: Bytes },
    Read { node: usize, session: u64, ask: Ask },
    Answered { node: usize, session: u64, answer: Box<Answer> },
    Work { node: usize, life: u64, task: Task },
    Done { node: usize, life: u64, outcome: Box<Outcome> },
    ProviderTick { node: usize, session: u64 },
    Tick { node: usize, life: u64 },
}

/// An event, told in few words.
pub(super) struct Line {
    pub(super) at: Duration,
    pub(super) what: (&'static str, usize, Detail),
}

#[derive(Hash)]
pub(super) enum Detail {
    None,
    Payload(Bytes),
    Words(String),
}

impl Event {
    pub(super) fn describe(&self) -> (&'static str, usize, Detail) {
        let short = |text: String| Detail::Words(text.chars().take(160).collect());
        match self {
            Self::Commit => ("commit", 0, Detail::None),
            Self::Fault => ("fault", 0, Detail::None),
            Self::Calm => ("calm", 0, Detail::None),
            Self::Connect { node, .. } => ("connect", *node, Detail::None),
            Self::Start { node } => ("start", *node, Detail::None),
            Self::ServerStart { .. } => ("server start", 0, Detail::None),
            Self::ToServer { node, payload, .. } => {
                ("to server", *node, Detail::Payload(payload.clone()))
            }
            Self::ToMirror { node, payload, .. } => {
                ("to mirror", *node, Detail::Payload(payload.clone()))
            }
            Self::Read { node, ask, .. } => match ask {
                Ask::Blocks(addresses, _) => {
                    ("read", *node, short(format!("{} blocks", addresses.len())))
                }
                Ask::Patches(changes, _) => {
                    ("read", *node, short(format!("{} patches", changes.len())))
                }
                ask => ("read", *node, short(format!("{ask:?}"))),
            },
            Self::Answered { node, .. } => ("answered", *node, Detail::None),
            Self::Work { node, task, .. } => match task {
                Task::Append(first, entries) => {
                    ("append", *node, short(format!("{first} and {} more", entries.len() - 1)))
                }
                Task::Put(blocks, seeds) => {
                    ("put", *node, short(format!("{} blocks, seeds {seeds:?}", blocks.len())))
                }
                Task::Batch(to, _) => ("batch", *node, short(format!("{to:?}"))),
                Task::Difference(to, _) => ("difference", *node, short(format!("{to:?}"))),
                Task::Lacks(_) => ("lacks", *node, Detail::None),
                task => ("work", *node, short(format!("{task:?}"))),
            },
            Self::Done { node, outcome, .. } => match &**outcome {
                Outcome::Stored(_) => ("stored", *node, Detail::None),
                outcome => ("done", *node, short(format!("{outcome:?}"))),
            },
            Self::ProviderTick { node, .. } => ("provider tick", *node, Detail::None),
            Self::Tick { node, .. } => ("tick", *node, Detail::None),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, node, detail) = &self.what;
        write!(f, "{:>10.4} {node} {kind}", self.at.as_secs_f64())?;
        match detail {
            Detail::None => Ok(()),
            Detail::Words(words) => write!(f, " {words}"),
            Detail::Payload(payload) => {
                let message = match *kind {
                    "to server" => Request::decode(payload.clone()).map(|it| format!("{it:?}")),
                    _ => Opener::default().open(payload.clone()).map(|it| format!("{it:?}")),
                };
                let message = message.unwrap_or_else(|error| error.to_string());
                let message: String = message.chars().take(160).collect();
                write!(f, " {} bytes {message}", payload.len())
            }
        }
    }
}
