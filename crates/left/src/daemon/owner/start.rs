//! Starting a share: its folder's files are opened first, then come the threads that work with them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use left_core::engine::{Config, Engine};
use left_core::index::Index;
use left_core::version::DeviceId;

use super::durable::{self, Checkpoints};
use super::{FetchResults, Owner, Setup, choose, members};
use crate::daemon::adapt::{self, Source};
use crate::daemon::ask::Msg;
use crate::daemon::handle::ApplyTimes;
use crate::daemon::history::{Scribe, Thinner};
use crate::daemon::links::Links;
use crate::daemon::offers::Offers;
use crate::daemon::snapshot::Progressing;
use crate::daemon::workers;
use crate::disk::{Cut, DiskEye, Durable, History, Pack, Root, Stage};
use crate::home::{MARKER_DIR, clean, selection_of};
use crate::store::{IndexDb, IndexReader, Journal, Manifests};
use crate::transfer::Fetcher;

/// Disk events that may wait for the owner.
const EYE_QUEUE: usize = 64;

impl Owner {
    pub(super) fn open(setup: Setup, tx: Sender<Msg>) -> Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let mut kept = Kept::open(&setup)?;
        let transfers = Transfers::start(&kept, setup.device, &tx)?;
        let (look_tx, looks) = bounded(EYE_QUEUE);
        let eye = DiskEye::start(
            kept.root.clone(),
            Box::new(adapt::Scan(kept.reader()?)),
            Arc::new(adapt::Sink {
                manifests: kept.manifests.clone(),
                offers: transfers.offers.clone(),
            }),
            kept.cut,
            look_tx,
        )
        .map_err(|e| text(&e))?;
        let applying = workers::Applying {
            root: kept.root.clone(),
            stage: kept.stage.clone(),
            history: kept.history.clone(),
            pack: kept.pack.clone(),
            heard: kept.index.unsynced(),
            tx: tx.clone(),
        };
        let (apply, applier) = applying.spawn().map_err(|e| text(&e))?;
        let thinner = Thinner::start(
            kept.root.clone(),
            kept.stage.clone(),
            kept.history.clone(),
            setup.limits.clone(),
            tx.clone(),
        );
        workers::spawn_index_search(kept.reader()?, tx.clone());
        let config = Config {
            device: setup.device,
            role: setup.members.works_as(),
            send_only: setup.members.sends_only(),
        };
        let id = setup.members.id();
        let (selection, damaged) = selection_of(setup.members.record().choice.as_ref());
        if damaged {
            kept.notices.push(choose::DAMAGED.to_owned());
        }
        Ok(Self {
            engine: Engine::new(config, &kept.index).with_selection(selection),
            links: Links::new(id, setup.door.clone(), setup.net.clone(), tx.clone()),
            setup,
            tx,
            index: kept.index,
            root: kept.root,
            stage: kept.stage,
            history: kept.history,
            scribe: kept.scribe,
            unheard: kept.unheard,
            thinner: Some(thinner.map_err(|e| text(&e))?),
            eye,
            fetcher: transfers.fetcher,
            fetched: transfers.fetched,
            fetching: HashMap::new(),
            looks,
            apply: Some(apply),
            applier: Some(applier),
            source: transfers.source,
            offers: transfers.offers,
            batches: VecDeque::new(),
            applied: ApplyTimes::default(),
            checkpoints: Checkpoints::new(kept.durable, kept.pack, kept.cut.is_some()),
            waits: HashMap::new(),
            next_wait: 1,
            drops: HashMap::new(),
            conflicts: Vec::new(),
            problems: Vec::new(),
            notices: kept.notices,
            progress: Progressing::default(),
            queue: VecDeque::new(),
            dirty: true,
            started: Instant::now(),
            next_dial: None,
            stop: false,
            again: false,
            role: config.role,
            send_only: config.send_only,
        })
    }
}

/// What a share has in its folder, open.
struct Kept {
    root: Arc<Root>,
    index: IndexDb,
    manifests: Manifests,
    stage: Arc<Stage>,
    history: Arc<History>,
    pack: Arc<Pack>,
    scribe: Scribe,
    unheard: bool,
    durable: Durable,
    cut: Option<Cut>,
    notices: Vec<String>,
}

impl Kept {
    /// Opens all of it, and brings back what a power cut took, before anything of the folder is looked at.
    fn open(setup: &Setup) -> Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let root = Arc::new(Root::open(&setup.path).map_err(|e| text(&e))?);
        root.check().map_err(|e| text(&e))?;
        let own = setup.path.join(MARKER_DIR);
        let (mut index, opened) =
            members::open_index(setup, &own.join("index.db")).map_err(|e| text(&e))?;
        crash_point!("index-opened");
        let manifests = Manifests::open(&own.join("manifests.db")).map_err(|e| text(&e))?;
        let folder = |name: &str, e: &io::Error| {
            let path = clean(&own.join(name));
            format!("{path} cannot be used: {e}. Move away what stands there; left makes it anew")
        };
        let stage = Arc::new(Stage::open(&root).map_err(|e| folder("stage", &e))?);
        let history = Arc::new(History::open(&root).map_err(|e| folder("history", &e))?);
        let pack = Arc::new(Pack::open(&root).map_err(|e| folder("pack", &e))?);
        let journal = Journal::open(&own.join("journal.db")).map_err(|e| text(&e))?;
        let scribe = Scribe::start(journal).map_err(|e| text(&e))?;
        let unheard = index.head() == 0;
        if !unheard {
            index.listen(scribe.listener());
        }
        let (durable, cut) = Durable::open(&root).map_err(|e| folder("durable", &e))?;
        let mut notices = Vec::new();
        if root.is_weak() {
            notices.push(
                "this file system cannot swap files in one step; replacing files is a little \
                 less safe here against a program that edits at the same instant"
                    .to_owned(),
            );
        }
        if let Some(why) = opened.rebuilt {
            notices.push(format!("the index was made anew: {why}; nothing is lost"));
        }
        // Small staged files belong to the last run; big ones are continued.
        stage.clean(|name| name.len() == 64).map_err(|e| text(&e))?;
        if let Some(cut) = cut {
            let back = durable::bring_back(&root, &stage, &history, &pack, &mut index, cut)?;
            notices.extend(back);
        }
        Ok(Self {
            root,
            index,
            manifests,
            stage,
            history,
            pack,
            scribe,
            unheard,
            durable,
            cut,
            notices,
        })
    }

    fn reader(&self) -> Result<IndexReader, String> {
        self.index.reader().map_err(|e| e.to_string())
    }
}

/// What brings contents and serves them.
struct Transfers {
    offers: Arc<Offers>,
    fetcher: Fetcher,
    fetched: Receiver<FetchResults>,
    source: Arc<Source>,
}

impl Transfers {
    fn start(kept: &Kept, device: DeviceId, tx: &Sender<Msg>) -> Result<Self, String> {
        let offers = Arc::new(Offers::new(tx.clone()));
        let (fetch_tx, fetched) = unbounded();
        let fetcher = adapt::fetcher(
            &kept.root,
            &kept.stage,
            Some(kept.reader()?),
            &kept.manifests,
            fetch_tx,
        );
        adapt::share_work(&fetcher, device, tx.clone());
        let source = Source::new(
            kept.root.clone(),
            kept.reader()?,
            kept.manifests.clone(),
            offers.clone(),
            fetcher.stock(),
        );
        Ok(Self {
            offers,
            fetcher,
            fetched,
            source: Arc::new(source),
        })
    }
}
