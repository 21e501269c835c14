//! Pointwise programs: a vectorized interpreter over chunks that stay in the first-level cache.
//!
//! A program is compiled once ([`compile`]); a run binds its operands ([`Bound`]) and goes over the flat index space of
//! the result, chunk by chunk: operands that are contiguous are read where they lie, others (broadcast, narrow types,
//! or memory that is also written) are loaded into registers; then each step is one loop over the chunk.
//!
//! A result may lie exactly where an operand of its size lies. An [`Epilogue`] is a program that finishes the values of
//! another kernel, range by range, on as many threads as the kernel has.

mod exec;
mod layout;
pub mod math;
mod program;
mod storage;
#[cfg(test)]
mod tests;

pub use layout::Layout;
pub use program::{Compiled, compile};
pub use storage::{packed, set_packed};

use crate::cpu::element::{Number, narrow};
use crate::cpu::memory::{Buffer, Inputs, Plain, Raw, bytes_of, cast, cast_mut};
use crate::cpu::team::{Team, parts};
use crate::dtype::{BF16, DType, F16};
use crate::op::Scalar;
use crate::shapes::Extents;
use program::{Class, Loc};

/// Elements of a chunk.
pub const CHUNK: usize = 1024;

/// Bytes from register to register: room for the widest class, and an odd number of cache lines, so that equal indices
/// of two registers do not compete for one cache set.
const STRIDE: usize = CHUNK * 8 + 64;

/// The registers of the interpreter, and the operands bound to a program.
#[derive(Default)]
pub struct Registers {
    memory: Buffer,
    operands: Vec<Operand>,
    results: Vec<Target>,
}

// SAFETY: the addresses in `operands` and `results` are set anew for each run and used within it only.
unsafe impl Send for Registers {}

/// How a chunk of an operand gets to where the steps read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feed {
    /// Read in place.
    Direct,
    /// Loaded chunk by chunk.
    Load,
    /// One element for all: its register is filled when the operand is bound.
    Uniform,
    /// Repeats within every chunk, so that a register once loaded holds for all chunks that begin at the same place in
    /// the period.
    Periodic { period: usize, loaded: Option<usize> },
}

struct Operand {
    dtype: DType,
    start: *const u8,
    layout: Layout,
    feed: Feed,
    /// The flat index of the element at `start`.
    base: usize,
}

struct Target {
    dtype: DType,
    start: *mut u8,
    /// The flat index of the element at `start`.
    base: usize,
}

/// A program with its operands, ready to go over ranges of the result.
struct Bound<'b> {
    program: &'b Compiled,
    memory: *mut u8,
    operands: &'b mut Vec<Operand>,
    results: &'b mut Vec<Target>,
    dims: Extents,
    chunk: usize,
}

/// Elements times steps that are worth a part of their own.
const PART: usize = 1 << 17;

/// Runs `program` over whole tensors.
///
/// # Safety
/// The tensors are valid, results overlap neither each other nor the registers, and a result overlaps an operand only
/// where the two are the same memory and have the same shape.
pub unsafe fn run(program: &Compiled, team: &mut Team, inputs: &[Raw], outputs: &[Raw]) {
    let Some(dims) = outputs.first().map(|raw| raw.dims) else { return };
    let count = dims.count();
    if count == 0 {
        return;
    }
    let parts = parts(count.saturating_mul(program.steps.len() + 1), PART);
    // Whole bytes of elements that are smaller.
    let len = count.div_ceil(parts).next_multiple_of(CHUNK);
    team.run(count.div_ceil(len), &|part, lane| {
        let mut bound = Bound::new(program, &mut lane.registers, dims);
        for raw in inputs {
            let shared = outputs.iter().any(|out| out.overlaps(raw));
            // SAFETY: the caller's.
            unsafe { bound.operand(*raw, shared) };
        }
        bound.results.extend(outputs.iter().map(|raw| Target { dtype: raw.dtype, start: raw.start, base: 0 }));
        let start = part * len;
        // SAFETY: the caller's. Parts write different elements, and read no element that another part writes: what lies
        // where a result lies is read element by element.
        unsafe { bound.range(start, len.min(count - start)) };
    });
}

