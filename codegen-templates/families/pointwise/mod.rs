//! Pointwise programs, and Expand as the program that changes nothing.
//!
//! Operands are read through views: axes along which all operands move alike are merged first, so that equal shapes
//! become one axis and a bias per channel three. Operands may lie in larger tensors, transposed, or in rows that an index
//! tensor picks.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Instr, ScalarOp};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Launch, Shapes};
use crate::entry::wrap;
use crate::extent::Expr;
use crate::families::copy::reach_of;
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Problem, Reading, Through};
use crate::program::Program;
use crate::view::{Index, View, broadcast, contiguous, powers_of_two, product};

const FAMILY: &str = "pointwise";
const THREADS: u32 = 256;
/// What an element costs that is read alone, as bytes of memory: its sector of 32 comes from the L2 cache, at about twice the
/// bandwidth.
const SCATTERED: f64 = 16.0;
/// How many steps a kernel's name spells.
const STEM_STEPS: usize = 4;
/// The most parameters of a kernel: 4 KiB of 8-byte ones.
const MOST_PARAMETERS: usize = 500;

/// Implementations of pointwise programs.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let answer = match elementwise(problem) {
        Ok(Some(elementwise)) => elementwise.kernels(shapes).map(|kernels| {
            let mut answer = Answer::default();
            for (key, launch, work) in kernels {
                answer.offer(key, vec![launch], work.microseconds(arch));
            }
            answer
        }),
        Ok(None) => Ok(Answer::default()),
        Err(reason) => Err(reason),
    };
    Answer::or_refusal(FAMILY, answer)
}

/// A program on operands wherever they lie.
pub struct Elementwise {
    pub program: Program,
    /// Place and shape of each input; all broadcast to `dims`.
    pub inputs: Vec<(Place, Vec<Expr>)>,
    /// How each input is read; none where all of them are contiguous.
    pub readings: Vec<Reading>,
    /// The type of the indices that inputs are read through.
    pub indices: DType,
    /// Place and type of each output, of shape `dims`.
    pub outputs: Vec<(Place, DType)>,
    pub dims: Vec<Expr>,
}

fn elementwise(problem: &Problem) -> Result<Option<Elementwise>, String> {
    let mut readings = Vec::new();
    let mut program = if let Kind::Pointwise(program) = &problem.kind {
        program.clone()
    } else if let Kind::Elementwise(program, places) = &problem.kind {
        readings.clone_from(places);
        program.clone()
    } else if let Kind::Expand = problem.kind {
        Program::identity(problem.input(0)?.dtype)
    } else {
        return Ok(None);
    };
    let wanted = problem.outputs.iter().enumerate().filter_map(|(k, output)| Some((k, output.as_ref()?)));
    let wanted: Vec<_> = wanted.collect();
    let Some((_, first)) = wanted.first() else { return Err("no result is wanted".to_owned()) };
    let dims = first.dims.clone();
    if wanted.len() < program.outputs.len() {
        program.outputs = wanted.iter().map(|(k, _)| program.outputs[*k]).collect();
        program = program.simplify();
    }
    let inputs = (0..program.inputs.len()).map(|k| Ok((Place::input(k), problem.input(k)?.dims.clone())));
    let inputs = inputs.collect::<Result<_, String>>()?;
    let outputs = wanted.iter().map(|(k, output)| (Place::output(*k), output.dtype)).collect();
    let mut types = readings.iter().filter_map(|reading| reading.through.as_ref()).map(|through| through.indices);
    let indices = types.next().map_or(Ok(DType::I64), |k| problem.input(k).map(|ty| ty.dtype))?;
    for k in types {
        if problem.input(k)?.dtype != indices {
            return Err("operands are read through indices of several types".to_owned());
        }
    }
    Ok(Some(Elementwise { program, inputs, readings, indices, outputs, dims }))
}

/// How an input's view lies against the output's, as `pointwise::Access` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Linear,
    Scalar,
    Inner,
    Splat,
    Strided,
    Rows,
}

impl Access {
    fn of(strides: &[Expr], output: &[Expr]) -> Access {
        let inner = strides.last().and_then(Expr::as_const);
        if strides == output {
            Access::Linear
        } else if strides.iter().all(|stride| stride.is(0)) {
            Access::Scalar
        } else if inner == Some(1) {
            Access::Inner
        } else if inner == Some(0) {
            Access::Splat
        } else {
            Access::Strided
        }
    }

