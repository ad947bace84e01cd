//! `left service`: a systemd unit of this user that runs `left up`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use etcetera::BaseStrategy;
use serde::Serialize;

use super::machine::ServiceCommand;
use super::output::Output;
use crate::home::{Exit, Home, UserError, clean, write_atomic};

const UNIT: &str = "left.service";

pub(super) fn run(what: ServiceCommand, out: Output) -> Result<Exit, UserError> {
    let file = unit_file()?;
    match what {
        ServiceCommand::Print { launchd } => {
            let text = text("cannot print the service", launchd)?;
            match out.json() {
                true => out.object(&Printed { text }),
                false => out.text(&text),
            }
            return Ok(Exit::Ok);
        }
        ServiceCommand::Install => install(&file)?,
        ServiceCommand::Uninstall => uninstall(&file)?,
        ServiceCommand::Status => {}
    }
    let status = status(&file);
    match out.json() {
        true => out.object(&status),
        false => lines(what, &status).iter().for_each(|l| out.line(l)),
    }
    Ok(match what {
        ServiceCommand::Status if status.active != "active" => Exit::Failure,
        _ => Exit::Ok,
    })
}

/// What `left service print --json` prints.
#[derive(Debug, Serialize)]
struct Printed {
    text: String,
}

/// What `left service status --json` prints.
#[derive(Debug, Serialize)]
struct ServiceStatus {
    /// The unit's file.
    file: String,
    /// It is there.
    installed: bool,
    /// It starts with the session, in systemd's word.
    enabled: String,
    /// It runs, in systemd's word.
    active: String,
}

fn status(file: &Path) -> ServiceStatus {
    let word = |verb| {
        let out = systemctl(&[verb, UNIT]).stderr(Stdio::null()).output();
        let text = out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        text.ok()
            .filter(|word| !word.is_empty())
            .unwrap_or_else(|| "unknown".to_owned())
    };
    ServiceStatus {
        file: clean(file),
        installed: file.exists(),
        enabled: word("is-enabled"),
        active: word("is-active"),
    }
}

fn lines(what: ServiceCommand, s: &ServiceStatus) -> Vec<String> {
    if what == ServiceCommand::Uninstall {
        return vec!["The service is gone; shares and settings stay.".to_owned()];
    }
    if !s.installed {
        return vec!["There is no service; `left service install` makes one.".to_owned()];
    }
    let mut lines = vec![
        format!("{}: {}, {}", s.file, s.active, s.enabled),
        "Its log: journalctl --user --unit left".to_owned(),
    ];
    if what == ServiceCommand::Install {
        let linger = "To have it run also while you are not logged in: loginctl enable-linger";
        lines.push(linger.to_owned());
    }
    lines
}

fn install(file: &Path) -> Result<(), UserError> {
    let what = "cannot install the service";
    let text = text(what, false)?;
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).map_err(|e| UserError::io(what, dir, &e))?;
    }
    let before = fs::read(file).ok();
    write_atomic(file, text.as_bytes(), 0o644).map_err(|e| UserError::io(what, file, &e))?;
    let started = [&["daemon-reload"][..], &["enable", "--now", UNIT]]
        .iter()
        .try_for_each(|args| run_systemctl(what, args));
    if started.is_err() {
        // What did not succeed leaves nothing behind; the error counts, not what comes of this.
        let _ = match before {
            Some(text) => write_atomic(file, &text, 0o644),
            None => fs::remove_file(file),
        };
    }
    started
}

/// The file of the service that runs this program with this home.
fn text(what: &str, launchd: bool) -> Result<String, UserError> {
    let program = std::env::current_exe().map_err(|e| UserError::new(what, e, "try again"))?;
    let home = Home::open(None)?;
    let text = match launchd {
        true => plist(&program, home.path()),
        false => unit(&program, Some(home.path())),
    };
    text.ok_or_else(|| {
        let why = "the path of left or of its settings is not UTF-8 or has control characters";
        UserError::new(what, why, "move it")
    })
}

fn uninstall(file: &Path) -> Result<(), UserError> {
    let what = "cannot uninstall the service";
    if !file.exists() {
        return Err(UserError::new(
            what,
            "there is none",
            "`left service install` makes one",
        ));
    }
    run_systemctl(what, &["disable", "--now", UNIT])?;
    fs::remove_file(file).map_err(|e| UserError::io(what, file, &e))?;
    run_systemctl(what, &["daemon-reload"])
}