impl<'b> Bound<'b> {
    fn new(program: &'b Compiled, registers: &'b mut Registers, dims: Extents) -> Bound<'b> {
        let Registers { memory, operands, results } = registers;
        operands.clear();
        results.clear();
        let count = program.constants.len() + program.inputs.len() + program.temps;
        let memory = memory.take::<u8>(STRIDE * count).as_mut_ptr();
        let chunk = dims.count().clamp(1, CHUNK);
        let bound = Bound { program, memory, operands, results, dims, chunk };
        for (k, constant) in program.constants.iter().enumerate() {
            // SAFETY: the register is one of those just taken.
            unsafe { fill(*constant, bound.register(k), chunk) };
        }
        bound
    }

    /// Register `k`: the constants', then the operands', then the temporary ones.
    fn register(&self, k: usize) -> *mut u8 {
        // Registers have been taken for all numbers that the program names.
        self.memory.wrapping_add(k * STRIDE)
    }

    fn operand_register(&self, k: usize) -> *mut u8 {
        self.register(self.program.constants.len() + k)
    }

    /// Binds the next operand; `shared` memory is also written.
    ///
    /// # Safety
    /// The tensor is valid, and broadcasts to the result's shape.
    unsafe fn operand(&mut self, raw: Raw, shared: bool) {
        let k = self.operands.len();
        let layout = Layout::new(&self.dims, &raw.dims);
        let feed = if layout.is_uniform() {
            Feed::Uniform
        } else if layout.is_flat() && Class::is_stored_as(raw.dtype) && !shared {
            Feed::Direct
        } else {
            self.periodic(&layout)
        };
        debug_assert_eq!(Class::of(raw.dtype), Class::of(self.program.inputs[k]), "operand {k} of a program");
        let operand = Operand { dtype: raw.dtype, start: raw.start, layout, feed, base: 0 };
        if feed == Feed::Uniform {
            // SAFETY: the caller's; the register has room for a chunk.
            unsafe { operand.load(0, self.chunk, self.operand_register(k)) };
        }
        self.operands.push(operand);
    }

    /// Shortens the chunk to a multiple of an operand's period, where that leaves a long one.
    fn periodic(&mut self, layout: &Layout) -> Feed {
        let Some(period) = layout.period() else { return Feed::Load };
        let first = !self.operands.iter().any(|operand| matches!(operand.feed, Feed::Periodic { .. }));
        if first && period <= self.chunk / 2 {
            self.chunk = self.chunk / period * period;
        }
        if self.chunk.is_multiple_of(period) { Feed::Periodic { period, loaded: None } } else { Feed::Load }
    }

    /// Computes the elements `start .. start + len` of the results.
    ///
    /// # Safety
    /// Operands and results hold these elements.
    unsafe fn range(&mut self, start: usize, len: usize) {
        let end = start + len;
        let mut at = start;
        while at < end {
            let count = self.chunk.min(end - at);
            // SAFETY: the caller's.
            unsafe { self.run_chunk(at, count) };
            at += count;
        }
    }

    unsafe fn run_chunk(&mut self, at: usize, len: usize) {
        let first = self.program.constants.len();
        for (k, operand) in self.operands.iter_mut().enumerate() {
            let (from, count) = match &mut operand.feed {
                Feed::Direct | Feed::Uniform => continue,
                Feed::Load => (at, len),
                Feed::Periodic { period, loaded } => {
                    let phase = at % *period;
                    if *loaded == Some(phase) {
                        continue;
                    }
                    *loaded = Some(phase);
                    // A whole chunk, for those to come; past the result's last element the layout begins again.
                    (phase, self.chunk)
                }
            };
            // SAFETY: the caller's; the register has room for a chunk.
            unsafe { operand.load(from, count, self.memory.wrapping_add((first + k) * STRIDE)) };
        }
        for step in &self.program.steps {
            let args = step.args.map(|loc| self.address(loc, at).cast_const());
            // SAFETY: the addresses hold a chunk of the step's types, and `compile` gives a result a place of its own.
            unsafe { exec::exec(step, exec::Chunk { to: self.address(step.to, at), args, len }) };
        }
        for (target, (loc, _)) in self.results.iter().zip(&self.program.outputs) {
            let from = self.address(*loc, at);
            let to = target.start;
            let in_place = Class::is_stored_as(target.dtype)
                && core::ptr::eq(from, to.wrapping_add((at - target.base) * (target.dtype.bits() / 8)));
            if !in_place {
                // SAFETY: the caller's: the target holds these elements.
                unsafe { storage::store(target.dtype, from, to, at - target.base, len) };
            }
        }
    }

    /// Where a value lies for the chunk at `at`.
    fn address(&self, loc: Loc, at: usize) -> *mut u8 {
        match loc {
            Loc::Const(k) => self.register(usize::from(k)),
            Loc::Input(k) => {
                let operand = &self.operands[usize::from(k)];
                match operand.feed {
                    Feed::Direct => {
                        let offset = (at - operand.base) * (operand.dtype.bits() / 8);
                        operand.start.wrapping_add(offset).cast_mut()
                    }
                    Feed::Load | Feed::Uniform | Feed::Periodic { .. } => self.operand_register(usize::from(k)),
                }
            }
            Loc::Temp(k) => self.register(self.program.constants.len() + self.program.inputs.len() + usize::from(k)),
            Loc::Output(k) => {
                let target = &self.results[usize::from(k)];
                target.start.wrapping_add((at - target.base) * (target.dtype.bits() / 8))
            }
        }
    }
}

