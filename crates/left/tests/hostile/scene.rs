//! Two honest devices that share a folder, and a place for a third that is not honest.

use std::ffi::OsString;
use std::fs;

use crate::common::{Device, World, settle, until, write};

pub struct Scene {
    pub world: World,
    /// Whom the liar lies to.
    pub a: Device,
    /// Who must not be disturbed.
    pub b: Device,
    rounds: u32,
}

impl Scene {
    pub fn new() -> Self {
        let world = World::new();
        let (mut a, mut b) = (world.device("a"), world.device("b"));
        let ticket = a.share();
        b.join(&ticket);
        write(&a.share.join("there"), "before the liar came");
        settle(&[&a, &b]);
        let rounds = 0;
        Self {
            world,
            a,
            b,
            rounds,
        }
    }

    pub fn ticket(&self, more: &[&str]) -> String {
        let mut args: Vec<OsString> = vec!["ticket".into(), self.a.share.clone().into()];
        args.extend(more.iter().map(Into::into));
        let out = self.a.ok(&args);
        let line = out.lines().find(|l| l.starts_with("left1"));
        line.unwrap().to_owned()
    }

    /// The honest ones go on working with each other, in both directions.
    pub fn undisturbed(&mut self) {
        self.rounds += 1;
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let name = format!("honest {} {}", self.rounds, from.name);
            write(&from.share.join(&name), &name);
            until("honest work goes on", || to.share.join(&name).exists());
        }
        let there = fs::read(self.a.share.join("there")).unwrap();
        assert_eq!(there, b"before the liar came");
    }

    /// The victim's log has these words.
    pub fn logged(&self, words: &str) {
        until(words, || self.a.log().contains(words));
    }

    /// Memory the victim has in use, in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.a.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
