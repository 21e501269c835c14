//! Independent pieces of work on all cores. Which thread does a piece changes nothing in its result.

use std::thread;

/// Below this many scalar operations, threads cost more than they bring.
const WORTH_A_THREAD: usize = 1 << 18;

/// `piece(0)`, `piece(1)`, ... `piece(pieces - 1)`, in order. `work` is a rough count of scalar operations in all.
pub(super) fn map<R: Send>(pieces: usize, work: usize, piece: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = cores.min(work / WORTH_A_THREAD).min(pieces);
    if threads <= 1 {
        return (0..pieces).map(piece).collect();
    }
    let piece = &piece;
    thread::scope(|scope| {
        let share = |k: usize| pieces * k / threads..pieces * (k + 1) / threads;
        let others: Vec<_> =
            (1..threads).map(|k| scope.spawn(move || share(k).map(piece).collect::<Vec<R>>())).collect();
        let mut results: Vec<R> = share(0).map(piece).collect();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kept() {
        let squares: Vec<usize> = (0..1001).map(|k| k * k).collect();
        assert_eq!(map(1001, usize::MAX, |k| k * k), squares);
        assert_eq!(map(1001, 0, |k| k * k), squares);
        assert!(map(0, usize::MAX, |k| k).is_empty());
    }
}