    fn name(self) -> &'static str {
        match self {
            Access::Linear => "pointwise::Access::LINEAR",
            Access::Scalar => "pointwise::Access::SCALAR",
            Access::Inner => "pointwise::Access::INNER",
            Access::Splat => "pointwise::Access::SPLAT",
            Access::Strided => "pointwise::Access::STRIDED",
            Access::Rows => "pointwise::Access::ROWS",
        }
    }

    /// Whether the kernel reads the strides.
    fn reads_strides(self) -> bool {
        match self {
            Access::Linear | Access::Scalar => false,
            Access::Inner | Access::Splat | Access::Strided | Access::Rows => true,
        }
    }

    /// Whether VEC elements are loaded at once.
    fn is_wide(self) -> bool {
        match self {
            Access::Linear | Access::Inner | Access::Rows => true,
            Access::Scalar | Access::Splat | Access::Strided => false,
        }
    }
}

/// Merged views and how each input is read.
struct Layout {
    view: View,
    access: Vec<Access>,
    /// For each input the strides of the indices that it is read through.
    rows: Vec<Option<Vec<Expr>>>,
}

impl Elementwise {
    /// Kernels that do it, each with its key.
    ///
    /// # Errors
    /// In words, that there are too many operands.
    pub fn kernels(&self, shapes: &Shapes<'_>) -> Result<Vec<(String, Launch, Work)>, String> {
        let layout = self.layout(shapes);
        let in_rows = self.readings.iter().filter(|reading| reading.through.is_some()).count();
        let operands = self.inputs.len() * if in_rows > 0 { 2 } else { 1 };
        let parameters = (2 + layout.view.dims.len()) * (operands + self.outputs.len() + 1);
        for (strides, rows) in layout.view.strides.iter().zip(&layout.rows) {
            let whole = |strides: &[Expr], inner: i64| strides.last().is_some_and(|last| last.is(inner));
            if rows.as_ref().is_some_and(|rows| !whole(rows, 0) || !whole(strides, 1)) {
                return Err("what an index picks is no row of contiguous elements".to_owned());
            }
        }
        if parameters > MOST_PARAMETERS {
            return Err(format!("{parameters} parameters are more than a kernel may have"));
        }
        let best = self.widest(&layout, shapes);
        // Below a group, the kernel takes a group one by one.
        let works = |vec: &i64| *vec == 1 || *vec >= self.group();
        let mut wanted: Vec<i64> = [best, best / 2, 1].into_iter().filter(works).collect();
        wanted.dedup();
        Ok(wanted.into_iter().map(|vec| self.kernel(&layout, vec, shapes)).collect())
    }

    fn layout(&self, shapes: &Shapes<'_>) -> Layout {
        let mut strides: Vec<Vec<Expr>> = match self.readings.as_slice() {
            [] => self.inputs.iter().map(|(_, dims)| broadcast(dims, &self.dims, shapes)).collect(),
            readings => readings.iter().map(|reading| reading.place.strides.clone()).collect(),
        };
        strides.extend(self.through().flatten().map(|through| through.place.strides.clone()));
        strides.push(contiguous(&self.dims));
        let mut view = View { dims: self.dims.clone(), strides }.merged();
        let output = view.strides.pop().unwrap_or_default();
        let mut indices = view.strides.split_off(self.inputs.len()).into_iter();
        let rows: Vec<Option<Vec<Expr>>> = self.through().map(|through| through.and_then(|_| indices.next())).collect();
        let access = view.strides.iter().zip(&rows).map(|(strides, rows)| match rows {
            Some(_) => Access::Rows,
            None => Access::of(strides, &output),
        });
        Layout { access: access.collect(), view, rows }
    }

    /// Of each input the indices that it is read through.
    fn through(&self) -> impl Iterator<Item = Option<&Through>> {
        (0..self.inputs.len()).map(|k| self.readings.get(k).and_then(|reading| reading.through.as_ref()))
    }

