//! What is checked and prepared when a plan is loaded: that every step has its operands, that its function takes their
//! types, and that its program compiles. The kernels rely on it.

use crate::cpu::pointwise::{Compiled, compile};
use crate::cpu::pool;
use crate::cpu::product::accumulator_of;
use crate::dtype::DType;
use crate::error::Error;
use crate::op::{ReduceKind, ResizeMode, ScatterMode};
use crate::table::{Action, CpuOp, NONE, PlanTables, Program, Step};

/// What a step needs beyond its tables.
#[derive(Default)]
pub struct Prepared {
    /// The program of a pointwise step, or the epilogue of another.
    pub program: Option<Compiled>,
}

/// Checks all segments.
///
/// # Errors
/// [`Error::Unsupported`] with the first step that has no function.
pub fn prepare(tables: &PlanTables<'_>) -> Result<Vec<Vec<Prepared>>, Error> {
    let operand = |&index: &u32| {
        let tensor = if index == NONE { None } else { tables.tensors.get(index as usize) };
        tensor.map(|tensor| Operand { dtype: tensor.dtype, rank: tensor.dims.len() })
    };
    let of_step = |step: &Step<'_>| {
        let [inputs, outputs] = [step.inputs, step.outputs].map(|list| list.iter().map(operand).collect::<Vec<_>>());
        let types = Types { inputs: &inputs, outputs: &outputs };
        types.prepare(&step.action).map_err(|why| Error::Unsupported { step: step.label.to_owned(), why })
    };
    tables.segments.iter().map(|segment| segment.steps.iter().map(of_step).collect()).collect()
}

/// Whether there is a function for an operation on such operands: what loading a plan asks of each step, and compiling
/// one beforehand.
///
/// # Errors
/// Why not, in words.
pub fn supports(op: &CpuOp<'_>, inputs: &[Option<Operand>], outputs: &[Option<Operand>]) -> Result<(), String> {
    Types { inputs, outputs }.function(op).map(|_| ())
}

/// What of an operand or result decides whether there is a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    pub dtype: DType,
    pub rank: usize,
}

/// A step's operands and results; `None` where one is absent.
struct Types<'t> {
    inputs: &'t [Option<Operand>],
    outputs: &'t [Option<Operand>],
}

type Check<T> = Result<T, String>;

