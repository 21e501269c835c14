//! Memory of the `cpu` target: aligned buffers, and tensors as slices of them.
//!
//! This is the border where a plan's offsets become slices. Every access is checked against the bounds of its region,
//! and [`Memory::open`] checks that the results of a step overlap none of its operands, so that the kernels behind it
//! are safe code. Pointwise steps, which may work in place, take [`Raw`] tensors instead.

use core::marker::PhantomData;
use std::alloc::{Layout, alloc_zeroed};

use crate::dtype::{BF16, DType, Element, F16};
use crate::error::Error;
use crate::shapes::{Extents, Shapes};
use crate::table::{NONE, Place, PlanTables, Step};

/// A type without padding for which every bit pattern is a value.
///
/// # Safety
/// Both must hold.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

macro_rules! plain {
    ($($t:ty)*) => {
        $(
            // SAFETY: plain numbers.
            unsafe impl Plain for $t {}
        )*
    };
}

plain!(f64 f32 F16 BF16 i64 i32 i16 i8 u64 u32 u16 u8);

#[derive(Clone, Copy)]
#[repr(C, align(256))]
struct Block([u8; Buffer::ALIGN]);

/// Bytes that begin at a multiple of 256; zero at first.
#[derive(Default)]
pub struct Buffer {
    blocks: Vec<Block>,
}

impl Buffer {
    /// The alignment of a buffer, and of every tensor that is not a part of another.
    pub const ALIGN: usize = 256;

    /// At least `bytes` zeros, which take physical memory as they are touched.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(bytes: u64) -> Result<Buffer, Error> {
        let failed = Error::OutOfMemory { bytes };
        let Ok(count) = usize::try_from(bytes.div_ceil(Buffer::ALIGN as u64)) else { return Err(failed) };
        if count == 0 {
            return Ok(Buffer::default());
        }
        let Ok(layout) = Layout::array::<Block>(count) else { return Err(failed) };
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) }.cast::<Block>();
        if start.is_null() {
            return Err(failed);
        }
        // SAFETY: allocated just now by the global allocator with the layout of as many blocks, and all of it zeros,
        // which are blocks.
        Ok(Buffer { blocks: unsafe { Vec::from_raw_parts(start, count, count) } })
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.blocks.len() * Buffer::ALIGN
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: blocks are bytes without padding.
        unsafe { core::slice::from_raw_parts(self.blocks.as_ptr().cast::<u8>(), self.len()) }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is unique.
        unsafe { core::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast::<u8>(), self.len()) }
    }

    /// The first `len` elements as `T`; the buffer grows where it is too small. What they hold is left over from the
    /// last use.
    pub fn take<T: Plain>(&mut self, len: usize) -> &mut [T] {
        let blocks = (len * size_of::<T>()).div_ceil(Buffer::ALIGN);
        if blocks > self.blocks.len() {
            self.blocks.resize(blocks, Block([0; Buffer::ALIGN]));
        }
        // SAFETY: the blocks hold `len` elements, are aligned for any `T`, and every pattern is a `T`.
        unsafe { core::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast::<T>(), len) }
    }
}

/// Working memory of the kernels, and the threads that they run on. It only grows, so that steady runs allocate nothing.
#[derive(Default)]
pub struct Scratch {
    pub a: Buffer,
    pub b: Buffer,
    pub c: Buffer,
    pub d: Buffer,
    pub e: Buffer,
    pub index: Buffer,
    pub unpacked: crate::cpu::packed::Unpacked,
    /// Operands of a pointwise program.
    pub raws: Vec<Raw>,
    pub team: crate::cpu::team::Team,
}

/// A tensor that is read.
#[derive(Clone, Copy)]
pub struct Tensor<'t> {
    pub dtype: DType,
    pub dims: Extents,
    pub bytes: &'t [u8],
}

/// A tensor that is written.
pub struct TensorMut<'t> {
    pub dtype: DType,
    pub dims: Extents,
    pub bytes: &'t mut [u8],
}

impl<'t> Tensor<'t> {
    /// The elements.
    pub fn data<T: Element + Plain>(&self) -> &'t [T] {
        assert_eq!(T::DTYPE, self.dtype, "a kernel reads a tensor as another type than it has");
        self.words()
    }

    /// The elements as any plain type of their size.
    pub fn words<T: Plain>(&self) -> &'t [T] {
        cast(self.bytes)
    }
}

