//! The reference evaluator: what a graph computes, by obvious loops. Everything else is judged by it.
//!
//! Contract: floats are computed in doubles and rounded once at each operation's result (in a pointwise program, at
//! each step, see [`lapidary_runtime::op::ScalarOp`]); integers are exact and wrap. The graph has passed the verifier;
//! the inputs may be anything, and data that an operation cannot take (an index out of range) is an error, never a
//! panic. Types and extents of every value are compared with what inference said.
//!
//! Not here: memory plans, fused kernels, speed.

mod attention;
mod constant;
mod control;
mod conv;
mod detect;
mod gather;
mod index;
mod jitter;
pub mod lowp;
mod matmul;
mod movement;
mod norm;
mod order;
mod parallel;
mod pointwise;
mod pool;
mod recurrent;
mod reduce;
mod region;
mod resize;
mod scalar;
mod spatial;
pub mod tensor;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use constant::constant;
pub use jitter::run_jittered;
use lapidary_runtime::DType;
pub use tensor::{Tensor, Values};

use super::{Def, Expr, Graph, Node, NodeId, Op, SymbolSource, ValueId};

/// Evaluates the graph on inputs in the order of [`Graph::inputs`]; the outputs in the order of [`Graph::outputs`]. The
/// result is that of a session's first run.
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    run_observed(graph, inputs, &mut |_, _| {})
}

/// As [`run`], where the session has done `before` runs: what random numbers depend on.
pub fn run_after(graph: &Graph, inputs: &[Tensor], before: u64) -> Result<Vec<Tensor>, EvalError> {
    let symbols = Symbols::of_inputs(graph, inputs, before)?;
    run_graph(graph, inputs, &symbols, &mut |_, _| {}, &mut |_, _| {})
}

