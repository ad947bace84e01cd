//! Which branches of the rules there are: read from their sources, so that none is forgotten.

use std::collections::{BTreeMap, BTreeSet};

const SOURCES: [&str; 15] = [
    include_str!("../../core/src/conflict.rs"),
    include_str!("../../core/src/diff.rs"),
    include_str!("../../core/src/reconcile.rs"),
    include_str!("../../core/src/safety.rs"),
    include_str!("../../core/src/session.rs"),
    include_str!("../../core/src/engine/choose.rs"),
    include_str!("../../core/src/engine/heal.rs"),
    include_str!("../../core/src/engine/local.rs"),
    include_str!("../../core/src/engine/make.rs"),
    include_str!("../../core/src/engine/mod.rs"),
    include_str!("../../core/src/engine/peers.rs"),
    include_str!("../../core/src/engine/results.rs"),
    include_str!("../../core/src/engine/shed.rs"),
    include_str!("../../core/src/engine/withhold.rs"),
    include_str!("../../core/src/engine/work.rs"),
];

/// The names of all branches that core marks with `cover`.
pub fn branches() -> BTreeSet<&'static str> {
    SOURCES.iter().flat_map(|text| named(text)).collect()
}

/// The string literals within the parentheses of each `cover(...)`.
fn named(text: &'static str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for (_, rest) in text
        .match_indices("cover(")
        .map(|(at, call)| (at, &text[at + call.len()..]))
    {
        let end = rest.find(");").unwrap_or(0);
        names.extend(rest[..end].split('"').skip(1).step_by(2));
    }
    names
}

/// Branches with how often they were taken, those never taken last.
pub fn text(taken: &BTreeMap<&'static str, u64>) -> String {
    let all = branches();
    let never: Vec<&str> = all
        .iter()
        .filter(|b| !taken.contains_key(*b))
        .copied()
        .collect();
    let mut out = String::from("branches:\n");
    for (name, n) in taken {
        out += &format!("  {n:>10}  {name}\n");
    }
    out += &format!(
        "{} of {} branches taken; never: {}\n",
        all.len() - never.len(),
        all.len(),
        if never.is_empty() {
            "none".to_owned()
        } else {
            never.join("; ")
        }
    );
    out
}