    /// The most elements of the innermost axis that a thread may take at a time.
    fn widest(&self, layout: &Layout, shapes: &Shapes<'_>) -> i64 {
        let View { dims, strides } = &layout.view;
        let inner = dims.len() - 1;
        let outer = |(access, strides): (&Access, &'_ Vec<Expr>)| {
            if matches!(access, Access::Inner | Access::Rows) { strides[..inner].to_vec() } else { Vec::new() }
        };
        let mut must: Vec<Expr> = layout.access.iter().zip(strides).flat_map(outer).collect();
        let wide = self.readings.iter().zip(&layout.access).filter(|(_, access)| access.is_wide());
        must.extend(wide.map(|(reading, _)| reading.place.offset.clone()));
        must.extend(self.through().flatten().map(|through| through.stride.clone()));
        if inner > 0 {
            must.push(dims[inner].clone());
        }
        let wide = self.program.inputs.iter().zip(&layout.access).filter(|(_, access)| access.is_wide());
        let types = wide.map(|(dtype, _)| *dtype).chain(self.outputs.iter().map(|(_, dtype)| *dtype));
        let bits: Vec<i64> = types.map(|dtype| dtype.bits() as i64).collect();
        let (least, most) = (bits.iter().min().copied().unwrap_or(8), bits.iter().max().copied().unwrap_or(8));
        let fits = |vec: &i64| {
            let aligned = must.iter().all(|expr| shapes.is_multiple(expr, *vec));
            aligned && vec * most <= 256 && self.registers(layout, *vec, 1) <= 96 && self.code(*vec) <= 96
        };
        let vec = powers_of_two((128 / least).min(16)).find(fits).unwrap_or(1);
        if vec < self.group() { 1 } else { vec }
    }

    /// How many consecutive elements are whole bytes of every output.
    fn group(&self) -> i64 {
        self.outputs.iter().map(|(_, dtype)| (8 / dtype.bits() as i64).max(1)).max().unwrap_or(1)
    }

    /// Registers of the operands that a thread holds.
    fn registers(&self, layout: &Layout, vec: i64, unroll: i64) -> i64 {
        let words = |dtype: DType| (dtype.bits() as i64 / 32).max(1);
        let read = self.program.inputs.iter().zip(&layout.access);
        let read: i64 = read.filter(|(_, access)| **access != Access::Scalar).map(|(dtype, _)| words(*dtype)).sum();
        let written: i64 = self.outputs.iter().map(|(_, dtype)| words(*dtype)).sum();
        vec * (read * unroll + written)
    }

    /// Inlined calls of functions that are not one instruction, doubles counted by their length.
    fn code(&self, copies: i64) -> i64 {
        copies * self.program.steps.iter().map(calls).sum::<i64>()
    }

    fn kernel(&self, layout: &Layout, vec: i64, shapes: &Shapes<'_>) -> (String, Launch, Work) {
        let View { dims, strides } = &layout.view;
        let types = self.program.inputs.iter().chain(self.outputs.iter().map(|(_, dtype)| dtype));
        let least = types.map(|dtype| dtype.bits() as i64).min().unwrap_or(8);
        let in_groups = vec < self.group();
        let deep = |unroll: &i64| {
            let bits = vec * unroll * least;
            bits <= 256
                && !(in_groups && *unroll > 1)
                && self.registers(layout, vec, *unroll) <= 96
                && self.code(vec * unroll) <= 96
        };
        let unroll = powers_of_two(4).find(deep).unwrap_or(1);
        let count = layout.view.count();
        let counts: Vec<Expr> = match layout.rows.as_slice() {
            _ if self.readings.is_empty() => self.inputs.iter().map(|(_, dims)| product(dims)).collect(),
            rows => strides.iter().chain(rows.iter().flatten()).map(|strides| reach(dims, strides, shapes)).collect(),
        };
        let index = Index::of(counts.iter().chain([&count]), shapes);

        let mut call = Call::new(FAMILY, format!("{FAMILY}{}", self.stem()), self.title());
        call.declare(self.print());
        call.using("Index", index.name());
        call.ints(&[("RANK", dims.len() as i64), ("VEC", vec), ("UNROLL", unroll), ("THREADS", i64::from(THREADS))]);
        let mut names: Vec<&str> = layout.access.iter().map(|access| access.name()).collect();
        if names.is_empty() {
            names.push(Access::Scalar.name());
        }
        call.constant("pointwise::Access", &format!("access[] = {{{}}}", wrap(&names, 54, "      ")));
        let begins = |(k, (place, _)): (usize, &(Place, Vec<Expr>))| match self.readings.get(k) {
            Some(reading) => place.clone().offset(&reading.place.offset),
            None => place.clone(),
        };
        let places: Vec<Place> = self.inputs.iter().enumerate().map(begins).collect();
        call.pointers("const void", "x", &places);
        let outputs: Vec<Place> = self.outputs.iter().map(|(place, _)| place.clone()).collect();
        call.pointers("void", "y", &outputs);
        call.extents("d", dims, As::Index(index));
        let read = layout.access.iter().zip(strides);
        let lists: Vec<Option<&[Expr]>> =
            read.map(|(access, strides)| access.reads_strides().then_some(strides.as_slice())).collect();
        call.lists("s", &lists, As::Index(index));
        self.rows(&mut call, layout, index);
        let block = vec.max(self.group()) * unroll * i64::from(THREADS);
        let launch = call.launch("pointwise::run", THREADS, count.ceil_div(&Expr::constant(block)));
        let work = self.work(layout, vec, unroll, shapes);
        (format!("{FAMILY}/r{}v{vec}u{unroll}", dims.len()), launch, work)
    }

