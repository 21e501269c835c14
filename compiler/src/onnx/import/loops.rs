//! The body of a loop as a region: what changes from round to round are inputs of its own, before the captures.
//!
//! Contract: while the body is imported the number of the round is a symbol, so that a counter has a formula. Behind the
//! import no formula of the region reads it, or the body is of no use.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::regions::{declared_rank, tensor};
use super::{Frame, Item, ItemCx, Scope};
use crate::ir::ops::extents_of;
use crate::ir::{
    Builder, Constant, Expr, Graph, Known, Op, Origin, Range, Region, Symbol, SymbolSource, Type, ValueId,
};
use crate::onnx::ops::{Fault, Imported};
use crate::onnx::proto::{GraphProto, ValueInfoProto};

/// What a body takes.
pub struct Takes<'a> {
    /// The name of the number of the round.
    pub round: &'a str,
    /// The name of the condition, which is true while the body runs.
    pub condition: &'a str,
    /// Names that stand for one value in all rounds.
    pub fixed: Vec<(&'a str, ValueId)>,
    pub carried: Vec<Carried<'a>>,
    /// The largest number that a round can have, where the round is to be followed.
    pub last: Option<i64>,
}

/// A value that changes from round to round.
pub struct Carried<'a> {
    pub name: &'a str,
    pub ty: Type,
    /// What it counts from, if it is taken to count the rounds.
    pub counts_from: Option<i64>,
}

/// A body that was imported.
pub struct Body {
    pub graph: Graph,
    captures: Vec<ValueId>,
    /// The values of its outputs.
    pub results: Vec<ValueId>,
    /// The symbol of the round.
    pub round: Arc<str>,
}

impl Body {
    /// A copy, to try [`Self::settle`] on.
    pub fn trial(&self) -> Body {
        let Body { graph, captures, results, round } = self;
        Body { graph: graph.clone(), captures: captures.clone(), results: results.clone(), round: round.clone() }
    }

    /// Whether a formula in the region, other than what is merely known of a value, reads the round.
    fn reads_round(&self, graph: &Graph) -> bool {
        let reads = |expr: &Expr| expr.symbols().contains(&self.round);
        let of_type = |value: &ValueId| graph.ty(*value).dims.iter().any(reads);
        graph.inputs().iter().any(of_type)
            || graph.constraints.iter().any(|constraint| reads(&constraint.left) || reads(&constraint.right))
            || graph.order().into_iter().any(|id| {
                let node = graph.node(id);
                node.outputs.iter().flatten().any(of_type)
                    || extents_of(&node.op).into_iter().any(reads)
                    || node.op.regions().iter().any(|(_, region)| self.reads_round(&region.0))
            })
    }

    /// Keeps the outputs `kept`, by number and in that order, drops what only the others need, and forgets the round.
    /// `false` if the region would not be right without it.
    pub fn settle(&mut self, kept: &[usize]) -> bool {
        for &k in kept {
            let value = self.results[k];
            let name = self.graph.value(value).name.to_string();
            self.graph.add_output(&name, value);
        }
        self.graph.symbols.clear();
        self.graph.remove_dead();
        let round = self.round.clone();
        self.graph.forget(&round);
        !self.reads_round(&self.graph)
    }

    /// What is known of output `k`'s one element.
    pub fn known(&self, k: usize) -> Option<&Expr> {
        match self.graph.value(self.results[k]).known.as_ref()?.0.as_slice() {
            [element] => Some(element),
            _ => None,
        }
    }

    /// Gives output `k`, of one element, the rank of what it is carried from, where the file states that rank: exporters
    /// mix up `[]` and `[1]`.
    pub fn settle_rank(&mut self, k: usize, first: &Type, declared: &ValueInfoProto) -> Result<(), Fault> {
        let ty = self.graph.ty(self.results[k]);
        let rank = first.dims.len();
        if ty.dims.len() == rank || !ty.count().is(1) || !first.count().is(1) || declared_rank(declared) != Some(rank) {
            return Ok(());
        }
        let name = self.graph.value(self.results[k]).name.clone();
        let mut b = Builder::new(&mut self.graph, Origin::default(), &name);
        self.results[k] = b.reshape(self.results[k], vec![Expr::constant(1); rank])?;
        Ok(())
    }