impl Types<'_> {
    fn operand(&self, k: usize) -> Option<DType> {
        Some((*self.inputs.get(k)?)?.dtype)
    }

    fn result(&self, k: usize) -> Option<DType> {
        Some((*self.outputs.get(k)?)?.dtype)
    }

    fn input(&self, k: usize) -> Check<DType> {
        self.operand(k).ok_or_else(|| format!("operand {k} is missing"))
    }

    fn output(&self, k: usize) -> Check<DType> {
        self.result(k).ok_or_else(|| format!("result {k} is missing"))
    }

    fn prepare(&self, action: &Action<'_>) -> Check<Prepared> {
        match action {
            Action::Cpu(op) => self.function(op),
            Action::Launch(_) => Err("a kernel launch in a plan for the cpu".to_owned()),
            Action::If { .. } => {
                same(self.input(0)?, DType::Bool)?;
                Ok(Prepared::default())
            }
            Action::Count { .. } => {
                same(self.input(0)?, DType::I64)?;
                Ok(Prepared::default())
            }
            Action::Loop { .. } => {
                self.operand(0).map_or(Ok(()), |dtype| same(dtype, DType::Bool))?;
                self.operand(1).map_or(Ok(()), |dtype| same(dtype, DType::I64))?;
                for (row, rows) in self.inputs.iter().skip(2).zip(self.outputs) {
                    let both = (*row).zip(*rows).ok_or("a row or the rows are missing")?;
                    same(both.0.dtype, both.1.dtype)?;
                }
                Ok(Prepared::default())
            }
        }
    }

    fn function(&self, op: &CpuOp<'_>) -> Check<Prepared> {
        match op {
            CpuOp::Pointwise(program) => return self.program(program),
            CpuOp::MatMul { epilogue, .. } => {
                if self.inputs.iter().take(2).any(|operand| operand.is_none_or(|operand| operand.rank < 2)) {
                    return Err("a matrix has two axes or more".to_owned());
                }
                return self.product(epilogue.as_ref());
            }
            CpuOp::Conv { epilogue, .. } => return self.product(epilogue.as_ref()),
            CpuOp::ConvTranspose(_) => return self.product(None),
            CpuOp::Pool(spec) => {
                if !pool::is_supported(spec.kind, self.input(0)?) {
                    return Err(format!("no pooling of {}", self.input(0)?));
                }
                same(self.output(0)?, self.input(0)?)?;
                self.result(1).map_or(Ok(()), |dtype| same(dtype, DType::I64))?;
            }
            CpuOp::Reduce(spec) => {
                let extremum = matches!(spec.kind, ReduceKind::Max | ReduceKind::Min);
                if !(extremum && self.input(0)? == DType::Bool) {
                    numeric(self.input(0)?)?;
                }
                same(self.output(0)?, self.input(0)?)?;
            }
            CpuOp::ArgReduce(_) => {
                if self.input(0)? != DType::Bool {
                    numeric(self.input(0)?)?;
                }
                same(self.output(0)?, DType::I64)?;
            }
            CpuOp::Softmax(_) => {
                float(self.input(0)?)?;
                same(self.output(0)?, self.input(0)?)?;
            }
            CpuOp::Attention(_) => {
                let dtype = self.input(0)?;
                float(dtype)?;
                if self.inputs.iter().take(3).any(|operand| operand.is_none_or(|operand| operand.rank != 4)) {
                    return Err("queries, keys and values have four axes".to_owned());
                }
                [self.input(1)?, self.input(2)?, self.output(0)?].into_iter().try_for_each(|t| same(t, dtype))?;
                self.operand(3).map_or(Ok(()), |mask| same(mask, dtype))?;
            }
            CpuOp::Norm { epilogue, .. } => {
                float(self.input(0)?)?;
                [self.operand(1), self.operand(2)].into_iter().flatten().try_for_each(float)?;
                [self.result(1), self.result(2)].into_iter().flatten().try_for_each(|t| same(t, DType::F32))?;
                return self.in_place(epilogue.as_ref());
            }
            CpuOp::GroupNorm { epilogue, .. } => {
                [self.input(0)?, self.input(1)?, self.input(2)?].into_iter().try_for_each(float)?;
                return self.in_place(epilogue.as_ref());
            }
            CpuOp::Transpose(_) | CpuOp::Expand | CpuOp::Slice { .. } | CpuOp::Copy => {
                same(self.output(0)?, self.input(0)?)?;
            }
            CpuOp::Concat { .. } => {
                (0..self.inputs.len()).try_for_each(|k| same(self.input(k)?, self.output(0)?))?;
            }
            CpuOp::Pad { .. } => {
                same(self.output(0)?, self.input(0)?)?;
                self.operand(1).map_or(Ok(()), |dtype| same(dtype, self.input(0)?))?;
            }
            CpuOp::Gather { .. } | CpuOp::GatherElements { .. } | CpuOp::GatherNd { .. } => {
                index(self.input(1)?)?;
                same(self.output(0)?, self.input(0)?)?;
            }
            CpuOp::ScatterElements { mode, .. } | CpuOp::ScatterNd { mode } => {
                if *mode != ScatterMode::Set {
                    numeric(self.input(0)?)?;
                }
                index(self.input(1)?)?;
                same(self.input(2)?, self.input(0)?)?;
                same(self.output(0)?, self.input(0)?)?;
            }
            CpuOp::Resize(spec) => {
                match spec.mode {
                    ResizeMode::Nearest(_) if self.input(0)? == DType::Bool => {}
                    ResizeMode::Nearest(_) | ResizeMode::Linear | ResizeMode::Cubic => numeric(self.input(0)?)?,
                }
                self.operand(1).map_or(Ok(()), |dtype| same(dtype, DType::F32))?;
                same(self.output(0)?, self.input(0)?)?;
            }
            CpuOp::RegionPool(_) => {
                float(self.input(0)?)?;
                same(self.output(0)?, self.input(0)?)?;
                match self.input(1)? {
                    DType::F32 => {}
                    other => same(other, DType::F64)?,
                }
                same(self.input(2)?, DType::I64)?;
                let ranks = self.inputs.iter().chain(self.outputs).map(|tensor| tensor.map(|tensor| tensor.rank));
                if !ranks.eq([4, 2, 1, 4].map(Some)) {
                    return Err("images and their bins have four axes, regions two".to_owned());
                }
            }
            CpuOp::Recurrent(_) => self.recurrent()?,
            CpuOp::Suppress => {
                if self.inputs.iter().take(2).any(|operand| operand.is_none_or(|operand| operand.rank != 3)) {
                    return Err("boxes and their order have three axes".to_owned());
                }
                let types = [DType::F32, DType::I64, DType::Bool, DType::F32, DType::I64];
                types.into_iter().enumerate().try_for_each(|(k, dtype)| same(self.input(k)?, dtype))?;
                same(self.output(0)?, DType::Bool)?;
            }
            CpuOp::CumSum { .. } => {
                numeric(self.input(0)?)?;
                same(self.output(0)?, self.input(0)?)?;
            }
            CpuOp::TopK { .. } => {
                numeric(self.input(0)?)?;
                self.result(0).map_or(Ok(()), |dtype| same(dtype, self.input(0)?))?;
                self.result(1).map_or(Ok(()), |dtype| same(dtype, DType::I64))?;
            }
            CpuOp::Range => {
                numeric(self.output(0)?)?;
                same(self.input(0)?, self.output(0)?)?;
                same(self.input(1)?, self.output(0)?)?;
            }
            CpuOp::Extents(_) => index(self.output(0)?)?,
        }
        Ok(Prepared::default())
    }

    fn program(&self, program: &Program<'_>) -> Check<Prepared> {
        if self.inputs.len() != program.inputs.len() {
            return Err(format!("a program of {} operands is given {}", program.inputs.len(), self.inputs.len()));
        }
        for (k, dtype) in program.inputs.iter().enumerate() {
            same(self.input(k)?, *dtype)?;
        }
        let stored: Vec<DType> = (0..self.outputs.len()).map(|k| self.output(k)).collect::<Check<_>>()?;
        Ok(Prepared { program: Some(compile(program, &stored)?) })
    }

    /// A result of operand 0's type, and a program of one input that keeps it.
    fn in_place(&self, epilogue: Option<&Program<'_>>) -> Check<Prepared> {
        let dtype = self.input(0)?;
        same(self.output(0)?, dtype)?;
        let Some(program) = epilogue else { return Ok(Prepared::default()) };
        let [input] = program.inputs else { return Err("an epilogue that reads more than the result".to_owned()) };
        same(*input, dtype)?;
        Ok(Prepared { program: Some(compile(program, &[dtype])?) })
    }

    fn product(&self, epilogue: Option<&Program<'_>>) -> Check<Prepared> {
        let (a, b, out) = (self.input(0)?, self.input(1)?, self.output(0)?);
        let sums = accumulator_of(a).ok_or_else(|| format!("no products of {a}"))?;
        if accumulator_of(b) != Some(sums) || a.is_float() && a != b {
            return Err(format!("no products of {a} and {b}"));
        }
        let Some(program) = epilogue else {
            same(out, if a.is_float() { a } else { sums })?;
            return Ok(Prepared::default());
        };
        let Some((first, rest)) = program.inputs.split_first() else {
            return Err("an epilogue without the value it works on".to_owned());
        };
        if *first != sums && *first != a {
            return Err(format!("an epilogue on {first} behind products of {a}"));
        }
        for (k, dtype) in rest.iter().enumerate() {
            same(self.input(2 + k)?, *dtype)?;
        }
        if out.bits() < 8 {
            return Err(format!("no epilogue that stores {out}"));
        }
        Ok(Prepared { program: Some(compile(program, &[out])?) })
    }

    fn recurrent(&self) -> Check<()> {
        let x = self.input(0)?;
        float(x)?;
        for k in [1, 2, 3, 5, 6, 7] {
            match self.operand(k) {
                Some(dtype) => same(dtype, x)?,
                None if k < 3 => return Err(format!("operand {k} is missing")),
                None => {}
            }
        }
        self.operand(4).map_or(Ok(()), |dtype| same(dtype, DType::I32))?;
        (0..3).filter_map(|k| self.result(k)).try_for_each(|dtype| same(dtype, x))
    }
}

fn same(given: DType, expected: DType) -> Check<()> {
    if given == expected { Ok(()) } else { Err(format!("{given} where {expected} belongs")) }
}

fn index(dtype: DType) -> Check<()> {
    if matches!(dtype, DType::I32 | DType::I64) { Ok(()) } else { Err(format!("{dtype} is no type of indices")) }
}

fn float(dtype: DType) -> Check<()> {
    let known = matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16);
    if known { Ok(()) } else { Err(format!("no function for {dtype}")) }
}

fn numeric(dtype: DType) -> Check<()> {
    let known = dtype != DType::Bool && dtype.bits() >= 8 && !(dtype.is_float() && dtype.bits() == 8);
    if known { Ok(()) } else { Err(format!("no function for {dtype}")) }
}
