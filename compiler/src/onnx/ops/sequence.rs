//! Sequences of tensors, and values that may be absent (ONNX Sequence*, SplitToSequence, ConcatFromSequence, Optional*),
//! where the number of elements is known while compiling. All of it is gone in the graph.

use lapidary_runtime::DType;
use lapidary_runtime::op::Scalar;

use super::constants::constant_value;
use super::{Fault, Import, MANY, OpDef, normalize_axis};
use crate::ir::{Expr, Op, ValueId};
use crate::onnx::import::{Item, Sequences};

pub const DEFS: &[OpDef] = &[
    on_sequences("ConcatFromSequence", 11, (1, 1), concat),
    on_sequences("Optional", 15, (0, 1), present),
    on_sequences("OptionalGetElement", 15, (1, 1), present),
    on_sequences("OptionalHasElement", 15, (0, 1), is_present),
    on_sequences("SequenceAt", 11, (2, 2), element),
    on_sequences("SequenceConstruct", 11, (1, MANY), construct),
    on_sequences("SequenceEmpty", 11, (0, 0), empty),
    on_sequences("SequenceErase", 11, (1, 2), erase),
    on_sequences("SequenceInsert", 11, (2, 3), insert),
    on_sequences("SequenceLength", 11, (1, 1), length),
    on_sequences("SplitToSequence", 11, (1, 2), split),
];

/// What the import of a node gives.
type Given = Result<Item, Fault>;

const fn on_sequences(
    name: &'static str,
    since: i64,
    inputs: (usize, usize),
    import: fn(&mut Sequences<'_, '_>) -> Given,
) -> OpDef {
    OpDef { domain: "", name, since, inputs, outputs: (1, 1), import: Import::Sequences(import) }
}

fn construct(s: &mut Sequences<'_, '_>) -> Given {
    Ok(Item::Sequence((0..s.input_count()).map(|k| s.tensor(k)).collect::<Result<_, _>>()?))
}

fn empty(s: &mut Sequences<'_, '_>) -> Given {
    // The type shows in what is put in.
    s.attrs.ignore(&["dtype"]);
    Ok(Item::Sequence(Vec::new()))
}

fn length(s: &mut Sequences<'_, '_>) -> Given {
    let count = s.sequence(0)?.len();
    Ok(Item::Tensor(s.builder().scalar(Scalar::int(DType::I64, count as i64))))
}

/// The numbers in operand `k`, if they are constants; `None` where they are not.
fn constants(s: &mut Sequences<'_, '_>, value: ValueId) -> Option<Vec<i64>> {
    let b = s.builder();
    b.known_ints(value).or_else(|| constant_value(&b, value).map(|tensor| tensor.to_i64s()))
}

fn open(what: &str) -> Fault {
    Fault::unsupported(
        format!("{what} depends on the data of a run"),
        format!("make {what} a constant: sequences have a structure that is known while compiling"),
    )
}

/// The position in operand `k`, counted from the start, among `count` of them.
fn position(s: &mut Sequences<'_, '_>, k: usize, count: usize) -> Result<Option<usize>, Fault> {
    let Some(value) = s.optional_tensor(k)? else { return Ok(None) };
    match constants(s, value).as_deref() {
        Some(&[at]) => {
            Ok(Some(normalize_axis(at, count).map_err(|_| format!("there is no position {at} among {count}"))?))
        }
        Some(_) => Err("the position must be one number".into()),
        None => Err(open("the position")),
    }
}

fn insert(s: &mut Sequences<'_, '_>) -> Given {
    let (mut values, new) = (s.sequence(0)?, s.tensor(1)?);
    // Behind the last element is a position too, but a negative one counts the elements that are there.
    let at = match s.optional_tensor(2)? {
        None => values.len(),
        Some(place) => match constants(s, place).as_deref() {
            Some(&[at]) if at >= 0 && usize::try_from(at) == Ok(values.len()) => values.len(),
            _ => position(s, 2, values.len())?.unwrap_or(values.len()),
        },
    };
    values.insert(at, new);
    Ok(Item::Sequence(values))
}

fn erase(s: &mut Sequences<'_, '_>) -> Given {
    let mut values = s.sequence(0)?;
    let Some(last) = values.len().checked_sub(1) else { return Err("the sequence is empty".into()) };
    let at = position(s, 1, values.len())?.unwrap_or(last);
    values.remove(at);
    Ok(Item::Sequence(values))
}

/// One element. A position that the data decides reads from the elements stacked, which must have one shape then.
fn element(s: &mut Sequences<'_, '_>) -> Given {
    let (values, place) = (s.sequence(0)?, s.tensor(1)?);
    if constants(s, place).is_some() {
        let at = position(s, 1, values.len())?.ok_or("the position is missing")?;
        return Ok(Item::Tensor(values[at]));
    }
    let mut b = s.builder();
    let alike = values.windows(2).all(|pair| b.ty(pair[0]) == b.ty(pair[1]));
    if !alike || values.is_empty() {
        return Err(open("the position of elements that differ in shape"));
    }
    let mut rows = Vec::with_capacity(values.len());
    for value in values {
        let mut dims = b.dims(value);
        dims.insert(0, Expr::constant(1));
        rows.push(b.reshape(value, dims)?);
    }
    let all = b.concat(&rows, 0)?;
    let place = b.reshape(place, Vec::new())?;
    Ok(Item::Tensor(b.node(Op::Gather { axis: 0 }, &[all, place])?))
}

fn concat(s: &mut Sequences<'_, '_>) -> Given {
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
    Ok(Item::Tensor(b.concat(&values, axis)?))
}

/// How many elements a tensor is split into at most.
const MAX_PARTS: i64 = 1024;

fn split(s: &mut Sequences<'_, '_>) -> Given {
    let x = s.tensor(0)?;
    let axis = s.attrs.int_or("axis", 0)?;
    let keeps = s.attrs.flag_or("keepdims", 1)?;
    let dims = s.builder().dims(x);
    let axis = normalize_axis(axis, dims.len())?;
    let Some(extent) = dims[axis].as_const() else { return Err(open("the number of parts")) };
    let given = s.optional_tensor(1)?;
    let sizes = match given {
        None => vec![1; usize::try_from(extent.min(MAX_PARTS + 1)).unwrap_or(0)],
        Some(sizes) => {
            let scalar = s.builder().rank(sizes) == 0;
            let sizes = constants(s, sizes).ok_or_else(|| open("the size of a part"))?;
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
    Ok(Item::Sequence(parts))
}

fn present(s: &mut Sequences<'_, '_>) -> Given {
    s.attrs.ignore(&["type"]);
    s.optional(0)?.ok_or_else(|| {
        Fault::unsupported(
            "an optional value that is absent is not supported",
            "export the model with the value, or without the nodes that ask for it",
        )
    })
}

fn is_present(s: &mut Sequences<'_, '_>) -> Given {
    let there = s.optional(0)?.is_some();
    Ok(Item::Tensor(s.builder().scalar(Scalar::int(DType::Bool, i64::from(there)))))
}
