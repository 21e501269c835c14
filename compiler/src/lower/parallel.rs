//! Products of one operand with several weights, as one product whose result holds theirs side by side.
//!
//! Does: `x a, x b, x c -> x [a b c]`, epilogues included, where attention reads all of the results through views, so that
//! nothing is copied. The weights, which may be computed at load themselves, are put side by side there. Chosen where one
//! product costs less than all. Not here: readers that need each result by itself.

use std::collections::{BTreeMap, BTreeSet};

use lapidary_runtime::op::MatMul;
use lapidary_templates::{Kind, Problem, Strided};

use super::views::{Base, View, is_read_in_place};
use super::{Lowering, Program, Residency, SegmentId, Target, TensorId, Tensors};
use crate::ir::{Expr, Graph, NodeId, Op, Program as Pointwise, Type, Use, ValueId};

/// The groups of a graph, by the first product of each.
pub(super) type Groups = BTreeMap<NodeId, Vec<NodeId>>;

/// Products of one operand that attention reads through nodes that are put off.
pub(super) fn groups(graph: &Graph, target: Target, put_off: &BTreeSet<NodeId>, at_load: &BTreeSet<ValueId>) -> Groups {
    let mut groups = Groups::new();
    if target == Target::Cpu {
        return groups;
    }
    let mut taken = Vec::new();
    for id in graph.order() {
        let Some(first) = product(graph, id, at_load).filter(|_| !taken.contains(&id)) else { continue };
        let mut members = Vec::new();
        for use_ in graph.uses(first.x) {
            let Use::Operand(user, 0) = use_ else { continue };
            let fits = product(graph, user, at_load)
                .is_some_and(|other| other.is_like(&first) && is_read_in_place(graph, other.result, put_off));
            if fits && !members.contains(&user) {
                members.push(user);
            }
        }
        members.sort();
        if members.len() > 1 && members.first() == Some(&id) {
            taken.extend(&members);
            groups.insert(id, members);
        }
    }
    groups
}

/// A product of a computed operand with a matrix that is there from the load on.
struct Product<'g> {
    x: ValueId,
    weights: ValueId,
    /// What the epilogue reads: a number for each column each.
    vectors: Vec<ValueId>,
    spec: MatMul,
    epilogue: Option<&'g Pointwise>,
    result: ValueId,
    types: Vec<&'g Type>,
}

impl Product<'_> {
    fn is_like(&self, other: &Product<'_>) -> bool {
        let vectors_fit = self.types.len() == other.types.len()
            && self.types.iter().zip(&other.types).all(|(a, b)| a.dtype == b.dtype);
        self.x == other.x && self.spec == other.spec && self.epilogue == other.epilogue && vectors_fit
    }
}

fn product<'g>(graph: &'g Graph, id: NodeId, at_load: &BTreeSet<ValueId>) -> Option<Product<'g>> {
    let node = graph.node(id);
    let (Op::MatMul(spec, epilogue), &[Some(result)]) = (&node.op, &node.outputs[..]) else { return None };
    let operands: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>()?;
    let (&[x, weights], vectors) = operands.split_first_chunk::<2>()?;
    let columns = graph.ty(result).dims.last()?.as_const()?;
    let fixed = |value: ValueId| graph.constant(value).is_some() || at_load.contains(&value);
    let is_vector = |value: &ValueId| {
        let ty = graph.ty(*value);
        let (last, outer) = ty.dims.split_last().map_or((None, &[][..]), |(last, outer)| (Some(last), outer));
        fixed(*value) && last.is_some_and(|last| last.is(columns)) && outer.iter().all(|dim| dim.is(1))
    };
    let fits = !fixed(x) && fixed(weights) && graph.ty(weights).dims.len() == 2 && vectors.iter().all(is_vector);
    fits.then(|| Product {
        x,
        weights,
        vectors: vectors.to_vec(),
        spec: *spec,
        epilogue: epilogue.as_ref(),
        result,
        types: std::iter::once(weights).chain(vectors.iter().copied()).map(|value| graph.ty(value)).collect(),
    })
}