/// As [`run`], and shows every value of the graph (not those inside regions) as soon as it is there.
pub fn run_observed(
    graph: &Graph,
    inputs: &[Tensor],
    observe: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>, EvalError> {
    let symbols = Symbols::of_inputs(graph, inputs, 0)?;
    run_graph(graph, inputs, &symbols, observe, &mut |_, _| {})
}

/// What an evaluation asks `symbols` for, beside the symbols of formulas, where the operation depends on the run. No
/// symbol has an empty name.
pub const RUN_COUNT: &str = "";

/// Evaluates one operation on its operands (`None` where an optional one is absent). Results are in the operation's
/// order, the optional ones always among them. `symbols` gives the value of each symbol in the operation's formulas.
pub fn eval_node(op: &Op, inputs: &[Option<&Tensor>], symbols: &dyn Fn(&str) -> i64) -> Result<Vec<Tensor>, String> {
    let x = Operands(inputs);
    let extents = |exprs: &[Expr]| exprs.iter().map(|expr| extent(expr, symbols)).collect::<Result<Vec<usize>, _>>();
    let numbers = |exprs: &[Expr]| exprs.iter().map(|expr| expr.eval(symbols)).collect::<Vec<i64>>();
    match op {
        Op::Pointwise(program) => pointwise::pointwise(program, &x.from(0)?),
        Op::MatMul(spec, epilogue) => matmul::matmul(spec, epilogue.as_ref(), x.get(0)?, x.get(1)?, &x.from(2)?),
        Op::Conv(spec, epilogue) => conv::conv(spec, epilogue.as_ref(), x.get(0)?, x.get(1)?, &x.from(2)?),
        Op::ConvTranspose(spec, output) => conv::conv_transpose(spec, &extents(output)?, x.get(0)?, x.get(1)?),
        Op::Pool(spec, output) => pool::pool(spec, &extents(output)?, x.get(0)?),
        Op::Reduce(spec) => reduce::reduce(spec, x.get(0)?),
        Op::ArgReduce(spec) => order::arg_reduce(spec, x.get(0)?),
        Op::Attention(spec) => attention::attention(spec, x.get(0)?, x.get(1)?, x.get(2)?, x.optional(3)),
        Op::Softmax(spec) => norm::softmax(spec, x.get(0)?),
        Op::Norm(spec, epilogue) => norm::norm(spec, epilogue.as_ref(), x.get(0)?, x.optional(1), x.optional(2)),
        Op::GroupNorm(spec, epilogue) => norm::group_norm(spec, epilogue.as_ref(), x.get(0)?, x.get(1)?, x.get(2)?),
        Op::BitCast(dtype) => {
            let x = x.get(0)?;
            Tensor::new(*dtype, x.dims.clone(), x.bytes.clone()).map(|y| vec![y])
        }
        Op::Reshape(dims) => x.get(0)?.reshaped(extents(dims)?).map(|y| vec![y]),
        Op::Transpose(spec) => movement::transpose(spec, x.get(0)?),
        Op::Expand(dims) => movement::expand(extents(dims)?, x.get(0)?),
        Op::Slice { starts, steps, dims } => movement::slice(&numbers(starts), steps, extents(dims)?, x.get(0)?),
        Op::Concat { axis } => movement::concat(*axis, &x.from(0)?),
        Op::Pad { mode, lo, hi } => movement::pad(*mode, &numbers(lo), &numbers(hi), x.get(0)?, x.optional(1)),
        Op::Gather { axis } => gather::gather(*axis, x.get(0)?, x.get(1)?),
        Op::GatherElements { axis } => gather::gather_elements(*axis, x.get(0)?, x.get(1)?),
        Op::GatherNd { batch_dims } => gather::gather_nd(*batch_dims, x.get(0)?, x.get(1)?),
        Op::ScatterElements { axis, mode } => gather::scatter_elements(*axis, *mode, x.get(0)?, x.get(1)?, x.get(2)?),
        Op::ScatterNd { mode } => gather::scatter_nd(*mode, x.get(0)?, x.get(1)?, x.get(2)?),
        Op::Resize(spec, dims) => resize::resize(spec, extents(dims)?, x.get(0)?, x.optional(1)),
        Op::RegionPool(spec) => region::region_pool(spec, x.get(0)?, x.get(1)?, x.get(2)?),
        Op::Recurrent(spec) => recurrent::recurrent(spec, &x.recurrent()?),
        Op::Suppress => detect::suppress(x.get(0)?, x.get(1)?, x.get(2)?, x.get(3)?, x.get(4)?),
        Op::CumSum { axis, exclusive, reverse } => {
            let how = reduce::Running { axis: *axis, exclusive: *exclusive, reverse: *reverse };
            reduce::cum_sum(&how, x.get(0)?)
        }
        Op::TopK { axis, largest, k } => order::top_k(*axis, *largest, extent(k, symbols)?, x.get(0)?),
        Op::Range { count } => movement::range(x.get(0)?, x.get(1)?, extent(count, symbols)?),
        Op::Extents { values, rank } => movement::extents(&numbers(values), *rank),
        Op::RunCount => Ok(vec![Tensor::from_i64s(DType::U64, Vec::new(), &[symbols(RUN_COUNT)])]),
        Op::If { then_region, else_region } => control::branch(&then_region.0, &else_region.0, &x, symbols),
        Op::Loop { body, carried, most } => {
            control::repeat(&body.0, *carried as usize, most.eval(symbols), &x, symbols)
        }
    }
}

/// Why a graph could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// The number of inputs is not the graph's.
    InputCount { expected: usize, given: usize },
    /// An input is not of the declared type and extents.
    Input { name: String, expected: String, given: String },
    /// An operation cannot be carried out.
    Node { origin: String, op: &'static str, why: String },
    /// A value is not what inference said. The compiler is at fault.
    Value { name: String, expected: String, given: String },
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvalError::InputCount { expected, given } => {
                write!(f, "the model has {expected} inputs, {given} were given")
            }
            EvalError::Input { name, expected, given } => write!(f, "input `{name}` is {expected}, not {given}"),
            EvalError::Node { origin, op, why } if origin.is_empty() => write!(f, "{op}: {why}"),
            EvalError::Node { origin, op, why } => write!(f, "{origin}: {op}: {why}"),
            EvalError::Value { name, expected, given } => {
                write!(f, "value `{name}` was inferred to be {expected}, and is {given}")
            }
        }
    }
}

