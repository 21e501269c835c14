//! Tensors that are parts of others: concatenations and slices that move nothing.
//!
//! Does: give what a concatenation joins its place in the result, so that whoever computes it writes there; read a slice
//! where it lies. Both where the elements are one range of the whole by their formulas, and the range begins where kernels
//! may read. What cannot be computed in its place (a weight, an input, the same value again) is copied there.
//! Not here: parts that are several ranges. Counted extents, as steps that run on their bounds write beyond the counts.

use std::collections::{BTreeMap, BTreeSet};

use lapidary_templates::view::{contiguous, product};

use super::{BufferId, Lowering, SegmentId, Target, Tensor, TensorId, Tensors, extents_of, kind_of};
use crate::ir::{Expr, Graph, Node, Op, SymbolSource, Use, ValueId};

/// A part of a GPU's tensor begins at a multiple of this many bytes: what the widest load needs.
const ALIGNMENT: i64 = 16;

/// Where a value lies: from a byte of another value's tensor on.
#[derive(Clone, Debug)]
pub(super) struct Place {
    whole: ValueId,
    at: Expr,
}

/// The values of a graph that are computed inside of others, and the buffers of those others as far as they are there.
#[derive(Default)]
pub(super) struct Places {
    of: BTreeMap<ValueId, Place>,
    buffers: BTreeMap<ValueId, BufferId>,
}