impl Lowering<'_> {
    /// Lowers a group as one product if that costs less than its members do.
    pub(super) fn side_by_side(
        &mut self,
        graph: &Graph,
        members: &[NodeId],
        tensors: &mut Tensors,
        segment: SegmentId,
    ) -> bool {
        let products: Vec<Product<'_>> = members.iter().filter_map(|id| product(graph, *id, &self.at_load)).collect();
        let Some(first) = products.first() else { return false };
        let columns: Vec<Expr> =
            products.iter().filter_map(|product| graph.ty(product.result).dims.last().cloned()).collect();
        let width = columns.iter().cloned().fold(Expr::constant(0), |sum, columns| sum + columns);
        let along = usize::from(!first.spec.transpose_b);
        let mut weight_ty = graph.ty(first.weights).clone();
        weight_ty.dims[along] = width.clone();
        let vector_tys: Vec<Type> = first
            .vectors
            .iter()
            .map(|value| Type { dtype: graph.ty(*value).dtype, dims: vec![width.clone()] })
            .collect();
        let mut result_ty = graph.ty(first.result).clone();
        if let Some(last) = result_ty.dims.last_mut() {
            *last = width;
        }
        let operands = [graph.ty(first.x).clone(), weight_ty.clone()].into_iter().chain(vector_tys.iter().cloned());
        let problem = Problem {
            kind: Kind::MatMul(first.spec, first.epilogue.cloned()),
            inputs: operands.map(Some).collect(),
            outputs: vec![Some(result_ty.clone())],
        };
        let apart: Option<f64> = members.iter().map(|id| self.node_cost(graph, graph.node(*id))).sum();
        if self.cost(&problem).zip(apart).is_none_or(|(together, apart)| together > apart) {
            return false;
        }
        let label: Vec<String> = members.iter().map(|id| graph.node(*id).origin.to_string()).collect();
        let label = label.join(" + ");
        let mut inputs = vec![Some(self.tensor(graph, first.x, tensors))];
        let parts: Vec<TensorId> =
            products.iter().map(|product| self.loaded(graph, product.weights, tensors)).collect();
        inputs.push(Some(self.joined(&parts, along as u8, &weight_ty, &label)));
        for (k, ty) in vector_tys.iter().enumerate() {
            let parts: Vec<TensorId> = products
                .iter()
                .zip(&columns)
                .map(|(product, columns)| {
                    let vector = self.loaded(graph, product.vectors[k], tensors);
                    self.seen_as(vector, vec![columns.clone()])
                })
                .collect();
            inputs.push(Some(self.joined(&parts, 0, ty, &label)));
        }
        let buffer = self.add_buffer(Residency::Arena, &result_ty);
        let output = self.add_tensor_of(graph, first.result, result_ty.clone(), buffer);
        let whole = Strided::contiguous(&result_ty.dims);
        let mut offset = Expr::constant(0);
        for (product, columns) in products.iter().zip(columns) {
            let place = Strided { offset: offset.clone(), strides: whole.strides.clone() };
            let dims = graph.ty(product.result).dims.clone();
            self.views.insert(product.result, View { base: Base::Tensor(output), dims, place });
            offset = offset + columns;
        }
        self.done.extend(members);
        self.work(problem, inputs, vec![Some(output)], label, segment);
        true
    }

    /// Constants one behind the other along an axis, put together once at load.
    fn joined(&mut self, parts: &[TensorId], axis: u8, ty: &Type, label: &str) -> TensorId {
        let buffer = self.add_buffer(Residency::Derived, ty);
        let name = self.program.tensor(parts[0]).name.clone();
        let whole = self.push_tensor(super::Tensor { name, ty: ty.clone(), buffer, at: None });
        let inputs = parts.iter().map(|part| Some(self.program.tensor(*part).ty.clone())).collect();
        let problem = Problem { kind: Kind::Concat { axis }, inputs, outputs: vec![Some(ty.clone())] };
        let operands = parts.iter().map(|part| Some(*part)).collect();
        self.work(problem, operands, vec![Some(whole)], format!("weights of {label}"), Program::INIT);
        whole
    }

    /// The same tensor under another shape.
    fn seen_as(&mut self, tensor: TensorId, dims: Vec<Expr>) -> TensorId {
        let mut tensor = self.program.tensor(tensor).clone();
        tensor.ty.dims = dims;
        self.push_tensor(tensor)
    }
}

#[cfg(test)]
mod tests {
    use crate::ir::text;
    use crate::lower::{Program, lower};

    /// Attention on three projections of x; the weights of the second are stored in eight bits.
    const GRAPH: &str = r#"graph "g" {
  symbol n = input 0 axis 0, 1..64..128
  input %0 "x" f32[n, 64]
  const %1 "a" f32[64, 64] = init "a"
  const %2 "b" i8[64, 64] = init "b"
  const %3 "c" f32[64, 64] = init "c"
  %4 "q" f32[n, 64] = matmul(%0, %1) from "Q"
  %5 "w" f32[64, 64] = pointwise(%2) { in i8; s0 = cast f32 in0; out s0 } from "W"
  %6 "k" f32[n, 64] = matmul(%0, %5) from "K"
  %7 "v" f32[n, 64] = matmul(%0, %3) from "V"
  %8 "q4" f32[1, 1, n, 64] = reshape(%4) { dims [1, 1, n, 64] } from "Q4"
  %9 "k4" f32[1, 1, n, 64] = reshape(%6) { dims [1, 1, n, 64] } from "K4"
  %10 "v4" f32[1, 1, n, 64] = reshape(%7) { dims [1, 1, n, 64] } from "V4"
  %11 "y" f32[1, 1, n, 64] = attention(%8, %9, %10) { scale 0.125f32 } from "Y"
  output "y" %11
MORE
}"#;

    fn steps(more: &str) -> Vec<String> {
        let graph = GRAPH.replace("MORE", more);
        let graph = text::parse(&graph, &|name| Some(vec![0; if name == "b" { 64 * 64 } else { 64 * 64 * 4 }].into()))
            .expect("a graph");
        let program = lower(&graph, "sm_90a".parse().expect("a target")).expect("kernels");
        program.segment(Program::MAIN).iter().map(|step| step.label().to_owned()).collect()
    }

    #[test]
    fn products_of_one_operand_become_one() {
        assert_eq!(steps(""), ["Q + K + V", "Y"]);
    }

    #[test]
    fn what_is_read_by_itself_stays() {
        assert_eq!(steps("  output \"k\" %6"), ["Q + V", "K", "Y"]);
    }
}
