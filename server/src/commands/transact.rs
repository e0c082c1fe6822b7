//! `datahike transact`: a stream of transactions, in order, several under way at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io::{BufReader, Read, stdin};
use std::task::Poll;
use std::time::Instant;

use datahike::{Uuid, Value, kw};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::cli::Transact;
use crate::failure::Failure;
use crate::forms::Forms;
use crate::output;
use crate::session::{Attempt, Session, error_line};

pub(super) async fn run(args: Transact) -> Result<(), Failure> {
    let input: Box<dyn Read + Send> = match args.file.as_str() {
        "-" => Box::new(stdin()),
        path => Box::new(File::open(path).map_err(|e| Failure::from(e).at(path))?),
    };
    let name = if args.file == "-" { "standard input".to_owned() } else { args.file.clone() };
    let session = Session::write(&args.target).await?;
    let in_flight = usize::from(args.in_flight);
    let (sender, mut forms) = mpsc::channel(in_flight);
    // Reading may wait for a terminal or a pipe: on a thread of its own.
    std::thread::spawn(move || {
        let mut forms = Forms::new(BufReader::new(input), name);
        loop {
            let form = forms.next().transpose();
            let Some(form) = form else { return };
            let failed = form.is_err();
            if sender.blocking_send(form).is_err() || failed {
                return;
            }
        }
    });
    let client = Uuid::new_v4();
    let keep_going = args.keep_going;
    let mut queue =
        Queue { session: &session, client, next: 1, keep_going, under_way: VecDeque::new() };
    let mut refused = false;
    let mut ended = None;
    let mut lost = None;
    while ended.is_none() || !queue.under_way.is_empty() {
        tokio::select! {
            biased;
            attempt = queue.oldest(), if !queue.under_way.is_empty() => {
                match attempt {
                    Attempt::Lost => {
                        let timeout = args.target.access.timeout;
                        let limit = *lost.get_or_insert_with(|| Instant::now() + timeout);
                        queue.send_again(limit).await?;
                    }
                    Attempt::Answered(Ok(report)) => {
                        lost = None;
                        output::line(report)?;
                    }
                    Attempt::Answered(Err(error)) => {
                        lost = None;
                        output::line(error_line(&error))?;
                        refused = true;
                        // What was sent behind it is refused as well.
                        if !args.keep_going {
                            break;
                        }
                    }
                }
            }
            form = forms.recv(), if ended.is_none() && queue.under_way.len() < in_flight => {
                match form {
                    None => ended = Some(Ok(())),
                    Some(Ok(form)) => queue.add(form),
                    Some(Err(failure)) => ended = Some(Err(failure)),
                }
            }
        }
    }
    drop(queue);
    session.close().await?;
    match ended {
        Some(Err(failure)) => Err(failure),
        _ if refused => Err(Failure::said()),
        _ => Ok(()),
    }
}

/// Transactions under way, oldest first.
struct Queue<'a> {
    session: &'a Session,
    client: Uuid,
    next: u64,
    keep_going: bool,
    under_way: VecDeque<UnderWay<'a>>,
}

struct UnderWay<'a> {
    arguments: Vec<(&'static str, Value)>,
    state: State<'a>,
}

enum State<'a> {
    Running(BoxFuture<'a, Attempt>),
    Done(Attempt),
}

impl<'a> Queue<'a> {
    /// Sends a transaction: a vector of forms, or a map of `:tx-data` and `:tx-meta`.
    fn add(&mut self, form: Value) {
        let (data, meta) = match form.get(&kw!("tx-data")) {
            Some(data) => (data.clone(), form.get(&kw!("tx-meta")).cloned().unwrap_or_default()),
            None => (form, Value::Nil),
        };
        let number = Value::Long(i64::try_from(self.next).unwrap_or(i64::MAX));
        self.next += 1;
        let arguments = vec![
            ("tx-data", data),
            ("tx-meta", meta),
            ("client", Value::Uuid(self.client)),
            ("request", number),
            ("in-sequence", Value::Bool(!self.keep_going)),
        ];
        let state = self.send(&arguments);
        self.under_way.push_back(UnderWay { arguments, state });
    }

    fn send(&self, arguments: &[(&'static str, Value)]) -> State<'a> {
        let session = self.session;
        let arguments = arguments.to_vec();
        let mut attempt: BoxFuture<'a, Attempt> =
            match session {
                Session::Local(_) => Box::pin(async move {
                    Attempt::Answered(session.invoke("transact", arguments).await)
                }),
                Session::Remote(remote) => Box::pin(remote.transact(arguments)),
            };
        // Polled once now, it is on its way before those that come after it.
        match (&mut attempt).now_or_never() {
            Some(done) => State::Done(done),
            None => State::Running(attempt),
        }
    }

    /// The answer to the oldest; those behind it go on meanwhile.
    fn oldest(&mut self) -> impl Future<Output = Attempt> + use<'_, 'a> {
        poll_fn(|cx| {
            for one in &mut self.under_way {
                if let State::Running(attempt) = &mut one.state
                    && let Poll::Ready(done) = attempt.as_mut().poll(cx)
                {
                    one.state = State::Done(done);
                }
            }
            match self.under_way.pop_front() {
                Some(UnderWay { state: State::Done(Attempt::Answered(answer)), .. }) => {
                    Poll::Ready(Attempt::Answered(answer))
                }
                Some(lost @ UnderWay { state: State::Done(Attempt::Lost), .. }) => {
                    self.under_way.push_front(lost);
                    Poll::Ready(Attempt::Lost)
                }
                Some(running) => {
                    self.under_way.push_front(running);
                    Poll::Pending
                }
                None => Poll::Pending,
            }
        })
    }

    /// Sends again, in order and under the same ids, what has no answer.
    async fn send_again(&mut self, limit: Instant) -> Result<(), Failure> {
        if let Session::Remote(remote) = self.session {
            remote.reconnect(limit).await?;
        }
        for at in 0..self.under_way.len() {
            let one = &self.under_way[at];
            if matches!(one.state, State::Done(Attempt::Answered(_))) {
                continue;
            }
            let state = self.send(&one.arguments);
            self.under_way[at].state = state;
        }
        Ok(())
    }
}
