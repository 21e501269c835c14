//! Time and memory that an answer may take, measured: an allocator that counts, thread by thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// What refusing a small file may take at most: its graph is small, whatever it claims.
const MOST_BYTES: isize = 64 << 20;

/// The same in time, unoptimized and on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);

/// Does `work`, and fails the test if it takes more than its share of memory or time.
#[track_caller]
pub fn bounded<T>(work: impl FnOnce() -> T) -> T {
    let before = LIVE.get();
    PEAK.set(before);
    let start = Instant::now();
    let result = work();
    let (peak, took) = (PEAK.get() - before, start.elapsed());
    assert!(peak <= MOST_BYTES, "{peak} bytes were in use at once");
    assert!(took <= LONGEST, "it took {took:?}");
    result
}

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    let live = LIVE.get() + change;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing, as the cells are constant.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}
