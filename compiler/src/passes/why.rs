//! Why a rule leaves two neighbours apart, as the rule itself found it.
//!
//! A fusing rule's conditions fail with a [`Why`]: `rewrite` drops it, `why_not` gives it to the report. There is no second
//! copy of a condition that could say something else than what the rule does. Not here: who asks ([`super::explain`]).

use lapidary_runtime::op::ScalarOp;

use super::report::{Kernel, listed};
use crate::diag::quoted;
use crate::ir::{Graph, NodeId, Patch, Type, Use, ValueId};

/// A condition of a rule that did not hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// A value is an output, or other nodes read it too.
    Readers(ValueId),
    /// One node reads the value as two operands.
    ReadTwice(ValueId),
    /// The first value is broadcast to the shape of the second.
    Broadcast(ValueId, ValueId),
    /// The value follows from constants, and is computed once, at load.
    AtLoad(ValueId),
    /// Programs of so many steps and operands together.
    Size { steps: usize, most_steps: usize, operands: usize, most_operands: usize },
    /// The value has a type that tensors are only stored in.
    Storage(ValueId),
    /// An epilogue has no address for the operand.
    NotAddressable(ValueId),
    /// An epilogue that would read so many operands.
    Operands { needs: usize, most: usize },
    /// A view stands between, and an operand has no shape in front of it.
    NoShapeInFront(ValueId),
    /// A view stands between, which no rule for such neighbours moves.
    View,
    /// The transpose moves other axes than the last two.
    OtherAxes,
    /// Something else than the rule knows stands in between.
    Between(NodeId),
    /// The value is no softmax's.
    NotProbabilities(ValueId),
    /// The softmax is along another axis than the last, or its logarithm.
    OtherSoftmax,
    /// A product has an epilogue already.
    HasEpilogue(NodeId),
    /// The product takes the probabilities transposed.
    ProbabilitiesTransposed,
    /// The products are computed in different precisions.
    Math,
    /// Heads need three or four axes.
    Rank(ValueId),
    /// The operand has another type or rank than the queries.
    Unlike(ValueId),
    /// The operand is of integers.
    NotFloat(ValueId),
    /// The depth of a head of the operand is not known, or larger than this.
    Depth(ValueId, i64),
    /// The operand's batch is not that of the scores.
    Batch(ValueId),
    /// The scale is applied behind the mask.
    MaskInFrontOfScale,
    /// The scale is no number that is known while compiling.
    ComputedScale,
    /// The scale, which attention takes as an f32, is more than that.
    Scale(f64),
    /// Hidden scores become another number than -inf.
    OtherHidden,
    /// A step between product and softmax is neither a scale nor a mask.
    NotAffine(ScalarOp),
    /// The mask is a number.
    MaskOfNumbers,
    /// The mask has another type than the queries.
    MaskType,
    /// The value is a product, too, in the shape behind the view.
    OtherProduct(ValueId),
    /// A normalization's epilogue that would read so many operands.
    OneInput(usize),
    /// A statistic of the normalization is read.
    Statistics(ValueId),
    /// The result has another type than the normalized value.
    OtherType(ValueId),
    /// The other operand of a product of dequantized bytes is none.
    NotDequantized(ValueId),
    /// What is dequantized is of other integers than bytes.
    NotBytes(ValueId),
    /// The scale of the integers is not known, or no ordinary positive number.
    OtherScale(ValueId),
    /// The zero point of the integers is computed, differs from element to element, or is no such integer.
    OtherZero(ValueId),
    /// The scale of the integers differs along an axis that the product sums over, or that is no channel.
    ScaleOfAxis(ValueId),
    /// So many products of two differences are more than an `i32` holds.
    SumsOverflow { terms: i64 },
    /// Both zero points count, and the number of terms is not known.
    OpenSums,
    /// The zero point of a convolution's weights is not 0.
    ZeroOfWeights,
    /// With its padding the operand may still be shorter than the window.
    ShorterThanWindow(ValueId),
    /// In the other order of axes, the nodes around a transpose would have others around them that move as much.
    NoLessMoved { nodes: usize },
    /// The rule would take them.
    WouldFuse(&'static str),
}

/// The reason in what a rule found; where it found a patch, the rule did not get to carry it out.
pub fn why_not(rule: &'static str, found: Result<Patch, Why>) -> Why {
    match found {
        Ok(_) => Why::WouldFuse(rule),
        Err(why) => why,
    }
}

