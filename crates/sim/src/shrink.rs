//! Makes a failing run smaller.

use crate::faults::KINDS;
use crate::run::{Params, run};

/// Leaves out devices, faults and steps as long as the run still fails; at most `most` runs.
pub fn shrink(params: &Params, most: u32) -> Params {
    let mut best = params.clone();
    let mut runs = 0;
    let mut fails = |p: &Params| {
        runs += 1;
        runs <= most && run(p, false).failure.is_some()
    };
    for devices in [2, 3, 4] {
        let smaller = Params {
            devices: Some(devices),
            ..best.clone()
        };
        if fails(&smaller) {
            best = smaller;
            break;
        }
    }
    for (_, name) in KINDS {
        let mut smaller = best.clone();
        smaller.without.push(name.to_owned());
        if fails(&smaller) {
            best = smaller;
        }
    }
    let mut steps: Vec<u32> = match &best.only {
        Some(only) => only.clone(),
        None => (0..best.steps).collect(),
    };
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            let smaller = Params {
                only: Some(fewer.clone()),
                ..best.clone()
            };
            if fails(&smaller) {
                best = smaller;
                steps = fewer;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    best
}
