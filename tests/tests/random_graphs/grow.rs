//! From a [`Recipe`] to a graph: its symbols, inputs, steps and outputs.
//!
//! Contract: every recipe gives a graph that the verifier accepts. A step reads values that are there; what the typed
//! builder refuses is left out. The kinds of steps are in the modules below, one function each.

mod attended;
mod compute;
mod counted;
mod counting;
mod dense;
mod index;
mod movement;
mod quantized;
mod region;
mod reordered;
mod spelled;

use lapidary::ir::builder::Builder;
use lapidary::ir::{Expr, Graph, Origin, Range, Symbol, SymbolSource, Type, ValueId};
use lapidary_runtime::DType;

use super::data::{self, Numbers};
use super::recipe::{Choices, Recipe, Words};

/// The largest number of elements that a value may have at its largest shape and be read by later steps.
const MAX_ELEMENTS: i64 = 1500;

/// The most outputs of a graph.
const MAX_OUTPUTS: usize = 8;

const TYPES: &[DType] = &[
    DType::F32,
    DType::F32,
    DType::F32,
    DType::F32,
    DType::F32,
    DType::F32,
    DType::I64,
    DType::I32,
    DType::Bool,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::U32,
    DType::U64,
];

/// Grows the graph of a recipe.
pub fn grow(recipe: &Recipe) -> Graph {
    let mut graph = Graph::new("random");
    let ranges = ranges(&recipe.symbols);
    let mut pool = Vec::new();
    for (k, words) in recipe.inputs.iter().enumerate() {
        let dims = input_dims(&mut Choices::new(&words[1..]));
        for (axis, dim) in dims.iter().enumerate() {
            let Some(name) = dim.as_symbol() else { continue };
            let which = usize::from(name == "m");
            let symbol = Symbol { source: SymbolSource::Input { input: k, axis }, ranges: ranges[which].clone() };
            graph.symbols.entry(name.into()).or_insert(symbol);
        }
        let dtype = Choices::new(words).pick(TYPES);
        pool.push(graph.add_input(&format!("x{k}"), Type { dtype, dims }));
    }
    for (k, step) in recipe.steps.iter().enumerate() {
        let mut grower = Grower { graph: &mut graph, pool: &mut pool, name: format!("s{k}"), outermost: true };
        grower.step(&step.words, Some(&step.inner));
    }
    let unused: Vec<ValueId> =
        pool.iter().rev().copied().filter(|&v| graph.producer(v).is_some() && graph.uses(v).is_empty()).collect();
    let mut outputs: Vec<ValueId> = unused.into_iter().take(MAX_OUTPUTS).collect();
    // Also a value that is used inside, or an input given out again.
    let extra = pool[usize::from(recipe.data) % pool.len()];
    if outputs.is_empty() || (recipe.data.is_multiple_of(3) && !outputs.contains(&extra)) {
        outputs.push(extra);
    }
    for (k, output) in outputs.into_iter().enumerate() {
        graph.add_output(&format!("y{k}"), output);
    }
    graph
}

/// The ranges of `n` and `m`, one a profile.
fn ranges(words: &Words) -> [Vec<Range>; 2] {
    let mut choices = Choices::new(words);
    let two = choices.once_in(4);
    [(); 2].map(|()| {
        let min = choices.pick(&[1, 2, 1, 3, 0]);
        let max = min + choices.between(0, 4);
        let mut ranges = vec![Range { min, opt: choices.between(min, max), max }];
        if two {
            ranges.push(Range { min: max + 1, opt: max + 1, max: max + 3 });
        }
        ranges
    })
}

fn input_dims(choices: &mut Choices<'_>) -> Vec<Expr> {
    let rank = choices.pick(&[3, 4, 2, 1, 4, 3, 0]);
    let mut dims = Vec::new();
    for axis in 0..rank {
        dims.push(match (axis, choices.below(8)) {
            (0, 0..5) => Expr::symbol("n"),
            (1.., 0) => Expr::symbol("m"),
            (_, extent) => Expr::constant(extent.clamp(1, 6) as i64),
        });
    }
    dims
}

