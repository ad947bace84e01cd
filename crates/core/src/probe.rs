//! For the simulator only: which branches of the rules were taken, and deliberate faults in the
//! rules that the simulator must notice.
//!
//! Without the feature `probe` both functions are empty and cost nothing. With it, counts and the
//! chosen fault belong to the thread, none is chosen at the start, and nothing else changes: a
//! build of the whole workspace, which switches the feature on for all crates, behaves the same.

#[cfg(feature = "probe")]
mod on {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    thread_local! {
        static TAKEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
        static FAULT: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    pub(super) fn cover(branch: &'static str) {
        TAKEN.with_borrow_mut(|taken| *taken.entry(branch).or_default() += 1);
    }

    pub(super) fn mutant(fault: &str) -> bool {
        FAULT.get() == Some(fault)
    }

    /// How often each branch was taken on this thread since the last call.
    pub fn take_covered() -> BTreeMap<&'static str, u64> {
        TAKEN.take()
    }

    /// From now on this thread has this fault, or none.
    pub fn set_mutant(fault: Option<&'static str>) {
        FAULT.set(fault);
    }
}

#[cfg(feature = "probe")]
pub use on::{set_mutant, take_covered};

/// This branch was taken. Names are unique: `<module>: <what>`.
#[inline(always)]
pub fn cover(branch: &'static str) {
    #[cfg(feature = "probe")]
    on::cover(branch);
    #[cfg(not(feature = "probe"))]
    let _ = branch;
}

/// Whether the simulator chose this fault; never without the feature.
#[inline(always)]
pub fn mutant(fault: &str) -> bool {
    #[cfg(feature = "probe")]
    return on::mutant(fault);
    #[cfg(not(feature = "probe"))]
    {
        let _ = fault;
        false
    }
}
