//! Pairings by code (`left sync`): both machines run the same command, each naming the other, and
//! whichever reaches the other first completes it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use left_core::membership::Founding;
use left_core::message::ShareId;
use left_core::version::DeviceId;

use crate::home::UserError;
use crate::net::Introduction;
use crate::net::code::CodeKey;

/// A pairing that waits for the other machine.
#[derive(Clone)]
pub(super) struct Pending {
    pub(super) number: u64,
    /// The folder, which becomes a share if it is none.
    pub(super) dir: PathBuf,
    pub(super) code: CodeKey,
    /// The other machine, `host` or `host:port`.
    pub(super) peer: String,
    /// The folder's share, if it is one already.
    pub(super) share: Option<ShareId>,
    /// Complete, with this device. Kept for a while, since that device may not have heard yet
    /// that it is and then dials once more.
    pub(super) done_with: Option<DeviceId>,
}

/// Which share both belong to after a pairing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Terms {
    /// One that is.
    Share(ShareId),
    /// A new one, founded so.
    New(Founding),
}

impl Terms {
    pub(super) fn share(&self) -> ShareId {
        match self {
            Terms::Share(share) => *share,
            Terms::New(founding) => founding.share(),
        }
    }
}

/// Makes the folder a member of the share: given when a pairing is complete.
type OnDone =
    Box<dyn Fn(&Pending, Terms, DeviceId, &Introduction) -> Result<(), UserError> + Send + Sync>;

/// All pairings of this device that wait.
#[derive(Default)]
pub(super) struct Pairings {
    pending: Mutex<Vec<Pending>>,
    next: Mutex<u64>,
    on_done: OnceLock<OnDone>,
}

impl Pairings {
    fn lock(&self) -> MutexGuard<'_, Vec<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What completing a pairing does; set once.
    pub(super) fn on_done(&self, on_done: OnDone) {
        let _ = self.on_done.set(on_done);
    }

    /// A new pairing; one for the same folder is replaced.
    pub(super) fn add(
        &self,
        dir: PathBuf,
        code: CodeKey,
        peer: String,
        share: Option<ShareId>,
    ) -> Pending {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        let pending = Pending {
            number: *next,
            dir,
            code,
            peer,
            share,
            done_with: None,
        };
        let mut all = self.lock();
        all.retain(|p| p.dir != pending.dir);
        all.push(pending.clone());
        pending
    }

    /// A pairing that `device` may complete and that passes the test.
    pub(super) fn find(
        &self,
        device: DeviceId,
        test: impl Fn(&Pending) -> bool,
    ) -> Option<Pending> {
        let all = self.lock();
        let mut open = all
            .iter()
            .filter(|p| p.done_with.is_none_or(|d| d == device));
        open.find(|p| test(p)).cloned()
    }

    pub(super) fn is_waiting(&self, number: u64) -> bool {
        self.lock()
            .iter()
            .any(|p| p.number == number && p.done_with.is_none())
    }

    /// Those that wait.
    pub(super) fn waiting(&self) -> Vec<Pending> {
        let all = self.lock();
        all.iter()
            .filter(|p| p.done_with.is_none())
            .cloned()
            .collect()
    }

    pub(super) fn remove(&self, dir: &std::path::Path) {
        self.lock().retain(|p| p.dir != dir);
    }

    /// The other machine has proven that it knows the code: both belong to one share now. Doing it
    /// twice (both ends dialed) is fine.
    pub(super) fn complete(
        &self,
        pending: &Pending,
        terms: Terms,
        peer: DeviceId,
        from: &Introduction,
    ) -> Result<(), UserError> {
        if let Some(on_done) = self.on_done.get() {
            on_done(pending, terms, peer, from)?;
        }
        for p in self
            .lock()
            .iter_mut()
            .filter(|p| p.number == pending.number)
        {
            p.done_with = Some(peer);
            p.share = Some(terms.share());
        }
        Ok(())
    }
}
