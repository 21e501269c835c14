//! What a random graph is made from: numbers that proptest draws and shrinks. [`super::grow`] reads them as choices.
//!
//! Every recipe makes a graph, so that a smaller recipe is a smaller graph: a step whose numbers fit nothing is left
//! out.

use proptest::prelude::*;

/// The numbers of one step, in the order in which choices are made.
pub type Words = Vec<u16>;

/// A graph as numbers.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub symbols: Words,
    pub inputs: Vec<Words>,
    pub steps: Vec<Step>,
    /// What the inputs hold.
    pub data: u16,
}

/// A node, or a few that belong together; `inner` are the steps of its two regions, if it becomes an `If`, or a loop.
#[derive(Clone, Debug)]
pub struct Step {
    pub words: Words,
    pub inner: [Vec<Words>; 2],
}

/// How many choices a step makes at most; further ones are 0.
const WORDS: usize = 20;

/// The recipes of graphs of up to 14 steps.
pub fn recipes() -> impl Strategy<Value = Recipe> {
    let words = || prop::collection::vec(any::<u16>(), WORDS);
    let region = move || prop::collection::vec(words(), 0..4);
    let step = (words(), region(), region()).prop_map(|(words, a, b)| Step { words, inner: [a, b] });
    let inputs = prop::collection::vec(prop::collection::vec(any::<u16>(), 8), 1..4);
    let symbols = prop::collection::vec(any::<u16>(), 10);
    (symbols, inputs, prop::collection::vec(step, 1..14), any::<u16>())
        .prop_map(|(symbols, inputs, steps, data)| Recipe { symbols, inputs, steps, data })
}

/// Reads numbers as choices.
pub struct Choices<'w> {
    words: &'w [u16],
    at: usize,
}

impl<'w> Choices<'w> {
    pub fn new(words: &'w [u16]) -> Choices<'w> {
        Choices { words, at: 0 }
    }

    fn next(&mut self) -> usize {
        let word = self.words.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(word)
    }

    /// A number below `n`, 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.next() % n.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1).max(1) as usize) as i64
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// One of the items, which are not empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// A number for seeding.
    pub fn seed(&mut self) -> u64 {
        self.next() as u64 + 1
    }
}
