//! Random choices for mutations, from libFuzzer's seed: the same seed, the same mutations.

/// A source of random numbers. Xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators,
/// scrambled", 2016.
pub struct Random {
    state: u64,
}

impl Random {
    /// A source that `seed` determines.
    pub fn new(seed: u32) -> Random {
        Random { state: (u64::from(seed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 24;
        if end == 0 { 0 } else { number as usize % end }
    }

    /// True once in `rounds`.
    pub fn once_in(&mut self, rounds: usize) -> bool {
        self.below(rounds) == 0
    }

    /// One of `items`; `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// One of `items`; `None` if there are none.
    pub fn pick_mut<'a, T>(&mut self, items: &'a mut [T]) -> Option<&'a mut T> {
        let at = self.below(items.len());
        items.get_mut(at)
    }
}