impl TensorMut<'_> {
    /// The elements.
    pub fn data<T: Element + Plain>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "a kernel writes a tensor as another type than it has");
        self.words()
    }

    /// The elements as any plain type of their size.
    pub fn words<T: Plain>(&mut self) -> &mut [T] {
        cast_mut(self.bytes)
    }
}

/// Bytes as elements of a plain type.
pub fn cast<T: Plain>(bytes: &[u8]) -> &[T] {
    assert_eq!(bytes.as_ptr() as usize % align_of::<T>(), 0, "a tensor is not aligned");
    // SAFETY: aligned, in bounds, and every pattern is a `T`.
    unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast::<T>(), bytes.len() / size_of::<T>()) }
}

/// Bytes as elements of a plain type, to be written.
pub fn cast_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    assert_eq!(bytes.as_ptr() as usize % align_of::<T>(), 0, "a tensor is not aligned");
    // SAFETY: as in `cast`; the borrow is unique.
    unsafe { core::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<T>(), bytes.len() / size_of::<T>()) }
}

/// The bytes of a slice of plain elements.
pub fn bytes_of<T: Plain>(data: &[T]) -> &[u8] {
    // SAFETY: plain data has no padding.
    unsafe { core::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(data)) }
}

/// The bytes of a slice of plain elements, to be written.
pub fn bytes_of_mut<T: Plain>(data: &mut [T]) -> &mut [u8] {
    // SAFETY: plain data has no padding, and every pattern written is a `T`.
    unsafe { core::slice::from_raw_parts_mut(data.as_mut_ptr().cast::<u8>(), size_of_val(data)) }
}

/// A tensor by address, for steps that may write where they read.
#[derive(Clone, Copy)]
pub struct Raw {
    pub dtype: DType,
    pub dims: Extents,
    pub start: *mut u8,
    pub bytes: usize,
}

// SAFETY: an address; who reads or writes there says why that is sound, on whatever thread.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Raw {
    /// Whether the two share a byte.
    pub fn overlaps(&self, other: &Raw) -> bool {
        let (a, b) = (self.start as usize, other.start as usize);
        self.bytes > 0 && other.bytes > 0 && a < b + other.bytes && b < a + self.bytes
    }

    /// A tensor that is read where it lies.
    pub fn of(tensor: &Tensor<'_>) -> Raw {
        Raw {
            dtype: tensor.dtype,
            dims: tensor.dims,
            start: tensor.bytes.as_ptr().cast_mut(),
            bytes: tensor.bytes.len(),
        }
    }
}

/// The three regions of a run, and the shapes that say where its tensors lie.
pub struct Memory<'m> {
    tables: &'m PlanTables<'m>,
    shapes: &'m Shapes<'m>,
    weights: &'m [u8],
    derived: Region,
    arena: Region,
    unique: PhantomData<&'m mut [u8]>,
}

#[derive(Clone, Copy)]
struct Region {
    start: *mut u8,
    len: usize,
}

