//! [`get`]: fetches what a ticket of [`send`](super::send()) is for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use jiff::Zoned;
use left_core::message::{Nonce, RefusedCode};
use left_core::ticket::SendTicket;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::getting::{Attempt, Ended, Getting};
use super::room::Room;
use super::{Event, Stop, unix_now};
use crate::daemon::limits::{Limiter, Limits, rate_at};
use crate::daemon::load_key;
use crate::home::{Home, UserError, clean, text};
use crate::net::handshake::{ControlRequest, PairRequest, not_admitted};
use crate::net::{Admitted, DialError, Gate, Introduction, Net, NetConfig, Paired, Visitor};

/// How long a lost sender is looked for.
const PATIENCE: Duration = Duration::from_secs(120);
/// First waiting after a failed dial; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What to fetch, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receive {
    /// The ticket's text.
    pub ticket: String,
    /// Into which folder; made when missing.
    pub dir: PathBuf,
    /// What stands there and differs is replaced.
    pub overwrite: bool,
    /// What stands there keeps its name, what comes gets another one.
    pub rename: bool,
    /// Names that begin with a dot are taken.
    pub dotfiles: bool,
    /// This device's name, as the sender sees it.
    pub name: String,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Got {
    /// The folder.
    #[serde(with = "text")]
    pub dir: PathBuf,
    /// Files and links, those that were here already included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that came over the network.
    pub received: u64,
    /// Files and links that were here already.
    pub already: u64,
    /// What has another name here than at the sender: both names.
    pub renamed: Vec<(String, String)>,
}

/// Fetches until everything is in place. Interrupted, it goes on where it was when it is called again
/// with this ticket, or one of the same device for the same paths.
///
/// # Errors
/// When something else stands in the way (nothing is changed then), when the sender refuses or is lost
/// for longer than two minutes, or the disk does not take it.
pub fn get(
    home: &Home,
    how: &Receive,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Got, UserError> {
    let what = "cannot fetch";
    let ticket = SendTicket::parse(&how.ticket).map_err(|e| {
        let text = e.to_string();
        let (why, todo) = text.split_once("; ").unwrap_or((&text, "copy it again"));
        UserError::usage("cannot read the ticket", why, todo)
    })?;
    let ticket = ticket.0;
    if ticket.expires <= unix_now() {
        let todo = "ask for another one";
        return Err(UserError::new(what, "the ticket has expired", todo));
    }
    let key = Arc::new(load_key(home)?);
    let config = home.config()?;
    let limiter = Arc::new(Limiter::default());
    limiter.set(rate_at(&config.bandwidth, &Zoned::now()));
    let runtime = runtime(what)?;
    let net = Net::start(
        NetConfig::new(key, Vec::new(), runtime.handle().clone()),
        Arc::new(Closed),
        |_| {},
    )
    .map_err(|e| UserError::new(what, e, "try again"))?;
    let mut instance: Nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut instance)
        .map_err(|_| UserError::new(what, "the system gives no random numbers", "try again"))?;
    let me = Introduction {
        instance,
        name: how.name.clone(),
        addresses: Vec::new(),
    };
    let mut room = Room::open(&how.dir, ticket.share)?;
    let (waker, woken) = bounded(1);
    stop.wake(waker);
    let mut getting = Getting::new(how, ticket, stop, woken);
    let limits = Limits::new([limiter]);
    let attempt = Attempt {
        net: &net,
        me,
        limits,
    };
    let ended = patiently(&mut getting, &mut room, &attempt, tell);
    let result = match ended {
        Ok(()) => finish(getting, room),
        Err(error) => {
            room.remove_if_empty();
            Err(error)
        }
    };
    drop(net);
    runtime.shutdown_timeout(Duration::from_millis(300));
    result
}

/// Tries again as long as there is hope.
fn patiently(
    getting: &mut Getting<'_>,
    room: &mut Room,
    attempt: &Attempt<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<(), UserError> {
    let what = "not everything is fetched";
    let again = "run the same command again: it goes on where it was";
    let mut wait = FIRST_WAIT;
    let mut last_luck: Option<Instant> = None;
    let mut told = String::new();
    loop {
        let before = getting.luck();
        let ended = getting.run(room, attempt, tell)?;
        if getting.luck() > before || last_luck.is_none() && getting.was_connected() {
            last_luck = Some(Instant::now());
            wait = FIRST_WAIT;
        }
        let why = match ended {
            Ended::Done => return Ok(()),
            Ended::Stopped => return Err(UserError::new(what, "it was stopped", again)),
            Ended::Bye(why) => {
                return Err(UserError::new(
                    what,
                    format!("the sender ended: {why}"),
                    again,
                ));
            }
            Ended::NoDial(error) => match fatal(&error) {
                Some(error) => return Err(error),
                None => error.to_string(),
            },
            Ended::Lost(why) => why,
        };
        // A sender that was never reached is most likely not there at all.
        let hope = last_luck.is_some_and(|at| at.elapsed() < PATIENCE);
        if !hope {
            let todo = match last_luck {
                Some(_) => again,
                None => {
                    "see that `left send` still runs there, and that one of its addresses is reachable from here"
                }
            };
            return Err(UserError::new("cannot reach the sender", why, todo));
        }
        if why != told {
            tell(Event::Notice {
                text: format!("no connection ({why}); trying again"),
            });
            told = why;
        }
        if getting.sleep(wait) {
            return Err(UserError::new(what, "it was stopped", again));
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Refusals that time does not mend.
fn fatal(error: &DialError) -> Option<UserError> {
    let what = "the sender refuses";
    match error {
        DialError::Refused(refused) => match refused.code {
            RefusedCode::TicketSpent => Some(UserError::new(
                what,
                &refused.reason,
                "ask for another ticket; `left send --keep` makes one for several devices",
            )),
            RefusedCode::NotAdmitted => Some(UserError::new(
                what,
                "it does not know this ticket: it was started anew since",
                "ask for its new ticket",
            )),
            _ => None,
        },
        DialError::WrongKey { .. } => Some(UserError::new(
            "cannot fetch",
            "another device answers at the sender's address",
            "see that you are in the same network as the sender, and ask for a new ticket",
        )),
        DialError::Protocol { theirs } => Some(UserError::new(
            "cannot fetch",
            format!("the sender speaks version {theirs} of the protocol"),
            "update left on both machines",
        )),
        _ => None,
    }
}

/// All is in place: takes the room away, then tells the sender.
fn finish(getting: Getting<'_>, room: Room) -> Result<Got, UserError> {
    let got = getting.got(&room);
    let dir = clean(&room.dir);
    let removed = room.remove();
    getting.farewell();
    removed.map_err(|e| UserError {
        todo: format!("remove it by hand; {dir} is complete"),
        ..e
    })?;
    Ok(got)
}

/// A runtime for one transfer's connections.
pub(super) fn runtime(what: &str) -> Result<Runtime, UserError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("left-net")
        .enable_all()
        .build()
        .map_err(|e| UserError::new(what, e, "try again"))
}

/// Lets nobody in: a receiver only dials.
struct Closed;

impl Gate for Closed {
    fn control(
        &self,
        _: &Visitor,
        _: &ControlRequest,
    ) -> Result<Admitted, left_core::message::Refused> {
        Err(not_admitted())
    }

    fn data(
        &self,
        _: &Visitor,
        _: Nonce,
    ) -> Result<left_core::message::ShareId, left_core::message::Refused> {
        Err(not_admitted())
    }

    fn pair(&self, _: &Visitor, _: &PairRequest) -> Result<Paired, left_core::message::Refused> {
        Err(not_admitted())
    }
}