impl Lowering<'_> {
    /// The values that can be computed in their places of concatenations.
    pub(super) fn places(&self, graph: &Graph, at_load: &BTreeSet<ValueId>) -> Places {
        let mut places = Places::default();
        // From the last on: a part of a part lies in the outermost.
        for id in graph.order().into_iter().rev() {
            let node = graph.node(id);
            let Op::Concat { axis } = node.op else { continue };
            let Some((place, starts)) = self.parts(graph, node, axis, &places) else { continue };
            for (part, start) in node.inputs.iter().flatten().zip(starts) {
                let place = Place { whole: place.whole, at: place.at.clone() + start };
                if let Some(value) = computed(graph, *part)
                    && !at_load.contains(&value)
                    && self.begins_well(&place.at)
                {
                    places.of.entry(value).or_insert(place);
                }
            }
        }
        places
    }

    /// Where a concatenation's result lies, and at which byte of it each part begins, if each is one range.
    fn parts(&self, graph: &Graph, node: &Node, axis: u8, places: &Places) -> Option<(Place, Vec<Expr>)> {
        let &[Some(whole)] = &node.outputs[..] else { return None };
        let (ty, axis) = (graph.ty(whole), usize::from(axis));
        let bytes = whole_bytes(ty.dtype.bits())?;
        let (outer, inner) = (&ty.dims[..axis], &ty.dims[axis + 1..]);
        if !outer.iter().all(|dim| dim.is(1)) || ty.dims.iter().any(|dim| self.is_counted(dim)) {
            return None;
        }
        let row = Expr::from(bytes) * product(inner);
        let mut at = Expr::constant(0);
        let mut starts = Vec::new();
        for part in node.inputs.iter().flatten() {
            let dims = &graph.ty(*part).dims;
            if dims[..axis] != *outer || dims[axis + 1..] != *inner {
                return None;
            }
            starts.push(at.clone() * row.clone());
            at = at + dims[axis].clone();
        }
        let place = places.of.get(&whole).cloned().unwrap_or(Place { whole, at: Expr::constant(0) });
        (at == ty.dims[axis]).then_some((place, starts))
    }

    /// Lowers a concatenation of which some part lies in its place; `false` if none does.
    pub(super) fn join(
        &mut self,
        graph: &Graph,
        node: &Node,
        axis: u8,
        tensors: &mut Tensors,
        segment: SegmentId,
    ) -> bool {
        let Some((place, starts)) = self.parts(graph, node, axis, &self.places) else { return false };
        let (Some(&buffer), &[Some(whole)]) = (self.places.buffers.get(&place.whole), &node.outputs[..]) else {
            return false;
        };
        let ats = starts.into_iter().map(|start| place.at.clone() + start);
        let parts: Vec<(ValueId, Expr)> = node.inputs.iter().flatten().copied().zip(ats).collect();
        let lies = |lowering: &Self, tensor: TensorId, at: &Expr| {
            let tensor = lowering.program.tensor(tensor);
            tensor.buffer == buffer && tensor.at.as_ref() == Some(at)
        };
        let is_there = |(part, at): &(ValueId, Expr)| tensors.get(part).is_some_and(|&tensor| lies(self, tensor, at));
        if !parts.iter().any(is_there) {
            return false;
        }
        for (part, at) in parts {
            let from = self.tensor(graph, part, tensors);
            if !lies(self, from, &at) {
                let to = Tensor { buffer, at: Some(at), ..self.program.tensor(from).clone() };
                let to = self.push_tensor(to);
                self.copy(from, to, node.origin.to_string(), segment);
            }
        }
        let at = (place.whole != whole).then_some(place.at);
        let name = graph.value(whole).name.clone();
        let tensor = self.push_tensor(Tensor { name, ty: graph.ty(whole).clone(), buffer, at });
        tensors.insert(whole, tensor);
        true
    }

    /// A tensor for a value that is computed, in its place if it has one.
    pub(super) fn arena_tensor(&mut self, graph: &Graph, value: ValueId) -> TensorId {
        let Some(Place { whole, at }) = self.places.of.get(&value).cloned() else {
            let buffer = self.add_buffer(super::Residency::Arena, graph.ty(value));
            return self.add_tensor(graph, value, buffer);
        };
        let buffer = match self.places.buffers.get(&whole) {
            Some(&buffer) => buffer,
            None => self.add_buffer(super::Residency::Arena, graph.ty(whole)),
        };
        self.places.buffers.insert(whole, buffer);
        let tensor =
            Tensor { name: graph.value(value).name.clone(), ty: graph.ty(value).clone(), buffer, at: Some(at) };
        self.push_tensor(tensor)
    }

    /// Lets a slice that is one range be read where it lies; `false` if it has to be copied.
    pub(super) fn range(&mut self, graph: &Graph, node: &Node, tensors: &mut Tensors) -> bool {
        let (&[Some(operand)], &[Some(result)]) = (&node.inputs[..], &node.outputs[..]) else { return false };
        let Some(start) = range_start(graph, node, operand).filter(|_| is_inside(graph, result)) else { return false };
        if self.places.of.contains_key(&result) {
            return false;
        }
        let of = self.tensor(graph, operand, tensors);
        let of = self.program.tensor(of);
        let ty = graph.ty(result).clone();
        let at = of.at.clone().unwrap_or_else(|| Expr::constant(0)) + start.clone();
        let ends = |ty: &super::Type| Expr::from(ty.dtype.bits() / 8) * ty.count();
        let inside = self.symbols.range(&start).0 >= 0
            && self.symbols.range(&(ends(&of.ty) - start - ends(&ty))).0 >= 0
            && ty.dims.iter().chain([&at]).all(|dim| !self.is_counted(dim));
        if !inside || !self.begins_well(&at) {
            return false;
        }
        let tensor = Tensor { name: graph.value(result).name.clone(), ty, buffer: of.buffer, at: Some(at) };
        let tensor = self.push_tensor(tensor);
        tensors.insert(result, tensor);
        true
    }

    /// Whether functions, or kernels, take a tensor that begins at this byte of another; its elements do by themselves.
    fn begins_well(&self, at: &Expr) -> bool {
        match self.target {
            Target::Cpu => true,
            Target::Cuda(_) => at.terms().all(|(_, bytes)| bytes % ALIGNMENT == 0),
        }
    }

    /// Whether a formula has a symbol whose value a run computes.
    fn is_counted(&self, expr: &Expr) -> bool {
        let is_count = |name: &std::sync::Arc<str>| {
            let symbol = self.symbols.symbols.get(name);
            symbol.is_none_or(|symbol| !matches!(symbol.source, SymbolSource::Input { .. }))
        };
        expr.symbols().iter().any(is_count)
    }
}

