//! Graphs in the attributes of nodes, imported in place or as a region with explicit captures.
//!
//! Contract: a region's inputs are its captures, in order; it declares no symbols. Whatever is wrong inside a graph has
//! been reported when importing it fails, so the fault is empty.

use std::collections::BTreeMap;

use lapidary_runtime::DType;
use lapidary_runtime::op::MAX_RANK;

use super::unsupported::Unsupported;
use super::{Frame, Importer, Item, ItemCx, Scope};
use crate::diag::{Diagnostics, quoted};
use crate::ir::{Builder, Expr, Graph, Op, Region, ValueId};
use crate::onnx::ops::{Fault, Items};
use crate::onnx::proto::type_proto::Value as Declared;
use crate::onnx::proto::{GraphProto, NodeProto, ValueInfoProto};

/// How often graphs in attributes are imported, over the whole model. Real models have some hundred; loops in loops,
/// each round of which is imported, would not end.
const MAX_BODIES: usize = 1 << 13;

/// A graph imported as a region: its graph, whose outputs are the tensors of its results; the values around it that are
/// its inputs, in order; and its results.
pub struct Captured {
    graph: Graph,
    captures: Vec<ValueId>,
    results: Vec<Item>,
    /// The ranks that the file states of the graph's outputs.
    declared: Vec<Option<usize>>,
}

impl Captured {
    /// Whether the results of two regions agree in everything but extents.
    pub fn same_kind(&self, other: &Captured) -> bool {
        let kinds = |captured: &Captured| -> Vec<(DType, usize)> {
            let graph = &captured.graph;
            let types = graph.outputs().iter().map(|(_, value)| graph.ty(*value));
            types.map(|ty| (ty.dtype, ty.dims.len())).collect()
        };
        kinds(self) == kinds(other)
    }
}

/// An import at some point: the graphs, what was found wrong, and what tells nodes apart.
pub struct Snapshot {
    graphs: Vec<Frame>,
    diagnostics: Diagnostics,
    unsupported: Unsupported,
    faults: usize,
    unnamed: usize,
    imported: u32,
    turns: BTreeMap<*const NodeProto, u32>,
}