impl std::error::Error for EvalError {}

/// An operation's operands.
struct Operands<'a>(&'a [Option<&'a Tensor>]);

impl<'a> Operands<'a> {
    fn optional(&self, k: usize) -> Option<&'a Tensor> {
        self.0.get(k).copied().flatten()
    }

    fn get(&self, k: usize) -> Result<&'a Tensor, String> {
        self.optional(k).ok_or_else(|| format!("operand {k} is missing"))
    }

    /// All operands from the `first`; none may be absent.
    fn from(&self, first: usize) -> Result<Vec<&'a Tensor>, String> {
        (first..self.0.len()).map(|k| self.get(k)).collect()
    }

    fn recurrent(&self) -> Result<recurrent::Operands<'a>, String> {
        Ok(recurrent::Operands {
            x: self.get(0)?,
            w: self.get(1)?,
            r: self.get(2)?,
            b: self.optional(3),
            sequence_lens: self.optional(4),
            initial_h: self.optional(5),
            initial_c: self.optional(6),
            p: self.optional(7),
        })
    }
}

fn extent(expr: &Expr, symbols: &dyn Fn(&str) -> i64) -> Result<usize, String> {
    let value = expr.eval(symbols);
    usize::try_from(value).map_err(|_| format!("the extent {expr} is {value}"))
}

/// The values of the symbols. Counts are added as they are computed.
struct Symbols<'a> {
    known: RefCell<BTreeMap<Arc<str>, i64>>,
    /// The symbols of the graph around a region.
    outer: Option<&'a dyn Fn(&str) -> i64>,
    /// A symbol that was asked for and is not known.
    missing: RefCell<Option<String>>,
}

impl Symbols<'_> {
    /// Reads the symbols from the inputs' extents, and compares the inputs with their declarations.
    fn of_inputs(graph: &Graph, inputs: &[Tensor], runs: u64) -> Result<Symbols<'static>, EvalError> {
        if inputs.len() != graph.inputs().len() {
            return Err(EvalError::InputCount { expected: graph.inputs().len(), given: inputs.len() });
        }
        let mut known = BTreeMap::from([(Arc::from(RUN_COUNT), runs as i64)]);
        for (name, symbol) in &graph.symbols {
            match symbol.source {
                SymbolSource::Input { input, axis } => {
                    if let Some(&extent) = inputs.get(input).and_then(|tensor| tensor.dims.get(axis)) {
                        known.insert(name.clone(), extent as i64);
                    }
                }
                SymbolSource::Count(_) | SymbolSource::Outer => {}
            }
        }
        let symbols = Symbols { known: RefCell::new(known), outer: None, missing: RefCell::default() };
        for (&id, tensor) in graph.inputs().iter().zip(inputs) {
            if let Some((expected, given)) = symbols.disagreement(graph, id, tensor) {
                return Err(EvalError::Input { name: graph.value(id).name.to_string(), expected, given });
            }
        }
        Ok(symbols)
    }

    fn of_region(outer: &dyn Fn(&str) -> i64) -> Symbols<'_> {
        Symbols { known: RefCell::default(), outer: Some(outer), missing: RefCell::default() }
    }

    fn value(&self, name: &str) -> i64 {
        if let Some(&value) = self.known.borrow().get(name) {
            return value;
        }
        match self.outer {
            Some(outer) => outer(name),
            None => {
                self.missing.borrow_mut().get_or_insert_with(|| name.to_owned());
                -1
            }
        }
    }

    /// The declared and the actual type, if they differ.
    fn disagreement(&self, graph: &Graph, id: ValueId, tensor: &Tensor) -> Option<(String, String)> {
        let value = graph.value(id);
        let dims: Vec<i64> = value.ty.dims.iter().map(|dim| dim.eval(&|name| self.value(name))).collect();
        let fits = value.ty.dtype == tensor.dtype
            && dims.len() == tensor.rank()
            && dims.iter().zip(&tensor.dims).all(|(&declared, &actual)| declared == actual as i64);
        if !fits {
            return Some((format!("{}{dims:?}", value.ty.dtype), format!("{}{:?}", tensor.dtype, tensor.dims)));
        }
        let known = value.known.as_ref()?;
        let known: Vec<i64> = known.0.iter().map(|expr| expr.eval(&|name| self.value(name))).collect();
        let actual = tensor.to_i64s();
        (known != actual).then(|| (format!("{known:?}"), format!("{actual:?}")))
    }

    /// Records the counts that `tensor`, the value `id`, holds.
    fn learn(&self, graph: &Graph, id: ValueId, tensor: &Tensor) {
        for (name, symbol) in &graph.symbols {
            match &symbol.source {
                SymbolSource::Count(count) if count.at == id => {
                    if let Some(&value) = tensor.to_i64s().first() {
                        self.known.borrow_mut().insert(name.clone(), value);
                    }
                }
                SymbolSource::Count(_) | SymbolSource::Input { .. } | SymbolSource::Outer => {}
            }
        }
    }
}

