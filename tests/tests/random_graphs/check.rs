//! What must hold of every graph, and of what is made from it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lapidary::ir::eval::{self, Tensor};
use lapidary::ir::ops::Region;
use lapidary::ir::{Constraint, ConstraintKind, Graph, text, verify};
use lapidary::lower::Target;
use lapidary::passes;
use lapidary_runtime::{DType, Error};
use lapidary_templates::Arch;

use super::data::{self, Numbers, Random};
use super::judge::{self, Expected};
use super::recipe::Recipe;
use super::{grow, session};

/// A property that does not hold.
pub struct Failure {
    pub property: &'static str,
    pub why: String,
}

/// The passes behind which sums and products are formed in another order, or rounded less often. Products on integers are
/// exact where the numbers' products and their sums were rounded, and biases join them; all else that is quantized keeps
/// every bit.
const ROUNDING: &[&str] = &[
    "conv-affine",
    "reduction",
    "norm",
    "norm-operand",
    "group-norm",
    "softmax",
    "quantized-product",
    "quantized-bias",
    "attention",
    "norm-epilogue",
];

/// What was seen, to show that the properties are not held by graphs of nothing.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub graphs: usize,
    pub nodes: usize,
    /// How often each pass fired.
    pub firings: BTreeMap<&'static str, usize>,
    /// How many neighbours the rules looked at and left apart, by the reason's name.
    pub near_misses: BTreeMap<&'static str, usize>,
    /// Runs compared, and those that the constraints or the evaluator refused.
    pub runs: usize,
    pub refused: usize,
    /// Graphs that each of the GPU architectures has kernels for.
    pub on_cuda: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.graphs += other.graphs;
        self.nodes += other.nodes;
        for (pass, count) in other.firings {
            *self.firings.entry(pass).or_default() += count;
        }
        for (reason, count) in other.near_misses {
            *self.near_misses.entry(reason).or_default() += count;
        }
        self.runs += other.runs;
        self.refused += other.refused;
        self.on_cuda += other.on_cuda;
    }
}

/// Checks all properties of a recipe's graph; on a GPU too, where there is one. A panic is a failure.
pub fn check(recipe: &Recipe, gpu: Option<Arch>) -> Result<Tally, Failure> {
    let caught = catch_unwind(AssertUnwindSafe(|| check_graph(&grow::grow(recipe), recipe, gpu)));
    caught.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure { property: "nothing panics", why: text.unwrap_or_default() })
    })
}

fn check_graph(graph: &Graph, recipe: &Recipe, gpu: Option<Arch>) -> Result<Tally, Failure> {
    let fail = |property: &'static str| move |why: String| Failure { property, why };
    verified(graph).map_err(fail("the builder's graph verifies"))?;
    text_holds(graph).map_err(fail("the text form round-trips"))?;
    let (optimized, report) = passes::run(graph.clone());
    each_pass(graph).map_err(fail("every pass leaves a graph that verifies"))?;
    verified(&optimized).map_err(fail("the optimized graph verifies"))?;
    text_holds(&optimized).map_err(fail("the optimized text form round-trips"))?;

    let runs = inputs(graph, recipe);
    let expected: Vec<Expected> = runs.iter().map(|inputs| judge::expected(graph, inputs)).collect();
    let bits = !has_narrow_floats(graph) && ROUNDING.iter().all(|pass| report.count(pass) == 0);
    for (inputs, expected) in runs.iter().zip(&expected) {
        if let Err(why) = same_values(graph, &optimized, inputs, expected, bits) {
            let culprit = culprit(graph, inputs, expected, bits);
            return Err(Failure { property: "passes keep the values", why: format!("{why}; first behind {culprit}") });
        }
    }
    for (name, graph_to_run) in [("cpu", graph), ("cpu, optimized", &optimized)] {
        let on_cpu = on_target(graph, graph_to_run, Target::Cpu, &runs, &expected);
        on_cpu
            .map_err(|why| Failure { property: "cpu gives what the reference gives", why: format!("{name}: {why}") })?;
    }
    let mut on_cuda = 1;
    for arch in ["sm_80", "sm_90a"] {
        let target: Target = arch.parse().map_err(fail("architectures parse"))?;
        match lapidary::plan_for(&optimized, target) {
            Ok(_) => {}
            Err(errors) if errors.iter().all(|error| error.code == "E0501") => on_cuda = 0,
            Err(errors) => return Err(Failure { property: "a clean E0501", why: errors.to_string() }),
        }
    }
    if let Some(arch) = gpu.filter(|_| on_cuda == 1) {
        let same = on_target(graph, &optimized, Target::Cuda(arch), &runs, &expected);
        same.map_err(fail("cuda gives what the reference gives"))?;
    }
    let refused = expected.iter().filter(|expected| matches!(expected, Expected::Refused(_))).count();
    let mut firings = BTreeMap::new();
    for firing in &report.firings {
        *firings.entry(firing.pass).or_default() += 1;
    }
    let mut near_misses = BTreeMap::new();
    for apart in &report.apart {
        *near_misses.entry(apart.reason.id()).or_default() += 1;
    }
    let nodes = graph.node_count();
    Ok(Tally { graphs: 1, nodes, firings, near_misses, runs: runs.len(), refused, on_cuda })
}

