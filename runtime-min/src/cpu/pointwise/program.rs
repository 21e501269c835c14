//! A pointwise program made ready to run: which loop each step takes, and in which register its value lies.
//!
//! Done once, when a model is loaded; this is also where a program that the interpreter cannot run is found.

use core::ops::RangeInclusive;

use crate::dtype::DType;
use crate::op::{Arg, Instr, Scalar, ScalarOp};
use crate::table::Program;

/// The Rust type that values of an element type are computed in: `f32` for the floats below 64 bits, `i8` and `u8`
/// also for the integers below 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    F64,
    F32,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Class {
    /// The class of `dtype`.
    pub fn of(dtype: DType) -> Class {
        match dtype {
            DType::F64 => Class::F64,
            DType::F32
            | DType::F16
            | DType::BF16
            | DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F4E2M1 => Class::F32,
            DType::I64 => Class::I64,
            DType::I32 => Class::I32,
            DType::I16 => Class::I16,
            DType::I8 | DType::I4 | DType::I2 => Class::I8,
            DType::U64 => Class::U64,
            DType::U32 => Class::U32,
            DType::U16 => Class::U16,
            DType::U8 | DType::U4 | DType::U2 => Class::U8,
            DType::Bool => Class::Bool,
        }
    }

    /// Whether tensors of `dtype` hold values of their class as they are.
    pub fn is_stored_as(dtype: DType) -> bool {
        match dtype {
            DType::F64
            | DType::F32
            | DType::I64
            | DType::I32
            | DType::I16
            | DType::I8
            | DType::U64
            | DType::U32
            | DType::U16
            | DType::U8
            | DType::Bool => true,
            DType::F16
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
            | DType::U2 => false,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Class::F32 | Class::F64)
    }
}

/// Where a value of the chunk at hand lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loc {
    Input(u16),
    Const(u16),
    Temp(u16),
    /// In the memory of a result, which stores its class as it is.
    Output(u16),
}

/// What a prepared step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Op(ScalarOp),
    /// `x * x`: a power of two, which is rounded alike.
    Square,
    /// An integer to the power of an `i64`.
    IntPow,
    /// An integer to the power of a `u64`.
    UnsignedPow,
    /// `x * clamp(x * scale + shift)`: HardSwish and its like, five steps in one loop.
    Gate(Gate),
}

/// The numbers of a gate, all of them the bits of an `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    pub scale: u32,
    pub shift: u32,
    pub low: u32,
    pub high: u32,
    pub first: Side,
}

/// A bound of a gate: of the two, the one that is applied first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Low,
    High,
}

/// A step with its places.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    pub task: Task,
    /// The class that selects the loop: that of the last operand that is not a power's exponent.
    pub class: Class,
    /// The type of the result.
    pub dtype: DType,
    pub to: Loc,
    pub args: [Loc; 3],
}

/// A program ready to run.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub inputs: Vec<DType>,
    pub constants: Vec<Scalar>,
    pub steps: Vec<Prepared>,
    /// For each result the place and the type of its value.
    pub outputs: Vec<(Loc, DType)>,
    pub temps: usize,
    /// Whether the last step that reads input 0 comes before the first that writes a result, so that the two may be the same
    /// memory.
    pub reads_first: bool,
}

/// A value while compiling: its type and its place.
#[derive(Clone, Copy)]
struct Value {
    dtype: DType,
    loc: Loc,
}

struct Compiler {
    out: Compiled,
    values: Vec<Value>,
    /// For each step the last one that reads its value.
    last_use: Vec<usize>,
    free: Vec<u16>,
}

