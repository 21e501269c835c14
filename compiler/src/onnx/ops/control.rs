//! Branches (ONNX If). One that is decided while compiling is imported in place; any other becomes an operation with two
//! regions.

use lapidary_runtime::op::{Arg, ScalarOp};

use super::{Import, Items, MANY, OpDef};
use crate::ir::{Builder, Expr, Op, ValueId};
use crate::onnx::import::ItemCx;
use crate::onnx::proto::GraphProto;

pub const DEFS: &[OpDef] = &[with_graphs("If", 1, (1, 1), branch)];

pub(super) const fn with_graphs(
    name: &'static str,
    since: i64,
    inputs: (usize, usize),
    import: fn(&mut ItemCx<'_, '_>) -> Items,
) -> OpDef {
    OpDef { domain: "", name, since, inputs, outputs: (1, MANY), import: Import::Items(import) }
}

fn branch(r: &mut ItemCx<'_, '_>) -> Items {
    let (then_branch, else_branch) = (r.attrs.graph("then_branch")?, r.attrs.graph("else_branch")?);
    let condition = r.input(0)?;
    for proto in [then_branch, else_branch] {
        if proto.output.len() != r.output_count() {
            return Err(
                format!("a branch has {} outputs, and the node {}", proto.output.len(), r.output_count()).into()
            );
        }
    }
    match known_int(r, condition) {
        Some(0) => taken(r, else_branch),
        Some(_) => taken(r, then_branch),
        None => undecided(r, condition, then_branch, else_branch),
    }
}

fn taken<'m>(r: &mut ItemCx<'_, 'm>, branch: &'m GraphProto) -> Items {
    Ok(r.inline(branch, Vec::new())?.into_iter().map(Some).collect())
}

fn undecided<'m>(
    r: &mut ItemCx<'_, 'm>,
    condition: ValueId,
    then_branch: &'m GraphProto,
    else_branch: &'m GraphProto,
) -> Items {
    let on_shapes = compared_extents(&r.builder(), condition).map(|compared| (compared, r.snapshot()));
    // Both are imported before either fails, so that both are reported.
    let (then_region, else_region) = (r.region(then_branch), r.region(else_branch));
    let (then_region, else_region) = (then_region?, else_region?);
    match on_shapes {
        Some((compared, before)) if !then_region.same_kind(&else_region) => {
            r.restore(before);
            r.builder().require_equal(&compared.left, &compared.right)?;
            taken(r, if compared.then_if_equal { then_branch } else { else_branch })
        }
        Some(_) | None => r.branch(condition, then_region, else_region),
    }
}

/// A condition on shapes: two extents are equal, or they are not.
struct Compared {
    left: Expr,
    right: Expr,
    then_if_equal: bool,
}

/// What a condition compares, where that is extents which the profiles leave open. Exporters write `squeeze` of an axis
/// as a branch on its extent being 1; as the rank of the result would depend on the shape, the model can only be
/// compiled for one of the two, and equality is what can be checked when shapes are set.
fn compared_extents(b: &Builder<'_>, condition: ValueId) -> Option<Compared> {
    let (mut value, mut then_if_equal) = (condition, true);
    loop {
        let node = b.graph().node(b.graph().producer(value)?);
        if let Op::Reshape(_) = node.op {
            value = node.inputs.first().copied().flatten()?;
            continue;
        }
        let Op::Pointwise(program) = &node.op else { return None };
        let [step] = program.steps.as_slice() else { return None };
        let operand = |arg: Arg| match arg {
            Arg::Input(k) => node.inputs.get(usize::from(k)).copied().flatten(),
            Arg::Step(_) | Arg::Imm(_) => None,
        };
        let extent = |arg: Arg| match (arg, operand(arg)) {
            (Arg::Imm(scalar), _) => Some(Expr::constant(scalar.as_i64())),
            (Arg::Input(_) | Arg::Step(_), value) => match b.known(value?)? {
                [extent] => Some(extent.clone()),
                _ => None,
            },
        };
        if step.op == ScalarOp::Equal {
            return Some(Compared { left: extent(step.args[0])?, right: extent(step.args[1])?, then_if_equal });
        }
        if step.op != ScalarOp::Not {
            return None;
        }
        then_if_equal = !then_if_equal;
        value = operand(step.args[0])?;
    }
}

/// The one element of a value, if it is a constant; a `bool` is 0 or 1.
pub(super) fn known_int(r: &mut ItemCx<'_, '_>, value: ValueId) -> Option<i64> {
    let b = r.builder();
    let elements = b.known_ints(value).or_else(|| b.constant_value(value).map(|tensor| tensor.to_i64s()))?;
    match elements.as_slice() {
        [element] => Some(*element),
        _ => None,
    }
}
