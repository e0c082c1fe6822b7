//! The life of one connection as a state machine: hello, heartbeat, close. It does no IO and knows no
//! clock: messages and times go in, effects come out.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use datahike_value::{Keyword, Value, kw};

use crate::auth::Principal;
use crate::error::{Close, Refusal};
use crate::frame::SerializerId;
use crate::hello::{Hello, PeerId, VERSION, VERSION_OLDEST, Welcome};
use crate::limits::Limits;
use crate::message::Message;
use crate::rt::Time;

/// What this side says about itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its id.
    pub peer: PeerId,
    /// Program and version.
    pub agent: String,
    /// Serializers, the one it likes best first.
    pub serializers: Vec<SerializerId>,
    /// Anything that layers add.
    pub properties: BTreeMap<Keyword, Value>,
}

/// What a session wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send this as EDN text.
    SendText(Message),
    /// Send this in the chosen serializer.
    Send(Message),
    /// Find out whom this hello comes from and tell it to [`Session::decided`].
    Authenticate(Hello),
    /// The hello is done: messages may pass from here on.
    Open(Agreement),
    /// The other side refused the hello.
    Refused(Refusal),
    /// Send what waits, then this, then nothing more.
    Close(Close),
}

/// What both sides agreed on.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Who the other side says it is.
    pub peer: PeerId,
    /// Whom it was found to be; `None` on the dialling side.
    pub principal: Option<Principal>,
    /// The version.
    pub version: u32,
    /// The serializer.
    pub serializer: SerializerId,
    /// The other side's program and version.
    pub agent: String,
    /// Bytes of the largest frame that the other side takes.
    pub frame_bytes: usize,
    /// What its hello said besides.
    pub properties: BTreeMap<Keyword, Value>,
}

/// The state machine.
#[derive(Debug)]
pub struct Session {
    introduction: Introduction,
    limits: Limits,
    state: State,
    /// When a frame last came.
    heard: Time,
    /// When a ping left that nothing has come after.
    pinged: Option<Time>,
}

#[derive(Debug)]
enum State {
    AwaitHello { until: Time },
    Deciding { until: Time, hello: Hello },
    AwaitWelcome { until: Time },
    Open,
    Closing,
}

impl Session {
    /// The dialling side. It speaks first.
    pub fn dial(
        introduction: Introduction,
        token: Option<crate::Token>,
        limits: Limits,
        now: Time,
    ) -> (Self, Vec<Effect>) {
        let hello = Hello {
            versions: VERSION_OLDEST..=VERSION,
            peer: introduction.peer,
            serializers: introduction.serializers.clone(),
            token,
            agent: introduction.agent.clone(),
            frame_bytes: limits.frame_bytes,
            properties: introduction.properties.clone(),
        };
        let state = State::AwaitWelcome { until: now + limits.handshake };
        let session = Self { introduction, limits, state, heard: now, pinged: None };
        (session, vec![Effect::SendText(hello.to_message())])
    }

    /// The accepting side. It listens first.
    pub fn accept(introduction: Introduction, limits: Limits, now: Time) -> Self {
        let state = State::AwaitHello { until: now + limits.handshake };
        Self { introduction, limits, state, heard: now, pinged: None }
    }

    /// Whether messages pass.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The hello that is being decided on.
    pub fn greeting(&self) -> Option<&Hello> {
        match &self.state {
            State::Deciding { hello, .. } => Some(hello),
            _ => None,
        }
    }

    /// A frame came, whatever is in it.
    pub fn heard(&mut self, now: Time) {
        self.heard = now;
        self.pinged = None;
    }

    /// A message came that is the session's: any before it is open, later those in the namespace `peer`.
    pub fn message(&mut self, message: &Message, _now: Time) -> Vec<Effect> {
        let name = match message.kind().namespace() {
            Some("peer") => message.kind().name(),
            _ => "",
        };
        match (&self.state, name) {
            (State::AwaitHello { until }, "hello") => {
                let until = *until;
                match Hello::from_message(message) {
                    Ok(hello) => self.greeted(hello, until),
                    Err(refusal) => self.refuse(&refusal),
                }
            }
            (State::AwaitWelcome { .. }, "welcome") => match Welcome::from_message(message) {
                Ok(welcome) => self.welcomed(welcome),
                Err(refusal) => self.close(Close::new(Close::PROTOCOL, refusal.message)),
            },
            (State::AwaitWelcome { .. }, "refused") => {
                let refusal = Refusal::from_message(message);
                let close = Close::new(Close::REFUSED, refusal.message.clone());
                let mut effects = vec![Effect::Refused(refusal)];
                effects.extend(self.close(close));
                effects
            }
            (State::Open, "ping") => vec![Effect::Send(Message::new(kw!("peer/pong"), []))],
            (State::Open, "pong") | (State::Closing, _) => Vec::new(),
            _ => {
                let reason = format!("{} does not belong here", message.kind());
                self.close(Close::new(Close::PROTOCOL, reason))
            }
        }
    }