/// Adds steps to a graph or to a region.
struct Grower<'g> {
    graph: &'g mut Graph,
    /// What steps may read.
    pool: &'g mut Vec<ValueId>,
    name: String,
    /// Whether this is the graph itself, and no region.
    outermost: bool,
}

/// What a step adds, or why it does not fit.
type Grown = Result<Vec<ValueId>, String>;

type Kind = fn(&mut Grower<'_>, &mut Choices<'_>) -> Grown;

/// Every kind of step; those of more than one line are likelier.
const KINDS: &[Kind] = &[
    compute::unary,
    compute::unary,
    compute::binary,
    compute::binary,
    compute::binary,
    compute::select,
    compute::cast,
    compute::chain,
    compute::reduce,
    compute::reduce,
    compute::arg_reduce,
    compute::softmax,
    compute::norm,
    compute::group_norm,
    compute::cum_sum,
    compute::top_k,
    dense::matmul,
    dense::matmul,
    dense::conv,
    dense::conv,
    dense::conv_transpose,
    dense::pool,
    dense::recurrent,
    dense::region_pool,
    movement::transpose,
    movement::transpose,
    movement::reshape,
    movement::reshape,
    movement::expand,
    movement::slice,
    movement::concat,
    movement::pad,
    movement::resize,
    movement::range,
    movement::extents,
    movement::bit_cast,
    movement::stored,
    counted::front,
    movement::run_count,
    index::gather,
    index::gather_elements,
    index::gather_nd,
    index::gather_nd_in_batches,
    counting::counting,
    index::scatter_elements,
    index::scatter_nd,
    attended::attention,
    attended::attention,
    spelled::norm,
    spelled::norm,
    spelled::group_norm,
    spelled::softmax,
    spelled::reduction,
    spelled::transpose_view,
    spelled::linear,
    quantized::matmul,
    quantized::matmul,
    quantized::conv,
    reordered::reordered,
];