fn verified(graph: &Graph) -> Result<(), String> {
    verify::verify(graph).map_err(|errors| errors.join("; "))
}

fn text_holds(graph: &Graph) -> Result<(), String> {
    let printed = text::print(graph);
    let constants = text::named_constants(graph);
    let read = text::parse(&printed, &|name| constants.get(name).cloned())?;
    verified(&read)?;
    let again = text::print(&read);
    if again == printed { Ok(()) } else { Err(format!("it reads back as\n{again}")) }
}

fn each_pass(graph: &Graph) -> Result<(), String> {
    let mut graph = graph.clone();
    for pass in passes::PIPELINE {
        graph = passes::run_only(pass.name, graph).0;
        verified(&graph).map_err(|why| format!("{}: {why}", pass.name))?;
    }
    Ok(())
}

/// The first pass behind which the values differ.
fn culprit(graph: &Graph, inputs: &[Tensor], expected: &Expected, bits: bool) -> &'static str {
    let mut after = graph.clone();
    for pass in passes::PIPELINE {
        after = passes::run_only(pass.name, after).0;
        if same_values(graph, &after, inputs, expected, bits).is_err() {
            return pass.name;
        }
    }
    "all of them together"
}

fn same_values(graph: &Graph, other: &Graph, inputs: &[Tensor], expected: &Expected, bits: bool) -> Result<(), String> {
    match (expected, eval::run(other, inputs)) {
        (Expected::Refused(_), Err(_)) => Ok(()),
        // What is not read is not computed, so that it refuses nothing.
        (Expected::Refused(_), Ok(_)) => Ok(()),
        (Expected::Numbers { .. }, Err(error)) => Err(error.to_string()),
        (Expected::Numbers { outputs, .. }, Ok(given)) => {
            let exact = if bits { judge::bit_difference(graph, outputs, &given) } else { None };
            exact.or_else(|| judge::difference(graph, inputs, expected, &given)).map_or(Ok(()), Err)
        }
    }
}

/// Whether the target gives what the graph's evaluation gives, in one session.
fn on_target(
    graph: &Graph,
    to_run: &Graph,
    target: Target,
    runs: &[Vec<Tensor>],
    expected: &[Expected],
) -> Result<(), String> {
    let outcomes = session::run(to_run, target, runs)?;
    for (k, ((inputs, expected), outcome)) in runs.iter().zip(expected).zip(outcomes).enumerate() {
        let dims: Vec<&[usize]> = inputs.iter().map(|x| &x.dims[..]).collect();
        let broken =
            graph.constraints.iter().find(|constraint| !counts(constraint, graph) && !holds(constraint, graph, inputs));
        let why = match (outcome, expected) {
            (Err(Error::Constraint { .. }), _) if broken.is_some() || breaks_inside(graph, graph, inputs) => continue,
            (Ok(_), Expected::Refused(why)) if broken.is_none() && to_run.node_count() == graph.node_count() => {
                format!("it ran, and the reference refused: {why}")
            }
            (Ok(_), Expected::Refused(_)) if broken.is_none() => continue,
            (Err(_), Expected::Refused(_)) => continue,
            (_, _) if broken.is_some() => format!("the constraint of {:?} does not hold, and it ran", broken),
            (Err(error), Expected::Numbers { .. }) => error.to_string(),
            (Ok(given), _) => match judge::difference(graph, inputs, expected, &given) {
                Some(why) => why,
                None => continue,
            },
        };
        return Err(format!("run {k} with inputs of {dims:?}: {why}"));
    }
    Ok(())
}