/// `program`, whose results go to tensors of types `stored`.
///
/// # Errors
/// A sentence that says which step has no loop for its types.
pub fn compile(program: &Program<'_>, stored: &[DType]) -> Result<Compiled, String> {
    let out = Compiled {
        inputs: program.inputs.to_vec(),
        constants: Vec::new(),
        steps: Vec::new(),
        outputs: Vec::new(),
        temps: 0,
        reads_first: false,
    };
    if stored.len() != program.outputs.len() {
        return Err(format!("a program of {} results is stored to {}", program.outputs.len(), stored.len()));
    }
    let mut compiler = Compiler { out, values: Vec::new(), last_use: last_uses(program), free: Vec::new() };
    let mut k = 0;
    while let Some(instr) = program.steps.get(k) {
        if let Some((gate, x, last)) = gate(program, &compiler.last_use, k) {
            compiler.gated(program, stored, gate, x, k..=last);
            k = last + 1;
            continue;
        }
        compiler.step(program, stored, k, instr).map_err(|why| format!("step {k}, {:?}: {why}", instr.op))?;
        k += 1;
    }
    for (k, &arg) in program.outputs.iter().enumerate() {
        let value = compiler.operand(program, arg);
        if Class::of(value.dtype) != Class::of(stored[k]) {
            return Err(format!("result {k} is {} but stored as {}", value.dtype, stored[k]));
        }
        compiler.out.outputs.push((value.loc, value.dtype));
    }
    let reads = |step: &Prepared| step.args.contains(&Loc::Input(0));
    let writes = |step: &Prepared| matches!(step.to, Loc::Output(_));
    let steps = &compiler.out.steps;
    let first_write = steps.iter().position(writes).unwrap_or(steps.len());
    compiler.out.reads_first = !steps[first_write..].iter().any(reads);
    Ok(compiler.out)
}

/// Values that are results live to the end.
fn last_uses(program: &Program<'_>) -> Vec<usize> {
    let mut last: Vec<usize> = (0..program.steps.len()).collect();
    for (k, instr) in program.steps.iter().enumerate() {
        for arg in instr.operands() {
            if let Arg::Step(step) = arg {
                last[usize::from(*step)] = k;
            }
        }
    }
    for arg in program.outputs {
        if let Arg::Step(step) = arg {
            last[usize::from(*step)] = usize::MAX;
        }
    }
    last
}

/// The gate that begins at step `k`, what it is applied to, and its last step; no other step reads what is in between.
fn gate(program: &Program<'_>, last_use: &[usize], k: usize) -> Option<(Gate, Arg, usize)> {
    // The operand and the constant of a step `operand op constant` in either order.
    let with_constant = |k: usize, op: ScalarOp| {
        let instr = program.steps.get(k).filter(|instr| instr.op == op && instr.dtype == DType::F32)?;
        match *instr.operands() {
            [x, Arg::Imm(c)] | [Arg::Imm(c), x] => Some((x, (c.as_f64() as f32).to_bits())),
            _ => None,
        }
    };
    let behind = |k: usize, op: ScalarOp| {
        let (x, c) = with_constant(k, op)?;
        (x == Arg::Step(k as u16 - 1) && last_use[k - 1] == k).then_some(c)
    };
    let (x, scale, shift, at) = match with_constant(k, ScalarOp::Mul) {
        Some((x, scale)) => (x, scale, behind(k + 1, ScalarOp::Add)?, k + 2),
        None => {
            let (x, shift) = with_constant(k, ScalarOp::Add)?;
            (x, 1f32.to_bits(), shift, k + 1)
        }
    };
    let (low, high, first) = match behind(at, ScalarOp::Max) {
        Some(low) => (low, behind(at + 1, ScalarOp::Min)?, Side::Low),
        None => {
            let high = behind(at, ScalarOp::Min)?;
            (behind(at + 1, ScalarOp::Max)?, high, Side::High)
        }
    };
    let (last, clamped) = (at + 2, Arg::Step(at as u16 + 1));
    let product = program.steps.get(last).filter(|instr| instr.op == ScalarOp::Mul && instr.dtype == DType::F32)?;
    let is_gate = [[x, clamped], [clamped, x]].iter().any(|operands| product.operands() == operands);
    let dtype = match x {
        Arg::Input(k) => program.inputs[usize::from(k)],
        Arg::Step(k) => program.steps[usize::from(k)].dtype,
        Arg::Imm(_) => return None,
    };
    let bounded = [low, high].iter().all(|bound| !f32::from_bits(*bound).is_nan());
    let found = is_gate && bounded && dtype == DType::F32 && last_use[at + 1] == last;
    found.then_some((Gate { scale, shift, low, high, first }, x, last))
}

