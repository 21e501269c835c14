//! The threads of a session, which share the work of a step.
//!
//! A step's work is cut into numbered parts, and each part is done once, by whichever thread is free. How the work is
//! cut depends on the step's shapes alone, and parts write different memory, so results are the same bits whatever the
//! number of threads. Between two steps a thread waits awake for a moment, then it sleeps. See
//! [adr/0008](../../../docs/adr/0008-threads-of-a-session.md).

use std::any::Any;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::cpu::memory::Buffer;
use crate::cpu::pointwise::Registers;

/// How often a waiting thread looks before it sleeps: a few times what a short step takes.
const LOOKS: usize = 4000;

/// Parts that the largest steps are cut into: enough for their ends to lie close together on the threads that there
/// are.
const PARTS: usize = 16;

/// The number of parts for work that takes `cost` units, where less than `least` are not worth a part.
pub fn parts(cost: usize, least: usize) -> usize {
    (cost / least).clamp(1, PARTS)
}

/// What one thread works with.
#[derive(Default)]
pub struct Lane {
    pub a: Buffer,
    pub b: Buffer,
    pub c: Buffer,
    pub registers: Registers,
}

/// The calling thread and its helpers, which end with the team.
#[derive(Default)]
pub struct Team {
    own: Lane,
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

type Work = dyn Fn(usize, &mut Lane) + Sync;

/// The work at hand.
#[derive(Clone, Copy)]
struct Job(*const Work);

// SAFETY: what it points at is `Sync`, and `Team::run` keeps it until no thread holds the job.
unsafe impl Send for Job {}

#[derive(Default)]
struct State {
    /// Present while there are parts that no thread has finished.
    job: Option<Job>,
    parts: usize,
    /// The first part that no thread has begun.
    next: usize,
    finished: usize,
    /// What a part panicked with.
    panic: Option<Box<dyn Any + Send>>,
    asleep: usize,
    over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A job was posted, or the team ends.
    posted: Condvar,
    /// The job's last part was finished.
    done: Condvar,
    /// Counts what `posted` tells, for threads that are awake.
    posts: AtomicUsize,
    /// Counts what `done` tells.
    ends: AtomicUsize,
}

impl Team {
    /// A team of `threads`, the calling one included; of fewer where the system gives no more.
    pub fn new(threads: usize) -> Team {
        let shared = Arc::<Shared>::default();
        let help = |_| {
            let shared = shared.clone();
            Builder::new().name("lapidary".into()).spawn(move || shared.help()).ok()
        };
        let helpers = (1..threads).map_while(help).collect();
        Team { own: Lane::default(), shared, helpers }
    }

    /// Calls `work` once for each of `parts` numbers, on any thread and in any order, and waits for all.
    pub fn run(&mut self, parts: usize, work: &(dyn Fn(usize, &mut Lane) + Sync)) {
        if self.helpers.is_empty() || parts <= 1 {
            (0..parts).for_each(|part| work(part, &mut self.own));
            return;
        }
        let seen = self.shared.ends.load(Ordering::Acquire);
        // SAFETY: the lifetime alone changes. The pointer is gone from the state when the last part is finished, for
        // which this function waits; it cannot unwind before, as panics of parts are caught.
        let job = Job(unsafe { std::mem::transmute::<&(dyn Fn(usize, &mut Lane) + Sync), &'static Work>(work) });
        self.shared.post(job, parts);
        self.shared.work(&mut self.own);
        if let Some(panic) = self.shared.wait(seen) {
            resume_unwind(panic);
        }
    }

    /// Calls `work` for each piece of `len` elements of `data`; the last may be shorter.
    pub fn pieces<T: Send>(&mut self, data: &mut [T], len: usize, work: impl Fn(usize, &mut [T], &mut Lane) + Sync) {
        let total = data.len();
        let whole = Pieces::new(data);
        self.run(total.div_ceil(len.max(1)), &|part, lane| {
            let start = part * len;
            // SAFETY: each part has a range of its own.
            work(part, unsafe { whole.get(start, len.min(total - start)) }, lane);
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.posts.fetch_add(1, Ordering::Release);
        self.shared.posted.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of its work; there is nothing to learn from it.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, job: Job, parts: usize) {
        let mut state = self.lock();
        (state.job, state.parts, state.next, state.finished) = (Some(job), parts, 0, 0);
        let asleep = state.asleep;
        drop(state);
        self.posts.fetch_add(1, Ordering::Release);
        if asleep > 0 {
            self.posted.notify_all();
        }
    }

    /// Does parts of the job until all are begun.
    fn work(&self, lane: &mut Lane) {
        let mut state = self.lock();
        while let Some(job) = state.job.filter(|_| state.next < state.parts) {
            let part = state.next;
            state.next += 1;
            drop(state);
            // SAFETY: this part is not finished, so the job is still there (`Team::run`).
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.0)(part, lane) }));
            state = self.lock();
            state.finished += 1;
            state.panic = state.panic.take().or(result.err());
            if state.finished == state.parts {
                state.job = None;
                self.ends.fetch_add(1, Ordering::Release);
                self.done.notify_one();
            }
        }
    }

