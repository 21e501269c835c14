//! The fields of each operation, said once: the same visit prints them and reads them.

use lapidary_runtime::DType;
use lapidary_runtime::op::{
    Activation, ActivationKind, ArgReduce, Attention, Axes, Cell, Conv, ConvTranspose, CoordinateMode, Direction,
    GroupNorm, MAX_RANK, MAX_SPATIAL, MatMul, Math, Norm, NormKind, PadMode, Pool, PoolKind, Recurrent, Reduce,
    ReduceKind, RegionKind, RegionPool, Resize, ResizeMode, Scalar, ScatterMode, Softmax, Transpose, Unseen, Window,
};

use super::Printer;
use super::reader::Reader;
use super::value::{Spatial, Text};
use crate::ir::{Expr, Graph, Op, Program, Region};

type Done = Result<(), String>;

/// Prints the fields in braces, if there are any.
pub(super) fn print(op: &Op, out: &mut Printer) {
    let start = out.text.len();
    out.text += " {";
    let empty = out.text.len();
    // Printing changes nothing and cannot fail; the visit takes `&mut` for the reader's sake.
    let done = visit(&mut op.clone(), &mut Writing(out));
    debug_assert_eq!(done, Ok(()));
    if out.text.len() == empty {
        out.text.truncate(start);
    } else {
        out.text += " }";
    }
}

/// Reads the name of an operation; its fields are still to be read.
pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<Op, String> {
    reader.one_of("an operation", |word| blanks().into_iter().find(|op| op.name() == word))
}

/// Reads the fields.
pub(super) fn read(op: &mut Op, reader: &mut Reader<'_>) -> Done {
    let braces = reader.eat("{");
    visit(op, &mut Reading(reader))?;
    if braces { reader.expect("}") } else { Ok(()) }
}

/// One pass over fields, in order.
trait Fields {
    /// `name value`.
    fn field<T: Text>(&mut self, name: &str, value: &mut T) -> Done;
    /// `name value`, left out where it is `usual`.
    fn unless<T: Text + PartialEq>(&mut self, name: &str, value: &mut T, usual: T) -> Done;
    /// `name`, left out where it is false.
    fn flag(&mut self, name: &str, value: &mut bool) -> Done;
    /// `name (formula)`.
    fn formula(&mut self, name: &str, value: &mut Expr) -> Done;
    /// `name { value }`, left out where it is absent.
    fn block<T: Text>(&mut self, name: &str, value: &mut Option<T>) -> Done;
    /// The value alone.
    fn bare<T: Text>(&mut self, value: &mut T) -> Done;
}

struct Writing<'p>(&'p mut Printer);

impl Fields for Writing<'_> {
    fn field<T: Text>(&mut self, name: &str, value: &mut T) -> Done {
        self.0.text += &format!(" {name} ");
        value.print(self.0);
        Ok(())
    }

    fn unless<T: Text + PartialEq>(&mut self, name: &str, value: &mut T, usual: T) -> Done {
        if *value == usual { Ok(()) } else { self.field(name, value) }
    }

    fn flag(&mut self, name: &str, value: &mut bool) -> Done {
        if *value {
            self.0.text += &format!(" {name}");
        }
        Ok(())
    }

    fn formula(&mut self, name: &str, value: &mut Expr) -> Done {
        self.0.text += &format!(" {name} ({value})");
        Ok(())
    }

    fn block<T: Text>(&mut self, name: &str, value: &mut Option<T>) -> Done {
        if let Some(value) = value {
            self.0.text += &format!(" {name} {{ ");
            value.print(self.0);
            self.0.text += " }";
        }
        Ok(())
    }

    fn bare<T: Text>(&mut self, value: &mut T) -> Done {
        self.0.text.push(' ');
        value.print(self.0);
        Ok(())
    }
}

struct Reading<'r, 'a>(&'r mut Reader<'a>);

impl Fields for Reading<'_, '_> {
    fn field<T: Text>(&mut self, name: &str, value: &mut T) -> Done {
        self.0.expect_word(name)?;
        *value = T::read(self.0)?;
        Ok(())
    }

    fn unless<T: Text + PartialEq>(&mut self, name: &str, value: &mut T, usual: T) -> Done {
        *value = if self.0.eat_word(name) { T::read(self.0)? } else { usual };
        Ok(())
    }

