//! Epilogues: what follows a matrix product or a convolution, printed as the `Epi` struct of
//! `cuda/lapidary/epilogue.cuh`.
//!
//! An operand of an epilogue has the result's shape, one element a channel, or one element; behind a matrix product it may
//! also have one element for each row, or for each column, of each matrix. Anything else is refused.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Instr, ScalarOp};

use crate::entry::{Args, input, output};
use crate::extent::Expr;
use crate::print;
use crate::problem::{Operand, Problem};
use crate::program::Program;

/// An epilogue, printed, and the operands that it reads.
#[derive(Clone, Debug)]
pub struct Epilogue {
    /// The type of the result.
    pub out: DType,
    /// The type that products are summed in.
    pub acc: DType,
    /// `struct Epi`, or nothing where the struct that is there already serves.
    pub text: String,
    /// Which headers the text needs besides the family's.
    headers: &'static [&'static str],
    /// What it does, as the end of a kernel's stem: `_add_max`.
    pub stem: String,
    extras: Vec<Extra>,
    /// Rows and columns of the result's matrices, where an operand has elements for them.
    matrix: Option<[Expr; 2]>,
}

#[derive(Clone, Debug)]
struct Extra {
    /// Number among the problem's inputs.
    input: usize,
    name: String,
    dtype: DType,
    access: Access,
}

/// Where an operand's element for an output lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Output,
    Channel,
    Scalar,
    /// One for each row of each matrix, and one for each column.
    Row,
    Column,
}

/// Operands in front of the epilogue's own: the factors of the product.
const FACTORS: usize = 2;

/// How many steps a stem names.
const STEM_STEPS: usize = 4;

impl Epilogue {
    /// The epilogue of a problem whose sums are `acc` and whose channel is axis `channel` of the result.
    ///
    /// # Errors
    /// In words, what it does that a kernel's epilogue cannot.
    pub fn of(problem: &Problem, program: Option<&Program>, channel: usize, acc: DType) -> Result<Epilogue, String> {
        let Some(Some(result)) = problem.outputs.first() else { return Err("the result is not wanted".to_owned()) };
        print::check_type(result.dtype)?;
        let Some(program) = program else { return Ok(Epilogue::none(result.dtype, acc)) };
        print::check(program)?;
        let extras = problem.inputs.iter().enumerate().skip(FACTORS).map(|(k, operand)| {
            let Some(operand) = operand else { return Err(format!("operand {k} of the epilogue is absent")) };
            let access = access(operand, &result.dims, channel)
                .ok_or_else(|| format!("operand {k} of the epilogue broadcasts along more than the channel"))?;
            Ok(Extra { input: k, name: format!("x{}", k + 1 - FACTORS), dtype: operand.dtype, access })
        });
        let extras = extras.collect::<Result<Vec<Extra>, String>>()?;
        let by_place = extras.iter().any(|extra| matches!(extra.access, Access::Row | Access::Column));
        let matrix = match &result.dims[..] {
            [.., rows, columns] if by_place => Some([rows.clone(), columns.clone()]),
            _ => None,
        };
        let mut epilogue = Epilogue {
            matrix,
            text: String::new(),
            headers: &["lapidary/math.cuh"],
            stem: stem(program),
            extras,
            ..Epilogue::none(result.dtype, acc)
        };
        epilogue.text = epilogue.print(program);
        Ok(epilogue)
    }

    /// The epilogue that stores the sums as they are.
    fn none(out: DType, acc: DType) -> Epilogue {
        let (text, stem) = (String::new(), String::new());
        let mut epilogue = Epilogue { out, acc, text, headers: &[], stem, extras: Vec::new(), matrix: None };
        epilogue.text = epilogue.frame(print::compute_type(acc), "x0", "    return x0;\n");
        epilogue
    }

    /// How many operands of the result's own shape it reads.
    pub fn full_reads(&self) -> usize {
        self.extras.iter().filter(|extra| extra.access == Access::Output).count()
    }