/// Evaluates a region whose inputs are its captures.
fn run_region(graph: &Graph, inputs: &[Tensor], symbols: &dyn Fn(&str) -> i64) -> Result<Vec<Tensor>, EvalError> {
    run_graph(graph, inputs, &Symbols::of_region(symbols), &mut |_, _| {}, &mut |_, _| {})
}

/// Evaluates a graph; `adjust` may change a node's results before anything sees them.
fn run_graph(
    graph: &Graph,
    inputs: &[Tensor],
    symbols: &Symbols<'_>,
    observe: &mut dyn FnMut(ValueId, &Tensor),
    adjust: &mut dyn FnMut(&Node, &mut Tensor),
) -> Result<Vec<Tensor>, EvalError> {
    let order = graph.order();
    let mut store = Store::new(graph, &order);
    if inputs.len() != graph.inputs().len() {
        return Err(EvalError::InputCount { expected: graph.inputs().len(), given: inputs.len() });
    }
    for (&id, tensor) in graph.inputs().iter().zip(inputs) {
        symbols.learn(graph, id, tensor);
        observe(id, tensor);
        store.put(id, tensor.clone());
    }
    for &id in &order {
        let node = graph.node(id);
        let mut results = {
            let operands: Vec<Option<Tensor>> = node
                .inputs
                .iter()
                .map(|value| value.map(|value| store.get(graph, value)).transpose())
                .collect::<Result<_, _>>()?;
            let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
            eval_node(&node.op, &operands, &|name| symbols.value(name)).map_err(|why| failure(node, why))?
        };
        if let Some(name) = symbols.missing.borrow_mut().take() {
            return Err(failure(node, format!("the symbol `{name}` has no value")));
        }
        for value in node.inputs.iter().flatten() {
            store.release(*value);
        }
        // A count may be the last result, and what is known of the others may read it.
        for (value, result) in node.outputs.iter().zip(&results) {
            value.iter().for_each(|&value| symbols.learn(graph, value, result));
        }
        for (k, value) in node.outputs.iter().enumerate() {
            let Some(value) = *value else { continue };
            let result = results.get_mut(k).ok_or_else(|| failure(node, format!("there is no result {k}")))?;
            adjust(node, result);
            if let Some((expected, given)) = symbols.disagreement(graph, value, result) {
                return Err(EvalError::Value { name: graph.value(value).name.to_string(), expected, given });
            }
            observe(value, result);
            store.put(value, result.clone());
        }
    }
    graph.outputs().iter().map(|(_, value)| store.get(graph, *value)).collect()
}