    fn flag(&mut self, name: &str, value: &mut bool) -> Done {
        *value = self.0.eat_word(name);
        Ok(())
    }

    fn formula(&mut self, name: &str, value: &mut Expr) -> Done {
        self.0.expect_word(name)?;
        self.0.expect("(")?;
        *value = self.0.expr()?;
        self.0.expect(")")
    }

    fn block<T: Text>(&mut self, name: &str, value: &mut Option<T>) -> Done {
        *value = None;
        if self.0.eat_word(name) {
            self.0.expect("{")?;
            *value = Some(T::read(self.0)?);
            self.0.expect("}")?;
        }
        Ok(())
    }

    fn bare<T: Text>(&mut self, value: &mut T) -> Done {
        *value = T::read(self.0)?;
        Ok(())
    }
}

fn visit<F: Fields>(op: &mut Op, f: &mut F) -> Done {
    match op {
        Op::Pointwise(program) => f.bare(program),
        Op::MatMul(spec, epilogue) => {
            f.flag("transpose_a", &mut spec.transpose_a)?;
            f.flag("transpose_b", &mut spec.transpose_b)?;
            f.unless("math", &mut spec.math, Math::Exact)?;
            f.block("epilogue", epilogue)
        }
        Op::Conv(spec, epilogue) => {
            window(&mut spec.window, f)?;
            f.unless("groups", &mut spec.groups, 1)?;
            f.unless("math", &mut spec.math, Math::Exact)?;
            f.block("epilogue", epilogue)
        }
        Op::ConvTranspose(spec, dims) => {
            window(&mut spec.window, f)?;
            f.unless("groups", &mut spec.groups, 1)?;
            f.field("dims", dims)
        }
        Op::Pool(spec, dims) => {
            f.field("kind", &mut spec.kind)?;
            window(&mut spec.window, f)?;
            f.unless("index_order", &mut spec.index_order, 0)?;
            f.field("dims", dims)
        }
        Op::Reduce(spec) => {
            f.field("kind", &mut spec.kind)?;
            f.field("axes", &mut spec.axes)
        }
        Op::ArgReduce(spec) => {
            f.field("axis", &mut spec.axis)?;
            f.flag("largest", &mut spec.largest)?;
            f.flag("select_last", &mut spec.select_last)
        }
        Op::Softmax(spec) => {
            f.field("axis", &mut spec.axis)?;
            f.flag("log", &mut spec.log)
        }
        Op::Attention(spec) => {
            f.field("scale", &mut spec.scale)?;
            f.flag("causal", &mut spec.causal)?;
            f.unless("unseen", &mut spec.unseen, Unseen::Nan)?;
            f.unless("math", &mut spec.math, Math::Exact)
        }
        Op::Norm(spec, epilogue) => {
            f.field("kind", &mut spec.kind)?;
            f.field("axis", &mut spec.axis)?;
            f.field("epsilon", &mut spec.epsilon)?;
            f.block("epilogue", epilogue)
        }
        Op::GroupNorm(spec, epilogue) => {
            f.field("groups", &mut spec.groups)?;
            f.field("epsilon", &mut spec.epsilon)?;
            f.block("epilogue", epilogue)
        }
        Op::Transpose(spec) => permutation(spec, f),
        Op::BitCast(dtype) => f.field("to", dtype),
        Op::Reshape(dims) | Op::Expand(dims) => f.field("dims", dims),
        Op::Slice { starts, steps, dims } => {
            f.field("starts", starts)?;
            f.field("steps", steps)?;
            f.field("dims", dims)
        }
        Op::Pad { mode, lo, hi } => {
            f.field("mode", mode)?;
            f.field("lo", lo)?;
            f.field("hi", hi)
        }
        Op::Concat { axis } | Op::Gather { axis } | Op::GatherElements { axis } => f.field("axis", axis),
        Op::GatherNd { batch_dims } => f.unless("batch_dims", batch_dims, 0),
        Op::ScatterElements { axis, mode } => {
            f.field("axis", axis)?;
            f.unless("mode", mode, ScatterMode::Set)
        }
        Op::ScatterNd { mode } => f.unless("mode", mode, ScatterMode::Set),
        Op::Resize(spec, dims) => {
            resize(spec, f)?;
            f.field("dims", dims)
        }
        Op::RegionPool(spec) => region_pool(spec, f),
        Op::Recurrent(spec) => recurrent(spec, f),
        Op::Suppress => Ok(()),
        Op::CumSum { axis, exclusive, reverse } => {
            f.field("axis", axis)?;
            f.flag("exclusive", exclusive)?;
            f.flag("reverse", reverse)
        }
        Op::TopK { axis, largest, k } => {
            f.field("axis", axis)?;
            f.flag("largest", largest)?;
            f.formula("k", k)
        }
        Op::Range { count } => f.formula("count", count),
        Op::Extents { values, rank } => {
            f.field("values", values)?;
            f.unless("rank", rank, 1)
        }
        Op::RunCount => Ok(()),
        Op::If { then_region, else_region } => {
            f.field("then", then_region)?;
            f.field("else", else_region)
        }
        Op::Loop { body, carried, most } => {
            f.field("carried", carried)?;
            f.formula("most", most)?;
            f.field("body", body)
        }
    }
}