impl Operand {
    /// Loads the elements `at .. at + len` of the result's index space.
    ///
    /// # Safety
    /// The operand broadcasts to the result's shape; the register has room for `len` values.
    unsafe fn load(&self, at: usize, len: usize, register: *mut u8) {
        let size = class_bytes(Class::of(self.dtype));
        self.layout.runs(at - self.base, len, |to, from, count, stride| {
            let to = register.wrapping_add(to * size);
            // SAFETY: the caller's.
            unsafe {
                if stride == 1 {
                    storage::load(self.dtype, self.start, from, to, count);
                } else {
                    storage::load(self.dtype, self.start, from, to, 1);
                    repeat(to, size, count);
                }
            }
        });
    }
}

/// Copies the first of `count` values of `size` bytes to the others.
unsafe fn repeat(to: *mut u8, size: usize, count: usize) {
    /// Fills one by one.
    unsafe fn fill<T: Plain>(to: *mut u8, count: usize) {
        // SAFETY: the caller's.
        let values = unsafe { core::slice::from_raw_parts_mut(to.cast::<T>(), count) };
        let first = values[0];
        values.fill(first);
    }
    // SAFETY: the caller's.
    unsafe {
        match size {
            8 => fill::<u64>(to, count),
            4 => fill::<u32>(to, count),
            2 => fill::<u16>(to, count),
            _ => fill::<u8>(to, count),
        }
    }
}

fn class_bytes(class: Class) -> usize {
    match class {
        Class::F64 | Class::I64 | Class::U64 => 8,
        Class::F32 | Class::I32 | Class::U32 => 4,
        Class::I16 | Class::U16 => 2,
        Class::I8 | Class::U8 | Class::Bool => 1,
    }
}

/// Fills `count` values of a register with a constant.
///
/// # Safety
/// The register has room for them.
unsafe fn fill(value: Scalar, register: *mut u8, count: usize) {
    /// Writes the first value.
    unsafe fn set<T: Plain>(register: *mut u8, value: T) {
        // SAFETY: the caller's.
        unsafe { register.cast::<T>().write(value) };
    }
    let class = Class::of(value.dtype);
    // SAFETY: the caller's.
    unsafe {
        match class {
            Class::F64 => set(register, value.as_f64()),
            Class::F32 => set(register, value.as_f64() as f32),
            Class::I64 | Class::U64 => set(register, value.as_i64()),
            Class::I32 | Class::U32 => set(register, value.as_i64() as i32),
            Class::I16 | Class::U16 => set(register, value.as_i64() as i16),
            Class::I8 | Class::U8 => set(register, value.as_i64() as i8),
            Class::Bool => set(register, u8::from(value.as_i64() != 0)),
        }
        repeat(register, class_bytes(class), count);
    }
}

/// How a kernel's accumulated values become elements of its result: by a program, or by rounding alone. As operands of
/// the program they are not rounded below `f32`.
pub struct Epilogue<'e> {
    program: Option<&'e Compiled>,
    /// The program's operands behind the accumulated value.
    extras: &'e [Raw],
    dtype: DType,
    dims: Extents,
}

