//! [`Turns`]: what is sealed holds whole batches only.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Counts the batches under way, and keeps new ones waiting where somebody wants none to be.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    closed: bool,
}

/// To be held, by whichever thread, while a batch is under way.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

/// While it is held there is no batch.
#[derive(Debug)]
pub(super) struct Closed<'a>(&'a Turns);

impl Turns {
    /// Waits while closed.
    pub(super) fn take(&self) -> Turn<'_> {
        self.wait(|state| !state.closed).taken += 1;
        Turn(self)
    }

    /// Lets nobody else begin, and waits for those who have. One at a time.
    pub(super) fn close(&self) -> Closed<'_> {
        self.wait(|state| !state.closed).closed = true;
        // Given back before anything can end in a panic.
        let closed = Closed(self);
        drop(self.wait(|state| state.taken == 0));
        closed
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.lock();
        let waited = self.changed.wait_while(state, |state| !until(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// Who closes waits for what has begun; what comes then waits for who closed.
    #[test]
    fn nothing_is_under_way_while_closed() {
        let turns = Turns::default();
        thread::scope(|scope| {
            let (tell, heard) = channel();
            let turns = &turns;
            let (one, two) = (turns.take(), turns.take());
            let closer = tell.clone();
            scope.spawn(move || {
                let closed = turns.close();
                let _ = closer.send("closed");
                // Given back only after it was said.
                drop(closed);
            });
            while !turns.lock().closed {
                thread::yield_now();
            }
            scope.spawn(move || {
                let _turn = turns.take();
                let _ = tell.send("taken");
            });
            drop(one);
            assert!(heard.try_recv().is_err());
            drop(two);
            assert_eq!(heard.recv(), Ok("closed"));
            assert_eq!(heard.recv(), Ok("taken"));
        });
        assert_eq!(turns.lock().taken, 0);
    }
}
