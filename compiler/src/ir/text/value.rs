//! What stands behind a field's name: numbers, lists, formulas, scalar programs.

use lapidary_runtime::DType;
use lapidary_runtime::op::{
    Activation, Arg, Axes, Cell, Instr, MAX_RANK, MAX_SPATIAL, PoolKind, ResizeMode, Scalar, ScalarOp,
};

use super::Printer;
use super::reader::Reader;
use crate::ir::{Expr, Program, Region, Type};

/// A value with a text; `read` reads what `print` writes.
pub(super) trait Text: Sized {
    fn print(&self, out: &mut Printer);
    fn read(reader: &mut Reader<'_>) -> Result<Self, String>;
}

macro_rules! integers {
    ($($int:ty),*) => {
        $(
            impl Text for $int {
                fn print(&self, out: &mut Printer) {
                    out.text += &self.to_string();
                }

                fn read(reader: &mut Reader<'_>) -> Result<Self, String> {
                    let value = reader.int()?;
                    <$int>::try_from(value).map_err(|_| format!("{value} is too large here"))
                }
            }
        )*
    };
}

integers!(u8, u32, usize, i64);

impl Text for f32 {
    fn print(&self, out: &mut Printer) {
        out.text += &format!("{self:?}");
    }

    fn read(reader: &mut Reader<'_>) -> Result<f32, String> {
        let literal = reader.literal("a number")?;
        literal.parse().map_err(|_| format!("`{literal}` is not a number"))
    }
}

impl Text for DType {
    fn print(&self, out: &mut Printer) {
        out.text += self.name();
    }

    fn read(reader: &mut Reader<'_>) -> Result<DType, String> {
        reader.dtype()
    }
}

/// A number with its type as a suffix: `0.5f32`, `-1i64`.
impl Text for Scalar {
    fn print(&self, out: &mut Printer) {
        out.text += &format!("{self:?}");
    }

    fn read(reader: &mut Reader<'_>) -> Result<Scalar, String> {
        let literal = reader.literal("a number with its type")?;
        scalar(literal).ok_or_else(|| format!("`{literal}` is not a number with its type"))
    }
}

fn scalar(literal: &str) -> Option<Scalar> {
    DType::ALL.into_iter().find_map(|dtype| {
        let number = literal.strip_suffix(dtype.name())?;
        if dtype.is_float() {
            number.parse().ok().map(|value| Scalar::float(dtype, value))
        } else {
            number.parse().ok().map(|value| Scalar::int(dtype, value))
        }
    })
}

impl Text for Expr {
    fn print(&self, out: &mut Printer) {
        out.text += &self.to_string();
    }

    fn read(reader: &mut Reader<'_>) -> Result<Expr, String> {
        reader.expr()
    }
}

impl<T: Text> Text for Vec<T> {
    fn print(&self, out: &mut Printer) {
        out.text.push('[');
        for (k, value) in self.iter().enumerate() {
            if k > 0 {
                out.text += ", ";
            }
            value.print(out);
        }
        out.text.push(']');
    }