impl<'e> Epilogue<'e> {
    /// The epilogue of a result of `dtype` and `dims`, which overlaps none of `extras`; `list` holds what they are.
    pub fn new(
        program: Option<&'e Compiled>,
        dtype: DType,
        dims: Extents,
        extras: Inputs<'e>,
        list: &'e mut Vec<Raw>,
    ) -> Epilogue<'e> {
        list.clear();
        list.extend((0..extras.len()).map(|k| Raw::of(&extras.need(k))));
        Epilogue { program, extras: list, dtype, dims }
    }

    /// No program: values are rounded to `dtype`.
    #[cfg(test)]
    pub fn rounding(dtype: DType) -> Epilogue<'static> {
        Epilogue { program: None, extras: &[], dtype, dims: Extents::new(&[]) }
    }

    /// The epilogue for one thread.
    pub fn bind<'b>(&'b self, registers: &'b mut Registers) -> Finish<'b> {
        // Of a result without elements no range will come.
        let bound = self.program.filter(|_| self.dims.count() > 0).map(|program| {
            let mut bound = Bound::new(program, registers, self.dims);
            // The place of the accumulated values, which each range brings along.
            bound.operands.push(Operand::flat(program.inputs[0], core::ptr::null(), 0, 0));
            for raw in self.extras {
                // SAFETY: a tensor of the step, which broadcasts to the result and overlaps no result.
                unsafe { bound.operand(*raw, false) };
            }
            bound
        });
        Finish { bound, dtype: self.dtype }
    }
}

/// An epilogue at work, on one thread.
pub struct Finish<'f> {
    bound: Option<Bound<'f>>,
    dtype: DType,
}

impl Finish<'_> {
    /// No program: values are rounded to `dtype`.
    pub fn rounding(dtype: DType) -> Finish<'static> {
        Finish { bound: None, dtype }
    }

    /// The type of the result.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Finishes the values `acc` of the flat range that begins at `start`, into `out`, which holds just this range.
    pub fn store<A: Number>(&mut self, acc: &[A], out: &mut [u8], start: usize) {
        assert_eq!(out.len(), self.dtype.bytes(acc.len()), "a range of a result");
        let Some(bound) = &mut self.bound else {
            return convert(acc, self.dtype, out);
        };
        bound.operands[0] = Operand::flat(A::DTYPE, bytes_of(acc).as_ptr(), acc.len(), start);
        // SAFETY: both slices hold the range.
        unsafe { bound.finish(self.dtype, out.as_mut_ptr(), start, acc.len()) };
    }

    /// Finishes values that were accumulated where the result lies: `out` holds the range that begins at `start`.
    pub fn in_place(&mut self, out: &mut [u8], start: usize) {
        let Some(bound) = &mut self.bound else { return };
        let count = out.len() * 8 / self.dtype.bits();
        let address = out.as_mut_ptr();
        let mut operand = Operand::flat(self.dtype, address, count, start);
        if !bound.program.reads_first || !Class::is_stored_as(self.dtype) {
            operand.feed = Feed::Load;
        }
        bound.operands[0] = operand;
        // SAFETY: the slice holds the range; a chunk is loaded, or read by other steps, before it is written.
        unsafe { bound.finish(self.dtype, address, start, count) };
    }
}

impl Operand {
    /// A range of the flat index space that begins at `base`.
    fn flat(dtype: DType, start: *const u8, count: usize, base: usize) -> Operand {
        let layout = Layout::new(&[count], &[count]);
        Operand { dtype, start, layout, feed: Feed::Direct, base }
    }
}

impl Bound<'_> {
    unsafe fn finish(&mut self, dtype: DType, to: *mut u8, start: usize, count: usize) {
        self.results.clear();
        self.results.push(Target { dtype, start: to, base: start });
        // SAFETY: the caller's.
        unsafe { self.range(start, count) };
    }
}

/// `out[i] = acc[i]`, rounded to `dtype`.
fn convert<A: Number>(acc: &[A], dtype: DType, out: &mut [u8]) {
    match dtype {
        DType::F16 => narrow(cast::<f32>(bytes_of(acc)), cast_mut::<F16>(out)),
        DType::BF16 => narrow(cast::<f32>(bytes_of(acc)), cast_mut::<BF16>(out)),
        other => {
            assert_eq!(other, A::DTYPE, "the type that a kernel accumulates in");
            out.copy_from_slice(bytes_of(acc));
        }
    }
}
