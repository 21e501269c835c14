//! Reading tensors between their elements (ONNX GridSample): gathers of the elements around each place, and programs that
//! weight them.
//!
//! [`sample`] serves every operator that interpolates at computed places. A place beside the tensor reads zeros, the
//! border, or the reflection, as ONNX's GridSample says.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, ScalarOp};

use super::entry::binary;
use super::{Cx, Fault, Imported, OpDef, one};
use crate::ir::builder::{Built, ProgramWriter};
use crate::ir::{Builder, Expr, Op, ValueId};

pub const DEFS: &[OpDef] = &[binary("GridSample", 16, grid_sample)];

/// How many elements around a place count, and how much.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    /// Keys' cubic convolution with -0.75.
    Cubic,
}

impl Mode {
    /// The positions of the elements relative to the one before the place.
    fn taps(self) -> &'static [i32] {
        match self {
            Mode::Nearest => &[0],
            Mode::Linear => &[0, 1],
            Mode::Cubic => &[-1, 0, 1, 2],
        }
    }
}

/// What is read beside the tensor.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Beside {
    Zeros,
    Border,
    /// Mirrored at the ends, which are the centers of the outer elements or their outer sides.
    Reflection(Ends),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Centers,
    Sides,
}

/// A tensor `[m, c, elements]` of spatial extents `dims`, and the places `[m, 1, q]` to read along each of them.
pub(super) struct Places {
    pub dims: Vec<Expr>,
    /// In elements, in `f32` or `f64`; one value for each axis.
    pub coordinates: Vec<ValueId>,
}

/// `[m, c, q]`: what `x` is at the places.
///
/// # Errors
/// The operands do not fit.
pub(super) fn sample(b: &mut Builder<'_>, x: ValueId, places: &Places, mode: Mode, beside: Beside) -> Built {
    let rank = places.dims.len();
    let mut lengths = Vec::with_capacity(rank);
    for dim in &places.dims {
        lengths.push(b.extents(vec![dim.clone()], 0)?);
    }
    let around: Vec<ValueId> = places.coordinates.iter().chain(&lengths).copied().collect();
    let dtype = b.dtype(x);
    let wide = b.dtype(places.coordinates[0]);
    let mut taps: Vec<Vec<i32>> = vec![Vec::new()];
    for _ in 0..rank {
        let longer =
            |row: &Vec<i32>| mode.taps().iter().map(|&tap| [row.as_slice(), &[tap]].concat()).collect::<Vec<_>>();
        taps = taps.iter().flat_map(longer).collect();
    }
    let mut sum: Option<ValueId> = None;
    // One row of elements a program, so that none reads many tensors.
    for row in taps.chunks(mode.taps().len()) {
        let mut inputs = around.clone();
        for tap in row {
            inputs.push(gathered(b, x, &around, tap, beside)?);
        }
        inputs.extend(sum);
        let last = row == &taps[taps.len() - row.len()..];
        sum = Some(b.program(&inputs, |p| {
            let mut total = sum.map(|_| Arg::Input(inputs.len() as u16 - 1));
            for (k, tap) in row.iter().enumerate() {
                let value = Arg::Input((2 * rank + k) as u16);
                let value = if mode == Mode::Nearest { value } else { p.cast(value, wide) };
                let part = weighted(p, value, tap, mode, beside);
                total = Some(match total {
                    Some(total) => p.push(ScalarOp::Add, &[total, part]),
                    None => part,
                });
            }
            let total = total.unwrap_or(Arg::Input(0));
            if last { p.cast(total, dtype) } else { total }
        })?);
    }
    sum.ok_or_else(|| "there are no axes to sample".to_owned())
}

/// The elements `tap` from those before the places; where there are none, any.
fn gathered(b: &mut Builder<'_>, x: ValueId, around: &[ValueId], tap: &[i32], beside: Beside) -> Built {
    let rank = tap.len();
    let index = b.program(around, |p| {
        let mut flat = None;
        for (axis, &tap) in tap.iter().enumerate() {
            let length = Arg::Input((rank + axis) as u16);
            let at = tapped(p, Arg::Input(axis as u16), tap);
            let at = inside(p, at, length, beside);
            let at = p.cast(at, DType::I64);
            let last = p.push(ScalarOp::Sub, &[length, p.imm(length, 1.0)]);
            let at = p.push(ScalarOp::Min, &[at, last]);
            let at = p.push(ScalarOp::Max, &[at, p.imm(at, 0.0)]);
            flat = Some(match flat {
                Some(flat) => {
                    let rows = p.push(ScalarOp::Mul, &[flat, length]);
                    p.push(ScalarOp::Add, &[rows, at])
                }
                None => at,
            });
        }
        flat.unwrap_or(Arg::Input(0))
    })?;
    let mut dims = b.dims(index);
    dims[1] = b.dims(x)[1].clone();
    let index = b.expand(index, dims)?;
    b.node(Op::GatherElements { axis: 2 }, &[x, index])
}

