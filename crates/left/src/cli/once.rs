//! `left send` and `left get`: transfers without a share.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use left_core::version::DeviceId;

use super::args::RunArgs;
use super::output::Output;
use super::settings::{self, RunSettings, absolute, ticket_time};
use super::{format, live, signals};
use crate::home::{Exit, Home, UserError, clean};
use crate::once::{Event, Got, Receive, Send, Stop, get, send};

#[derive(Debug, Subcommand)]
pub(super) enum RawOnce {
    /// Send files and folders to whoever has the ticket that this prints, without a share.
    ///
    /// Serves until one device has fetched everything, or with --keep until it is stopped. What is
    /// sent is only read. Symbolic links are sent as links; owners and extended attributes are not
    /// sent, nor is a folder named .left. Needs no running left, and disturbs none: where the usual
    /// port is taken it listens on any other.
    ///
    /// Exit code 1 when nobody fetched everything, or something could not be read.
    #[command(
        after_help = "Example:\n  here:  left send report.pdf photos/\n  there: left get left1... ~/Downloads"
    )]
    Send {
        /// Files and folders.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Serve any number of devices, until Ctrl-C or the ticket expires.
        #[arg(long)]
        keep: bool,
        /// For how long the ticket works: 30m, 12h, 1d, 2w.
        #[arg(long, value_name = "TIME", default_value = "1d")]
        expires: String,
        /// Where to listen: PORT, HOST or HOST:PORT [default: as `left up`, else any free port].
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        /// Where others reach this machine, if it does not know itself; may be repeated.
        #[arg(long, value_name = "HOST[:PORT]")]
        advertise: Vec<String>,
        /// This device's name as the other side sees it [default: the host name].
        #[arg(long)]
        name: Option<String>,
    },
    /// Fetch what `left send` on another machine sends.
    ///
    /// What stands in the folder under the same name and is the same stays as it is. Where something
    /// differs, nothing at all is changed unless --overwrite or --rename says what to do. A file is
    /// there whole or not at all. Interrupted in any way, the same command goes on where it was; until
    /// then what has come is in a hidden folder .left-get-... there.
    #[command(after_help = "Example:\n  left get left1... ~/Downloads")]
    Get {
        /// The ticket, as `left send` printed it.
        ticket: String,
        /// Into which folder; made when missing.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Replace files that differ. What they held is gone.
        #[arg(long)]
        overwrite: bool,
        /// Keep what is there, and give what comes another name: photos-2, report-2.pdf.
        #[arg(long, conflicts_with = "overwrite")]
        rename: bool,
        /// Also take what has a name with a leading dot: programs may obey such files.
        #[arg(long)]
        dotfiles: bool,
        /// This device's name as the sender sees it [default: the host name].
        #[arg(long)]
        name: Option<String>,
    },
}

/// [`RawOnce`], checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Once {
    Send {
        paths: Vec<PathBuf>,
        keep: bool,
        expires: Duration,
        run: RunSettings,
    },
    Get {
        /// But for the name, which config.toml may give.
        how: Receive,
        run: RunSettings,
    },
}

pub(super) fn checked(raw: RawOnce) -> Result<Once, UserError> {
    Ok(match raw {
        RawOnce::Send {
            paths,
            keep,
            expires,
            listen,
            advertise,
            name,
        } => {
            let run = RunArgs {
                no_discovery: false,
                listen,
                advertise,
                name,
                no_web: true,
            };
            Once::Send {
                paths: paths
                    .iter()
                    .map(|p| absolute(p))
                    .collect::<Result<_, _>>()?,
                keep,
                expires: ticket_time(&expires)?,
                run: settings::run_settings(&run)?,
            }
        }
        RawOnce::Get {
            ticket,
            dir,
            overwrite,
            rename,
            dotfiles,
            name,
        } => {
            let run = RunArgs {
                no_discovery: false,
                name,
                ..RunArgs::default()
            };
            Once::Get {
                how: Receive {
                    ticket,
                    dir: absolute(&dir)?,
                    overwrite,
                    rename,
                    dotfiles,
                    name: String::new(),
                },
                run: settings::run_settings(&run)?,
            }
        }
    })
}

pub(super) fn run(once: Once, out: Output) -> Result<Exit, UserError> {
    let home = Home::open(None)?;
    let config = home.config()?;
    let stop = Stop::default();
    let on_signal = stop.clone();
    signals::on_stop(move || on_signal.stop())?;
    let mut ui = Ui::new(out);
    match once {
        Once::Send {
            paths,
            keep,
            expires,
            run,
        } => {
            let any_port = run.listen.is_none();
            let options = settings::options(&run, &config)?;
            let how = Send {
                paths,
                keep,
                expires,
                options,
                any_port,
            };
            let sent = send(&home, &how, &stop, &mut |event| ui.event(&event));
            ui.close();
            match sent?.skipped {
                0 => Ok(Exit::Ok),
                n => Err(UserError::new(
                    "not everything was sent",
                    format!("{} could not be read", format::count(n.into(), "thing")),
                    "see the lines above; send those again",
                )),
            }
        }
        Once::Get { mut how, run } => {
            how.name = settings::options(&run, &config)?.name;
            let got = get(&home, &how, &stop, &mut |event| ui.event(&event));
            ui.close();
            ui.event(&Event::Got(got?));
            Ok(Exit::Ok)
        }
    }
}