fn unit_file() -> Result<PathBuf, UserError> {
    let base = etcetera::choose_base_strategy()
        .map_err(|e| UserError::new("cannot find the settings folder", e, "set HOME"))?;
    Ok(base.config_dir().join("systemd/user").join(UNIT))
}

/// The unit's text; `None` where a path cannot be written in one.
fn unit(program: &Path, home: Option<&Path>) -> Option<String> {
    let program = quoted("", program)?.replace('$', "$$");
    // Here a dollar sign means itself.
    let home = match home {
        Some(home) => format!("Environment={}\n", quoted("LEFT_HOME=", home)?),
        None => String::new(),
    };
    Some(format!(
        "[Unit]\n\
         Description=LEFT keeps folders identical on several machines\n\
         Documentation=man:left(1)\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={program} up\n\
         ExecReload={program} reload\n\
         {home}\
         Restart=on-failure\n\
         RestartSec=5\n\
         TimeoutStopSec=20\n\
         NoNewPrivileges=yes\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    ))
}

/// The same for launchd (launchd.plist(5)); `None` where a path cannot be written in one.
fn plist(program: &Path, home: &Path) -> Option<String> {
    let (program, home) = (xml(program)?, xml(home)?);
    Some(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n\
         <dict>\n\
         \t<key>Label</key>\n\
         \t<string>left</string>\n\
         \t<key>ProgramArguments</key>\n\
         \t<array>\n\
         \t\t<string>{program}</string>\n\
         \t\t<string>up</string>\n\
         \t</array>\n\
         \t<key>EnvironmentVariables</key>\n\
         \t<dict>\n\
         \t\t<key>LEFT_HOME</key>\n\
         \t\t<string>{home}</string>\n\
         \t</dict>\n\
         \t<key>RunAtLoad</key>\n\
         \t<true/>\n\
         \t<key>KeepAlive</key>\n\
         \t<dict>\n\
         \t\t<key>SuccessfulExit</key>\n\
         \t\t<false/>\n\
         \t</dict>\n\
         </dict>\n\
         </plist>\n"
    ))
}

/// A path as text in XML.
fn xml(path: &Path) -> Option<String> {
    let text = path.to_str().filter(|t| !t.chars().any(char::is_control))?;
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    Some(text.replace('>', "&gt;"))
}

/// A path behind `start`, all in double quotes, as systemd reads it: `\` and `"` escaped, `%`
/// doubled.
fn quoted(start: &str, path: &Path) -> Option<String> {
    let text = path.to_str().filter(|t| !t.chars().any(char::is_control))?;
    let mut quoted = format!("\"{start}");
    for c in text.chars() {
        match c {
            '\\' | '"' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Some(quoted)
}

fn systemctl(args: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.arg("--user").args(args).stdin(Stdio::null());
    command
}

fn run_systemctl(what: &str, args: &[&str]) -> Result<(), UserError> {
    let todo = "it needs a systemd session of this user; without one have another \
                supervisor run `left up`";
    let out = systemctl(args)
        .output()
        .map_err(|e| UserError::new(what, format!("systemctl: {e}"), todo))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(UserError::new(what, format!("systemctl: {said}"), todo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_a_unit_mean_themselves() {
        let path = |text: &str| quoted("", Path::new(text));
        assert_eq!(path("/a b/left").unwrap(), "\"/a b/left\"");
        assert_eq!(path("/50%/$x").unwrap(), "\"/50%%/$x\"");
        assert_eq!(path("/\"\\").unwrap(), "\"/\\\"\\\\\"");
        assert_eq!(path("/a\n[Service]"), None);
        let program = Path::new("/usr/bin/left");
        let packaged = include_str!("../../packaging/left.service");
        assert_eq!(unit(program, None).unwrap(), packaged);
        let unit = unit(program, Some(Path::new("/h"))).unwrap();
        for line in [
            "ExecStart=\"/usr/bin/left\" up",
            "ExecReload=\"/usr/bin/left\" reload",
        ] {
            assert!(unit.lines().any(|l| l == line), "{unit}");
        }
        let plist = plist(Path::new("/a & <b>/left"), Path::new("/h")).unwrap();
        assert!(
            plist.contains("<string>/a &amp; &lt;b&gt;/left</string>"),
            "{plist}"
        );
    }
}