/// The derived memory: written by the init segment, read by all others.
pub enum Derived<'m> {
    Write(&'m mut Buffer),
    Read(&'m Buffer),
}

impl<'m> Memory<'m> {
    /// Memory whose regions stay borrowed as long as it lives.
    pub fn new(
        tables: &'m PlanTables<'m>,
        shapes: &'m Shapes<'m>,
        weights: &'m [u8],
        derived: Derived<'m>,
        arena: &'m mut Buffer,
    ) -> Memory<'m> {
        let derived = match derived {
            Derived::Write(buffer) => Region { start: buffer.bytes_mut().as_mut_ptr(), len: buffer.len() },
            Derived::Read(buffer) => Region { start: buffer.bytes().as_ptr().cast_mut(), len: buffer.len() },
        };
        let arena = Region { start: arena.bytes_mut().as_mut_ptr(), len: arena.len() };
        Memory { tables, shapes, weights, derived, arena, unique: PhantomData }
    }

    /// The shapes at hand.
    pub fn shapes(&self) -> &'m Shapes<'m> {
        self.shapes
    }

    /// Tensor `index` by address, inside its region.
    pub fn raw(&self, index: u32) -> Raw {
        let tensor = &self.tables.tensors[index as usize];
        let dims = self.shapes.extents(index);
        let bytes = tensor.dtype.bytes(dims.count());
        let (region, offset) = match tensor.place {
            Place::Weight(offset) => {
                (Region { start: self.weights.as_ptr().cast_mut(), len: self.weights.len() }, offset)
            }
            Place::Derived(offset) => (self.derived, offset),
            Place::Arena(buffer) => (self.arena, self.shapes.profile().offsets[buffer as usize]),
        };
        let offset = usize::try_from(offset.saturating_add(self.shapes.start(index))).unwrap_or(usize::MAX);
        let end = offset.saturating_add(bytes);
        assert!(end <= region.len, "tensor {index} of the plan lies outside of its memory");
        // SAFETY: just checked to stay inside of the region.
        Raw { dtype: tensor.dtype, dims, start: unsafe { region.start.add(offset) }, bytes }
    }

    /// Tensor `index`, to be read. The caller lets no step run while it holds the slice.
    pub fn read(&self, index: u32) -> Tensor<'_> {
        let raw = self.raw(index);
        // SAFETY: inside of a region that is borrowed as long as `self`; nothing is written meanwhile.
        let bytes = unsafe { core::slice::from_raw_parts(raw.start, raw.bytes) };
        Tensor { dtype: raw.dtype, dims: raw.dims, bytes }
    }

    /// Tensor `index` of the arena or the derived memory, to be written from outside of the plan.
    pub fn write(&mut self, index: u32) -> TensorMut<'_> {
        let raw = self.raw(index);
        self.check_writable(index);
        // SAFETY: inside of a region that is uniquely borrowed as long as `self`.
        let bytes = unsafe { core::slice::from_raw_parts_mut(raw.start, raw.bytes) };
        TensorMut { dtype: raw.dtype, dims: raw.dims, bytes }
    }

    /// Stops where a plan would write weights.
    pub fn check_writable(&self, index: u32) {
        let place = self.tables.tensors[index as usize].place;
        assert!(!matches!(place, Place::Weight(_)), "a step of the plan writes the weight tensor {index}");
    }

    /// The operands and results of `step`, checked to be disjoint.
    pub fn open<'c>(&'c mut self, step: &'c Step<'c>) -> (Inputs<'c>, Outputs<'c>) {
        let list = |index: &u32| (*index != NONE).then(|| self.raw(*index));
        for (k, output) in step.outputs.iter().enumerate() {
            let Some(result) = list(output) else { continue };
            self.check_writable(*output);
            let others = step.inputs.iter().chain(&step.outputs[..k]);
            assert!(
                others.filter_map(list).all(|other| !other.overlaps(&result)),
                "{}: the plan lets a result overlap another tensor of the step",
                step.label
            );
        }
        let mut outputs = Outputs { list: [None, None, None] };
        assert!(step.outputs.len() <= outputs.list.len(), "{}: too many results", step.label);
        for (slot, output) in outputs.list.iter_mut().zip(step.outputs) {
            *slot = list(output).map(|raw| TensorMut {
                dtype: raw.dtype,
                dims: raw.dims,
                // SAFETY: inside of a region that is uniquely borrowed, and disjoint from all that `Inputs` reads.
                bytes: unsafe { core::slice::from_raw_parts_mut(raw.start, raw.bytes) },
            });
        }
        (Inputs { memory: self, list: step.inputs }, outputs)
    }
}

/// The operands of a step.
#[derive(Clone, Copy)]
pub struct Inputs<'c> {
    memory: &'c Memory<'c>,
    list: &'c [u32],
}

impl<'c> Inputs<'c> {
    /// How many there are, absent ones included.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Operand `k`, if present.
    pub fn get(&self, k: usize) -> Option<Tensor<'c>> {
        let index = *self.list.get(k)?;
        (index != NONE).then(|| self.memory.read(index))
    }

    /// Operand `k`, which the operation cannot do without.
    pub fn need(&self, k: usize) -> Tensor<'c> {
        self.get(k).expect("the check at load has seen this operand")
    }

    /// The operands from `k` on.
    pub fn from(&self, k: usize) -> Inputs<'c> {
        Inputs { memory: self.memory, list: self.list.get(k..).unwrap_or(&[]) }
    }

    /// The value of an extent.
    pub fn dim(&self, dim: crate::table::Dim) -> i64 {
        self.memory.shapes.dim(dim)
    }
}

/// The results of a step.
pub struct Outputs<'c> {
    list: [Option<TensorMut<'c>>; 3],
}

impl<'c> Outputs<'c> {
    /// The first result, which every operation has.
    pub fn first(&mut self) -> &mut TensorMut<'c> {
        self.list[0].as_mut().expect("the check at load has seen this result")
    }

    /// All three, where wanted.
    pub fn all(&mut self) -> &mut [Option<TensorMut<'c>>; 3] {
        &mut self.list
    }
}
