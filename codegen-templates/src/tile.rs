//! The tiles of the kernels that multiply: what a block, a step along K, and a warp or a thread compute.

use lapidary_runtime::DType;

use crate::candidate::Shapes;
use crate::extent::Expr;

/// A tile of the tensor cores' kernels.
#[derive(Clone, Copy, Debug)]
pub struct MmaTile {
    pub bm: u32,
    pub bn: u32,
    pub bk: u32,
    pub wm: u32,
    pub wn: u32,
    pub stages: u32,
}

/// A tile of the scalar units' kernels.
#[derive(Clone, Copy, Debug)]
pub struct SimtTile {
    pub bm: u32,
    pub bn: u32,
    pub bk: u32,
    pub tm: u32,
    pub tn: u32,
}

/// The scalar tiles that every family tries.
pub const SIMT_TILES: [SimtTile; 3] = [
    SimtTile { bm: 128, bn: 128, bk: 8, tm: 8, tn: 8 },
    SimtTile { bm: 64, bn: 64, bk: 16, tm: 4, tn: 4 },
    SimtTile { bm: 32, bn: 32, bk: 16, tm: 2, tn: 2 },
];

/// Which axis of an operand is contiguous in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contiguous {
    /// The axis that products are summed over.
    K,
    /// The other one.
    Free,
}

impl MmaTile {
    pub const fn new(block: [u32; 3], warp: [u32; 2], stages: u32) -> MmaTile {
        MmaTile { bm: block[0], bn: block[1], bk: block[2], wm: warp[0], wn: warp[1], stages }
    }

    /// Such as `m128n128k32s4`.
    pub fn name(&self) -> String {
        format!("m{}n{}k{}s{}", self.bm, self.bn, self.bk, self.stages)
    }

    pub fn threads(&self) -> u32 {
        32 * (self.bm / self.wm) * (self.bn / self.wn)
    }

    /// Bytes of dynamic shared memory for elements of `size` bytes: `MmaTile::SMEM_BYTES` of `mma_tile.cuh`, which
    /// each entry compares with this.
    pub fn shared(&self, size: u32, a: Contiguous, b: Contiguous) -> u32 {
        let stage = operand_bytes(self.bm, self.bk, size, a) + operand_bytes(self.bn, self.bk, size, b);
        let epilogue = self.threads() / 32 * 16 * (self.wn + 8) * 4;
        (self.stages * stage).max(epilogue)
    }

    /// Registers of a thread, about: sums, and two rounds of fragments.
    pub fn registers(&self) -> u32 {
        self.wm * self.wn / 32 + (self.wm + self.wn) / 2 + 40
    }

    /// Whether a thread's registers hold what it loads by less than 4 bytes and cannot copy past them. `vectors`:
    /// elements of `size` bytes that one load of a and of b takes.
    ///
    /// # Errors
    /// In words, that they do not.
    pub fn check_registers(&self, size: u32, vectors: [u32; 2]) -> Result<(), String> {
        const MOST: u32 = 270;
        let words = |side: u32, vector: u32| if vector * size < 4 { side * self.bk * size / 4 } else { 0 };
        let staged = (words(self.bm, vectors[0]) + words(self.bn, vectors[1])) / self.threads();
        if self.registers() + staged > MOST {
            return Err(format!("unaligned operands pass through {staged} registers of a thread, which has too few"));
        }
        Ok(())
    }

    /// Its lines of a policy.
    pub fn policy(&self) -> String {
        let MmaTile { bm, bn, bk, wm, wn, stages } = self;
        format!("  static constexpr int BM = {bm}, BN = {bn}, BK = {bk}, WM = {wm}, WN = {wn}, STAGES = {stages};\n")
    }
}

fn operand_bytes(free: u32, k: u32, size: u32, contiguous: Contiguous) -> u32 {
    let (rows, columns) = match contiguous {
        Contiguous::K => (free, k),
        Contiguous::Free => (k, free),
    };
    let swizzled = (columns * size / 16).is_power_of_two();
    let padding = match contiguous {
        Contiguous::Free if size == 4 => 8,
        Contiguous::Free | Contiguous::K if swizzled => 0,
        Contiguous::Free | Contiguous::K => 16 / size,
    };
    rows * (columns + padding) * size
}

impl SimtTile {
    /// Such as `m64n64k16`.
    pub fn name(&self) -> String {
        format!("m{}n{}k{}", self.bm, self.bn, self.bk)
    }

    pub fn threads(&self) -> u32 {
        (self.bm / self.tm) * (self.bn / self.tn)
    }

    /// Bytes of static shared memory for sums of `size` bytes.
    pub fn shared(&self, size: u32) -> u32 {
        2 * self.bk * (self.bm + self.bn + 8) * size
    }

    /// Its lines of a policy.
    pub fn policy(&self) -> String {
        let SimtTile { bm, bn, bk, tm, tn } = self;
        format!("  static constexpr int BM = {bm}, BN = {bn}, BK = {bk}, TM = {tm}, TN = {tn};\n")
    }
}

/// How many tile rows share columns in L2: the policies' `BAND`.
pub fn band(bm: u32) -> u32 {
    if bm >= 128 { 8 } else { 2 }
}

/// The type that products of elements of type `factor` are summed in. The type has passed `print::check_type`.
pub fn accumulator(factor: DType) -> DType {
    match factor {
        DType::F64 | DType::I64 | DType::U64 | DType::I32 | DType::U32 => factor,
        DType::I16 | DType::U16 | DType::I8 | DType::U8 | DType::Bool => DType::I32,
        DType::F32
        | DType::F16
        | DType::BF16
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => DType::F32,
    }
}

/// Bytes of an element in memory.
pub fn bytes(dtype: DType) -> u32 {
    (dtype.bits() / 8).max(1) as u32
}

/// The most elements that one load or store of a tensor may take: all of `strides` are multiples of them, they fit 16
/// bytes, and they are at most `most`. Tensors themselves begin at multiples of 256 bytes.
pub fn vector(shapes: &Shapes<'_>, dtype: DType, strides: &[&Expr], most: u32) -> u32 {
    let legal = |width: &u32| {
        width * bytes(dtype) <= 16 && strides.iter().all(|stride| shapes.is_multiple(stride, i64::from(*width)))
    };
    [16, 8, 4, 2].into_iter().filter(|width| *width <= most).find(legal).unwrap_or(1)
}
