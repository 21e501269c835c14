//! What a loop does between the rounds of its body.

use crate::cpu::memory::Memory;
use crate::table::{Dim, NONE, Step};

/// How many rounds there are at most; none where that is below 0.
pub fn limit(step: &Step<'_>, most: Dim, memory: &Memory<'_>) -> i64 {
    let most = memory.shapes().dim(most);
    match step.inputs.get(1) {
        Some(&limit) if limit != NONE => most.min(memory.read(limit).words::<i64>()[0]),
        Some(_) | None => most,
    }
}

/// Whether the condition asks for another round.
pub fn goes_on(step: &Step<'_>, memory: &Memory<'_>) -> bool {
    match step.inputs.first() {
        Some(&condition) if condition != NONE => memory.read(condition).bytes[0] != 0,
        Some(_) | None => true,
    }
}

/// Copies the rows of round `round` to their place among all rows.
pub fn collect(step: &Step<'_>, round: i64, memory: &mut Memory<'_>) {
    for (&row, &rows) in step.inputs.iter().skip(2).zip(step.outputs) {
        let from = memory.raw(row);
        assert!(!from.overlaps(&memory.raw(rows)), "{}: the plan lets a row overlap the rows", step.label);
        // SAFETY: inside of a region that is borrowed as long as `memory`, and disjoint from what is written.
        let from = unsafe { core::slice::from_raw_parts(from.start, from.bytes) };
        let all = memory.write(rows);
        let start = usize::try_from(round).unwrap_or(usize::MAX).saturating_mul(from.len());
        all.bytes[start..][..from.len()].copy_from_slice(from);
    }
}