    fn read(reader: &mut Reader<'_>) -> Result<Vec<T>, String> {
        reader.expect("[")?;
        let mut values = Vec::new();
        if reader.eat("]") {
            return Ok(values);
        }
        loop {
            values.push(T::read(reader)?);
            if !reader.eat(",") {
                reader.expect("]")?;
                return Ok(values);
            }
        }
    }
}

impl Text for Type {
    fn print(&self, out: &mut Printer) {
        out.text += self.dtype.name();
        self.dims.print(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Type, String> {
        let dtype = reader.dtype()?;
        let dims: Vec<Expr> = Vec::read(reader)?;
        if dims.len() > MAX_RANK {
            return Err(format!("the type has rank {}, and the largest is {MAX_RANK}", dims.len()));
        }
        Ok(Type { dtype, dims })
    }
}

impl Text for Axes {
    fn print(&self, out: &mut Printer) {
        self.iter().collect::<Vec<usize>>().print(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Axes, String> {
        let axes: Vec<usize> = Vec::read(reader)?;
        match axes.iter().find(|&&axis| axis >= MAX_RANK) {
            Some(axis) => Err(format!("axis {axis} is outside every rank")),
            None => Ok(Axes::of(axes)),
        }
    }
}

/// One number a spatial axis, `3x3`.
#[derive(PartialEq)]
pub(super) struct Spatial(pub(super) Vec<u32>);

impl Text for Spatial {
    fn print(&self, out: &mut Printer) {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        out.text += &numbers.join("x");
    }

    fn read(reader: &mut Reader<'_>) -> Result<Spatial, String> {
        let word = reader.word("numbers such as `3x3`")?;
        let numbers: Result<Vec<u32>, _> = word.split('x').map(str::parse).collect();
        match numbers {
            Ok(numbers) if numbers.len() <= MAX_SPATIAL => Ok(Spatial(numbers)),
            Ok(_) => Err(format!("`{word}` has more than {MAX_SPATIAL} axes")),
            Err(_) => Err(format!("`{word}` is not numbers such as `3x3`")),
        }
    }
}

impl Text for PoolKind {
    fn print(&self, out: &mut Printer) {
        match self {
            PoolKind::Max => out.text += "max",
            PoolKind::Average => out.text += "average",
            PoolKind::AverageCountPad => out.text += "average_count_pad",
            PoolKind::Lp(p) => out.text += &format!("lp {p}"),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<PoolKind, String> {
        if reader.eat_word("lp") {
            return Ok(PoolKind::Lp(u32::read(reader)?));
        }
        reader.one_of("a kind of pooling", |word| match word {
            "max" => Some(PoolKind::Max),
            "average" => Some(PoolKind::Average),
            "average_count_pad" => Some(PoolKind::AverageCountPad),
            _ => None,
        })
    }
}

impl Text for ResizeMode {
    fn print(&self, out: &mut Printer) {
        match self {
            ResizeMode::Nearest(mode) => {
                out.text += "nearest ";
                mode.print(out);
            }
            ResizeMode::Linear => out.text += "linear",
            ResizeMode::Cubic => out.text += "cubic",
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<ResizeMode, String> {
        if reader.eat_word("nearest") {
            return Ok(ResizeMode::Nearest(Text::read(reader)?));
        }
        reader.one_of("a mode of resizing", |word| match word {
            "linear" => Some(ResizeMode::Linear),
            "cubic" => Some(ResizeMode::Cubic),
            _ => None,
        })
    }
}

impl Text for Cell {
    fn print(&self, out: &mut Printer) {
        out.text += match self {
            Cell::Lstm => "lstm",
            Cell::Gru { linear_before_reset: false } => "gru",
            Cell::Gru { linear_before_reset: true } => "gru_linear_before_reset",
            Cell::Rnn => "rnn",
        };
    }

    fn read(reader: &mut Reader<'_>) -> Result<Cell, String> {
        reader.one_of("a recurrent cell", |word| match word {
            "lstm" => Some(Cell::Lstm),
            "gru" => Some(Cell::Gru { linear_before_reset: false }),
            "gru_linear_before_reset" => Some(Cell::Gru { linear_before_reset: true }),
            "rnn" => Some(Cell::Rnn),
            _ => None,
        })
    }
}

/// `tanh`, or with parameters `hard_sigmoid(0.2, 0.5)`.
impl Text for Activation {
    fn print(&self, out: &mut Printer) {
        self.kind.print(out);
        if self.alpha != 0.0 || self.beta != 0.0 {
            out.text += &format!("({:?}, {:?})", self.alpha, self.beta);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Activation, String> {
        let kind = Text::read(reader)?;
        if !reader.eat("(") {
            return Ok(Activation { kind, alpha: 0.0, beta: 0.0 });
        }
        let alpha = f32::read(reader)?;
        reader.expect(",")?;
        let beta = f32::read(reader)?;
        reader.expect(")")?;
        Ok(Activation { kind, alpha, beta })
    }
}

impl Text for Region {
    fn print(&self, out: &mut Printer) {
        super::graph::print(&self.0, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Region, String> {
        reader.deeper(super::graph::read).map(|graph| Region(Box::new(graph)))
    }
}

/// `in f32 f32; s0 = add f32 in0 in1; out s0`.
impl Text for Program {
    fn print(&self, out: &mut Printer) {
        out.text += "in";
        for dtype in &self.inputs {
            out.text += &format!(" {dtype}");
        }
        out.text.push(';');
        for (k, instr) in self.steps.iter().enumerate() {
            out.text += &format!(" s{k} = ");
            instr.op.print(out);
            out.text += &format!(" {}", instr.dtype);
            instr.operands().iter().for_each(|arg| print_arg(arg, out));
            out.text.push(';');
        }
        out.text += " out";
        self.outputs.iter().for_each(|arg| print_arg(arg, out));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Program, String> {
        let mut program = Program { inputs: Vec::new(), steps: Vec::new(), outputs: Vec::new() };
        reader.expect_word("in")?;
        while !reader.eat(";") {
            program.inputs.push(reader.dtype()?);
        }
        while !reader.eat_word("out") {
            reader.expect_word(&format!("s{}", program.steps.len()))?;
            reader.expect("=")?;
            let instr = read_step(&program, reader)?;
            reader.expect(";")?;
            program.steps.push(instr);
        }
        while !reader.at_char('}') {
            program.outputs.push(read_arg(&program, reader)?);
        }
        Ok(program)
    }
}

fn read_step(program: &Program, reader: &mut Reader<'_>) -> Result<Instr, String> {
    let op = ScalarOp::read(reader)?;
    let dtype = reader.dtype()?;
    let first = read_arg(program, reader)?;
    let mut args = [first; 3];
    for arg in &mut args[1..op.arity()] {
        *arg = read_arg(program, reader)?;
    }
    Ok(Instr { op, dtype, args })
}

fn print_arg(arg: &Arg, out: &mut Printer) {
    match arg {
        Arg::Input(k) => out.text += &format!(" in{k}"),
        Arg::Step(k) => out.text += &format!(" s{k}"),
        Arg::Imm(scalar) => {
            out.text.push(' ');
            scalar.print(out);
        }
    }
}

/// An operand that is there already.
fn read_arg(program: &Program, reader: &mut Reader<'_>) -> Result<Arg, String> {
    let literal = reader.literal("an operand of the program")?;
    let number = |prefix: &str| literal.strip_prefix(prefix).and_then(|digits| digits.parse::<u16>().ok());
    match (number("in"), number("s")) {
        (Some(k), _) if usize::from(k) < program.inputs.len() => Ok(Arg::Input(k)),
        (_, Some(k)) if usize::from(k) < program.steps.len() => Ok(Arg::Step(k)),
        (None, None) => {
            scalar(literal).map(Arg::Imm).ok_or_else(|| format!("`{literal}` is not an operand of the program"))
        }
        (_, _) => Err(format!("the program has no `{literal}` here")),
    }
}
