//! Shows that the simulator has teeth: deliberate faults in the rules, and in what the simulator
//! models of disk, store and owner, each of which some seed must catch.

use std::time::Instant;

use left_core::probe::set_mutant;

use crate::run::{Params, run};

/// A deliberate fault.
pub struct Mutant {
    /// As it is named where it is built in (`mutant("...")`).
    pub name: &'static str,
    /// It must be caught within this many seeds, from 0 on.
    pub within: u64,
}

impl Mutant {
    /// Does something under this fault.
    pub fn with<T>(&self, what: impl FnOnce() -> T) -> T {
        struct Over;
        impl Drop for Over {
            fn drop(&mut self) {
                set_mutant(None);
            }
        }
        set_mutant(Some(self.name));
        // Over even if it panics.
        let _over = Over;
        what()
    }
}

const fn mutant(name: &'static str, within: u64) -> Mutant {
    Mutant { name, within }
}

/// All faults.
pub const MUTANTS: [Mutant; 28] = [
    // Who wins, what is kept.
    mutant("mtime decides the winner", 50),
    mutant("edit loses to deletion", 50),
    mutant("older counted as newer", 50),
    mutant("joined version forgets one side", 50),
    mutant("winner joins before the loser is kept", 50),
    mutant("loser of a conflict is not kept", 50),
    mutant("conflict copy is named by its maker", 300),
    // Who only sends.
    mutant("an override does not know of theirs", 300),
    // Deletions.
    mutant("tombstones dropped early", 50),
    mutant("tombstone of an unknown path dropped", 50),
    mutant("no alarm at mass deletion", 300),
    mutant("a folder's deletion is not held", 600),
    // Order of durability.
    mutant("committed before synced", 100),
    mutant("the pack is ignored", 50),
    mutant("a packed file goes to history unsynced", 300),
    mutant("what was written over before the repair is not kept", 300),
    mutant("announced before committed", 150),
    mutant("acknowledged before committed", 2000),
    // Races with users.
    mutant("the look after the swap is skipped", 50),
    mutant("guard of busy paths removed", 50),
    mutant("a file's stat is taken after it was read", 50),
    mutant("links on the way are followed", 50),
    // Lost and old indexes.
    mutant("no new versions after a lost index", 2000),
    mutant("an older index goes on under its old epoch", 600),
    mutant("a lost index of a peer is not forgotten", 50),
    // What a device does not hold.
    mutant("the record outlives the drop", 200),
    mutant("dropped though nobody has it", 200),
    mutant("who drops says that it holds", 300),
];

/// The first seed that catches a fault, with what it says; `None`: none of the first `most`.
pub fn catch(mutant: &Mutant, most: u64, steps: u32) -> Option<(u64, String)> {
    let try_seed = |seed| Some((seed, run(&Params::new(seed, steps), false).failure?));
    mutant.with(|| (0..most).find_map(try_seed))
}

/// Runs all faults and says which seed caught each; whether all were caught.
pub fn run_all(only: Option<&str>, steps: u32) -> bool {
    let mut missed = 0;
    let chosen = MUTANTS
        .iter()
        .filter(|m| only.is_none_or(|name| m.name.contains(name)));
    for mutant in chosen {
        let begun = Instant::now();
        let caught = catch(mutant, mutant.within, steps);
        let seconds = begun.elapsed().as_secs_f64();
        match caught {
            Some((seed, why)) => {
                let why = why.lines().next().unwrap_or_default();
                let why: String = why.chars().take(100).collect();
                println!(
                    "caught by seed {seed:>4} of {:>4} ({seconds:.1} s)  {}\n      {why}",
                    mutant.within, mutant.name
                );
            }
            None => {
                missed += 1;
                println!(
                    "MISSED by {} seeds ({seconds:.1} s)  {}",
                    mutant.within, mutant.name
                );
            }
        }
    }
    println!("{missed} missed");
    missed == 0
}