fn window<F: Fields>(window: &mut Window, f: &mut F) -> Done {
    let rank = usize::from(window.rank).min(MAX_SPATIAL);
    let mut size = Spatial(window.size[..rank].to_vec());
    f.field("window", &mut size)?;
    let rank = size.0.len();
    window.rank = rank as u8;
    window.size = padded(&size, rank, 1)?;
    let others = [
        ("stride", &mut window.stride, 1),
        ("dilation", &mut window.dilation, 1),
        ("pad_lo", &mut window.pad_lo, 0),
        ("pad_hi", &mut window.pad_hi, 0),
    ];
    for (name, numbers, usual) in others {
        let mut value = Spatial(numbers[..rank].to_vec());
        f.unless(name, &mut value, Spatial(vec![usual; rank]))?;
        *numbers = padded(&value, rank, usual)?;
    }
    Ok(())
}

fn padded(numbers: &Spatial, rank: usize, unused: u32) -> Result<[u32; MAX_SPATIAL], String> {
    if numbers.0.len() != rank {
        return Err(format!("there are {} numbers for {rank} spatial axes", numbers.0.len()));
    }
    let mut array = [unused; MAX_SPATIAL];
    array[..rank].copy_from_slice(&numbers.0);
    Ok(array)
}

fn permutation<F: Fields>(spec: &mut Transpose, f: &mut F) -> Done {
    let mut axes = spec.perm[..usize::from(spec.rank).min(MAX_RANK)].to_vec();
    f.field("perm", &mut axes)?;
    if axes.len() > MAX_RANK {
        return Err(format!("the permutation has {} axes, and the most are {MAX_RANK}", axes.len()));
    }
    *spec = Transpose { rank: axes.len() as u8, perm: [0; MAX_RANK] };
    spec.perm[..axes.len()].copy_from_slice(&axes);
    Ok(())
}

fn resize<F: Fields>(spec: &mut Resize, f: &mut F) -> Done {
    f.field("mode", &mut spec.mode)?;
    f.field("coordinates", &mut spec.coordinates)?;
    f.flag("antialias", &mut spec.antialias)?;
    f.flag("exclude_outside", &mut spec.exclude_outside)?;
    f.unless("cubic_coeff_a", &mut spec.cubic_coeff_a, -0.75)?;
    f.unless("extrapolation_value", &mut spec.extrapolation_value, 0.0)?;
    let stated = spec.scales.iter().rposition(|&scale| scale != 0.0).map_or(0, |last| last + 1);
    let mut scales = spec.scales[..stated].to_vec();
    f.unless("scales", &mut scales, Vec::new())?;
    if scales.len() > MAX_RANK {
        return Err(format!("there are {} scales, and the most are {MAX_RANK}", scales.len()));
    }
    spec.scales = [0.0; MAX_RANK];
    spec.scales[..scales.len()].copy_from_slice(&scales);
    Ok(())
}

fn region_pool<F: Fields>(spec: &mut RegionPool, f: &mut F) -> Done {
    f.field("kind", &mut spec.kind)?;
    let mut bins = Spatial(spec.bins.to_vec());
    f.field("bins", &mut bins)?;
    spec.bins = bins.0.try_into().map_err(|_| "there must be bins along two axes".to_owned())?;
    f.unless("samples", &mut spec.samples, 0)?;
    f.flag("half_pixel", &mut spec.half_pixel)?;
    f.unless("scale", &mut spec.scale, 1.0)
}

