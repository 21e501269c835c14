//! Nodes with graphs in their attributes: what their importers see, and how such a graph is imported, in place or as a
//! region with explicit captures.
//!
//! Contract: a region's inputs are its captures, in order; it declares no symbols. Whatever is wrong inside a graph has
//! been reported when importing it fails, so the fault is empty.

use std::collections::BTreeMap;

use lapidary_runtime::DType;

use super::{Frame, Importer, Scope};
use crate::diag::Diagnostics;
use crate::ir::{Builder, Graph, Op, Origin, Region, ValueId};
use crate::onnx::attrs::Attrs;
use crate::onnx::ops::{Fault, Imported};
use crate::onnx::proto::GraphProto;

/// A node with graphs in its attributes, while it is imported.
pub struct Regions<'i, 'm> {
    pub(super) importer: &'i mut Importer<'m>,
    pub attrs: Attrs<'m>,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) wanted: Vec<bool>,
    pub(super) origin: Origin,
    pub(super) name: &'m str,
}

/// A graph imported as a region: its graph, and the values around it that are its inputs, in order.
pub struct Captured {
    graph: Graph,
    captures: Vec<ValueId>,
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

/// The graphs as they were at some point of an import.
pub struct Snapshot(Vec<Frame>);

impl<'m> Regions<'_, 'm> {
    /// Composes operations beside the node.
    pub fn builder(&mut self) -> Builder<'_> {
        let origin = self.origin.clone();
        Builder::new(self.importer.graph(), origin, self.name)
    }

    /// Operand `k`, which must be there.
    ///
    /// # Errors
    /// One sentence, if it is absent.
    pub fn input(&self, k: usize) -> std::result::Result<ValueId, Fault> {
        self.inputs.get(k).copied().flatten().ok_or_else(|| Fault::Invalid(format!("operand {k} is missing")))
    }

    /// How many results the node lists.
    pub fn output_count(&self) -> usize {
        self.wanted.len()
    }

    /// Operand `k`, where it is there.
    pub fn optional(&self, k: usize) -> Option<ValueId> {
        self.inputs.get(k).copied().flatten()
    }

    /// How many operands the node lists, absent ones among them.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
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
    pub fn inline(&mut self, proto: &'m GraphProto, bindings: &[(&str, ValueId)]) -> Imported {
        let graph = self.importer.graphs.len() - 1;
        let names = bindings.iter().map(|&(name, value)| (name.to_owned(), Some(value))).collect();
        self.importer.scopes.push(Scope::new(names, graph));
        let outputs = self.importer.body(proto);
        self.importer.scopes.pop();
        outputs
    }

    /// Imports `proto` as a graph of its own.
    ///
    /// # Errors
    /// Empty diagnostics, as what is wrong has been reported.
    pub fn region(&mut self, proto: &'m GraphProto) -> std::result::Result<Captured, Fault> {
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
        for (info, value) in proto.output.iter().zip(outputs?) {
            let Some(value) = value else { crate::bug!("a region's output has no value") };
            graph.add_output(info.name(), value);
        }
        graph.symbols.clear();
        Ok(Captured { graph, captures: inputs })
    }

    /// The graphs as they are, for [`Self::restore`].
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.importer.graphs.clone())
    }

    /// Takes back what was added to the graphs since a snapshot: regions that turned out not to be needed, and what
    /// they captured.
    pub fn restore(&mut self, snapshot: Snapshot) {
        self.importer.graphs = snapshot.0;
    }

    /// Refuses results whose extents differ for every shape; those that may be equal become constraints.
    fn check_extents(&mut self, then_region: &Captured, else_region: &Captured) -> std::result::Result<(), Fault> {
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
    pub fn branch(&mut self, condition: ValueId, then_region: Captured, else_region: Captured) -> Imported {
        self.check_extents(&then_region, &else_region)?;
        let mut captures = then_region.captures.clone();
        captures.extend(else_region.captures.iter().filter(|value| !then_region.captures.contains(value)));
        let regions = [then_region, else_region].map(|Captured { mut graph, captures: own }| {
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
        let wanted = self.output_count();
        Ok(self.builder().node_with(Op::If { then_region, else_region }, &inputs, wanted)?)
    }
}

impl<'m> Importer<'m> {
    /// Imports the initializers, nodes and outputs of a graph in an attribute.
    fn body(&mut self, proto: &'m GraphProto) -> Imported {
        let before = self.faults;
        self.initializers(proto);
        self.nodes(proto);
        let outputs = self.outputs(proto);
        if self.faults > before || outputs.len() != proto.output.len() {
            return Err(Fault::Attribute(Diagnostics::new()));
        }
        Ok(outputs.into_iter().map(|(_, value)| Some(value)).collect())
    }
}