fn failure(node: &Node, why: String) -> EvalError {
    EvalError::Node { origin: node.origin.to_string(), op: node.op.name(), why }
}

/// The values that later operations still read.
struct Store {
    tensors: BTreeMap<ValueId, Tensor>,
    /// Reads to come, by value.
    reads: Vec<usize>,
}

impl Store {
    fn new(graph: &Graph, order: &[NodeId]) -> Store {
        let mut reads = vec![0; graph.value_ids().count()];
        for &node in order {
            graph.node(node).inputs.iter().flatten().for_each(|value| reads[value.index()] += 1);
        }
        graph.outputs().iter().for_each(|(_, value)| reads[value.index()] += 1);
        Store { tensors: BTreeMap::new(), reads }
    }

    fn put(&mut self, id: ValueId, tensor: Tensor) {
        if self.reads[id.index()] > 0 {
            self.tensors.insert(id, tensor);
        }
    }

    fn get(&self, graph: &Graph, id: ValueId) -> Result<Tensor, EvalError> {
        if let Some(tensor) = self.tensors.get(&id) {
            return Ok(tensor.clone());
        }
        let value = graph.value(id);
        let constant = match &value.def {
            Def::Constant(constant) => constant_tensor(&value.ty.dims, value.ty.dtype, constant.bytes.clone()),
            Def::Input(_) | Def::Node(..) => Err("a value that is not computed yet".to_owned()),
        };
        constant.map_err(|given| EvalError::Value {
            name: value.name.to_string(),
            expected: value.ty.dtype.to_string(),
            given,
        })
    }

    fn release(&mut self, id: ValueId) {
        self.reads[id.index()] -= 1;
        if self.reads[id.index()] == 0 {
            self.tensors.remove(&id);
        }
    }
}

fn constant_tensor(dims: &[Expr], dtype: lapidary_runtime::DType, bytes: bytes::Bytes) -> Result<Tensor, String> {
    let dims: Option<Vec<usize>> =
        dims.iter().map(|dim| dim.as_const().and_then(|dim| usize::try_from(dim).ok())).collect();
    Tensor::new(dtype, dims.ok_or("a constant of symbolic extents")?, bytes)
}

#[cfg(test)]
mod tests {
    use lapidary_runtime::op::{Arg, Instr, ScalarOp};

    use super::super::{Constant, Count, Known, Origin, Program, Range, Region, Symbol, Type};
    use super::*;

    fn ty(dtype: DType, dims: &[Expr]) -> Type {
        Type { dtype, dims: dims.to_vec() }
    }

