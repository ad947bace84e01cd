//! What is to be done with each path of the list, and putting it in place.

use left_core::entry::{FileStat, Kind, Node};
use left_core::path::RelPath;
use left_core::plan::{Expect, Op, OpError, OpId};

use super::super::listing::{InTheWay, Stands, look};
use super::super::{Event, shown};
use super::Work;
use crate::disk::apply;
use crate::home::{UserError, clean};

/// Operations of one batch.
pub(super) const BATCH: usize = 512;
/// How often something is tried again that came to nothing because the folder changed meanwhile.
const MAX_REPEATS: u32 = 1000;

/// What a look at all paths comes to.
#[derive(Default)]
struct Plan {
    /// Folders, links, and times to be set.
    ops: Vec<(RelPath, Op)>,
    way: InTheWay,
    /// Bytes that are to come.
    need: u64,
}

impl Work<'_, '_> {
    /// Nothing more can be done: was it all?
    pub(super) fn judge(&self) -> Result<(), UserError> {
        let what = "not everything is fetched";
        if !self.in_the_way.is_empty() {
            return Err(UserError::new(
                what,
                format!(
                    "meanwhile something else appeared here: {}",
                    self.in_the_way
                ),
                "run the same command again with --overwrite or --rename",
            ));
        }
        if let Some(first) = self.failed.first() {
            let why = match self.failed.len() - 1 {
                0 => first.clone(),
                more => format!("{first}; and {more} more"),
            };
            let todo = "mend that, then run the same command again";
            return Err(UserError::new(what, why, todo));
        }
        let mut changing = InTheWay::default();
        self.gone.iter().for_each(|path| changing.add(path, ""));
        if !changing.is_empty() {
            return Err(UserError::new(
                what,
                format!("at the sender these change all the time: {changing}"),
                "run the same command again when nobody writes to them",
            ));
        }
        let all = self.get.listing.nodes.keys();
        match all.filter(|path| !self.get.done.contains(*path)).count() {
            0 => Ok(()),
            n => Err(UserError::new(
                what,
                format!("{n} paths are not in place, and left does not know why"),
                "run the same command again, and report this if it stays so",
            )),
        }
    }

    /// Decides for each path of the list what is to be done; makes folders and links.
    pub(super) fn plan(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), UserError> {
        if self.get.how.rename {
            let tops = self.get.listing.tops();
            self.room.rename(&tops)?;
        }
        self.todo.clear();
        let mut plan = Plan::default();
        let nodes = std::mem::take(&mut self.get.listing.nodes);
        for (path, node) in &nodes {
            if self.get.stop.is_stopped() {
                break;
            }
            if !self.get.done.contains(path) {
                self.plan_one(path, node, &mut plan);
            }
        }
        self.get.listing.nodes = nodes;
        self.refuse(&plan.way)?;
        self.warn_of_space(plan.need, tell);
        for batch in plan.ops.chunks(BATCH) {
            self.apply(batch.to_vec())?;
        }
        Ok(())
    }

    fn plan_one(&mut self, path: &RelPath, node: &Node, plan: &mut Plan) {
        let Some(target) = self.room.target(path) else {
            let why = format!("{}: its name here would be too long", shown(path));
            return self.failed.push(why);
        };
        let stands = match look(&self.room.root, &target, node, self.get.stop) {
            Ok(stands) => stands,
            Err(why) => return self.failed.push(why),
        };
        let overwrite = self.get.how.overwrite;
        match stands {
            Stands::Same(stat) => {
                let op = overwrite.then(|| new_meta(&target, node, &stat)).flatten();
                match op {
                    Some(op) => plan.ops.push((path.clone(), op)),
                    None => self.already(path, node),
                }
                return;
            }
            Stands::Other(expect) if overwrite => {
                self.replace.insert(path.clone(), expect);
            }
            Stands::Other(_) => plan.way.add(&target, ""),
            Stands::Stuck(kind) => plan.way.add(&target, &format!(" ({kind})")),
            Stands::Nothing => {}
        }
        if matches!(node, Node::File { .. }) {
            if !self.under_way.contains(path) {
                plan.need += node.size();
                self.todo.push_back(path.clone());
            }
            return;
        }
        let expect = self.replace.get(path).copied();
        let op = Op::Place {
            path: target,
            node: node.clone(),
            staged: None,
            expect: expect.unwrap_or(Expect::Absent),
            loser: None,
        };
        plan.ops.push((path.clone(), op));
    }

    fn already(&mut self, path: &RelPath, node: &Node) {
        self.get.already += u64::from(!matches!(node, Node::Dir { .. }));
        self.get.done_bytes += node.size();
        self.get.done.insert(path.clone());
    }

