//! The command line as typed. [`super::settings`] turns it into what is meant.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::choose::RawChoose;
use super::machine::MachineCommand;
use super::modes::RawModes;
use super::once::RawOnce;
use super::past_args::RawPast;

const EXAMPLES: &str = "\
Examples:
  left share ~/photos             make a folder a share, print a ticket, keep it synchronised
  left join left1... ~/photos     on the other machine, with that ticket
  left sync docs --peer 10.0.0.2  both machines name each other; the first prints a code
  left --ip 10.0.0.2              the same with the folder ./share
  left status                     how the shares are, and what needs you
  left wait docs && backup docs   go on when everything is identical everywhere
  left restore ~/photos --deleted-since 10m   take a deletion back
  left send report.pdf photos     print a ticket and serve these once, without a share
  left demo                       see it work, with two processes on this machine

Exit codes:
  0 done   1 not done   2 the command line makes no sense
  3 not in sync in time   4 files are damaged and could not all be healed

Environment:
  LEFT_HOME  folder of this device's key, settings and control socket
  LEFT_CODE  the pairing code, instead of --code
  LEFT_LOG   log filter, such as `debug` or `left::net=trace` (goes before -v)";

/// Keeps folders identical on two or more machines: live, encrypted, verified, resumable.
#[derive(Debug, Parser)]
#[command(name = "left", version, max_term_width = 100, after_help = EXAMPLES)]
pub(super) struct RawArgs {
    #[command(subcommand)]
    pub(super) command: Option<RawCommand>,

    /// Synchronise ./share with that machine, which runs the same command naming this one.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) ip: Option<String>,

    /// With --ip: the code that the other machine printed.
    #[arg(long, value_name = "CODE", requires = "ip")]
    pub(super) code: Option<String>,

    #[command(flatten)]
    pub(super) run: RunArgs,

    /// Say more: -v what happens, -vv every detail (log on stderr).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,

    /// Print JSON for programs: one object a line, events as they happen.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Options of commands that keep running.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RunArgs {
    /// Where to listen: PORT, HOST or HOST:PORT [default: all addresses, port 20201].
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<String>,

    /// Where peers reach this machine, if it does not know itself; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) advertise: Vec<String>,

    /// This device's name as peers see it [default: the host name].
    #[arg(long)]
    pub(super) name: Option<String>,

    /// Neither find members on the local network nor be found there.
    #[arg(long)]
    pub(super) no_discovery: bool,

    /// Serve no page for the browser of this machine.
    #[arg(long)]
    pub(super) no_web: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum RawCommand {
    /// Make a folder a share, print a ticket for another machine, keep it synchronised.
    ///
    /// The ticket stands alone on a line that starts with `left1`; it works once, for a day.
    /// Ctrl-C stops; `left up` goes on.
    #[command(after_help = "Example:\n  left share ~/photos --listen :3000")]
    Share {
        /// The folder; made when missing.
        #[arg(default_value = "share")]
        dir: PathBuf,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Join a share with a ticket from another machine, keep it synchronised.
    ///
    /// The folder may hold files already: both sides are merged, nothing is deleted, and where
    /// two files of one name differ both are kept.
    #[command(
        after_help = "Examples:\n  left join left1... ~/photos\n  left join left1... ~/photos --choose 2024 trips/rome"
    )]
    Join {
        /// The ticket, as `left share` or `left ticket` printed it.
        ticket: String,
        /// The folder; made when missing.
        #[arg(default_value = "share")]
        dir: PathBuf,
        /// Hold only these sub-folders of the share (or files); the rest is listed and not fetched.
        #[arg(long, value_name = "SUBFOLDER", num_args = 1..)]
        choose: Vec<PathBuf>,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Synchronise with a machine that runs the same command naming this one.
    ///
    /// Without a code the first makes one and prints what to run on the other.
    #[command(
        after_help = "Example:\n  here:  left sync docs --peer 10.0.0.2\n  there: left sync docs --peer 10.0.0.1 --code 'the words printed here'"
    )]
    Sync {
        /// The folder; made when missing.
        #[arg(default_value = "share")]
        dir: PathBuf,
        /// The other machine.
        #[arg(long, value_name = "HOST[:PORT]")]
        peer: String,
        /// The code that the other machine printed (or LEFT_CODE).
        #[arg(long, value_name = "CODE")]
        code: Option<String>,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Run all shares of this device; what a service manager starts.
    Up {
        #[command(flatten)]
        run: RunArgs,
    },
    #[command(flatten)]
    Ask(RawQuestion),
    #[command(flatten)]
    Once(RawOnce),
    #[command(flatten)]
    Machine(MachineCommand),
    /// Show on this machine that it works: two real processes, kills, md5s, times.
    ///
    /// Needs about three times the size of the big file in the temporary folder (TMPDIR).
    Demo {
        /// Size of the big file.
        #[arg(long, alias = "big", value_name = "BYTES", default_value = "500MB")]
        size: String,
        /// Take a big file of 16 MB only.
        #[arg(long, conflicts_with = "size")]
        quick: bool,
    },
}

