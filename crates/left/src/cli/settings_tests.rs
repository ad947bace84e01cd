use super::*;

fn settings(line: &str) -> Settings {
    match try_settings(line, None) {
        Ok(settings) => settings,
        Err(e) => panic!("{line}: {e:?}"),
    }
}

fn try_settings(line: &str, code: Option<&str>) -> Result<Settings, Stop> {
    let args = std::iter::once("left").chain(line.split_whitespace());
    read(args.map(Into::into), code.map(str::to_string))
}

fn here(dir: &str) -> PathBuf {
    std::env::current_dir().unwrap().join(dir)
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    RawArgs::command().debug_assert();
}

#[test]
fn defaults() {
    let s = settings("share");
    assert_eq!(
        s.command,
        Command::Run(
            Job::Share {
                dir: here("share"),
                expires: Duration::from_secs(86400)
            },
            RunSettings::default()
        )
    );
    assert!(!s.json && s.verbose == 0);
    assert_eq!(
        settings("wait").command,
        Command::Ask(Question::Wait {
            dir: None,
            timeout: Duration::from_secs(60)
        })
    );
    assert_eq!(
        settings("demo").command,
        Command::Demo { size: 500_000_000 }
    );
    assert_eq!(
        settings("demo --quick").command,
        Command::Demo { size: 16_000_000 }
    );
    assert_eq!(
        settings("demo --big 5MB").command,
        Command::Demo { size: 5_000_000 }
    );
}

#[test]
fn global_flags_stand_anywhere() {
    for line in [
        "--json -vv status",
        "status --json -vv",
        "-v status -v --json",
    ] {
        let s = settings(line);
        assert!(s.json, "{line}");
        assert_eq!(s.command, Command::Ask(Question::Status));
    }
    assert_eq!(settings("-vv status").verbose, 2);
}

#[test]
fn the_originals_way() {
    let job = |code: Option<&str>| Job::Sync {
        dir: here("share"),
        peer: "10.0.0.2:20201".into(),
        code: code.map(Into::into),
    };
    let run = RunSettings {
        listen: Some(Listen {
            host: None,
            port: 7,
        }),
        ..RunSettings::default()
    };
    let s = settings("--ip 10.0.0.2 --listen :7 --json");
    assert_eq!(s.command, Command::Run(job(None), run.clone()));
    let s = settings("sync --peer 10.0.0.2 --code a-b --listen 7");
    assert_eq!(s.command, Command::Run(job(Some("a-b")), run));
    // LEFT_CODE counts where a code counts, and only there; the flag goes before it.
    let s = try_settings("--ip 10.0.0.2", Some(" env ")).unwrap();
    assert_eq!(
        s.command,
        Command::Run(job(Some("env")), RunSettings::default())
    );
    let s = try_settings("--ip 10.0.0.2 --code flag", Some("env")).unwrap();
    assert_eq!(
        s.command,
        Command::Run(job(Some("flag")), RunSettings::default())
    );
    assert!(try_settings("status", Some("env")).is_ok());
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for line in [
        "",
        "fly",
        "join",
        "join LEFT2abc",
        "sync",
        "sync --peer",
        "sync --peer a:b",
        "ticket",
        "ticket x --expires 0s",
        "ticket x --expires 3y",
        "ticket x --expires 500d",
        "wait --timeout soon",
        "leave",
        "--code x",
        "--ip a status",
        "--listen 7 status",
        "share --listen a:b:c",
        "demo --size 10",
        "demo --size much",
        "share --name ",
    ] {
        match try_settings(line, None) {
            Err(Stop::Bad(e)) => assert_eq!(e.exit_code, 2, "{line}"),
            Err(Stop::Clap(e)) => assert_eq!(e.exit_code(), 2, "{line}"),
            Err(Stop::Help(_)) => assert_eq!(line, ""),
            Ok(s) => panic!("{line}: {s:?}"),
        }
    }
}

#[test]
fn the_command_line_goes_before_the_file() {
    let config = Config {
        name: Some("attic".into()),
        listen: Some("127.0.0.1:7".into()),
        advertise: vec!["a.example".into()],
        ..Config::default()
    };
    let o = options(&RunSettings::default(), &config).unwrap();
    assert_eq!(o.name, "attic");
    assert_eq!(
        o.listen,
        Listen {
            host: Some("127.0.0.1".into()),
            port: 7
        }
    );
    assert_eq!(o.advertise, ["a.example"]);
    let run = RunSettings {
        listen: Some(Listen {
            host: None,
            port: 8,
        }),
        advertise: vec!["b".into()],
        name: Some("cellar".into()),
        ..RunSettings::default()
    };
    let o = options(&run, &config).unwrap();
    assert_eq!(
        (o.name.as_str(), o.listen.port, o.advertise.len()),
        ("cellar", 8, 1)
    );
    assert_eq!(o.advertise, ["b"]);
    let o = options(&RunSettings::default(), &Config::default()).unwrap();
    assert_eq!(
        o.listen,
        Listen {
            host: None,
            port: DEFAULT_PORT
        }
    );
    assert!(!o.name.is_empty());
}
