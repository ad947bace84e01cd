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

    pub(super) fn clear(&mut self, n: usize) {
        if let Some(word) = self.words.get_mut(n / 64) {
            *word &= !(1 << (n % 64));
        }
    }

    /// All from `from` on, in order.
    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = usize> {
        let words = self.words.iter().enumerate().skip(from / 64);
        words
            .flat_map(|(at, word)| {
                let mut rest = *word;
                std::iter::from_fn(move || {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest.checked_sub(1)?;
                    Some(at * 64 + bit)
                })
            })
            .skip_while(move |n| *n < from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_told_in_order() {
        let mut bits = Bits::default();
        let all = [0, 1, 63, 64, 130, 191, 1000];
        for n in all {
            assert!(bits.set(n) && !bits.set(n));
        }
        for from in 0..1100 {
            let right: Vec<usize> = all.into_iter().filter(|n| *n >= from).collect();
            assert_eq!(bits.iter_from(from).collect::<Vec<_>>(), right);
        }
        bits.clear(63);
        bits.clear(5000);
        assert!(!bits.has(63) && bits.has(64));
        assert!(!bits.has(2) && !bits.has(5000));
    }
}