/// The position `tap` from the element before a coordinate.
fn tapped(p: &mut ProgramWriter, coordinate: Arg, tap: i32) -> Arg {
    let before = p.push(ScalarOp::Floor, &[coordinate]);
    if tap == 0 { before } else { p.push(ScalarOp::Add, &[before, p.imm(before, f64::from(tap))]) }
}

/// The position that is read for `at`.
fn inside(p: &mut ProgramWriter, at: Arg, length: Arg, beside: Beside) -> Arg {
    match beside {
        // Clamped as an index.
        Beside::Zeros | Beside::Border => at,
        Beside::Reflection(ends) => reflected(p, at, length, ends),
    }
}

/// The outer ends of an axis.
fn ends_of(p: &mut ProgramWriter, like: Arg, length: Arg, ends: Ends) -> (Arg, Arg) {
    let (first, behind) = match ends {
        Ends::Centers => (0.0, 1.0),
        Ends::Sides => (-0.5, 0.5),
    };
    let dtype = p.dtype(like);
    let length = p.cast(length, dtype);
    (p.imm(like, first), p.push(ScalarOp::Sub, &[length, p.imm(length, behind)]))
}

/// `at` mirrored at both ends until it is between them.
fn reflected(p: &mut ProgramWriter, at: Arg, length: Arg, ends: Ends) -> Arg {
    let (low, high) = ends_of(p, at, length, ends);
    let range = p.push(ScalarOp::Sub, &[high, low]);
    let period = p.push(ScalarOp::Mul, &[range, p.imm(range, 2.0)]);
    let from_low = p.push(ScalarOp::Sub, &[at, low]);
    let distance = p.push(ScalarOp::Abs, &[from_low]);
    let rest = p.push(ScalarOp::Fmod, &[distance, period]);
    let back = p.push(ScalarOp::Sub, &[period, rest]);
    let nearer = p.push(ScalarOp::Min, &[rest, back]);
    let mirrored = p.push(ScalarOp::Add, &[low, nearer]);
    let outside = is_outside(p, at, low, high);
    let moved = p.push(ScalarOp::Select, &[outside, mirrored, at]);
    // An axis of one element has no range to be mirrored in.
    let point = p.push(ScalarOp::Equal, &[range, p.imm(range, 0.0)]);
    p.push(ScalarOp::Select, &[point, p.imm(at, 0.0), moved])
}

fn is_outside(p: &mut ProgramWriter, at: Arg, low: Arg, high: Arg) -> Arg {
    let before = p.push(ScalarOp::Less, &[at, low]);
    let behind = p.push(ScalarOp::Greater, &[at, high]);
    p.push(ScalarOp::Or, &[before, behind])
}

/// `value` times the weights of its tap along each axis, and zero where it is beside the tensor and that counts.
fn weighted(p: &mut ProgramWriter, value: Arg, tap: &[i32], mode: Mode, beside: Beside) -> Arg {
    let rank = tap.len();
    let mut weight = None;
    let mut value = value;
    for (axis, &tap) in tap.iter().enumerate() {
        let (coordinate, length) = (Arg::Input(axis as u16), Arg::Input((rank + axis) as u16));
        if beside == Beside::Zeros {
            let at = tapped(p, coordinate, tap);
            let (low, high) = ends_of(p, at, length, Ends::Centers);
            let outside = is_outside(p, at, low, high);
            value = p.push(ScalarOp::Select, &[outside, p.imm(value, 0.0), value]);
        }
        if mode == Mode::Nearest {
            continue;
        }
        let own = weight_of(p, coordinate, tap, mode);
        weight = Some(match weight {
            Some(weight) => p.push(ScalarOp::Mul, &[weight, own]),
            None => own,
        });
    }
    match weight {
        Some(weight) => p.push(ScalarOp::Mul, &[weight, value]),
        None => p.push(ScalarOp::Identity, &[value]),
    }
}

fn weight_of(p: &mut ProgramWriter, coordinate: Arg, tap: i32, mode: Mode) -> Arg {
    let at = tapped(p, coordinate, tap);
    let signed = p.push(ScalarOp::Sub, &[coordinate, at]);
    let distance = p.push(ScalarOp::Abs, &[signed]);
    match mode {
        Mode::Nearest | Mode::Linear => p.push(ScalarOp::Sub, &[p.imm(distance, 1.0), distance]),
        // Horner's scheme of the inner and of the outer polynomial.
        Mode::Cubic if tap == 0 || tap == 1 => polynomial(p, distance, [1.25, -2.25, 0.0, 1.0]),
        Mode::Cubic => polynomial(p, distance, [-0.75, 3.75, -6.0, 3.0]),
    }
}

fn polynomial(p: &mut ProgramWriter, x: Arg, coefficients: [f64; 4]) -> Arg {
    let [first, rest @ ..] = coefficients;
    let mut sum = p.imm(x, first);
    for coefficient in rest {
        let product = p.push(ScalarOp::Mul, &[x, sum]);
        sum = p.push(ScalarOp::Add, &[product, p.imm(x, coefficient)]);
    }
    sum
}