/// Lines, JSON lines, or lines above a bar.
struct Ui {
    out: Output,
    bar: Option<ProgressBar>,
    /// How far each device is that fetches.
    devices: BTreeMap<DeviceId, Far>,
}

/// How far a device is.
#[derive(Clone, Copy)]
struct Far {
    done: u64,
    total: u64,
    rate: u64,
    seconds_left: Option<u64>,
}

impl Ui {
    fn new(out: Output) -> Self {
        let live = !out.json() && std::io::stderr().is_terminal();
        let bar = live.then(|| {
            let bar = ProgressBar::no_length();
            let style = ProgressStyle::with_template("{bar:30} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            live::show(&bar)
        });
        Self {
            out,
            bar,
            devices: BTreeMap::new(),
        }
    }

    fn event(&mut self, event: &Event) {
        if self.out.json() {
            return self.out.object(event);
        }
        match event {
            Event::Progress {
                device,
                done,
                total,
                rate,
                seconds_left,
            } => {
                let far = Far {
                    done: *done,
                    total: *total,
                    rate: *rate,
                    seconds_left: *seconds_left,
                };
                self.devices.insert(*device, far);
                return self.draw();
            }
            Event::Fetched { device, .. } | Event::Lost { device, .. } => {
                self.devices.remove(device);
                self.draw();
            }
            _ => {}
        }
        for line in lines(event) {
            live::suspend(|| match event {
                Event::Ticket { .. } | Event::Got(_) | Event::Fetched { .. } => {
                    self.out.line(&line);
                }
                _ => self.out.note(&line),
            });
        }
    }

    /// All devices together.
    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        let sum = |part: fn(&Far) -> u64| self.devices.values().map(part).sum::<u64>();
        let (done, total, rate) = (sum(|f| f.done), sum(|f| f.total), sum(|f| f.rate));
        let (d, t, r) = (
            format::bytes(done),
            format::bytes(total),
            format::bytes(rate),
        );
        let mut text = match self.devices.len() {
            0 => String::new(),
            1 => format!("{d} of {t}, {r}/s"),
            n => format!("{n} machines: {d} of {t}, {r}/s"),
        };
        let left = self.devices.values().filter_map(|f| f.seconds_left).max();
        if let Some(secs) = left.filter(|s| *s > 0 && done < total) {
            let left = format::time(Duration::from_secs(secs));
            text.push_str(&format!(", {left} left"));
        }
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(text);
    }

    fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        live::hide();
    }
}

/// An event for people.
fn lines(event: &Event) -> Vec<String> {
    let line = match event {
        Event::Ticket {
            get_line,
            keep,
            expires,
            ..
        } => {
            let until = jiff::Timestamp::from_second(i64::try_from(*expires).unwrap_or(i64::MAX));
            let until = until.map(|t| t.to_zoned(jiff::tz::TimeZone::system()));
            let until = until.map_or(String::new(), |t| {
                t.strftime(" (until %Y-%m-%d %H:%M)").to_string()
            });
            let (who, end) = match keep {
                true => ("on any number of machines", "Ctrl-C stops serving."),
                false => (
                    "on the other machine",
                    "This ends when all is fetched; Ctrl-C stops it before.",
                ),
            };
            return vec![
                format!("Run {who}{until}:"),
                format!("  {get_line}"),
                end.to_owned(),
            ];
        }
        Event::Listed { files, bytes } => {
            format!(
                "{}, {}",
                format::count(*files, "file"),
                format::bytes(*bytes)
            )
        }
        Event::Skipped { path, why } => format!("not sent: {path}: {}", format::text(why)),
        Event::Connected {
            device,
            name,
            address,
        } => {
            format!("connected: {} at {address}", format::device(name, *device))
        }
        Event::Lost { device, name, why } => {
            let who = format::device(name, *device);
            format!("connection lost: {who}: {}", format::text(why))
        }
        Event::Progress { .. } => return Vec::new(),
        Event::Fetched {
            device,
            name,
            address,
        } => {
            format!("Fetched by {} at {address}.", format::device(name, *device))
        }
        Event::Refused {
            address,
            device,
            why,
        } => {
            format!("refused: {device} from {address}: {why}")
        }
        Event::Got(got) => return got_lines(got),
        Event::Notice { text } => format!("notice: {}", format::text(text)),
    };
    vec![line]
}

fn got_lines(got: &Got) -> Vec<String> {
    let (files, bytes) = (format::count(got.files, "file"), format::bytes(got.bytes));
    let mut line = format!("{files}, {bytes} in {}", clean(&got.dir));
    match got.already {
        0 => line.push('.'),
        n => line.push_str(&format!(
            "; {} were there already.",
            format::count(n, "file")
        )),
    }
    let renamed = got
        .renamed
        .iter()
        .map(|(old, new)| format!("{old} is {new} here."));
    std::iter::once(line).chain(renamed).collect()
}