impl Grower<'_> {
    /// One step; what does not fit changes nothing that is read.
    fn step(&mut self, words: &Words, inner: Option<&[Vec<Words>; 2]>) {
        let mut choices = Choices::new(words);
        let kind = choices.below(KINDS.len() + 2);
        let grown = match (KINDS.get(kind), inner) {
            (Some(kind), _) => kind(self, &mut choices),
            (None, Some(inner)) => region::region_op(self, &mut choices, inner),
            (None, None) => compute::binary(self, &mut choices),
        };
        let Ok(values) = grown else { return };
        for value in values {
            let dims = &self.graph.ty(value).dims;
            let count = dims.iter().fold(1i64, |count, dim| count.saturating_mul(self.graph.range(dim).1.max(1)));
            if count <= MAX_ELEMENTS && !self.pool.contains(&value) {
                self.pool.push(value);
            }
        }
    }

    fn builder(&mut self) -> Builder<'_> {
        let origin = Origin(vec![self.name.as_str().into()]);
        Builder::new(self.graph, origin, &self.name)
    }

    fn ty(&self, value: ValueId) -> Type {
        self.graph.ty(value).clone()
    }

    fn rank(&self, value: ValueId) -> usize {
        self.graph.ty(value).dims.len()
    }

    fn dtype(&self, value: ValueId) -> DType {
        self.graph.ty(value).dtype
    }

    /// A value of the pool for which `fits` holds, a late one more often.
    fn value(&self, choices: &mut Choices<'_>, fits: impl Fn(&Type) -> bool) -> Result<ValueId, String> {
        let found: Vec<ValueId> = self.pool.iter().copied().filter(|&value| fits(self.graph.ty(value))).collect();
        let late = choices.below(3) > 0;
        let from = if late { found.len().saturating_sub(3) } else { 0 };
        let at = from + choices.below(found.len() - from);
        found.get(at).copied().ok_or_else(|| "no value fits".to_owned())
    }

    /// A float tensor of at least `rank` axes: some value, cast and with axes put in where it must be.
    fn floats(&mut self, choices: &mut Choices<'_>, rank: usize) -> Result<ValueId, String> {
        let fits = |ty: &Type| ty.dims.len() >= rank && ty.dtype.is_float();
        let x = match self.value(choices, fits) {
            Ok(x) => x,
            Err(_) => self.value(choices, |ty| ty.dtype != DType::Bool)?,
        };
        let mut b = self.builder();
        let x = if b.dtype(x).is_float() { x } else { b.cast(x, DType::F32)? };
        b.append_axes(x, rank)
    }

    /// A constant of seeded elements.
    fn constant(&mut self, dtype: DType, dims: &[i64], choices: &mut Choices<'_>) -> ValueId {
        let numbers = if choices.once_in(3) { Numbers::Grid } else { Numbers::Smooth };
        let extents: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
        let tensor = data::tensor(dtype, extents, numbers, choices.seed());
        let ty = Type { dtype, dims: dims.iter().map(|&dim| Expr::constant(dim)).collect() };
        self.builder().constant(ty, tensor.bytes)
    }

    /// A constant of seeded elements between 1/2 and 5/2 in steps of 1/4, of which some are negative.
    fn nonzero(&mut self, dtype: DType, dims: &[i64], choices: &mut Choices<'_>) -> ValueId {
        let mut random = data::Random::new(choices.seed());
        let extents: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
        let quarters = |random: &mut data::Random| (random.below(9) as f64 + 2.0) / 4.0;
        let mut value = || quarters(&mut random) * if random.below(3) == 0 { -1.0 } else { 1.0 };
        let values: Vec<f64> = (0..extents.iter().product()).map(|_| value()).collect();
        let tensor = lapidary::ir::eval::Tensor::from_f64s(dtype, extents, &values);
        let ty = Type { dtype, dims: dims.iter().map(|&dim| Expr::constant(dim)).collect() };
        self.builder().constant(ty, tensor.bytes)
    }

    /// A constant of indices.
    fn indices(&mut self, dtype: DType, dims: &[i64], values: &[i64]) -> ValueId {
        let extents: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
        let tensor = lapidary::ir::eval::Tensor::from_i64s(dtype, extents, values);
        let ty = Type { dtype, dims: dims.iter().map(|&dim| Expr::constant(dim)).collect() };
        self.builder().constant(ty, tensor.bytes)
    }

    /// Another operand for `x`, which broadcasts with it: a value of its type, or a constant.
    fn partner(&mut self, x: ValueId, choices: &mut Choices<'_>) -> Result<ValueId, String> {
        let ty = self.ty(x);
        let how = choices.below(16);
        if how == 15 {
            // The extents may disagree, for some shapes or for all.
            return self.value(choices, |other| other.dtype == ty.dtype);
        }
        if how < 9 {
            let fits = |other: &Type| other.dtype == ty.dtype && broadcasts(&other.dims, &ty.dims);
            return self.value(choices, fits);
        }
        let lead = choices.below(ty.dims.len() + 1);
        let mut extents = Vec::new();
        for dim in &ty.dims[lead..] {
            let extent = dim.as_const().unwrap_or(1);
            extents.push(if choices.below(3) == 0 { 1 } else { extent });
        }
        Ok(self.constant(ty.dtype, &extents, choices))
    }

    /// `x`, a float value with a constant extent on axis 1, as `[n, c, spatial..]`.
    fn image(&mut self, choices: &mut Choices<'_>) -> Result<(ValueId, i64), String> {
        let x = self.floats(choices, 3)?;
        let dims = self.ty(x).dims;
        let channels = dims[1].as_const().filter(|&c| c > 0).ok_or("the channels are not constant")?;
        if dims.len() > 5 {
            return Err("too many axes".to_owned());
        }
        Ok((x, channels))
    }
}

/// Whether extents are equal or 1, axis by axis from the last.
fn broadcasts(a: &[Expr], b: &[Expr]) -> bool {
    a.iter().rev().zip(b.iter().rev()).all(|(a, b)| a == b || a.is(1) || b.is(1))
}