    fn refuse(&self, way: &InTheWay) -> Result<(), UserError> {
        if way.is_empty() {
            return Ok(());
        }
        let todo = match self.get.how.overwrite {
            true => "move that away first",
            false => {
                "nothing was changed; fetch to another folder, or say --rename to keep both, or --overwrite to replace"
            }
        };
        let what = format!("cannot fetch to {}", clean(&self.room.dir));
        let why = format!("something else stands there already: {way}");
        Err(UserError::new(what, why, todo))
    }

    /// Holes need no room, so this is no error.
    fn warn_of_space(&self, need: u64, tell: &mut dyn FnMut(Event)) {
        let free = self.room.stage.free_space().unwrap_or(u64::MAX);
        if need > free {
            let text = format!(
                "{need} bytes are to come, but the disk has room for {free}: unless there are large holes in the files, make room now"
            );
            tell(Event::Notice { text });
        }
    }

    /// Puts in place what has come.
    pub(super) fn place_ready(&mut self) -> Result<(), UserError> {
        self.ready_since = None;
        while !self.ready.is_empty() {
            let rest = self.ready.split_off(self.ready.len().min(BATCH));
            let mut ops = Vec::new();
            for (flight, staged) in std::mem::replace(&mut self.ready, rest) {
                self.under_way.remove(&flight.path);
                // It is listed otherwise now: what has come stays in the stage, if it is of use.
                let listed = self.get.listing.nodes.get(&flight.path);
                let target = self.room.target(&flight.path);
                let (Some(target), true) = (target, listed == Some(&flight.node)) else {
                    if listed.is_some() {
                        self.todo.push_back(flight.path);
                    }
                    continue;
                };
                let expect = self
                    .replace
                    .get(&flight.path)
                    .copied()
                    .unwrap_or(Expect::Absent);
                let op = Op::Place {
                    path: target,
                    node: flight.node,
                    staged: Some(staged),
                    expect,
                    loser: None,
                };
                ops.push((flight.path, op));
            }
            self.apply(ops)?;
        }
        Ok(())
    }

    fn apply(&mut self, ops: Vec<(RelPath, Op)>) -> Result<(), UserError> {
        let (paths, ops): (Vec<RelPath>, Vec<Op>) = ops.into_iter().unzip();
        let ops: Vec<(OpId, Op)> = (0..).map(OpId).zip(ops).collect();
        let done = apply(&self.room.root, &self.room.stage, &self.room.history, &ops);
        for ((path, (_, op)), (_, result)) in paths.into_iter().zip(&ops).zip(done) {
            let (Op::Place { node, .. } | Op::SetMeta { node, .. }) = op else {
                continue;
            };
            match result {
                Ok(_) => self.landed(path, op.path(), node),
                Err(OpError::Full) => return Err(self.full()),
                Err(OpError::Unexpected | OpError::NotEmpty) => {
                    self.surprised(path, op.path(), node)
                }
                Err(OpError::NotStaged) => self.again(path, node),
                Err(OpError::NoParent) => {
                    self.failed.push(format!(
                        "{}: its folder is gone, or is no folder",
                        shown(op.path())
                    ));
                }
                Err(OpError::Io(why)) => self.failed.push(why),
            }
        }
        Ok(())
    }

    fn landed(&mut self, path: RelPath, target: &RelPath, node: &Node) {
        if let Some(content) = node.content() {
            self.placed.insert(content, target.clone());
        }
        self.get.done_bytes += node.size();
        self.get.done.insert(path);
    }

    /// What was to be placed is gone, or so is what was in the way: once more.
    fn again(&mut self, path: RelPath, node: &Node) {
        self.repeats += 1;
        if self.repeats > MAX_REPEATS {
            let why = format!("{}: other programs change it all the time", shown(&path));
            self.failed.push(why);
        } else if matches!(node, Node::File { .. }) {
            self.todo.push_back(path);
        } else {
            self.planned = false;
        }
    }

    /// Something stands there that did not when it was looked at.
    fn surprised(&mut self, path: RelPath, target: &RelPath, node: &Node) {
        match look(&self.room.root, target, node, self.get.stop) {
            Ok(Stands::Same(_)) => self.landed(path, target, node),
            Ok(Stands::Nothing) => self.again(path, node),
            Ok(_) => self.in_the_way.add(target, ""),
            Err(why) => self.failed.push(why),
        }
    }
}

/// What makes mode and time of a file with the right bytes those of the sender.
fn new_meta(target: &RelPath, node: &Node, stat: &FileStat) -> Option<Op> {
    let Node::File { mode, mtime, .. } = node else {
        return None;
    };
    (stat.mode != *mode || stat.mtime != *mtime).then(|| Op::SetMeta {
        path: target.clone(),
        node: node.clone(),
        expect: Expect::Present(Kind::File, *stat),
    })
}
