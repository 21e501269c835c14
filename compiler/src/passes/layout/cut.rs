//! The minimum cut of a network, by the flow that saturates it (Dinic, 1970).

use std::collections::VecDeque;

/// Places with a source and a sink, and edges of limited capacity.
pub struct Network {
    edges: Vec<Edge>,
    /// The edges out of each place. Edge `k ^ 1` is edge `k` backwards.
    out: Vec<Vec<usize>>,
}

struct Edge {
    to: usize,
    left: u64,
}

const UNBOUNDED: u64 = u64::MAX;

impl Network {
    pub const SOURCE: usize = 0;
    pub const SINK: usize = 1;

    /// The source and the sink.
    pub fn new() -> Network {
        Network { edges: Vec::new(), out: vec![Vec::new(), Vec::new()] }
    }

    /// Another place.
    pub fn place(&mut self) -> usize {
        self.out.push(Vec::new());
        self.out.len() - 1
    }

    /// Costs `capacity` where `from` is on the source's side of the cut, and `to` on the other.
    pub fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        self.out[from].push(self.edges.len());
        self.edges.push(Edge { to, left: capacity });
        self.out[to].push(self.edges.len());
        self.edges.push(Edge { to: from, left: 0 });
    }

    /// Costs `capacity` where any of `others` is on another side than `home`.
    pub fn disagree(&mut self, home: usize, others: impl IntoIterator<Item = usize>, capacity: u64) {
        let others: Vec<usize> = others.into_iter().filter(|&other| other != home).collect();
        if capacity == 0 || others.is_empty() {
            return;
        }
        let (behind, front) = (self.place(), self.place());
        self.edge(home, behind, capacity);
        self.edge(front, home, capacity);
        for other in others {
            self.edge(behind, other, UNBOUNDED);
            self.edge(other, front, UNBOUNDED);
        }
    }

    /// For each place, whether it is on the source's side of the minimum cut that is nearest to the source.
    pub fn cut(mut self) -> Vec<bool> {
        loop {
            let levels = self.levels();
            if levels[Network::SINK].is_none() {
                return levels.iter().map(Option::is_some).collect();
            }
            self.saturate(&levels);
        }
    }

    /// How many edges with something left lead from the source to each place.
    fn levels(&self) -> Vec<Option<usize>> {
        let mut levels = vec![None; self.out.len()];
        levels[Network::SOURCE] = Some(0);
        let mut queue = VecDeque::from([Network::SOURCE]);
        while let Some(at) = queue.pop_front() {
            for edge in self.out[at].iter().map(|&edge| &self.edges[edge]) {
                if edge.left > 0 && levels[edge.to].is_none() {
                    levels[edge.to] = levels[at].map(|level| level + 1);
                    queue.push_back(edge.to);
                }
            }
        }
        levels
    }

    /// Sends what fits along paths that climb one level with each edge, until no such path is left.
    fn saturate(&mut self, levels: &[Option<usize>]) {
        let mut next = vec![0; self.out.len()];
        let mut path: Vec<usize> = Vec::new();
        loop {
            let at = path.last().map_or(Network::SOURCE, |&edge| self.edges[edge].to);
            if at == Network::SINK {
                let least = path.iter().map(|&edge| self.edges[edge].left).min().unwrap_or(0);
                for &edge in &path {
                    self.edges[edge].left -= least;
                    // Backwards of an unbounded edge stays less than unbounded: flow is bounded by the capacities.
                    self.edges[edge ^ 1].left = self.edges[edge ^ 1].left.saturating_add(least);
                }
                path.clear();
                continue;
            }
            let climbs = |edge: usize| {
                let Edge { to, left } = self.edges[edge];
                left > 0 && levels[to] == levels[at].map(|level| level + 1)
            };
            let found = (next[at]..self.out[at].len()).find(|&k| climbs(self.out[at][k]));
            match found {
                Some(k) => {
                    next[at] = k;
                    path.push(self.out[at][k]);
                }
                // Nothing leads on from here, and not from where the edge into it comes from by that edge.
                None => {
                    let Some(into) = path.pop() else { return };
                    next[self.edges[into ^ 1].to] += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cheapest of all ways to put the places on the sides, one after the other.
    fn least(places: usize, edges: &[(usize, usize, u64)]) -> u64 {
        let sides = 0..1usize << (places - 2);
        let of = |sides: usize, place: usize| match place {
            Network::SOURCE => true,
            Network::SINK => false,
            place => sides >> (place - 2) & 1 == 1,
        };
        let cost = |sides: usize| -> u64 {
            edges.iter().filter(|(a, b, _)| of(sides, *a) && !of(sides, *b)).map(|(.., capacity)| capacity).sum()
        };
        sides.map(cost).min().unwrap_or(0)
    }

    #[test]
    fn no_other_cut_is_cheaper() {
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for round in 0..300 {
            let places = 2 + below(7) as usize;
            let mut network = Network::new();
            (2..places).for_each(|_| _ = network.place());
            let mut edges = Vec::new();
            for _ in 0..below(20) {
                let edge = (below(places as u64) as usize, below(places as u64) as usize, below(9));
                if edge.0 != edge.1 {
                    edges.push(edge);
                    network.edge(edge.0, edge.1, edge.2);
                }
            }
            let front = network.cut();
            let cost: u64 = edges.iter().filter(|(a, b, _)| front[*a] && !front[*b]).map(|(.., c)| c).sum();
            assert_eq!(cost, least(places, &edges), "round {round}: {edges:?}");
        }
    }

    #[test]
    fn a_tensor_is_moved_once_for_all_its_readers() {
        // Two readers in the sink's order of a tensor from the source's: its transpose, 5, is less than two of 3 behind them.
        let mut network = Network::new();
        let readers = [network.place(), network.place()];
        network.disagree(Network::SOURCE, readers, 5);
        readers.iter().for_each(|&reader| network.edge(reader, Network::SINK, 3));
        let front = network.cut();
        assert_eq!(readers.map(|reader| front[reader]), [false, false]);
    }
}