    /// Adds an input behind the carried values, for one that the body gives and does not read.
    pub fn add_carried(&mut self, name: &str, ty: Type) {
        let carried = self.graph.add_input(name, ty);
        let mut order = self.graph.inputs().to_vec();
        order.pop();
        order.insert(order.len() - self.captures.len(), carried);
        self.graph.reorder_inputs(&order);
    }
}

impl<'m> ItemCx<'_, 'm> {
    /// Imports the body of a loop.
    ///
    /// # Errors
    /// Empty diagnostics where what is wrong has been reported; a result is no tensor.
    pub fn body(&mut self, proto: &'m GraphProto, takes: &Takes<'_>) -> Result<Body, Fault> {
        let mut graph = Graph::new(proto.name());
        graph.symbols = self.importer.graph().symbols_inside();
        let mut round = format!("{}.round", self.name);
        while graph.symbols.contains_key(round.as_str()) {
            round.push('\'');
        }
        let round: Arc<str> = round.into();
        let number = graph.add_input(takes.round, Type { dtype: lapidary_runtime::DType::I64, dims: Vec::new() });
        let mut names = BTreeMap::from([(takes.round.to_owned(), Some(Item::Tensor(number)))]);
        if let Some(last) = takes.last {
            let ranges = vec![Range { min: 0, opt: 0, max: last }; self.importer.graph().profile_count()];
            // It has no source: nothing that is left reads it.
            graph.symbols.insert(round.clone(), Symbol { source: SymbolSource::Outer, ranges });
            graph.set_known(number, Known(vec![Expr::symbol(&round)]));
        }
        let always = Type { dtype: lapidary_runtime::DType::Bool, dims: Vec::new() };
        let always = graph.add_constant(takes.condition, always, Constant { bytes: vec![1].into(), initializer: None });
        names.insert(takes.condition.to_owned(), Some(Item::Tensor(always)));
        for carried in &takes.carried {
            let value = graph.add_input(carried.name, carried.ty.clone());
            if let Some(first) = carried.counts_from {
                graph.set_known(value, Known(vec![Expr::constant(first) + Expr::symbol(&round)]));
            }
            names.insert(carried.name.to_owned(), Some(Item::Tensor(value)));
        }
        let index = self.importer.graphs.len();
        let fixed = takes.fixed.iter().map(|&(name, value)| (name.to_owned(), Some(Item::Tensor(value)))).collect();
        self.importer.scopes.push(Scope::new(fixed, index - 1));
        self.importer.graphs.push(Frame { repeats: true, ..Frame::new(graph) });
        self.importer.scopes.push(Scope::new(names, index));
        let outputs = self.importer.body(proto);
        self.importer.scopes.pop();
        self.importer.scopes.pop();
        let Some(Frame { graph, inputs, .. }) = self.importer.graphs.pop() else {
            crate::bug!("a loop's body is gone")
        };
        let outputs = outputs?.into_iter().zip(&proto.output);
        let results = outputs.map(|(item, info)| tensor(item, info.name())).collect::<Result<_, _>>()?;
        Ok(Body { graph, captures: inputs, results, round })
    }

    /// The loop of a body that was settled. `limit` and `start` are operands; `first` are the values to start from.
    ///
    /// # Errors
    /// What the loop carries does not fit.
    pub fn repeat(
        &mut self,
        body: Body,
        limit: Option<ValueId>,
        start: Option<ValueId>,
        first: &[ValueId],
        most: Expr,
    ) -> Imported {
        let mut inputs = vec![limit, start];
        inputs.extend(first.iter().chain(&body.captures).copied().map(Some));
        let rows = body.graph.outputs().len() - usize::from(start.is_some()) - first.len();
        let op = Op::Loop { body: Region(Box::new(body.graph)), carried: first.len() as u32, most };
        Ok(self.builder().node_with(op, &inputs, first.len() + rows + 1)?)
    }
}