impl Compiler {
    /// The steps of a gate as one.
    fn gated(&mut self, program: &Program<'_>, stored: &[DType], gate: Gate, x: Arg, steps: RangeInclusive<usize>) {
        let last = *steps.end();
        let operand = self.operand(program, x);
        let to = self.place(program, stored, last);
        self.push(Task::Gate(gate), DType::F32, to, [operand; 3]);
        // No step names the values in between.
        self.values.extend(steps.map(|_| Value { dtype: DType::F32, loc: to }));
        if let Arg::Step(step) = x
            && self.last_use[usize::from(step)] == last
        {
            self.release(operand.loc);
        }
        if self.last_use[last] == last {
            self.release(to);
        }
    }

    fn operand(&mut self, program: &Program<'_>, arg: Arg) -> Value {
        match arg {
            Arg::Input(k) => Value { dtype: program.inputs[usize::from(k)], loc: Loc::Input(k) },
            Arg::Step(k) => self.values[usize::from(k)],
            Arg::Imm(value) => self.constant(value),
        }
    }

    fn constant(&mut self, value: Scalar) -> Value {
        let known = self.out.constants.iter().position(|have| *have == value);
        let k = known.unwrap_or_else(|| {
            self.out.constants.push(value);
            self.out.constants.len() - 1
        });
        Value { dtype: value.dtype, loc: Loc::Const(k as u16) }
    }

    fn temp(&mut self) -> Loc {
        let k = self.free.pop().unwrap_or_else(|| {
            self.out.temps += 1;
            (self.out.temps - 1) as u16
        });
        Loc::Temp(k)
    }

    fn release(&mut self, loc: Loc) {
        if let Loc::Temp(k) = loc {
            self.free.push(k);
        }
    }

    fn step(&mut self, program: &Program<'_>, stored: &[DType], k: usize, instr: &Instr) -> Result<(), String> {
        let mut args = [0, 1, 2].map(|a| self.operand(program, instr.args[a.min(instr.op.arity() - 1)]));
        let mut task = Task::Op(instr.op);
        let mut extra = Vec::new();
        if instr.op == ScalarOp::Pow {
            task = self.power(instr, &mut args, &mut extra);
        }
        // The result gets its place before the operands give theirs up: no loop works in place.
        let to = self.place(program, stored, k);
        if task == Task::Op(ScalarOp::Pow) && args[0].dtype == DType::F64 && instr.dtype != DType::F64 {
            // The exponent asked for doubles.
            let wide = self.temp();
            self.push(Task::Op(ScalarOp::Pow), DType::F64, wide, args);
            extra.push(wide);
            args = [Value { dtype: DType::F64, loc: wide }; 3];
            task = Task::Op(ScalarOp::Cast);
        }
        let class = Class::of(if instr.op == ScalarOp::Select { args[1].dtype } else { args[0].dtype });
        supported(task, class, instr, &args)?;
        self.push(task, instr.dtype, to, args);
        self.values.push(Value { dtype: instr.dtype, loc: to });
        for loc in extra {
            self.release(loc);
        }
        let mut dying: Vec<u16> = Vec::new();
        for arg in instr.operands() {
            if let Arg::Step(step) = *arg
                && self.last_use[usize::from(step)] == k
                && !dying.contains(&step)
            {
                dying.push(step);
            }
        }
        for step in dying {
            self.release(self.values[usize::from(step)].loc);
        }
        if self.last_use[k] == k {
            self.release(to);
        }
        Ok(())
    }

    fn push(&mut self, task: Task, dtype: DType, to: Loc, args: [Value; 3]) {
        let of = if task == Task::Op(ScalarOp::Select) { args[1].dtype } else { args[0].dtype };
        let class = Class::of(of);
        self.out.steps.push(Prepared { task, class, dtype, to, args: args.map(|value| value.loc) });
    }