fn recurrent<F: Fields>(spec: &mut Recurrent, f: &mut F) -> Done {
    f.field("cell", &mut spec.cell)?;
    f.field("direction", &mut spec.direction)?;
    f.field("hidden", &mut spec.hidden)?;
    f.unless("clip", &mut spec.clip, f32::INFINITY)?;
    let mut activations = spec.activations.to_vec();
    f.field("activations", &mut activations)?;
    let count = activations.len();
    spec.activations =
        activations.try_into().map_err(|_| format!("there are {count} activations, and there must be 6"))?;
    f.flag("input_forget", &mut spec.input_forget)
}

/// Each operation with fields to be overwritten.
pub(super) fn blanks() -> Vec<Op> {
    let window = Window {
        rank: 0,
        size: [1; MAX_SPATIAL],
        stride: [1; MAX_SPATIAL],
        dilation: [1; MAX_SPATIAL],
        pad_lo: [0; MAX_SPATIAL],
        pad_hi: [0; MAX_SPATIAL],
    };
    let math = Math::Exact;
    let epsilon = Scalar::float(DType::F32, 0.0);
    let none = Expr::constant(0);
    let region = || Region(Box::new(Graph::new("")));
    let activation = Activation { kind: ActivationKind::Tanh, alpha: 0.0, beta: 0.0 };
    vec![
        Op::Pointwise(Program { inputs: Vec::new(), steps: Vec::new(), outputs: Vec::new() }),
        Op::MatMul(MatMul { transpose_a: false, transpose_b: false, math }, None),
        Op::Conv(Conv { window, groups: 1, math }, None),
        Op::ConvTranspose(ConvTranspose { window, groups: 1 }, Vec::new()),
        Op::Pool(Pool { kind: PoolKind::Max, window, index_order: 0 }, Vec::new()),
        Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: Axes(0) }),
        Op::ArgReduce(ArgReduce { largest: false, axis: 0, select_last: false }),
        Op::Softmax(Softmax { axis: 0, log: false }),
        Op::Attention(Attention { scale: epsilon, causal: false, unseen: Unseen::Nan, math }),
        Op::Norm(Norm { kind: NormKind::Layer, axis: 0, epsilon }, None),
        Op::GroupNorm(GroupNorm { groups: 1, epsilon }, None),
        Op::Reshape(Vec::new()),
        Op::BitCast(DType::U8),
        Op::Transpose(Transpose { rank: 0, perm: [0; MAX_RANK] }),
        Op::Expand(Vec::new()),
        Op::Slice { starts: Vec::new(), steps: Vec::new(), dims: Vec::new() },
        Op::Concat { axis: 0 },
        Op::Pad { mode: PadMode::Constant, lo: Vec::new(), hi: Vec::new() },
        Op::Gather { axis: 0 },
        Op::GatherElements { axis: 0 },
        Op::GatherNd { batch_dims: 0 },
        Op::ScatterElements { axis: 0, mode: ScatterMode::Set },
        Op::ScatterNd { mode: ScatterMode::Set },
        Op::Resize(
            Resize {
                mode: ResizeMode::Linear,
                coordinates: CoordinateMode::HalfPixel,
                antialias: false,
                exclude_outside: false,
                cubic_coeff_a: 0.0,
                extrapolation_value: 0.0,
                scales: [0.0; MAX_RANK],
            },
            Vec::new(),
        ),
        Op::RegionPool(RegionPool { kind: RegionKind::Mean, bins: [1, 1], samples: 0, half_pixel: false, scale: 1.0 }),
        Op::Recurrent(Recurrent {
            cell: Cell::Lstm,
            direction: Direction::Forward,
            hidden: 0,
            clip: 0.0,
            activations: [activation; 6],
            input_forget: false,
        }),
        Op::Suppress,
        Op::CumSum { axis: 0, exclusive: false, reverse: false },
        Op::TopK { axis: 0, largest: false, k: none.clone() },
        Op::Range { count: none.clone() },
        Op::Extents { values: Vec::new(), rank: 1 },
        Op::RunCount,
        Op::If { then_region: region(), else_region: region() },
        Op::Loop { body: region(), carried: 0, most: none },
    ]
}