    /// The indices of the inputs that are read through some, at the end of the arguments.
    fn rows(&self, call: &mut Call, layout: &Layout, index: Index) {
        if self.through().flatten().next().is_none() {
            return;
        }
        call.using("Rows", self.indices.name());
        let place = |through: Option<&Through>| match through {
            Some(through) => Place::input(through.indices).offset(&through.place.offset),
            None => Place::Absent,
        };
        call.pointers("const void", "r", &self.through().map(place).collect::<Vec<_>>());
        let lists: Vec<Option<&[Expr]>> = layout.rows.iter().map(Option::as_deref).collect();
        call.lists("rs", &lists, As::Index(index));
        let zero = Expr::constant(0);
        let numbers = |of: fn(&Through) -> &Expr| -> Vec<Expr> {
            self.through().map(|through| through.map_or(&zero, of).clone()).collect()
        };
        call.extents("row", &numbers(|through| &through.stride), As::Wide);
        call.extents("rows", &numbers(|through| &through.rows), As::Wide);
    }

    fn work(&self, layout: &Layout, vec: i64, unroll: i64, shapes: &Shapes<'_>) -> Work {
        let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
        let bytes_of = |dtype: DType| dtype.bits() as f64 / 8.0;
        let elements = typical(&layout.view.count());
        let read: f64 = self
            .inputs
            .iter()
            .zip(&self.program.inputs)
            .map(|((_, dims), dtype)| typical(&product(dims)) * bytes_of(*dtype))
            .sum();
        let scattered = layout.access.iter().filter(|access| **access == Access::Strided && !self.readings.is_empty());
        let read = read + scattered.count() as f64 * elements * SCATTERED;
        let written: f64 = self.outputs.iter().map(|(_, dtype)| elements * bytes_of(*dtype)).sum();
        let wide = self.program.inputs.iter().zip(&layout.access).filter(|(_, access)| **access != Access::Scalar);
        let requested: f64 = wide.map(|(dtype, _)| bytes_of(*dtype)).sum();
        let block = (vec.max(self.group()) * unroll) as f64 * f64::from(THREADS);
        let steps: f64 = self.program.steps.iter().map(|instr| 2.0 + 20.0 * calls(instr) as f64).sum();
        let rank = layout.view.dims.len() as f64;
        let chunk = 8.0 + 12.0 * (rank - 1.0) + 6.0 * (self.inputs.len() + self.outputs.len()) as f64;
        Work {
            bytes: read + written,
            blocks: (elements / block).ceil(),
            threads: f64::from(THREADS),
            in_flight: block * requested.max(bytes_of(DType::U8)),
            instructions: elements * (steps + chunk / vec as f64),
        }
    }

    /// What the first steps are, as the end of a name: `_add_mul`.
    fn stem(&self) -> String {
        let names = self.names();
        if names.is_empty() { "_copy".to_owned() } else { names.iter().map(|name| format!("_{name}")).collect() }
    }

    fn title(&self) -> String {
        let (names, steps) = (self.names(), self.program.steps.len());
        let more = steps.saturating_sub(names.len());
        let listed = if names.is_empty() { "Copy".to_owned() } else { names.join(", ") };
        let more = if more > 0 { format!(" and {more} more steps") } else { String::new() };
        format!("{listed}{more}, element by element")
    }