/// Whether a constraint of a region does not hold; it matters where the region is taken.
fn breaks_inside(graph: &Graph, outer: &Graph, inputs: &[Tensor]) -> bool {
    let broken = |region: &Region| {
        region.0.constraints.iter().any(|constraint| !holds(constraint, outer, inputs))
            || breaks_inside(&region.0, outer, inputs)
    };
    graph.order().into_iter().any(|id| graph.node(id).op.regions().iter().any(|(_, region)| broken(region)))
}

/// Whether a constraint is about what only a run knows; the evaluator judges that.
fn counts(constraint: &Constraint, graph: &Graph) -> bool {
    let symbols = constraint.left.symbols().into_iter().chain(constraint.right.symbols());
    symbols.into_iter().any(|name| graph.symbols.get(&name).is_some_and(|symbol| !symbol.is_of_input()))
}

fn holds(constraint: &Constraint, graph: &Graph, inputs: &[Tensor]) -> bool {
    let symbol = |name: &str| match graph.symbols[name].source {
        lapidary::ir::SymbolSource::Input { input, axis } => inputs[input].dims[axis] as i64,
        lapidary::ir::SymbolSource::Count(_) | lapidary::ir::SymbolSource::Outer => 0,
    };
    let (left, right) = (constraint.left.eval(&symbol), constraint.right.eval(&symbol));
    match constraint.kind {
        ConstraintKind::Equal => left == right,
        ConstraintKind::Broadcast => left == right || left == 1 || right == 1,
    }
}

/// Inputs for the smallest and the largest shapes of a profile and for one between, one of them twice.
fn inputs(graph: &Graph, recipe: &Recipe) -> Vec<Vec<Tensor>> {
    let mut random = Random::new(u64::from(recipe.data) + 1);
    let profiles = graph.profile_count();
    (0..4)
        .map(|run| {
            let profile = random.below(profiles);
            let values: Vec<(&str, i64)> = graph
                .symbols
                .iter()
                .map(|(name, symbol)| {
                    let range = symbol.ranges[profile];
                    let value = match run {
                        0 => range.max,
                        1 => range.min,
                        _ => range.min + random.below((range.max - range.min + 1) as usize) as i64,
                    };
                    (&**name, value)
                })
                .collect();
            let numbers = match random.below(8) {
                0 => Numbers::Special,
                1 | 2 => Numbers::Grid,
                _ => Numbers::Smooth,
            };
            let tensor = |&input: &lapidary::ir::ValueId| {
                let ty = graph.ty(input);
                let symbol =
                    |name: &str| values.iter().find(|(other, _)| *other == name).map_or(0, |(_, value)| *value);
                let dims = ty.dims.iter().map(|dim| dim.eval(&symbol) as usize).collect();
                data::tensor(ty.dtype, dims, numbers, random.clone().bits() ^ input.index() as u64)
            };
            let tensors = graph.inputs().iter().map(tensor).collect();
            random.bits();
            tensors
        })
        .collect()
}

/// Whether a type narrower than `f32` is rounded to somewhere, which fused programs do less often.
fn has_narrow_floats(graph: &Graph) -> bool {
    let narrow = |dtype: DType| dtype.is_float() && dtype.bits() < 32;
    graph.value_ids().any(|value| narrow(graph.ty(value).dtype))
        || graph
            .order()
            .into_iter()
            .any(|id| graph.node(id).op.regions().iter().any(|(_, region)| has_narrow_floats(&region.0)))
}