    /// The header of a family, and those of the text.
    pub fn headers(&self, family: &'static str) -> Vec<&'static str> {
        std::iter::once(family).chain(self.headers.iter().copied()).collect()
    }

    /// Declares the result and the operands.
    pub fn declare(&self, args: &mut Args) {
        args.pointer(print::memory_type(self.out), "y", output(0));
        for extra in &self.extras {
            args.pointer(&format!("const {}", print::memory_type(extra.dtype)), &extra.name, input(extra.input));
        }
        if let Some([rows, columns]) = &self.matrix {
            args.int("y_rows", rows);
            args.int("y_columns", columns);
        }
    }

    /// The initializer of its `Params`: `{y, x1}`.
    pub fn init(&self) -> String {
        let mut names: Vec<&str> =
            std::iter::once("y").chain(self.extras.iter().map(|extra| extra.name.as_str())).collect();
        if self.matrix.is_some() {
            names.extend(["y_rows", "y_columns"]);
        }
        format!("{{{}}}", names.join(", "))
    }

    fn print(&self, program: &Program) -> String {
        let mut body = String::new();
        // Input 0 has the product's type, which is narrower than the sum's for 16-bit integers.
        let (product, acc) = (print::compute_type(program.inputs[0]), print::compute_type(self.acc));
        if product != acc {
            body.push_str(&format!("    const {product} x0 = math::cast<{product}>(sum);\n"));
        }
        for (extra, used) in self.extras.iter().zip(program.used_inputs().iter().skip(1)) {
            if !used {
                continue;
            }
            let index = match extra.access {
                Access::Output => "o",
                Access::Channel => "ch",
                Access::Scalar => "0",
                Access::Row => "row_of(o, e.y_columns)",
                Access::Column => "column_of(o, e.y_rows, e.y_columns)",
            };
            let (compute, dtype) = (print::compute_type(extra.dtype), print::type_name(extra.dtype));
            body.push_str(&format!("    const {compute} {0} = widen<{dtype}>(e.{0}[{index}]);\n", extra.name));
        }
        body.push_str(&print::statements(program, "    "));
        body.push_str(&format!("    return {};\n", print::operand(program.outputs[0])));
        let sum = if product == acc { "x0" } else { "sum" };
        self.frame(print::compute_type(self.out), sum, &body)
    }

    fn frame(&self, returned: &str, sum: &str, body: &str) -> String {
        let out = print::memory_type(self.out);
        let mut fields = format!("    {out}* y;\n");
        for extra in &self.extras {
            fields.push_str(&format!("    const {}* {};\n", print::memory_type(extra.dtype), extra.name));
        }
        if self.matrix.is_some() {
            fields.push_str("    int y_rows, y_columns;\n");
        }
        let acc = print::compute_type(self.acc);
        format!(
            "struct Epi {{\n  using Out = {out};\n  struct Params {{\n{fields}  }};\n  \
             static LAPIDARY_FN {returned} apply(const Params& e, {acc} {sum}, i64 o, int ch) {{\n{body}  }}\n}};"
        )
    }
}

fn access(operand: &Operand, result: &[Expr], channel: usize) -> Option<Access> {
    let significant = |dims: &[Expr]| dims.iter().skip_while(|dim| dim.is(1)).cloned().collect::<Vec<Expr>>();
    let dims = significant(&operand.dims);
    if dims.iter().all(|dim| dim.is(1)) {
        return Some(Access::Scalar);
    }
    if dims == significant(result) {
        return Some(Access::Output);
    }
    let lead = result.len().checked_sub(dims.len())?;
    let along_channel =
        |(k, dim): (usize, &Expr)| if lead + k == channel { *dim == result[channel] } else { dim.is(1) };
    if dims.iter().enumerate().all(along_channel) {
        return Some(Access::Channel);
    }
    of_matrices(operand, result).filter(|_| channel + 1 == result.len())
}

/// The access of an operand that broadcasts along one axis of the result's matrices.
fn of_matrices(operand: &Operand, result: &[Expr]) -> Option<Access> {
    let [batch @ .., rows, columns] = result else { return None };
    let missing = result.len().checked_sub(operand.dims.len())?;
    let whole: Vec<Expr> = std::iter::repeat_n(Expr::from(1i64), missing).chain(operand.dims.iter().cloned()).collect();
    let [of_batch @ .., of_rows, of_columns] = &whole[..] else { return None };
    match (of_batch == batch, of_rows == rows, of_columns == columns) {
        (true, true, _) if of_columns.is(1) => Some(Access::Row),
        (true, _, true) if of_rows.is(1) => Some(Access::Column),
        _ => None,
    }
}

/// What a program does, as the end of a kernel's stem: `_add_max`.
pub fn stem(program: &Program) -> String {
    let worth_naming = |instr: &&Instr| !matches!(instr.op, ScalarOp::Cast | ScalarOp::Identity);
    let names = program.steps.iter().filter(worth_naming).map(|instr| print::function(instr.op));
    names.take(STEM_STEPS).map(|name| format!("_{}", name.trim_end_matches('_'))).collect()
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::{Arg, MatMul};

    use super::*;
    use crate::problem::Kind;

    fn operand(dtype: DType, dims: &[&str]) -> Option<Operand> {
        Some(Operand { dtype, dims: dims.iter().map(|dim| dim.parse().unwrap()).collect() })
    }

    fn epilogue(extra: &[&[&str]]) -> Result<Epilogue, String> {
        let inputs = std::iter::repeat_n(DType::F16, extra.len() + 1).collect();
        let add = |k: u16, to: Arg| Instr::binary(ScalarOp::Add, DType::F16, to, Arg::Input(k));
        let steps: Vec<Instr> =
            (1..=extra.len() as u16).map(|k| add(k, if k == 1 { Arg::Input(0) } else { Arg::Step(k - 2) })).collect();
        let program = Program { inputs, outputs: vec![Arg::Step(steps.len() as u16 - 1)], steps };
        let mut operands = vec![operand(DType::F16, &["b", "s", "64"]), operand(DType::F16, &["64", "32"])];
        operands.extend(extra.iter().map(|dims| operand(DType::F16, dims)));
        let spec = MatMul { transpose_a: false, transpose_b: false, math: Default::default() };
        let problem = Problem {
            kind: Kind::MatMul(spec, Some(program.clone())),
            inputs: operands,
            outputs: vec![operand(DType::F16, &["b", "s", "32"])],
        };
        Epilogue::of(&problem, Some(&program), 2, DType::F32)
    }

    #[test]
    fn operands_are_read_where_they_lie() {
        let epilogue = epilogue(&[&["32"], &["b", "s", "32"], &["1", "1"]]).unwrap();
        let expected = "struct Epi {
  using Out = f16;
  struct Params {
    f16* y;
    const f16* x1;
    const f16* x2;
    const f16* x3;
  };
  static LAPIDARY_FN float apply(const Params& e, float x0, i64 o, int ch) {
    const float x1 = widen<f16>(e.x1[ch]);
    const float x2 = widen<f16>(e.x2[o]);
    const float x3 = widen<f16>(e.x3[0]);
    const float v0 = math::add(x0, x1);
    const float v1 = math::add(v0, x2);
    const float v2 = math::add(v1, x3);
    return v2;
  }
};";
        assert_eq!(epilogue.text, expected);
        assert_eq!(epilogue.init(), "{y, x1, x2, x3}");
        assert_eq!((epilogue.stem.as_str(), epilogue.full_reads()), ("_add_add_add", 1));
    }

    #[test]
    fn rows_and_columns_of_matrices_are_found_by_division() {
        let epilogue = epilogue(&[&["b", "s", "1"], &["b", "1", "32"]]).unwrap();
        for part in [
            "    int y_rows, y_columns;\n",
            "widen<f16>(e.x1[row_of(o, e.y_columns)]);",
            "widen<f16>(e.x2[column_of(o, e.y_rows, e.y_columns)]);",
        ] {
            assert!(epilogue.text.contains(part), "{}", epilogue.text);
        }
        assert_eq!(epilogue.init(), "{y, x1, x2, y_rows, y_columns}");
        let mut args = Args::default();
        epilogue.declare(&mut args);
        assert_eq!(args.params.len(), 5);
    }

    #[test]
    fn other_broadcasts_are_refused() {
        let reason = epilogue(&[&["s", "32"]]).unwrap_err();
        assert_eq!(reason, "operand 2 of the epilogue broadcasts along more than the channel");
        assert!(epilogue(&[&["s", "1"]]).is_err());
        assert!(epilogue(&[&["1", "s", "1"]]).is_err());
        assert!(epilogue(&[&["1", "32"]]).is_ok());
    }
}