impl<'m> ItemCx<'_, 'm> {
    /// Whether the node is in no graph but the model's.
    pub fn is_outermost(&self) -> bool {
        self.importer.graphs.len() == 1
    }

    /// How many nodes the graph around the node has so far.
    pub fn node_count(&mut self) -> usize {
        self.importer.graph().node_count()
    }

    /// Imports `proto` into the graph around it, as if its nodes stood there: for a branch that is always taken. The
    /// names in `bindings`, its inputs, stand for the given values.
    ///
    /// # Errors
    /// Empty diagnostics, as what is wrong has been reported.
    pub fn inline(&mut self, proto: &'m GraphProto, bindings: Vec<(&str, Item)>) -> Result<Vec<Item>, Fault> {
        let graph = self.importer.graphs.len() - 1;
        let names = bindings.into_iter().map(|(name, item)| (name.to_owned(), Some(item))).collect();
        self.importer.scopes.push(Scope::new(names, graph));
        let outputs = self.importer.body(proto);
        self.importer.scopes.pop();
        outputs
    }

    /// As [`Self::inline`], where operands and results are tensors.
    ///
    /// # Errors
    /// As there, and where a result is no tensor.
    pub fn inline_tensors(
        &mut self,
        proto: &'m GraphProto,
        bindings: &[(&str, ValueId)],
    ) -> Result<Vec<ValueId>, Fault> {
        let bindings = bindings.iter().map(|&(name, value)| (name, Item::Tensor(value))).collect();
        let results = self.inline(proto, bindings)?;
        results.into_iter().zip(&proto.output).map(|(item, info)| tensor(item, info.name())).collect()
    }

    /// Imports `proto` as a graph of its own.
    ///
    /// # Errors
    /// Empty diagnostics, as what is wrong has been reported.
    pub fn region(&mut self, proto: &'m GraphProto) -> Result<Captured, Fault> {
        let mut graph = Graph::new(proto.name());
        graph.symbols = self.importer.graph().symbols_inside();
        let index = self.importer.graphs.len();
        self.importer.graphs.push(Frame::new(graph));
        self.importer.scopes.push(Scope::new(BTreeMap::new(), index));
        let outputs = self.importer.body(proto);
        self.importer.scopes.pop();
        let Some(Frame { mut graph, inputs, .. }) = self.importer.graphs.pop() else {
            crate::bug!("a region's graph is gone")
        };
        let results = outputs?;
        let mut declared = Vec::new();
        for (info, item) in proto.output.iter().zip(&results) {
            for &value in item.values() {
                graph.add_output(info.name(), value);
                declared.push(declared_rank(info));
            }
        }
        graph.symbols.clear();
        Ok(Captured { graph, captures: inputs, results, declared })
    }

    /// The import as it is, for [`Self::restore`].
    pub fn snapshot(&self) -> Snapshot {
        let Importer { graphs, diagnostics, unsupported, faults, unnamed, imported, turns, .. } = &*self.importer;
        Snapshot {
            graphs: graphs.clone(),
            diagnostics: diagnostics.clone(),
            unsupported: unsupported.clone(),
            faults: *faults,
            unnamed: *unnamed,
            imported: *imported,
            turns: turns.clone(),
        }
    }

    /// Takes back what was added since a snapshot: regions that turned out not to be needed, what they captured, and
    /// what was wrong with them.
    pub fn restore(&mut self, snapshot: Snapshot) {
        let Snapshot { graphs, diagnostics, unsupported, faults, unnamed, imported, turns } = snapshot;
        let importer = &mut *self.importer;
        (importer.graphs, importer.diagnostics, importer.unsupported) = (graphs, diagnostics, unsupported);
        (importer.faults, importer.unnamed) = (faults, unnamed);
        (importer.imported, importer.turns) = (imported, turns);
    }

    /// Gives results of one element the rank that both branches state, where what they compute has two: exporters mix up
    /// `[]` and `[1]`, and it is the same number.
    fn settle_ranks(&self, then_region: &mut Captured, else_region: &mut Captured) -> Result<(), Fault> {
        for k in 0..then_region.graph.outputs().len().min(else_region.graph.outputs().len()) {
            let ranks = [&*then_region, &*else_region].map(|region| {
                let (_, value) = region.graph.outputs()[k];
                let ty = region.graph.ty(value);
                (ty.dims.len(), ty.count().is(1), region.declared[k])
            });
            let [(a, true, Some(stated)), (b, true, other)] = ranks else { continue };
            if a == b || other != Some(stated) || stated > MAX_RANK {
                continue;
            }
            for region in [&mut *then_region, &mut *else_region] {
                let (_, value) = region.graph.outputs()[k];
                let mut b = Builder::new(&mut region.graph, self.origin.clone(), self.name);
                let settled = b.reshape(value, vec![Expr::constant(1); stated])?;
                region.graph.set_output(k, settled);
            }
        }
        Ok(())
    }

    /// Refuses results whose extents differ for every shape; those that may be equal become constraints.
    fn check_extents(&mut self, then_region: &Captured, else_region: &Captured) -> Result<(), Fault> {
        let pairs = then_region.graph.outputs().iter().zip(else_region.graph.outputs()).enumerate();
        for (k, ((_, a), (_, b))) in pairs {
            let (a, b) = (then_region.graph.ty(*a), else_region.graph.ty(*b));
            if a.dims.len() != b.dims.len() {
                continue;
            }
            for (x, y) in a.dims.iter().zip(&b.dims) {
                let (low, high) = self.importer.graph().range(&(x.clone() - y.clone()));
                if low > 0 || high < 0 {
                    return Err(Fault::unsupported(
                        format!("output {k} of the branches has the extents {x} and {y}, which are never equal"),
                        "make both branches give one shape, such as by padding the smaller result",
                    ));
                }
            }
        }
        Ok(())
    }

    /// An `If` of two regions. Both get the captures of both, in one order.
    ///
    /// # Errors
    /// The branches' results do not agree.
    pub fn branch(&mut self, condition: ValueId, mut then_region: Captured, mut else_region: Captured) -> Items {
        if let Some(what) = different_structures(&then_region.results, &else_region.results) {
            let help = "make both branches give one number of elements, or make the condition a constant";
            return Err(self.open(condition, what, help));
        }
        self.settle_ranks(&mut then_region, &mut else_region)?;
        self.check_extents(&then_region, &else_region)?;
        let structure = then_region.results.clone();
        let mut captures = then_region.captures.clone();
        captures.extend(else_region.captures.iter().filter(|value| !then_region.captures.contains(value)));
        let regions = [then_region, else_region].map(|Captured { mut graph, captures: own, .. }| {
            let outer = self.importer.graph();
            let inputs = captures.iter().map(|value| match own.iter().position(|captured| captured == value) {
                Some(k) => graph.inputs()[k],
                None => {
                    let value = outer.value(*value);
                    graph.add_input(&value.name, value.ty.clone())
                }
            });
            let order: Vec<ValueId> = inputs.collect();
            graph.reorder_inputs(&order);
            Region(Box::new(graph))
        });
        let [then_region, else_region] = regions;
        let mut inputs = vec![Some(condition)];
        inputs.extend(captures.into_iter().map(Some));
        let wanted = structure.iter().map(|item| item.values().len()).sum();
        let values = self.builder().node_with(Op::If { then_region, else_region }, &inputs, wanted)?;
        let mut values = values.into_iter().flatten();
        let mut next = |_| values.next().unwrap_or_else(|| crate::bug!("an If has fewer results than its branches"));
        Ok(structure.into_iter().map(|item| Some(item.map(&mut next))).collect())
    }
}

