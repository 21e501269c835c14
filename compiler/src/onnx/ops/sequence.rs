//! Sequences of tensors, and values that may be absent (ONNX Sequence*, SplitToSequence, ConcatFromSequence, Optional*),
//! where the number of elements, and what is absent, is known while compiling. All of it is gone in the graph.

use lapidary_runtime::DType;
use lapidary_runtime::op::Scalar;

use super::unroll::{MAX_NODES, open_ended};
use super::{Fault, Import, Items, MANY, OpDef, normalize_axis, one_tensor};
use crate::ir::{Expr, Op, ValueId};
use crate::onnx::import::{Item, ItemCx};

pub const DEFS: &[OpDef] = &[
    on_sequences("ConcatFromSequence", 11, (1, 1), concat),
    // Of a tensor as of anything else.
    on_sequences("Identity", 1, (1, 1), |s| Ok(vec![Some(s.item(0)?)])),
    on_sequences("Optional", 15, (0, 1), optional),
    on_sequences("OptionalGetElement", 15, (1, 1), get_element),
    on_sequences("OptionalHasElement", 15, (0, 1), has_element),
    on_sequences("SequenceAt", 11, (2, 2), element),
    on_sequences("SequenceConstruct", 11, (1, MANY), construct),
    on_sequences("SequenceEmpty", 11, (0, 0), empty),
    on_sequences("SequenceErase", 11, (1, 2), erase),
    on_sequences("SequenceInsert", 11, (2, 3), insert),
    on_sequences("SequenceLength", 11, (1, 1), length),
    OpDef { outputs: (1, MANY), ..on_sequences("SequenceMap", 17, (1, MANY), map) },
    on_sequences("SplitToSequence", 11, (1, 2), split),
];

const fn on_sequences(
    name: &'static str,
    since: i64,
    inputs: (usize, usize),
    import: fn(&mut ItemCx<'_, '_>) -> Items,
) -> OpDef {
    OpDef { domain: "", name, since, inputs, outputs: (1, 1), import: Import::Items(import) }
}

fn one_sequence(values: Vec<ValueId>) -> Items {
    Ok(vec![Some(Item::Sequence(values))])
}

fn construct(s: &mut ItemCx<'_, '_>) -> Items {
    one_sequence((0..s.input_count()).map(|k| s.input(k)).collect::<Result<_, _>>()?)
}

fn empty(s: &mut ItemCx<'_, '_>) -> Items {
    // The type shows in what is put in.
    s.attrs.ignore(&["dtype"]);
    one_sequence(Vec::new())
}

fn length(s: &mut ItemCx<'_, '_>) -> Items {
    let count = s.sequence(0)?.len();
    one_tensor(s.builder().scalar(Scalar::int(DType::I64, count as i64)))
}

/// The numbers in operand `k`, if they are constants; `None` where they are not.
fn constants(s: &mut ItemCx<'_, '_>, value: ValueId) -> Option<Vec<i64>> {
    let b = s.builder();
    b.known_ints(value).or_else(|| b.constant_value(value).map(|tensor| tensor.to_i64s()))
}

/// The fault for a structure that `value` decides.
fn open(s: &mut ItemCx<'_, '_>, value: ValueId, what: &str) -> Fault {
    let help = format!("make {what} a constant: sequences have a structure that is known while compiling");
    s.open(value, format!("{what} depends on the data of a run"), help)
}

/// The position in operand `k`, counted from the start, among `count` of them.
fn position(s: &mut ItemCx<'_, '_>, k: usize, count: usize) -> Result<Option<usize>, Fault> {
    let Some(value) = s.optional(k)? else { return Ok(None) };
    match constants(s, value).as_deref() {
        Some(&[at]) => {
            Ok(Some(normalize_axis(at, count).map_err(|_| format!("there is no position {at} among {count}"))?))
        }
        Some(_) => Err("the position must be one number".into()),
        None => Err(open(s, value, "the position")),
    }
}

fn insert(s: &mut ItemCx<'_, '_>) -> Items {
    let (mut values, new) = (s.sequence(0)?, s.input(1)?);
    // Behind the last element is a position too, but a negative one counts the elements that are there.
    let at = match s.optional(2)? {
        None => values.len(),
        Some(place) => match constants(s, place).as_deref() {
            Some(&[at]) if at >= 0 && usize::try_from(at) == Ok(values.len()) => values.len(),
            _ => position(s, 2, values.len())?.unwrap_or(values.len()),
        },
    };
    values.insert(at, new);
    one_sequence(values)
}

fn erase(s: &mut ItemCx<'_, '_>) -> Items {
    let mut values = s.sequence(0)?;
    let Some(last) = values.len().checked_sub(1) else { return Err("the sequence is empty".into()) };
    let at = position(s, 1, values.len())?.unwrap_or(last);
    values.remove(at);
    one_sequence(values)
}

/// One element. A position that the data decides reads from the elements stacked, which must have one shape then.
fn element(s: &mut ItemCx<'_, '_>) -> Items {
    let (values, place) = (s.sequence(0)?, s.input(1)?);
    if constants(s, place).is_some() {
        let at = position(s, 1, values.len())?.ok_or("the position is missing")?;
        return one_tensor(values[at]);
    }
    let mut b = s.builder();
    let alike = values.windows(2).all(|pair| b.ty(pair[0]) == b.ty(pair[1]));
    if !alike || values.is_empty() {
        return Err(open(s, place, "the position of elements that differ in shape"));
    }
    let mut rows = Vec::with_capacity(values.len());
    for value in values {
        let mut dims = b.dims(value);
        dims.insert(0, Expr::constant(1));
        rows.push(b.reshape(value, dims)?);
    }
    let all = b.concat(&rows, 0)?;
    let place = b.reshape(place, Vec::new())?;
    one_tensor(b.node(Op::Gather { axis: 0 }, &[all, place])?)
}