impl Why {
    /// A sentence for the user, with the model's names.
    pub fn text(self, graph: &Graph) -> String {
        let name = |value: ValueId| quoted(&graph.value(value).name);
        let typed = |value: ValueId| format!("{} is {}", name(value), shape(graph.ty(value)));
        match self {
            Why::Readers(value) => format!("{} has several readers: {}", name(value), readers(graph, value)),
            Why::ReadTwice(value) => format!("{} is more than one operand of the node behind it", name(value)),
            Why::Broadcast(value, to) => {
                format!(
                    "{} and is broadcast to {}: each element would be computed again for each of its places",
                    typed(value),
                    dims(graph.ty(to))
                )
            }
            Why::AtLoad(value) => format!("{} follows from constants and is computed once, at load", name(value)),
            Why::Size { steps, most_steps, operands, most_operands } => format!(
                "one program of {steps} steps on {operands} operands would be larger than the bounds of {most_steps} steps and {most_operands} operands"
            ),
            Why::Storage(value) => {
                format!(
                    "{}, a type that tensors are only stored in, which an epilogue neither reads nor writes",
                    typed(value)
                )
            }
            Why::NotAddressable(value) => format!(
                "{}: an epilogue reads operands of the result's shape, of one element a channel, a row or a column, or of one element",
                typed(value)
            ),
            Why::Operands { needs, most } => {
                format!("the epilogue would read {needs} operands besides the product, and it reads at most {most}")
            }
            Why::NoShapeInFront(value) => {
                format!("a reshape stands between, and {}, which has no shape in front of it", typed(value))
            }
            Why::View => "a reshape stands between, which no rule moves".to_owned(),
            Why::OtherAxes => {
                "it moves other axes than the last two, which a product does not read in place".to_owned()
            }
            Why::Between(node) => format!("{} stands between", Kernel::of(graph, node)),
            Why::NotProbabilities(value) => format!("the product's first operand, {}, is no softmax's", name(value)),
            Why::OtherSoftmax => "the softmax is a logarithm, or not along the last axis".to_owned(),
            Why::HasEpilogue(node) => format!("{} has an epilogue already", Kernel::of(graph, node)),
            Why::ProbabilitiesTransposed => "the second product takes the probabilities transposed".to_owned(),
            Why::Math => "the two products are computed in different precisions".to_owned(),
            Why::Rank(value) => format!("{}: queries, keys and values need three or four axes", typed(value)),
            Why::Unlike(value) => format!("{}, of another element type or rank than the queries", typed(value)),
            Why::NotFloat(value) => format!("{}: attention is of floats", typed(value)),
            Why::Depth(value, most) => {
                format!("{}: the depth of a head must be known while compiling, from 1 to {most}", typed(value))
            }
            Why::Batch(value) => format!("{}: its batch or heads are not those of the scores", typed(value)),
            Why::MaskInFrontOfScale => "the mask is applied in front of the scale".to_owned(),
            Why::ComputedScale => "the scale is no number that is known while compiling".to_owned(),
            Why::Scale(scale) => format!("the scale is {scale:?}, and attention takes an f32"),
            Why::OtherHidden => "the mask gives hidden scores another number than -inf".to_owned(),
            Why::NotAffine(op) => format!("`{op:?}` between the product and the softmax is neither scale nor mask"),
            Why::MaskOfNumbers => "the mask is of numbers alone and has no shape".to_owned(),
            Why::OtherProduct(value) => format!("{} is a product, too, in the shape behind the reshape", name(value)),
            Why::OneInput(more) => {
                format!("a normalization's epilogue reads the normalized value alone, and this would read {more} more")
            }
            Why::Statistics(value) => format!("{}, a statistic of the normalization, is read", name(value)),
            Why::OtherType(value) => format!("{}, and the normalized value has another type", typed(value)),
            Why::MaskType => "the mask has another element type than the queries".to_owned(),
            Why::NotDequantized(value) => format!("the product's other operand, {}, is not dequantized", name(value)),
            Why::NotBytes(value) => format!("{}: products of integers are of bytes", typed(value)),
            Why::OtherScale(value) => {
                format!("the scale of {} is not known while compiling, or no ordinary positive number", name(value))
            }
            Why::OtherZero(value) => {
                format!("the zero point of {} is not one number that is known while compiling", name(value))
            }
            Why::ScaleOfAxis(value) => {
                format!("the scale of {} differs along another axis than the channels of the product", name(value))
            }
            Why::SumsOverflow { terms } => {
                format!("sums of {terms} products of such integers are more than an i32 holds")
            }
            Why::OpenSums => "both zero points count, and the number of terms is not known while compiling".to_owned(),
            Why::ZeroOfWeights => "the zero point of the convolution's weights is not 0".to_owned(),
            Why::ShorterThanWindow(value) => {
                format!("{}: with its padding it may still be shorter than the window", typed(value))
            }
            Why::NoLessMoved { nodes } => format!(
                "it computes in either order of axes, but with {} the transposes would move no less",
                match nodes {
                    1 => "it in the other".to_owned(),
                    n => format!("any of the {n} such nodes around in the other"),
                }
            ),
            Why::WouldFuse(rule) => format!(
                "`{rule}` takes such neighbours, but it was left out (--disable, --stop-after-rewrite) or they met behind it"
            ),
        }
    }
}

/// Who reads a value.
fn readers(graph: &Graph, value: ValueId) -> String {
    let mut names: Vec<String> = Vec::new();
    for reader in graph.uses(value) {
        let name = match reader {
            Use::Operand(node, _) => Kernel::of(graph, node).to_string(),
            Use::Output(k) => format!("the output {}", quoted(&graph.outputs()[k].0)),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    listed(&names)
}

fn shape(ty: &Type) -> String {
    format!("{}{}", ty.dtype, dims(ty))
}

fn dims(ty: &Type) -> String {
    let dims: Vec<String> = ty.dims.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(", ")).escape_debug().to_string()
}