    /// It was found out whom the hello came from.
    pub fn decided(&mut self, decision: Result<Principal, Refusal>) -> Vec<Effect> {
        let State::Deciding { hello, .. } = &self.state else {
            return Vec::new();
        };
        let hello = hello.clone();
        let principal = match decision {
            Ok(principal) => principal,
            Err(refusal) => return self.refuse(&refusal),
        };
        let (Some(version), Some(serializer)) =
            (common(&hello.versions), self.choose(&hello.serializers))
        else {
            return Vec::new();
        };
        let welcome = Welcome {
            version,
            peer: self.introduction.peer,
            serializer,
            agent: self.introduction.agent.clone(),
            frame_bytes: self.limits.frame_bytes,
            properties: self.introduction.properties.clone(),
        };
        self.state = State::Open;
        let agreement = Agreement {
            peer: hello.peer,
            principal: Some(principal),
            version,
            serializer,
            agent: hello.agent,
            frame_bytes: hello.frame_bytes,
            properties: hello.properties,
        };
        vec![Effect::SendText(welcome.to_message()), Effect::Open(agreement)]
    }

    /// Time passed: something may be due.
    pub fn tick(&mut self, now: Time) -> Vec<Effect> {
        match &self.state {
            State::AwaitHello { until }
            | State::Deciding { until, .. }
            | State::AwaitWelcome { until }
                if now >= *until =>
            {
                self.close(Close::new(Close::DEAD, "the hello took too long"))
            }
            State::Open if now.since(self.heard) >= self.limits.dead_after => {
                let seconds = now.since(self.heard).as_secs();
                self.close(Close::new(Close::DEAD, format!("nothing heard for {seconds} s")))
            }
            State::Open
                if self.pinged.is_none() && now.since(self.heard) >= self.limits.heartbeat =>
            {
                self.pinged = Some(now);
                vec![Effect::Send(Message::new(kw!("peer/ping"), []))]
            }
            _ => Vec::new(),
        }
    }

    /// When [`tick`](Self::tick) should be called at the latest.
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::AwaitHello { until }
            | State::Deciding { until, .. }
            | State::AwaitWelcome { until } => Some(*until),
            State::Open if self.pinged.is_some() => Some(self.heard + self.limits.dead_after),
            State::Open => Some(self.heard + self.limits.heartbeat.min(self.limits.dead_after)),
            State::Closing => None,
        }
    }

    /// Ends it, for this reason.
    pub fn close(&mut self, close: Close) -> Vec<Effect> {
        if matches!(self.state, State::Closing) {
            return Vec::new();
        }
        self.state = State::Closing;
        vec![Effect::Close(close)]
    }

    fn greeted(&mut self, hello: Hello, until: Time) -> Vec<Effect> {
        if common(&hello.versions).is_none() {
            let (oldest, newest) = (hello.versions.start(), hello.versions.end());
            let message = format!(
                "this peer speaks protocol versions {VERSION_OLDEST} to {VERSION}, not {oldest} to {newest}"
            );
            let data = Value::vector([Value::from(VERSION_OLDEST), Value::from(VERSION)]);
            return self.refuse(&Refusal::new("peer/version", message).with_data(data));
        }
        if self.choose(&hello.serializers).is_none() {
            let ids = self.introduction.serializers.iter().map(|id| Value::from(id.0));
            let refusal = Refusal::new("peer/serializer", "no serializer in common");
            return self.refuse(&refusal.with_data(Value::vector(ids)));
        }
        self.state = State::Deciding { until, hello: hello.clone() };
        vec![Effect::Authenticate(hello)]
    }

    fn welcomed(&mut self, welcome: Welcome) -> Vec<Effect> {
        let known = self.introduction.serializers.contains(&welcome.serializer);
        if !known || !(VERSION_OLDEST..=VERSION).contains(&welcome.version) {
            let reason = "the welcome chose what was not offered";
            return self.close(Close::new(Close::PROTOCOL, reason));
        }
        self.state = State::Open;
        vec![Effect::Open(Agreement {
            peer: welcome.peer,
            principal: None,
            version: welcome.version,
            serializer: welcome.serializer,
            agent: welcome.agent,
            frame_bytes: welcome.frame_bytes,
            properties: welcome.properties,
        })]
    }

    fn refuse(&mut self, refusal: &Refusal) -> Vec<Effect> {
        let message = Message::new(kw!("peer/refused"), refusal.to_entries());
        let mut effects = vec![Effect::SendText(message)];
        effects.extend(self.close(Close::new(Close::REFUSED, refusal.message.clone())));
        effects
    }

    /// The first of the other side's serializers that this side knows.
    fn choose(&self, theirs: &[SerializerId]) -> Option<SerializerId> {
        theirs.iter().find(|id| self.introduction.serializers.contains(id)).copied()
    }
}

/// The newest version that both speak.
fn common(theirs: &RangeInclusive<u32>) -> Option<u32> {
    let newest = VERSION.min(*theirs.end());
    (newest >= VERSION_OLDEST && newest >= *theirs.start()).then_some(newest)
}