fn concat(s: &mut ItemCx<'_, '_>) -> Items {
    let mut values = s.sequence(0)?;
    let axis = s.attrs.int("axis")?;
    let stacks = s.attrs.flag_or("new_axis", 0)?;
    let Some(&first) = values.first() else { return Err("the sequence is empty".into()) };
    let mut b = s.builder();
    let axis = normalize_axis(axis, b.rank(first) + usize::from(stacks))?;
    if stacks {
        for value in &mut values {
            let mut dims = b.dims(*value);
            if axis > dims.len() {
                return Err("the elements have different ranks".into());
            }
            dims.insert(axis, Expr::constant(1));
            *value = b.reshape(*value, dims)?;
        }
    }
    one_tensor(b.concat(&values, axis)?)
}

/// How many elements a tensor is split into at most.
const MAX_PARTS: i64 = 1024;

fn split(s: &mut ItemCx<'_, '_>) -> Items {
    let x = s.input(0)?;
    let axis = s.attrs.int_or("axis", 0)?;
    let keeps = s.attrs.flag_or("keepdims", 1)?;
    let dims = s.builder().dims(x);
    let axis = normalize_axis(axis, dims.len())?;
    let Some(extent) = dims[axis].as_const() else {
        return Err(Fault::unsupported(
            format!("the number of parts depends on {}", dims[axis]),
            "pin the dimension: sequences have a structure that is known while compiling",
        ));
    };
    let given = s.optional(1)?;
    let sizes = match given {
        None => vec![1; usize::try_from(extent.min(MAX_PARTS + 1)).unwrap_or(0)],
        Some(sizes) => {
            let scalar = s.builder().rank(sizes) == 0;
            let Some(sizes) = constants(s, sizes) else { return Err(open(s, sizes, "the size of a part")) };
            match sizes.as_slice() {
                // As many parts of this size as there are, and what is left.
                &[size] if scalar && size > 0 && extent / size <= MAX_PARTS => {
                    (0..extent).step_by(size as usize).map(|at| size.min(extent - at)).collect()
                }
                _ => sizes,
            }
        }
    };
    if sizes.len() as i64 > MAX_PARTS {
        return Err(Fault::unsupported(
            format!("a split into more than {MAX_PARTS} parts is not supported"),
            "keep the tensor whole, and read its parts with Gather or Slice",
        ));
    }
    if sizes.iter().any(|&size| size < 0) || sizes.iter().sum::<i64>() != extent {
        return Err(format!("parts of {sizes:?} elements do not add up to {extent}").into());
    }
    let mut b = s.builder();
    let mut parts = Vec::with_capacity(sizes.len());
    let mut start = 0;
    for size in sizes {
        let mut part = b.slice_axis(x, axis, Expr::constant(start), Expr::constant(size))?;
        // The axis goes only where the sizes were not given.
        if !keeps && given.is_none() {
            let mut dims = b.dims(part);
            dims.remove(axis);
            part = b.reshape(part, dims)?;
        }
        parts.push(part);
        start += size;
    }
    one_sequence(parts)
}

fn optional(s: &mut ItemCx<'_, '_>) -> Items {
    s.attrs.ignore(&["type"]);
    Ok(vec![Some(s.optional_item(0).unwrap_or(Item::Absent))])
}

fn get_element(s: &mut ItemCx<'_, '_>) -> Items {
    match s.item(0)? {
        Item::Absent => Err("the optional value is absent, and its element is taken".into()),
        item @ (Item::Tensor(_) | Item::Sequence(_)) => Ok(vec![Some(item)]),
    }
}

fn has_element(s: &mut ItemCx<'_, '_>) -> Items {
    let there = !matches!(s.optional_item(0), None | Some(Item::Absent));
    one_tensor(s.builder().scalar(Scalar::int(DType::Bool, i64::from(there))))
}

/// The body for each element of the first operand, with the elements beside it, and the tensors as they are.
fn map(s: &mut ItemCx<'_, '_>) -> Items {
    let body = s.attrs.graph("body")?;
    let count = s.sequence(0)?.len();
    if (body.input.len(), body.output.len()) != (s.input_count(), s.output_count()) {
        let (inputs, outputs) = (body.input.len(), body.output.len());
        return Err(format!("the body has {inputs} inputs and {outputs} outputs, which are not the node's").into());
    }
    let operands: Vec<Item> = (0..s.input_count()).map(|k| s.item(k)).collect::<Result<_, _>>()?;
    let mut results: Vec<Vec<ValueId>> = vec![Vec::new(); body.output.len()];
    for at in 0..count {
        if s.node_count() > MAX_NODES {
            return Err(open_ended(format!("its body for each of {count} elements is too many nodes")));
        }
        let mut bindings = Vec::with_capacity(operands.len());
        for (k, (info, operand)) in body.input.iter().zip(&operands).enumerate() {
            let value = match operand {
                Item::Tensor(value) => *value,
                Item::Sequence(values) if values.len() == count => values[at],
                Item::Sequence(values) => {
                    return Err(format!("operand {k} has {} elements, and the first one {count}", values.len()).into());
                }
                Item::Absent => return Err(format!("operand {k} is an optional value that is absent").into()),
            };
            bindings.push((info.name(), value));
        }
        let values = s.inline_tensors(body, &bindings)?;
        results.iter_mut().zip(values).for_each(|(result, value)| result.push(value));
    }
    Ok(results.into_iter().map(|values| Some(Item::Sequence(values))).collect())
}