/// Commands that ask and return.
#[derive(Debug, Subcommand)]
pub(super) enum RawQuestion {
    /// Print another ticket for a share.
    #[command(after_help = "Example:\n  left ticket ~/photos --read-only --expires 2h")]
    Ticket {
        /// The share's folder.
        dir: PathBuf,
        /// Who uses it receives only.
        #[arg(long)]
        read_only: bool,
        /// For how long it works: 30m, 12h, 1d, 2w.
        #[arg(long, value_name = "TIME", default_value = "1d")]
        expires: String,
    },
    /// Show shares, peers, conflicts, problems, and what to do about them.
    ///
    /// States: synced (identical with every connected peer), syncing, offline (no peer is
    /// connected), paused, alarm (nothing is changed until you decide).
    Status,
    /// Wait until a share (or all) is identical with every connected peer; exit code 3 if not in
    /// time.
    #[command(after_help = "Example:\n  left wait ~/photos --timeout 10m && echo all there")]
    Wait {
        /// The share's folder; all shares when none is given.
        dir: Option<PathBuf>,
        /// How long at most: 500ms, 60s, 5m, 1h30m.
        #[arg(long, value_name = "TIME", default_value = "60s")]
        timeout: String,
    },
    /// Read and hash all files again, heal damaged ones from peers; exit code 4 if some stay
    /// damaged.
    Verify {
        /// The share's folder; all shares when none is given.
        dir: Option<PathBuf>,
    },
    /// Hold a share still, or one peer of it, until it is resumed.
    Pause {
        /// The share's folder.
        dir: PathBuf,
        /// Only this device: its name or the first characters of its id.
        #[arg(long, value_name = "NAME")]
        peer: Option<String>,
    },
    /// Let a paused share or peer go on, or end an alarm.
    Resume {
        /// The share's folder.
        dir: PathBuf,
        /// Only this device, which was paused alone.
        #[arg(long, value_name = "NAME", conflicts_with = "accept_deletions")]
        peer: Option<String>,
        /// The deletions that raised the alarm are meant: pass them on to the peers.
        #[arg(long)]
        accept_deletions: bool,
    },
    /// Take back what was edited in a folder that only receives: the share's state comes back.
    ///
    /// `left status` lists these edits. What stood there goes to .left/history.
    #[command(after_help = "Example:\n  left revert ~/photos 2024/beach.jpg")]
    Revert {
        /// The share's folder.
        dir: PathBuf,
        /// A file or folder in it [default: everything].
        path: Option<PathBuf>,
    },
    /// Remove another device from a share: no member lets it in any more.
    ///
    /// What it has received stays with it. Members that are not connected now refuse it from when
    /// they hear of it; it comes back only with a new ticket.
    #[command(after_help = "Example:\n  left remove-peer ~/photos old-laptop")]
    RemovePeer {
        /// The share's folder.
        dir: PathBuf,
        /// The device's name or the first characters of its id, as `left status` shows them.
        who: String,
    },
    /// Limit how fast a share may be on this device, at once and for good; shows what holds.
    ///
    /// Limits for all shares together, and for hours of the day, stand in config.toml:
    /// see docs/bandwidth.md.
    #[command(after_help = "Example:\n  left limit ~/photos --up 2MB --down unlimited")]
    Limit {
        /// The share's folder.
        dir: PathBuf,
        /// Bytes sent a second: 800kB, 5MB, unlimited.
        #[arg(long, value_name = "RATE")]
        up: Option<String>,
        /// Bytes received a second.
        #[arg(long, value_name = "RATE")]
        down: Option<String>,
    },
    #[command(flatten)]
    Modes(RawModes),
    #[command(flatten)]
    Choose(RawChoose),
    #[command(flatten)]
    Past(RawPast),
    /// Leave a share: the folder stays as it is, it is only no longer synchronised.
    Leave {
        /// The share's folder.
        dir: PathBuf,
    },
    /// Open the page of the running left in a browser: everything at a glance, and what to do.
    ///
    /// The link works once, for ten minutes; the browser may stay for 30 days, or until left is
    /// started anew.
    Web {
        /// Only print the link.
        #[arg(long)]
        print: bool,
    },
    /// Have the running left read config.toml anew; one that cannot be read changes nothing.
    ///
    /// Says what changed, and what only a restart changes. SIGHUP does the same, unless left runs in
    /// a terminal.
    Reload,
    /// Show or set what the running left writes to its log, until it is started anew.
    #[command(
        after_help = "Examples:\n  left log-level debug\n  left log-level warn,left::net=trace"
    )]
    LogLevel {
        /// error, warn, info, debug, trace, or a filter.
        filter: Option<String>,
    },
    /// Print this device's id.
    Id,
    /// Stop the running left of this device.
    Stop,
}