    fn names(&self) -> Vec<String> {
        let name = |instr: &Instr| format!("{:?}", instr.op).to_lowercase();
        self.program.steps.iter().take(STEM_STEPS).map(name).collect()
    }

    /// The program as the struct that the kernel calls.
    fn print(&self) -> String {
        let list = |types: Vec<&'static str>, column: usize| wrap(&types, column, "      ");
        let inputs = self.program.inputs.iter().map(|dtype| print::type_name(*dtype)).collect();
        let outputs = self.outputs.iter().map(|(_, dtype)| print::type_name(*dtype)).collect();
        let read = self.program.inputs.iter().enumerate();
        let read = read.map(|(k, dtype)| format!("{} x{k}", print::compute_type(*dtype)));
        let written = self.outputs.iter().enumerate();
        let written = written.map(|(k, (_, dtype))| format!("{}& y{k}", print::compute_type(*dtype)));
        let parameters: Vec<String> = read.chain(written).collect();
        let stores = self.program.outputs.iter().enumerate();
        let stores: String = stores.map(|(k, value)| format!("    y{k} = {};\n", print::operand(*value))).collect();
        format!(
            "struct Program {{\n  using Inputs = Types<{}>;\n  using Outputs = Types<{}>;\n  \
             static LAPIDARY_FN void step({}) {{\n{}{stores}  }}\n}};",
            list(inputs, 25),
            list(outputs, 26),
            wrap(&parameters, 31, "      "),
            print::statements(&self.program, "    "),
        )
    }
}

/// How far elements of a view lie apart at most.
fn reach(dims: &[Expr], strides: &[Expr], shapes: &Shapes<'_>) -> Expr {
    let axes = dims.iter().zip(strides);
    Expr::constant(axes.map(|(dim, stride)| reach_of(stride, shapes).saturating_mul(shapes.max(dim))).sum())
}

/// The functions that a step calls, in calls of the size of `expf`.
fn calls(instr: &Instr) -> i64 {
    let wide = if instr.dtype == DType::F64 { 6 } else { 1 };
    match instr.op {
        ScalarOp::Cast if instr.dtype.is_storage() => 1,
        ScalarOp::Identity
        | ScalarOp::Neg
        | ScalarOp::Abs
        | ScalarOp::Sign
        | ScalarOp::Floor
        | ScalarOp::Ceil
        | ScalarOp::Round
        | ScalarOp::Not
        | ScalarOp::BitNot
        | ScalarOp::IsNan
        | ScalarOp::IsPosInf
        | ScalarOp::IsNegInf
        | ScalarOp::Cast
        | ScalarOp::Add
        | ScalarOp::Sub
        | ScalarOp::Mul
        | ScalarOp::Min
        | ScalarOp::Max
        | ScalarOp::BitAnd
        | ScalarOp::BitOr
        | ScalarOp::BitXor
        | ScalarOp::ShiftLeft
        | ScalarOp::ShiftRight
        | ScalarOp::And
        | ScalarOp::Or
        | ScalarOp::Xor
        | ScalarOp::Equal
        | ScalarOp::NotEqual
        | ScalarOp::Less
        | ScalarOp::LessEqual
        | ScalarOp::Greater
        | ScalarOp::GreaterEqual
        | ScalarOp::Select => 0,
        ScalarOp::Sqrt
        | ScalarOp::Rsqrt
        | ScalarOp::Reciprocal
        | ScalarOp::Exp
        | ScalarOp::Log
        | ScalarOp::Tanh
        | ScalarOp::Erf
        | ScalarOp::Sigmoid
        | ScalarOp::Div => wide,
        ScalarOp::Sin
        | ScalarOp::Cos
        | ScalarOp::Tan
        | ScalarOp::Asin
        | ScalarOp::Acos
        | ScalarOp::Atan
        | ScalarOp::Sinh
        | ScalarOp::Cosh
        | ScalarOp::Asinh
        | ScalarOp::Acosh
        | ScalarOp::Atanh
        | ScalarOp::Softplus
        | ScalarOp::Mod
        | ScalarOp::Fmod => 2 * wide,
        ScalarOp::Pow => 4 * wide,
    }
}

#[cfg(test)]
mod tests;