    /// A value that is a result and needs no conversion is computed where it is stored.
    fn place(&mut self, program: &Program<'_>, stored: &[DType], k: usize) -> Loc {
        let is_result = |o: usize| program.outputs[o] == Arg::Step(k as u16) && Class::is_stored_as(stored[o]);
        match (0..stored.len().min(program.outputs.len())).find(|&o| is_result(o)) {
            Some(o) => Loc::Output(o as u16),
            None => self.temp(),
        }
    }

    /// Brings the exponent of a power to the type that its loop takes.
    fn power(&mut self, instr: &Instr, args: &mut [Value; 3], extra: &mut Vec<Loc>) -> Task {
        let (base, exponent) = (Class::of(args[0].dtype), Class::of(args[1].dtype));
        if let Arg::Imm(value) = instr.args[1]
            && value.as_f64() == 2.0
            // With a float exponent an integer base goes through doubles, which saturate where products wrap.
            && (base.is_float() || !exponent.is_float())
        {
            args[1] = args[0];
            return Task::Square;
        }
        let mut cast = |compiler: &mut Compiler, k: usize, dtype: DType| {
            let loc = compiler.temp();
            compiler.push(Task::Op(ScalarOp::Cast), dtype, loc, [args[k]; 3]);
            extra.push(loc);
            args[k] = Value { dtype, loc };
        };
        match (base.is_float(), exponent.is_float()) {
            (true, _) if base == exponent => {}
            (true, _) if base == Class::F32 && exponent != Class::F64 => cast(self, 1, DType::F32),
            (true, _) | (false, true) => {
                if base != Class::F64 {
                    cast(self, 0, DType::F64);
                }
                if exponent != Class::F64 {
                    cast(self, 1, DType::F64);
                }
            }
            (false, false) => {
                if exponent == Class::U64 {
                    return Task::UnsignedPow;
                }
                if exponent != Class::I64 {
                    cast(self, 1, DType::I64);
                }
                return Task::IntPow;
            }
        }
        Task::Op(ScalarOp::Pow)
    }
}

/// Whether there is a loop for the types.
fn supported(task: Task, class: Class, instr: &Instr, args: &[Value; 3]) -> Result<(), String> {
    use ScalarOp::*;
    let is_bool = class == Class::Bool;
    let is_int = !is_bool && !class.is_float();
    let fits = match task {
        Task::Square => !is_bool,
        Task::IntPow | Task::UnsignedPow => is_int,
        Task::Gate(_) => class == Class::F32,
        Task::Op(op) => match op {
            Cast | Identity => true,
            Neg | Abs | Sign | Floor | Ceil | Round | Add | Sub | Mul | Div | Mod | Fmod => !is_bool,
            Min | Max => true,
            Sqrt | Rsqrt | Reciprocal | Exp | Log | Sin | Cos | Tan | Asin | Acos | Atan | Sinh | Cosh | Tanh
            | Asinh | Acosh | Atanh | Erf | Sigmoid | Softplus | Pow => class.is_float(),
            IsNan | IsPosInf | IsNegInf => !is_bool,
            Not | And | Or | Xor => is_bool,
            BitNot | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => is_int,
            Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual => true,
            Select => Class::of(args[0].dtype) == Class::Bool,
        },
    };
    // All operands of one class, but for the condition of a select, a power's exponent and what a cast does.
    let alike = match task {
        Task::IntPow | Task::UnsignedPow => true,
        Task::Square | Task::Gate(_) => Class::of(instr.dtype) == class,
        Task::Op(Cast) => true,
        Task::Op(Select) => Class::of(args[2].dtype) == class && Class::of(instr.dtype) == class,
        Task::Op(op) => {
            let result = if op.is_predicate() { Class::Bool } else { class };
            Class::of(instr.dtype) == result && args[..op.arity()].iter().all(|a| Class::of(a.dtype) == class)
        }
    };
    if fits && alike {
        return Ok(());
    }
    let types: Vec<&str> = args[..instr.op.arity()].iter().map(|a| a.dtype.name()).collect();
    Err(format!("no loop from {} to {}", types.join(", "), instr.dtype))
}
