//! Sets of positions.

/// Positions of segments.
#[derive(Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn has(&self, n: usize) -> bool {
        self.words
            .get(n / 64)
            .is_some_and(|w| w >> (n % 64) & 1 == 1)
    }

    /// Whether it was not there.
    pub(super) fn set(&mut self, n: usize) -> bool {
        if self.has(n) {
            return false;
        }
        if self.words.len() <= n / 64 {
            self.words.resize(n / 64 + 1, 0);
        }
        self.words[n / 64] |= 1 << (n % 64);
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.words.len() * 64).filter(|n| self.has(*n))
    }
}