/// Says which result of two branches is a sequence of another length, or absent, in one of them.
fn different_structures(then_results: &[Item], else_results: &[Item]) -> Option<String> {
    let what = |item: &Item| match item {
        Item::Tensor(_) => "a tensor".to_owned(),
        Item::Sequence(values) => format!("a sequence of {}", values.len()),
        Item::Absent => "absent".to_owned(),
    };
    then_results.iter().zip(else_results).enumerate().find_map(|(k, (a, b))| {
        let (a, b) = (what(a), what(b));
        (a != b).then(|| format!("output {k} of the branches is {a} in one and {b} in the other"))
    })
}

/// The tensor that an item is, which `name`, a result of a body, stands for.
pub(super) fn tensor(item: Item, name: &str) -> Result<ValueId, Fault> {
    let what = match item {
        Item::Tensor(value) => return Ok(value),
        Item::Sequence(_) => "a sequence",
        Item::Absent => "an absent optional value",
    };
    Err(Fault::Invalid(format!("the result {} of the body is {what}, and must be a tensor", quoted(name))))
}

/// The rank of an output's declared type.
pub(super) fn declared_rank(info: &ValueInfoProto) -> Option<usize> {
    match info.r#type.as_ref()?.value.as_ref()? {
        Declared::TensorType(tensor) => Some(tensor.shape.as_ref()?.dim.len()),
        _ => None,
    }
}

impl<'m> Importer<'m> {
    /// Imports the initializers, nodes and outputs of a graph in an attribute.
    pub(super) fn body(&mut self, proto: &'m GraphProto) -> Result<Vec<Item>, Fault> {
        self.bodies += 1;
        if self.bodies > MAX_BODIES {
            return Err(Fault::unsupported(
                format!("its loops and branches are more than {MAX_BODIES} graphs, one in the other"),
                "nest fewer loops, or run them in the application",
            ));
        }
        let before = self.faults;
        self.initializers(proto);
        self.nodes(proto);
        let outputs = self.outputs(proto);
        if self.faults > before || outputs.len() != proto.output.len() {
            return Err(Fault::Attribute(Diagnostics::new()));
        }
        Ok(outputs.into_iter().map(|(_, item)| item).collect())
    }
}
