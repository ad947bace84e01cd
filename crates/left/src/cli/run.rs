//! Commands that keep running: through the left that runs already, or by becoming it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use left_core::message::Role;
use sd_notify::NotifyState;
use tokio::sync::broadcast::error::RecvError;

use super::output::Output;
use super::settings::{self, Job, RunSettings};
use super::ui::Ui;
use super::{Start, format, log, machine, signals};
use crate::api::{self, Client, Hooks};
use crate::daemon::handle::{
    Daemon, DaemonEvent, Exit, Reloaded, ShareInfo, State, SyncInfo, TicketInfo, UserError,
};
use crate::home::{Config, Home, clean};

/// How often progress is drawn.
const TICK: Duration = Duration::from_millis(200);
/// The same while nothing is under way.
const REST: Duration = Duration::from_secs(1);
/// Events that are told at once at most.
const TOGETHER: usize = 256;
/// How long another left may take from its lock to its socket.
const STARTING: Duration = Duration::from_secs(5);
/// How long last events may take after the stop.
const LAST_EVENTS: Duration = Duration::from_millis(100);

/// What a job has led to.
#[derive(Debug)]
pub(super) enum Reply {
    Shared(ShareInfo, TicketInfo),
    Joined(ShareInfo),
    Pairing(SyncInfo),
    Up(Vec<ShareInfo>),
}

/// Everything that can wake the foreground.
enum Wake {
    Event(DaemonEvent),
    Job(Result<Reply, UserError>),
    /// SIGINT or SIGTERM.
    Signal,
    /// SIGHUP: read the settings anew.
    Reload,
    /// A client has stopped the daemon.
    Stopped,
}

pub(super) fn run(
    job: Job,
    how: &RunSettings,
    out: Output,
    start: Start,
) -> Result<Exit, UserError> {
    let home = Home::open(None)?;
    if let Some(client) = running(&home)? {
        return through_other(&client, &job, how, out);
    }
    let config = home.config()?;
    for name in home.unknown_settings() {
        out.note(&format!(
            "config.toml sets `{name}`, which is no setting and counts for nothing: check its spelling"
        ));
    }
    let options = settings::options(how, &config)?;
    // Whatever can not be read is said before anybody can connect to this left.
    home.shares()?;
    machine::raise_open_files();
    let (wakes, inbox) = sync_channel(1024);
    signals::on_stop({
        let wakes = wakes.clone();
        move || drop(wakes.send(Wake::Signal))
    })?;
    // Who closes a terminal ends what runs in it; a service is told to look at its settings.
    let in_terminal = std::io::stderr().is_terminal();
    signals::on_hangup({
        let wakes = wakes.clone();
        move || {
            let wake = if in_terminal {
                Wake::Signal
            } else {
                Wake::Reload
            };
            drop(wakes.send(wake));
        }
    })?;
    let daemon = match start(home.clone(), options) {
        Ok(daemon) => daemon,
        // Two that start at the same moment: one wins, the other goes through it.
        Err(e) => match running(&home)? {
            Some(client) => return through_other(&client, &job, how, out),
            None => return Err(e),
        },
    };
    let mut ui = Ui::new(out);
    let settings = Settled {
        home: home.clone(),
        how: how.clone(),
        config,
    };
    let result = serve(settings, &daemon, job, &mut ui, (&wakes, &inbox));
    ui.close();
    tell_supervisor(&NotifyState::Stopping);
    daemon.stop();
    if result.is_ok() {
        last_events(&mut ui, &inbox);
    }
    result.map(|()| Exit::Ok)
}

/// Has the job done by the left that runs already.
fn through_other(
    client: &Client,
    job: &Job,
    how: &RunSettings,
    out: Output,
) -> Result<Exit, UserError> {
    if *how != RunSettings::default() {
        out.note("left runs already with its own --listen, --advertise, --name, discovery and page; these here do not count");
    }
    let reply = do_job(client, job)?;
    Ui::new(out).reply_of_other(&reply);
    if !out.json() {
        let pid = client.status()?.pid.unwrap_or_default();
        out.line(&format!(
            "The left that runs already (process {pid}) keeps it synchronised."
        ));
    }
    Ok(Exit::Ok)
}