    fn f32s(values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F32, vec![values.len()], values)
    }

    fn symbol(source: SymbolSource) -> Symbol {
        Symbol { source, ranges: vec![Range { min: 1, opt: 1, max: 100 }] }
    }

    fn unary(op: ScalarOp) -> Op {
        Op::Pointwise(Program::single(op, DType::F32, &[DType::F32]))
    }

    /// x f32[n] -> exp -> neg -> y; the type of the last value as given.
    fn chain(last: Type) -> Graph {
        let mut graph = Graph::new("chain");
        let n = Expr::symbol("n");
        graph.symbols.insert("n".into(), symbol(SymbolSource::Input { input: 0, axis: 0 }));
        let x = graph.add_input("x", ty(DType::F32, std::slice::from_ref(&n)));
        let result = |name: &str, ty| vec![Some((Arc::from(name), ty))];
        let exp = graph.add_node(
            unary(ScalarOp::Exp),
            vec![Some(x)],
            result("e", ty(DType::F32, &[n])),
            Origin(vec!["Exp_0 (Exp)".into()]),
        );
        let e = graph.node(exp).outputs[0];
        let neg = graph.add_node(unary(ScalarOp::Neg), vec![e], result("y", last), Origin::default());
        if let Some(y) = graph.node(neg).outputs[0] {
            graph.add_output("y", y);
        }
        graph
    }

    #[test]
    fn graphs_run_in_order_and_are_observed() {
        let graph = chain(ty(DType::F32, &[Expr::symbol("n")]));
        let mut seen = Vec::new();
        let y = run_observed(&graph, &[f32s(&[0.0, 0.0])], &mut |id, tensor| {
            seen.push((graph.value(id).name.to_string(), tensor.to_f64s()));
        });
        assert_eq!(y.unwrap()[0].to_f64s(), [-1.0, -1.0]);
        let expected = [("x", 0.0), ("e", 1.0), ("y", -1.0)].map(|(name, v)| (name.to_owned(), vec![v, v]));
        assert_eq!(seen, expected);
    }

    #[test]
    fn inputs_are_compared_with_their_declarations() {
        let graph = chain(ty(DType::F32, &[Expr::symbol("n")]));
        assert_eq!(run(&graph, &[]).unwrap_err().to_string(), "the model has 1 inputs, 0 were given");
        let error = run(&graph, &[Tensor::from_i64s(DType::I32, vec![1], &[1])]).unwrap_err();
        assert_eq!(error.to_string(), "input `x` is f32[1], not i32[1]");
        let error = run(&graph, &[Tensor::from_f64s(DType::F32, vec![], &[1.0])]).unwrap_err();
        assert_eq!(error.to_string(), "input `x` is f32[-1], not f32[]");
    }

    #[test]
    fn values_are_compared_with_what_was_inferred() {
        let graph = chain(ty(DType::F32, &[Expr::symbol("n") + Expr::constant(1)]));
        let error = run(&graph, &[f32s(&[0.0])]).unwrap_err();
        assert_eq!(error.to_string(), "value `y` was inferred to be f32[2], and is f32[1]");
        let mut graph = Graph::new("known");
        let x = graph.add_input("x", ty(DType::I64, &[Expr::from(2i64)]));
        graph.set_known(x, Known(vec![Expr::from(3i64), Expr::from(4i64)]));
        graph.add_output("y", x);
        assert!(run(&graph, &[Tensor::from_i64s(DType::I64, vec![2], &[3, 4])]).is_ok());
        assert!(run(&graph, &[Tensor::from_i64s(DType::I64, vec![2], &[3, 5])]).is_err());
    }

    #[test]
    fn errors_name_the_node() {
        let mut graph = Graph::new("gather");
        let x = graph.add_input("x", ty(DType::F32, &[Expr::from(2i64)]));
        let at = Constant { bytes: 5i64.to_le_bytes().to_vec().into(), initializer: None };
        let at = graph.add_constant("at", ty(DType::I64, &[]), at);
        let node = graph.add_node(
            Op::Gather { axis: 0 },
            vec![Some(x), Some(at)],
            vec![Some(("y".into(), ty(DType::F32, &[])))],
            Origin(vec!["pick (Gather)".into()]),
        );
        if let Some(y) = graph.node(node).outputs[0] {
            graph.add_output("y", y);
        }
        let error = run(&graph, &[f32s(&[1.0, 2.0])]).unwrap_err();
        assert_eq!(error.to_string(), "pick (Gather): gather: index 5 is outside of an axis of 2 elements");
    }

    #[test]
    fn counts_become_symbols() {
        let mut graph = Graph::new("count");
        let at = graph.add_input("at", ty(DType::I64, &[]));
        let x = graph.add_input("x", ty(DType::F32, &[]));
        let k = Expr::symbol("k");
        let count = Count { at, bound: Expr::from(9i64) };
        graph.symbols.insert("k".into(), symbol(SymbolSource::Count(count)));
        let node = graph.add_node(
            Op::Expand(vec![k.clone()]),
            vec![Some(x)],
            vec![Some(("y".into(), ty(DType::F32, &[k])))],
            Origin::default(),
        );
        if let Some(y) = graph.node(node).outputs[0] {
            graph.add_output("y", y);
        }
        let inputs = [Tensor::from_i64s(DType::I64, vec![], &[3]), Tensor::from_f64s(DType::F32, vec![], &[7.0])];
        assert_eq!(run(&graph, &inputs).unwrap()[0].to_f64s(), [7.0; 3]);
    }

    /// A region that combines its two captures.
    fn region(op: ScalarOp) -> Region {
        let mut graph = Graph::new("branch");
        let n = [Expr::symbol("n")];
        let a = graph.add_input("a", ty(DType::F32, &n));
        let b = graph.add_input("b", ty(DType::F32, &n));
        let node = graph.add_node(
            Op::Pointwise(Program::single(op, DType::F32, &[DType::F32; 2])),
            vec![Some(a), Some(b)],
            vec![Some(("r".into(), ty(DType::F32, &n)))],
            Origin::default(),
        );
        if let Some(r) = graph.node(node).outputs[0] {
            graph.add_output("r", r);
        }
        Region(Box::new(graph))
    }

    #[test]
    fn the_taken_branch_is_evaluated() {
        let mut graph = Graph::new("if");
        graph.symbols.insert("n".into(), symbol(SymbolSource::Input { input: 1, axis: 0 }));
        let n = [Expr::symbol("n")];
        let condition = graph.add_input("condition", ty(DType::Bool, &[]));
        let a = graph.add_input("a", ty(DType::F32, &n));
        let b = graph.add_input("b", ty(DType::F32, &n));
        let op = Op::If { then_region: region(ScalarOp::Add), else_region: region(ScalarOp::Sub) };
        let results = vec![Some(("y".into(), ty(DType::F32, &n)))];
        let node = graph.add_node(op, vec![Some(condition), Some(a), Some(b)], results, Origin::default());
        if let Some(y) = graph.node(node).outputs[0] {
            graph.add_output("y", y);
        }
        let run = |condition| {
            let condition = Tensor::from_i64s(DType::Bool, vec![], &[condition]);
            run(&graph, &[condition, f32s(&[5.0, 6.0]), f32s(&[1.0, 2.0])]).unwrap()[0].to_f64s()
        };
        assert_eq!((run(1), run(0)), (vec![6.0, 8.0], vec![4.0, 4.0]));
    }

    #[test]
    fn single_operations_fold() {
        let n = |name: &str| if name == "n" { 4 } else { -1 };
        let y = eval_node(&Op::Extents { values: vec![Expr::symbol("n"), Expr::from(2i64)], rank: 1 }, &[], &n);
        assert_eq!(y.unwrap()[0].to_i64s(), [4, 2]);
        let x = f32s(&[1.0, 2.0, 3.0, 4.0]);
        let reshape = Op::Reshape(vec![Expr::symbol("n").floor_div(&Expr::from(2i64)), Expr::from(2i64)]);
        assert_eq!(eval_node(&reshape, &[Some(&x)], &n).unwrap()[0].dims, [2, 2]);
        assert!(eval_node(&Op::Reshape(vec![Expr::from(3i64)]), &[Some(&x)], &n).is_err());
        assert_eq!(eval_node(&Op::Reduce(max()), &[], &n).unwrap_err(), "operand 0 is missing");
        assert!(eval_node(&Op::Expand(vec![Expr::symbol("m")]), &[Some(&x)], &n).is_err());
        let steps = vec![Instr::binary(ScalarOp::Add, DType::F32, Arg::Input(0), Arg::Step(3))];
        let broken = Program { inputs: vec![DType::F32], steps, outputs: vec![Arg::Step(0)] };
        assert!(eval_node(&Op::Pointwise(broken), &[Some(&x)], &n).is_err());
    }

    fn max() -> lapidary_runtime::op::Reduce {
        use lapidary_runtime::op::{Axes, Reduce, ReduceKind};
        Reduce { kind: ReduceKind::Max, axes: Axes::of([0]) }
    }
}
