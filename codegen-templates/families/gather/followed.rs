//! Slices picked by an index tensor, with the pointwise program that alone reads them: embeddings and what is added to them.

use super::{Kernel, Operands, THREADS};
use crate::candidate::{Launch, Shapes};
use crate::entry::{self, Args, Entry, input};
use crate::epilogue::Epilogue;
use crate::extent::Expr;
use crate::families::reduce::{around, widest};
use crate::print;
use crate::problem::{Pair, Problem};
use crate::program::Program;
use crate::view::Index;

/// The kernel of a gather along `axis` and a program.
///
/// # Errors
/// In words, what it cannot do.
pub fn kernel(
    problem: &Problem,
    pair: &Pair,
    axis: usize,
    program: &Program,
    shapes: &Shapes<'_>,
) -> Result<Kernel, String> {
    let operands = Operands::of(&pair.first, shapes)?;
    let (x, y) = (operands.x, problem.output(0)?);
    if !x.dtype.is_float() {
        return Err(format!("it computes with floats, and this is {}", x.dtype));
    }
    print::check_type(x.dtype)?;
    if problem.outputs.len() != 1 || y.dims != operands.y.dims {
        return Err("the program has one result, of the picked slices' shape".to_owned());
    }
    if axis + 2 != x.dims.len() {
        return Err("it picks rows of the last axis".to_owned());
    }
    let program = program.behind(&Program::identity(x.dtype), pair.at);
    let epilogue = Epilogue::of(problem, Some(&program), y.dims.len() - 1, x.dtype)?;
    let [outer, extent, inner] = around(&x.dims, axis);
    let size = i64::from(crate::tile::bytes(x.dtype).max(crate::tile::bytes(y.dtype)));
    let vec = widest(&inner, size, shapes);
    let index = Index::of(&[x.count(), operands.indices.count(), y.count()], shapes);
    let (x_type, indices) = (print::type_name(x.dtype), operands.indices.dtype.name());
    let policy = format!(
        "struct Policy {{\n  using Index = {};\n  using X = {x_type};\n  using Indices = {indices};\n  static constexpr int \
         VEC = {vec};\n}};",
        index.name()
    );
    let mut args = Args::default();
    args.pointer(&format!("const {}", print::memory_type(x.dtype)), "x", input(0));
    args.pointer(&format!("const {indices}"), "indices", input(1));
    epilogue.declare(&mut args);
    for (name, extent) in
        [("outer", &outer), ("axis", &extent), ("inner", &inner), ("count", &operands.indices.count())]
    {
        args.long(name, extent);
    }
    let entry = Entry {
        title: "Picks rows by an index tensor, and computes with their elements.".to_owned(),
        headers: &epilogue.headers("families/gather/kernel.cuh"),
        declarations: vec![policy, epilogue.text.clone()],
        threads: THREADS,
        call: format!("gather::followed<Policy, Epi>({{x, indices, outer, axis, inner, count}}, {})", epilogue.init()),
    };
    let blocks = y.count().ceil_div(&Expr::from(i64::from(THREADS) * vec));
    let launch = Launch {
        source: entry::source(format!("gather{}", epilogue.stem), &entry, &args),
        grid: [blocks.clone(), Expr::from(1i64), Expr::from(1i64)],
        block: [THREADS, 1, 1],
        shared: 0,
        params: args.params,
    };
    let typical = |expr: &Expr| (shapes.typical)(expr).max(1) as f64;
    let mut work = operands.work(vec, typical(&inner), &blocks, shapes);
    work.bytes += typical(&y.count()) * size as f64 * epilogue.full_reads() as f64;
    work.instructions += typical(&y.count()) * (4 * (1 + epilogue.full_reads()) + program.steps.len()) as f64;
    Ok((format!("gather_followed/v{vec}"), launch, work))
}