/// The bytes of an element of so many bits, if they are whole ones.
fn whole_bytes(bits: usize) -> Option<usize> {
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Whether nothing but nodes of its graph read a value.
fn is_inside(graph: &Graph, value: ValueId) -> bool {
    graph.uses(value).iter().all(|use_| matches!(use_, Use::Operand(..)))
}

/// The value that a step of the graph computes to make this one, as which it is seen through reshapes.
fn computed(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let node = graph.node(graph.producer(value)?);
    if !is_inside(graph, value) {
        return None;
    }
    match node.op {
        Op::Reshape(_) => {
            let operand = node.inputs.first().copied().flatten()?;
            (graph.ty(operand).count() == graph.ty(value).count()).then(|| computed(graph, operand)).flatten()
        }
        Op::BitCast(_) | Op::RunCount | Op::If { .. } | Op::Loop { .. } => None,
        _ => Some(value),
    }
}

/// The values that depend on weights alone: they are computed once, at load.
pub(super) fn constants(graph: &Graph) -> BTreeSet<ValueId> {
    let mut found = BTreeSet::new();
    for id in graph.order() {
        let node = graph.node(id);
        let constant = |value: &ValueId| graph.constant(*value).is_some() || found.contains(value);
        let fixed = |expr: &Expr| expr.as_const().is_some();
        let results = || node.outputs.iter().flatten();
        let formulas_are_fixed = match kind_of(graph, node) {
            Some(kind) => extents_of(&kind).into_iter().all(fixed),
            None => matches!(node.op, Op::Reshape(_) | Op::BitCast(_)),
        };
        if formulas_are_fixed
            && node.inputs.iter().flatten().all(constant)
            && results().all(|value| graph.ty(*value).dims.iter().all(fixed))
        {
            found.extend(results());
        }
    }
    found
}

/// The byte at which a slice that is one range of its operand begins.
fn range_start(graph: &Graph, node: &Node, operand: ValueId) -> Option<Expr> {
    let Op::Slice { starts, steps, dims } = &node.op else { return None };
    let ty = graph.ty(operand);
    let bytes = whole_bytes(ty.dtype.bits())?;
    // In front of the last axis that is cut, one index each.
    let cut = (0..dims.len()).rev().find(|&axis| dims[axis] != ty.dims[axis]).unwrap_or(0);
    let is_range = steps.iter().zip(dims).all(|(&step, dim)| step == 1 || dim.is(1))
        && dims.iter().take(cut).all(|dim| dim.is(1))
        && starts.iter().skip(cut + 1).all(|start| start.is(0));
    let along = starts.iter().zip(contiguous(&ty.dims));
    let at = along.fold(Expr::constant(0), |at, (start, stride)| at + start.clone() * stride);
    is_range.then(|| Expr::from(bytes) * at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text;
    use crate::lower::{Program, Step, lower};

    /// The steps of a run, as label and the bytes at which the results begin.
    fn steps(graph: &str, target: &str) -> Vec<String> {
        let graph = text::parse(graph, &|_| Some(vec![0; 64].into())).expect("a graph");
        let program = lower(&graph, target.parse().expect("a target")).expect("kernels");
        let step = |step: &Step| {
            let Step::Work(work) = step else { return step.label().to_owned() };
            let starts = |list: &[Option<TensorId>]| -> Vec<String> {
                let starts = list.iter().flatten().filter_map(|tensor| program.tensor(*tensor).at.as_ref());
                starts.map(ToString::to_string).collect()
            };
            format!("{} {} <- {}", work.label, starts(&work.outputs).join(" "), starts(&work.inputs).join(" "))
        };
        program.segment(Program::MAIN).iter().map(step).collect()
    }

    /// `x` and what is made of it, joined; then a sum that reads the whole.
    fn joined(symbol: &str, dims: [&str; 4], parts: &str, nodes: &str) -> String {
        let [x, part, whole, w] = dims;
        format!(
            r#"graph "g" {{
  {symbol}
  input %0 "x" f32[{x}]
  const %1 "w" f32[{w}] = init "w"
  %2 "a" f32[{part}] = pointwise(%0) {{ in f32; s0 = neg f32 in0; out s0 }} from "A"
  %3 "b" f32[{part}] = pointwise(%0) {{ in f32; s0 = abs f32 in0; out s0 }} from "B"
  %4 "c" f32[{whole}] = concat({parts}) {{ axis 1 }} from "C"
{nodes}
}}"#
        )
    }

    const READ: &str = r#"  %5 "y" f32[1] = reduce(%4) { kind sum axes [1, 2] } from "Y"
  output "y" %5"#;
    const FIXED: [&str; 4] = ["1, 2, 8", "1, 2, 8", "1, 4, 8", "1, 2, 8"];

    #[test]
    fn parts_are_computed_in_their_places() {
        let graph = joined("", FIXED, "%2, %3", READ);
        for target in ["cpu", "sm_90a"] {
            assert_eq!(steps(&graph, target), ["A 0 <- ", "B 64 <- ", "Y  <- "]);
        }
        let dims = ["1, n, 8", "1, n, 8", "1, 2*n, 8", "1, 2, 8"];
        let graph = joined("symbol n = input 0 axis 1, 1..4..64", dims, "%3, %2", READ);
        assert_eq!(steps(&graph, "sm_90a"), ["A 32*n <- ", "B 0 <- ", "Y  <- "]);
    }

    /// A weight, an input, an output, and the same value again are copied, each by itself.
    #[test]
    fn what_lies_elsewhere_is_copied_to_its_place() {
        let dims = ["1, 2, 8", "1, 2, 8", "1, 8, 8", "1, 2, 8"];
        let copied = |parts: &str, nodes: &str| steps(&joined("", dims, parts, nodes), "sm_90a");
        assert_eq!(
            copied("%2, %1, %0, %2", READ),
            ["A 0 <- ", "B  <- ", "C 64 <- ", "C 128 <- ", "C 192 <- 0", "Y  <- "]
        );
        let also = format!("{READ}\n  output \"b\" %3");
        assert_eq!(
            copied("%2, %2, %2, %3", &also),
            ["A 0 <- ", "B  <- ", "C 64 <- 0", "C 128 <- 0", "C 192 <- ", "Y  <- "]
        );
        // Nothing of it lies in its place.
        assert_eq!(copied("%0, %1, %0, %1", READ)[2], "C  <- ");
    }

    #[test]
    fn parts_that_are_several_ranges_or_begin_crookedly_are_not() {
        let several = joined("", ["2, 2, 8", "2, 2, 8", "2, 4, 8", "1"], "%2, %3", &READ.replace("f32[1]", "f32[2]"));
        assert_eq!(steps(&several, "cpu"), ["A  <- ", "B  <- ", "C  <- ", "Y  <- "]);
        // The second begins at byte 12.
        let crooked = joined("", ["1, 1, 3", "1, 1, 3", "1, 2, 3", "1"], "%2, %3", READ);
        assert_eq!(steps(&crooked, "cpu"), ["A 0 <- ", "B 12 <- ", "Y  <- "]);
        assert_eq!(steps(&crooked, "sm_90a"), ["A 0 <- ", "B  <- ", "C 12 <- ", "Y  <- "]);
    }

    #[test]
    fn parts_of_parts_lie_in_the_outermost_and_reshapes_are_seen_through() {
        let nodes = r#"  %5 "r" f32[1, 32] = reshape(%4) { dims [1, 32] } from "R"
  %6 "d" f32[1, 32] = pointwise(%5) { in f32; s0 = neg f32 in0; out s0 } from "D"
  %7 "e" f32[1, 64] = concat(%6, %5) { axis 1 } from "E"
  %8 "y" f32[1] = reduce(%7) { kind sum axes [1] } from "Y"
  output "y" %8"#;
        let graph = joined("", FIXED, "%2, %3", nodes);
        assert_eq!(steps(&graph, "sm_90a"), ["A 128 <- ", "B 192 <- ", "D 0 <- 128", "Y  <- "]);
    }

    /// A kernel that runs on the bound of a count writes beyond the count.
    #[test]
    fn counted_parts_are_copied() {
        let graph = r#"graph "g" {
  symbol c = count %4 of (8), 0..8..8
  input %0 "x" f32[8, 4]
  input %1 "flags" i64[8]
  input %2 "z" f32[8, 4]
  %3 "sum" i64[1] = reduce(%1) { kind sum axes [0] } from "S"
  %4 "count" i64[] = reshape(%3) { dims [] } from "C"
  %5 "front" f32[c, 4] = slice(%0) { starts [0, 0] steps [1, 1] dims [c, 4] } from "F"
  %6 "a" f32[c, 4] = pointwise(%5) { in f32; s0 = abs f32 in0; out s0 } from "A"
  %7 "b" f32[8, 4] = pointwise(%2) { in f32; s0 = neg f32 in0; out s0 } from "B"
  %8 "y" f32[c + 8, 4] = concat(%6, %7) { axis 0 } from "Y"
  output "y" %8
}"#;
        assert_eq!(steps(graph, "sm_90a"), ["S  <- ", "F  <- ", "A  <- ", "B  <- ", "C", "Y  <- "]);
    }

    fn sliced(slice: &str, dims: &str, output: &str) -> Vec<String> {
        let graph = format!(
            r#"graph "g" {{
  symbol n = input 1 axis 0, 1..4..16
  input %0 "x" f32[2, 16, 4]
  input %1 "k" f32[n]
  %2 "s" f32[{dims}] = slice(%0) {{ {slice} dims [{dims}] }} from "S"
  %3 "y" f32[{dims}] = pointwise(%2) {{ in f32; s0 = neg f32 in0; out s0 }} from "Y"
  output "y" %{output}
  output "z" %3
}}"#
        );
        steps(&graph, "sm_90a")
    }

    #[test]
    fn a_slice_that_is_a_range_is_read_where_it_lies() {
        assert_eq!(sliced("starts [0, 3, 0] steps [1, 1, 1]", "1, 5, 4", "3")[0], "Y  <- 48");
        assert_eq!(sliced("starts [1, 1, 0] steps [1, 1, 1]", "1, n - 1, 4", "3")[0], "Y  <- 272");
        assert_eq!(sliced("starts [1, n - 1, 0] steps [1, 2, 1]", "1, 1, 4", "3")[0], "Y  <- 16*n + 240");
    }

    #[test]
    fn a_slice_that_is_none_is_copied() {
        let copied = |slice: &str, dims: &str, output: &str| sliced(slice, dims, output)[0] == "S  <- ";
        // Two ranges; every other row; rows in two images; a start at byte 4; an output.
        assert!(copied("starts [0, 0, 0] steps [1, 1, 1]", "2, 15, 4", "3"));
        assert!(copied("starts [0, 0, 0] steps [1, 2, 1]", "1, 8, 4", "3"));
        assert!(copied("starts [0, 0, 2] steps [1, 1, 1]", "1, 16, 2", "3"));
        assert!(copied("starts [0, 0, 1] steps [1, 1, 1]", "1, 1, 3", "3"));
        assert!(copied("starts [0, 3, 0] steps [1, 1, 1]", "1, 5, 4", "2"));
        // What the formulas do not show to lie inside.
        assert!(copied("starts [1, n, 0] steps [1, 1, 1]", "1, 4, 4", "3"));
    }
}