/// The running left of this device; waits for one that just starts.
pub(super) fn running(home: &Home) -> Result<Option<Client>, UserError> {
    let end = Instant::now() + STARTING;
    loop {
        if let Some(client) = Client::connect(home)? {
            return Ok(Some(client));
        }
        if !home.is_locked() || Instant::now() > end {
            // If it is locked still, starting says by whom.
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn do_job(client: &Client, job: &Job) -> Result<Reply, UserError> {
    Ok(match job {
        Job::Share { dir, expires } => {
            let share = client.share(dir)?;
            let ticket = client.ticket(dir, Role::ReadWrite, *expires)?;
            Reply::Shared(share, ticket)
        }
        Job::Join { ticket, dir, only } => Reply::Joined(client.join(ticket, dir, only)?),
        Job::Sync { dir, peer, code } => Reply::Pairing(client.sync(dir, peer, code.as_deref())?),
        Job::Up => Reply::Up(client.run_all()?),
    })
}

/// Serves the API and the page (on this port, if any), does the job through it, and shows what happens until the stop.
fn serve(
    settings: Settled,
    daemon: &Arc<dyn Daemon>,
    job: Job,
    ui: &mut Ui,
    (wakes, inbox): (&SyncSender<Wake>, &Receiver<Wake>),
) -> Result<(), UserError> {
    forward_events(daemon, wakes.clone());
    let stopped = wakes.clone();
    let on_stop = move || drop(stopped.try_send(Wake::Stopped));
    let home = &settings.home.clone();
    let mut server = api::serve(home, daemon.clone(), on_stop)?;
    let config = &settings.config;
    // Without a page everything else goes on, and so it does without numbers for Prometheus.
    if !settings.how.no_web {
        let opened = server.open_page(config.web_port.unwrap_or(0));
        ui.page = opened.is_ok();
        note_failure(ui, opened);
    }
    if let Some(metrics) = &config.metrics {
        note_failure(ui, server.open_metrics(metrics.port, &metrics.token));
    }
    let settings = Arc::new(settings);
    server.hook(Hooks {
        reload: {
            let (settings, daemon) = (settings.clone(), daemon.clone());
            Box::new(move || settings.reload(daemon.as_ref()))
        },
        log_level: Box::new(log::level),
    });
    let client = Client::connect(home)?.ok_or_else(|| {
        UserError::new(
            "cannot start",
            "the control socket does not answer",
            "try again",
        )
    })?;
    let wakes = wakes.clone();
    // In a thread of its own: a job may wait for a peer, and Ctrl-C counts meanwhile.
    thread::spawn(move || drop(wakes.send(Wake::Job(do_job(&client, &job)))));
    follow(daemon.as_ref(), &settings, ui, inbox)
}

/// A service manager that waits is told; without one this does nothing.
fn tell_supervisor(state: &NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!("cannot tell the service manager: {e}");
    }
}

/// What this left was started with.
struct Settled {
    home: Home,
    how: RunSettings,
    config: Config,
}

impl Settled {
    /// Reads `config.toml` anew; the command line still goes before it.
    fn reload(&self, daemon: &dyn Daemon) -> Result<Reloaded, UserError> {
        let stays = |e: UserError| UserError {
            what: format!("the settings stay as they are: {}", e.what),
            ..e
        };
        let config = self.home.config().map_err(stays)?;
        let options = settings::options(&self.how, &config).map_err(stays)?;
        let mut reloaded = daemon.reload(&options).map_err(stays)?;
        for (name, differs) in [
            ("web_port", config.web_port != self.config.web_port),
            ("metrics", config.metrics != self.config.metrics),
        ] {
            if differs {
                reloaded.restart.push(name.to_owned());
            }
        }
        Ok(reloaded)
    }
}

fn note_failure(ui: &mut Ui, done: Result<(), UserError>) {
    if let Err(e) = done {
        let text = e.to_string();
        ui.event(&DaemonEvent::Notice { text });
    }
}

fn follow(
    daemon: &dyn Daemon,
    settings: &Settled,
    ui: &mut Ui,
    inbox: &Receiver<Wake>,
) -> Result<(), UserError> {
    let mut drawn = Instant::now();
    let mut tick = TICK;
    let mut next = None;
    loop {
        // With nothing to draw nobody is woken.
        let wake = match (next.take(), ui.is_live()) {
            (Some(wake), _) => Ok(wake),
            (None, true) => inbox.recv_timeout(tick),
            (None, false) => inbox.recv().map_err(RecvTimeoutError::from),
        };
        match wake {
            Ok(Wake::Event(event)) => {
                let mut events = vec![event];
                while events.len() < TOGETHER && next.is_none() {
                    match inbox.try_recv() {
                        Ok(Wake::Event(event)) => events.push(event),
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                ui.events(&events);
            }
            Ok(Wake::Job(Ok(reply))) => {
                tell_supervisor(&NotifyState::Ready);
                ui.reply(&reply);
            }
            Ok(Wake::Job(Err(e))) => return Err(e),
            Ok(Wake::Reload) => {
                let text = match settings.reload(daemon) {
                    Ok(reloaded) => reloaded.text(),
                    Err(e) => e.to_string(),
                };
                ui.event(&DaemonEvent::Notice { text });
            }
            Ok(Wake::Signal | Wake::Stopped) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ui.is_live() && drawn.elapsed() >= TICK {
            let status = daemon.status();
            ui.draw(&status);
            drawn = Instant::now();
            tick = match status.shares.iter().any(|s| s.state == State::Syncing) {
                true => TICK,
                false => REST,
            };
        }
    }
}

/// A slow terminal must not hold the daemon: what it misses is said.
fn forward_events(daemon: &Arc<dyn Daemon>, wakes: SyncSender<Wake>) {
    let mut events = daemon.events();
    thread::spawn(move || {
        loop {
            let event = match events.blocking_recv() {
                Ok(event) => event,
                Err(RecvError::Lagged(n)) => DaemonEvent::Notice {
                    text: format!("{} were not shown", format::count(n, "event")),
                },
                Err(RecvError::Closed) => return,
            };
            if wakes.send(Wake::Event(event)).is_err() {
                return;
            }
        }
    });
}

fn last_events(ui: &mut Ui, inbox: &Receiver<Wake>) {
    while let Ok(wake) = inbox.recv_timeout(LAST_EVENTS) {
        if let Wake::Event(event) = wake {
            ui.event(&event);
            if event == DaemonEvent::Stopping {
                return;
            }
        }
    }
}

/// What a person reads after a job; the ticket stands alone on its line.
pub(super) fn reply_lines(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Shared(share, ticket) => {
            let mut lines = vec![format!(
                "{} is shared. A ticket for one other machine:",
                clean(&share.path)
            )];
            lines.extend(ticket_lines(ticket));
            lines
        }
        Reply::Joined(share) => {
            let kind = match share.role {
                Role::ReadWrite => "",
                Role::ReadOnly => " (receives only)",
            };
            vec![format!(
                "{} is part of the share{kind}.",
                clean(&share.path)
            )]
        }
        Reply::Pairing(sync) => {
            let path = clean(&sync.share);
            match &sync.code {
                Some(code) => vec![
                    format!("{path} waits for the other machine. The code: {code}"),
                    "Run on the other machine:".to_string(),
                    format!("  {}", sync.command_for_other),
                ],
                None => vec![format!(
                    "{path} waits for the other machine, which knows the code."
                )],
            }
        }
        Reply::Up(shares) if shares.is_empty() => {
            vec!["This device has no share yet; make one with `left share DIR`.".to_string()]
        }
        Reply::Up(shares) => {
            let all = shares.iter().map(|s| clean(&s.path)).collect::<Vec<_>>();
            vec![format!("Synchronising {}.", all.join(", "))]
        }
    }
}

/// The ticket alone, then the command it is for.
pub(super) fn ticket_lines(ticket: &TicketInfo) -> Vec<String> {
    vec![
        ticket.ticket.clone(),
        "Run on the other machine:".to_string(),
        format!("  {}", ticket.join_line),
    ]
}