fn grid_sample(cx: &mut Cx<'_, '_>) -> Imported {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let modes = [
        ("linear", Mode::Linear),
        ("bilinear", Mode::Linear),
        ("nearest", Mode::Nearest),
        ("cubic", Mode::Cubic),
        ("bicubic", Mode::Cubic),
    ];
    let mode = cx.attrs.choice_or("mode", Mode::Linear, &modes)?;
    let ends = if cx.attrs.flag_or("align_corners", 0)? { Ends::Centers } else { Ends::Sides };
    let sides = [("zeros", Beside::Zeros), ("border", Beside::Border), ("reflection", Beside::Reflection(ends))];
    let beside = cx.attrs.choice_or("padding_mode", Beside::Zeros, &sides)?;
    let (dims, grid_dims) = (cx.b.dims(x), cx.b.dims(grid));
    let rank = dims.len().saturating_sub(2);
    if rank == 0 || grid_dims.len() != rank + 2 {
        return Err(format!(
            "the ranks of the operands are {} and {}, and must be equal, from 3 on",
            dims.len(),
            grid_dims.len()
        )
        .into());
    }
    cx.b.require_equal(&grid_dims[rank + 1], &Expr::from(rank))?;
    if rank > 3 || (rank == 3 && mode == Mode::Cubic) {
        return Err(Fault::unsupported(
            format!("GridSample in this mode over {rank} axes is not supported"),
            "sample over at most 3 axes, and 2 where the mode is cubic",
        ));
    }
    if mode != Mode::Nearest && !cx.b.dtype(x).is_float() {
        return Err(Fault::unsupported(
            format!("GridSample of {} is not supported but for the mode nearest", cx.b.dtype(x)),
            "convert the operand to floats in front of it",
        ));
    }
    let count = grid_dims[1..=rank].iter().cloned().fold(Expr::constant(1), |count, dim| count * dim);
    let flat = vec![grid_dims[0].clone(), Expr::constant(1), count];
    let mut coordinates = Vec::with_capacity(rank);
    for axis in 0..rank {
        // The last axis of the tensor comes first in the grid.
        let part = cx.b.slice_axis(grid, rank + 1, Expr::from(rank - 1 - axis), Expr::constant(1))?;
        let part = cx.b.reshape(part, flat.clone())?;
        let length = cx.b.extents(vec![dims[axis + 2].clone()], 0)?;
        coordinates.push(coordinate(&mut cx.b, part, length, mode, beside, ends)?);
    }
    let elements = dims[2..].iter().cloned().fold(Expr::constant(1), |count, dim| count * dim);
    let x = cx.b.reshape(x, vec![dims[0].clone(), dims[1].clone(), elements])?;
    let y = sample(&mut cx.b, x, &Places { dims: dims[2..].to_vec(), coordinates }, mode, beside)?;
    let mut shape = dims[..2].to_vec();
    shape.extend_from_slice(&grid_dims[1..=rank]);
    one(cx.b.reshape(y, shape)?)
}

/// From -1 .. 1 to elements; what is outside is brought to the border or reflected first.
fn coordinate(b: &mut Builder<'_>, part: ValueId, length: ValueId, mode: Mode, beside: Beside, ends: Ends) -> Built {
    let wide = if b.dtype(part) == DType::F64 { DType::F64 } else { DType::F32 };
    b.program(&[part, length], |p| {
        let place = p.cast(Arg::Input(0), wide);
        let length = p.cast(Arg::Input(1), wide);
        let raised = p.push(ScalarOp::Add, &[place, p.imm(place, 1.0)]);
        let last = p.push(ScalarOp::Sub, &[length, p.imm(length, 1.0)]);
        let doubled = match ends {
            Ends::Centers => p.push(ScalarOp::Mul, &[raised, last]),
            Ends::Sides => {
                let scaled = p.push(ScalarOp::Mul, &[raised, length]);
                p.push(ScalarOp::Sub, &[scaled, p.imm(scaled, 1.0)])
            }
        };
        let mut at = p.push(ScalarOp::Mul, &[doubled, p.imm(doubled, 0.5)]);
        if mode == Mode::Nearest {
            at = p.push(ScalarOp::Round, &[at]);
        }
        match beside {
            Beside::Zeros => at,
            Beside::Border => {
                let (low, high) = ends_of(p, at, Arg::Input(1), ends);
                let outside = is_outside(p, at, low, high);
                let clamped = p.push(ScalarOp::Min, &[at, last]);
                let clamped = p.push(ScalarOp::Max, &[clamped, p.imm(at, 0.0)]);
                p.push(ScalarOp::Select, &[outside, clamped, at])
            }
            Beside::Reflection(ends) => {
                let at = reflected(p, at, Arg::Input(1), ends);
                // A half left over by the reflection is cut off.
                if mode == Mode::Nearest { p.push(ScalarOp::Floor, &[at]) } else { at }
            }
        }
    })
}