    /// Waits for the last part; `seen` jobs had ended before. Gives what a part panicked with.
    fn wait(&self, seen: usize) -> Option<Box<dyn Any + Send>> {
        look(|| self.ends.load(Ordering::Acquire) != seen);
        let mut state = self.lock();
        while state.job.is_some() {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.panic.take()
    }

    /// The life of a helper.
    fn help(&self) {
        let mut lane = Lane::default();
        loop {
            let seen = self.posts.load(Ordering::Acquire);
            self.work(&mut lane);
            if look(|| self.posts.load(Ordering::Acquire) != seen) {
                continue;
            }
            let mut state = self.lock();
            while !state.over && state.job.is_none_or(|_| state.next == state.parts) {
                state.asleep += 1;
                state = self.posted.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep -= 1;
            }
            if state.over {
                return;
            }
        }
    }
}

/// Whether `event` is seen within [`LOOKS`].
fn look(event: impl Fn() -> bool) -> bool {
    for _ in 0..LOOKS {
        if event() {
            return true;
        }
        spin_loop();
    }
    false
}

/// A slice of which the parts of a step write different pieces.
pub struct Pieces<'p, T> {
    start: *mut T,
    len: usize,
    unique: PhantomData<&'p mut [T]>,
}

// SAFETY: a unique slice that is handed out piece by piece; `get` asks for pieces that do not overlap.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'p, T> Pieces<'p, T> {
    /// The pieces of `data`.
    pub fn new(data: &'p mut [T]) -> Pieces<'p, T> {
        Pieces { start: data.as_mut_ptr(), len: data.len(), unique: PhantomData }
    }

    /// The elements `start .. start + len`.
    ///
    /// # Safety
    /// No two pieces that overlap are held at a time.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the pieces apart")]
    pub unsafe fn get(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a piece lies outside of its slice");
        // SAFETY: inside of a unique slice; the caller keeps pieces apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once() {
        for threads in 1..4 {
            let mut team = Team::new(threads);
            for round in 0..200 {
                let counts: Vec<AtomicUsize> = (0..round % 7).map(|_| AtomicUsize::new(0)).collect();
                team.run(counts.len(), &|part, _| {
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn pieces_cover_a_slice() {
        let mut team = Team::new(3);
        for (len, piece) in [(10, 3), (9, 3), (0, 4), (2, 5)] {
            let mut data = vec![0; len];
            team.pieces(&mut data, piece, |part, data, _| data.fill(part + 1));
            let expected: Vec<usize> = (0..len).map(|k| k / piece + 1).collect();
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn helpers_that_sleep_are_woken() {
        let mut team = Team::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let ids = Mutex::new(Vec::new());
            let both = std::sync::Barrier::new(2);
            team.run(2, &|_, _| {
                both.wait();
                ids.lock().unwrap().push(std::thread::current().id());
            });
            let ids = ids.into_inner().unwrap();
            assert_ne!(ids[0], ids[1]);
        }
    }

    #[test]
    fn panics_reach_the_caller_and_leave_the_team_whole() {
        let mut team = Team::new(2);
        for _ in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| team.run(5, &|part, _| assert_ne!(part, 3, "part three"))));
            assert!(result.is_err());
            let mut data = [0; 8];
            team.pieces(&mut data, 1, |part, data, _| data[0] = part);
            assert_eq!(data, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }
}
