//! Arena offsets: one buffer after the other, each at the lowest offset that is free for its whole life.
//!
//! Y. Pisarchyk, J. Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020): greedy by size and by breadth. No order is best
//! for all graphs, so a few are tried, and the smallest arena is taken.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::lifetime::Lifetime;
use super::{Arena, Scratch};
use crate::lower::{BufferId, Program};

/// Every buffer starts at a multiple of this many bytes: what the widest vector access and a TMA tensor map need.
pub const ALIGNMENT: u64 = 256;

/// A buffer to be placed.
#[derive(Clone, Copy)]
struct Item {
    id: BufferId,
    bytes: u64,
    lifetime: Lifetime,
}

impl Item {
    fn steps(&self) -> u64 {
        (self.lifetime.last - self.lifetime.first + 1) as u64
    }
}

/// Places every buffer.
pub fn pack(lifetimes: &BTreeMap<BufferId, Lifetime>, size: impl Fn(BufferId) -> u64) -> Arena {
    let item = |(&id, &lifetime): (&BufferId, &Lifetime)| {
        let bytes = size(id).next_multiple_of(ALIGNMENT);
        Item { id, bytes, lifetime }
    };
    let mut items: Vec<Item> = lifetimes.iter().map(item).collect();
    let live = live(&items);
    let least = live.iter().copied().max().unwrap_or(0);
    // Where most is live, nothing may be in the way: what lives there first.
    let breadth = |item: &Item| live[item.lifetime.first..=item.lifetime.last].iter().copied().max().unwrap_or(0);
    let orders: [&dyn Fn(&Item) -> u64; 4] =
        [&|item| item.bytes, &|item| item.bytes.saturating_mul(item.steps()), &|item| item.steps(), &breadth];
    let arenas = orders.map(|order| {
        items.sort_by_key(|item| (Reverse((order(item), item.bytes)), item.id));
        improved(&mut items, least)
    });
    let best = arenas.into_iter().min_by_key(|arena| arena.bytes).unwrap_or_default();
    Arena { least_bytes: least, ..best }
}

/// How often an order is changed.
const CHANGES: usize = 48;

/// Places the buffers in this order, and again with the one that reaches highest moved to the front, a few times; the
/// smallest arena that came of it.
fn improved(items: &mut [Item], least: u64) -> Arena {
    let mut best = place(items);
    let mut latest = best.clone();
    for _ in 0..CHANGES {
        let ends = |item: &Item| latest.offsets[&item.id] + item.bytes;
        let Some(highest) = items.iter().rposition(|item| ends(item) == latest.bytes) else { break };
        if best.bytes <= least {
            break;
        }
        items[..=highest].rotate_right(1);
        latest = place(items);
        if latest.bytes < best.bytes {
            best.clone_from(&latest);
        }
    }
    best
}

/// Places the buffers in this order.
fn place(items: &[Item]) -> Arena {
    let mut placed: Vec<(u64, u64, Lifetime)> = Vec::new();
    let mut arena = Arena::default();
    for &Item { id, bytes, lifetime } in items {
        let offset = lowest_gap(&placed, &lifetime, bytes);
        let at = placed.partition_point(|&(start, _, _)| start <= offset);
        placed.insert(at, (offset, offset + bytes, lifetime));
        arena.offsets.insert(id, offset);
        arena.bytes = arena.bytes.max(offset + bytes);
    }
    arena
}

/// The bytes that live at each step; no arena is smaller than the most.
fn live(items: &[Item]) -> Vec<u64> {
    let steps = items.iter().map(|item| item.lifetime.last + 1).max().unwrap_or(0);
    let mut live = vec![0; steps];
    for item in items {
        live[item.lifetime.first..=item.lifetime.last].iter_mut().for_each(|bytes| *bytes += item.bytes);
    }
    live
}

/// The lowest offset at which `bytes` are free; `placed` is sorted by start.
fn lowest_gap(placed: &[(u64, u64, Lifetime)], lifetime: &Lifetime, bytes: u64) -> u64 {
    let mut offset = 0;
    for (start, end, _) in placed.iter().filter(|(_, _, other)| other.overlaps(lifetime)) {
        if offset + bytes <= *start {
            break;
        }
        offset = offset.max(*end);
    }
    offset
}

/// The largest size of a buffer in a profile, in bytes.
pub fn size_in(program: &Program, scratch: &[Scratch], id: BufferId, profile: usize) -> u64 {
    let own = program.buffers.get(id.0 as usize).map(|buffer| &buffer.bytes);
    let bytes = own.or_else(|| scratch.iter().find(|scratch| scratch.buffer == id).map(|scratch| &scratch.bytes));
    match bytes {
        Some(bytes) => u64::try_from(program.range(bytes, profile).1).unwrap_or(0),
        None => crate::bug!("buffer {id:?} does not exist"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_share_memory_when_their_lives_do_not_meet() {
        let lives = [(0, 1), (1, 2), (2, 3)];
        let lifetimes = lives.iter().enumerate();
        let lifetimes = lifetimes.map(|(k, &(first, last))| (BufferId(k as u32), Lifetime { first, last })).collect();
        let arena = pack(&lifetimes, |_| 1000);
        assert_eq!(arena.bytes, 2048);
        assert_eq!(arena.offsets[&BufferId(0)], arena.offsets[&BufferId(2)]);
        assert_ne!(arena.offsets[&BufferId(0)], arena.offsets[&BufferId(1)]);
        assert_eq!(arena.least_bytes, 2048);
    }
}
