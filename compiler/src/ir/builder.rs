//! The typed builder: what importers compose IR operations with.
//!
//! Every method infers the result's type and tracks what is known of its elements; an error is one sentence without a
//! place, to which the importer adds the ONNX node. Results are named after the ONNX values by the importer.

use std::sync::Arc;

use bytes::Bytes;
use lapidary_runtime::DType;
use lapidary_runtime::op::{self, Arg, Axes, Instr, MAX_RANK, Scalar, ScalarOp};
use lapidary_runtime::table::ConstraintKind;

use super::eval::{self, Tensor};
use super::ops::{Op, known};
use super::patch::{infer_on, record};
use super::{Constant, Expr, Graph, Known, Origin, Program, Type, ValueId};

/// Adds nodes to a graph on behalf of one ONNX node.
pub struct Builder<'g> {
    graph: &'g mut Graph,
    origin: Origin,
    name: Arc<str>,
}

/// The answer of a builder method: a value, or why the operands do not fit.
pub type Built = Result<ValueId, String>;

impl<'g> Builder<'g> {
    /// A builder whose nodes come from `origin` and whose values are named after `name`.
    pub fn new(graph: &'g mut Graph, origin: Origin, name: &str) -> Builder<'g> {
        Builder { graph, origin, name: name.into() }
    }

    /// A builder of a region of this graph, for the same ONNX node.
    pub fn inside<'r>(&self, region: &'r mut Graph) -> Builder<'r> {
        Builder { graph: region, origin: self.origin.clone(), name: self.name.clone() }
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// The graph, for importers of regions.
    pub fn graph_mut(&mut self) -> &mut Graph {
        self.graph
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        self.graph.ty(value)
    }

    /// The element type of a value.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.graph.ty(value).dtype
    }

    /// The extents of a value.
    pub fn dims(&self, value: ValueId) -> Vec<Expr> {
        self.graph.ty(value).dims.clone()
    }

    /// The rank of a value.
    pub fn rank(&self, value: ValueId) -> usize {
        self.graph.ty(value).dims.len()
    }

    /// What is known of a small integer value's elements.
    pub fn known(&self, value: ValueId) -> Option<&[Expr]> {
        self.graph.value(value).known.as_ref().map(|known| known.0.as_slice())
    }

    /// The elements of a small integer value, if all are constants.
    pub fn known_ints(&self, value: ValueId) -> Option<Vec<i64>> {
        self.known(value)?.iter().map(Expr::as_const).collect()
    }

    /// The bytes of a value that is a constant.
    pub fn constant_bytes(&self, value: ValueId) -> Option<Bytes> {
        self.graph.constant(value).map(|constant| constant.bytes.clone())
    }

    /// The elements of a value that is small and follows from constants alone.
    pub fn constant_value(&self, value: ValueId) -> Option<Tensor> {
        const MOST_ELEMENTS: i64 = 4096;
        eval::constant(self.graph, value, MOST_ELEMENTS)
    }

    /// The one element of a constant of one element, of any type but the sub-byte ones.
    pub fn constant_scalar(&self, value: ValueId) -> Option<Scalar> {
        scalar_of(self.graph, value)
    }

    /// The bounds of a formula.
    pub fn range(&self, expr: &Expr) -> (i64, i64) {
        self.graph.range(expr)
    }

    /// Records that the model relies on two extents being equal.
    pub fn require_equal(&mut self, left: &Expr, right: &Expr) -> Result<(), String> {
        match (left.as_const(), right.as_const()) {
            (Some(a), Some(b)) if a != b => Err(format!("the extents {a} and {b} must be equal")),
            (_, _) if left == right => Ok(()),
            (_, _) => {
                let why = self.origin.to_string();
                record(self.graph, ConstraintKind::Equal, left.clone(), right.clone(), &why);
                Ok(())
            }
        }
    }

    /// Adds a node and returns its first result.
    pub fn node(&mut self, op: Op, inputs: &[ValueId]) -> Built {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let results = self.node_with(op, &inputs, 1)?;
        results.first().copied().flatten().ok_or_else(|| "the operation has no result".to_owned())
    }

    /// Adds a node with optional operands, of whose results the first `wanted` are kept.
    pub fn node_with(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        wanted: usize,
    ) -> Result<Vec<Option<ValueId>>, String> {
        let before = self.graph.constraints.len();
        let types = infer_on(self.graph, &op, inputs)?;
        for constraint in &mut self.graph.constraints[before..] {
            constraint.why = self.origin.to_string().into();
        }
        let of = |value: ValueId| {
            let value = self.graph.value(value);
            value.known.clone().or_else(|| value.integral.clone())
        };
        let knowns: Vec<Option<Known>> = inputs.iter().map(|value| value.and_then(of)).collect();
        let range = |expr: &Expr| self.graph.range(expr);
        let result_known = types.first().and_then(|ty| known(&op, &knowns, ty, &range));
        let named =
            types.into_iter().enumerate().map(|(k, ty)| (k < wanted).then(|| (self.name.clone(), ty))).collect();
        let id = self.graph.add_node(op, inputs.to_vec(), named, self.origin.clone());
        let outputs = self.graph.node(id).outputs.clone();
        if let (Some(known), Some(Some(first))) = (result_known, outputs.first()) {
            match self.graph.ty(*first).dtype.is_float() {
                true => self.graph.set_integral(*first, known),
                false => self.graph.set_known(*first, known),
            }
        }
        Ok(outputs)
    }

    /// A constant made by the importer.
    pub fn constant(&mut self, ty: Type, bytes: impl Into<Bytes>) -> ValueId {
        let constant = Constant { bytes: bytes.into(), initializer: None };
        self.graph.add_constant(&self.name.clone(), ty, constant)
    }

    /// A constant of rank 0.
    pub fn scalar(&mut self, scalar: Scalar) -> ValueId {
        let bytes = scalar_bytes(scalar);
        self.constant(Type { dtype: scalar.dtype, dims: Vec::new() }, bytes)
    }

    /// A float constant of rank 0 with the type of `like`.
    pub fn float_like(&mut self, like: ValueId, value: f64) -> ValueId {
        let dtype = self.dtype(like);
        self.scalar(round_scalar(dtype, value))
    }

    /// A vector of `i64` constants.
    pub fn i64s(&mut self, values: &[i64]) -> ValueId {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(Type { dtype: DType::I64, dims: vec![Expr::from(values.len())] }, bytes)
    }

    /// A vector of extents, or with rank 0 one extent, as an `i64` tensor.
    pub fn extents(&mut self, values: Vec<Expr>, rank: u8) -> Built {
        self.node(Op::Extents { values, rank }, &[])
    }

    /// `op(x)` with the result type the step has by rule (`bool` for predicates, else that of `x`).
    pub fn unary(&mut self, op: ScalarOp, x: ValueId) -> Built {
        self.program(&[x], |p| p.push(op, &[Arg::Input(0)]))
    }

    /// `op(a, b)`, broadcast.
    pub fn binary(&mut self, op: ScalarOp, a: ValueId, b: ValueId) -> Built {
        self.program(&[a, b], |p| p.push(op, &[Arg::Input(0), Arg::Input(1)]))
    }

    /// `condition ? a : b`, broadcast.
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Built {
        self.program(&[condition, a, b], |p| p.push(ScalarOp::Select, &[Arg::Input(0), Arg::Input(1), Arg::Input(2)]))
    }

    /// `x` converted to `dtype`; `x` itself if it has that type.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Built {
        if self.dtype(x) == dtype {
            return Ok(x);
        }
        self.program(&[x], |p| p.cast(Arg::Input(0), dtype))
    }

    /// A pointwise node whose program `write` composes; `write` returns the result.
    pub fn program(&mut self, inputs: &[ValueId], write: impl FnOnce(&mut ProgramWriter) -> Arg) -> Built {
        let mut writer = ProgramWriter::new(inputs.iter().map(|&value| self.dtype(value)).collect());
        let result = write(&mut writer);
        let program = Program { outputs: vec![result], ..writer.finish() };
        self.node(Op::Pointwise(program), inputs)
    }

    /// `x` with the shape `dims`.
    pub fn reshape(&mut self, x: ValueId, dims: Vec<Expr>) -> Built {
        if self.ty(x).dims == dims { Ok(x) } else { self.node(Op::Reshape(dims), &[x]) }
    }

    /// The bits of `x` as elements of `dtype`, which has as many.
    pub fn bit_cast(&mut self, x: ValueId, dtype: DType) -> Built {
        if self.ty(x).dtype == dtype { Ok(x) } else { self.node(Op::BitCast(dtype), &[x]) }
    }

    /// `x` with axes of extent 1 put in so that its result has `rank` axes, behind the existing ones.
    pub fn append_axes(&mut self, x: ValueId, rank: usize) -> Built {
        let mut dims = self.dims(x);
        dims.resize(rank.max(dims.len()), Expr::constant(1));
        self.reshape(x, dims)
    }

    /// Axis `k` of the result is axis `perm[k]` of `x`.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Built {
        if perm.iter().enumerate().all(|(k, &axis)| k == axis) {
            return Ok(x);
        }
        let mut spec = op::Transpose { rank: perm.len() as u8, perm: [0; MAX_RANK] };
        for (slot, &axis) in spec.perm.iter_mut().zip(perm) {
            *slot = axis as u8;
        }
        self.node(Op::Transpose(spec), &[x])
    }

    /// `x` broadcast to `dims`.
    pub fn expand(&mut self, x: ValueId, dims: Vec<Expr>) -> Built {
        if self.ty(x).dims == dims { Ok(x) } else { self.node(Op::Expand(dims), &[x]) }
    }

    /// `dims` elements of `x` from `starts`, every `steps`-th.
    pub fn slice(&mut self, x: ValueId, starts: Vec<Expr>, steps: Vec<i64>, dims: Vec<Expr>) -> Built {
        let whole = self.ty(x).dims == dims && steps.iter().all(|&step| step == 1) && starts.iter().all(|s| s.is(0));
        if whole { Ok(x) } else { self.node(Op::Slice { starts, steps, dims }, &[x]) }
    }

    /// Elements `start..start + count` of one axis.
    pub fn slice_axis(&mut self, x: ValueId, axis: usize, start: Expr, count: Expr) -> Built {
        let mut dims = self.dims(x);
        let mut starts = vec![Expr::constant(0); dims.len()];
        let rank = dims.len();
        let (Some(first), Some(extent)) = (starts.get_mut(axis), dims.get_mut(axis)) else {
            return Err(format!("a slice along axis {axis} of a tensor of rank {rank}"));
        };
        *first = start;
        *extent = count;
        let steps = vec![1; dims.len()];
        self.slice(x, starts, steps, dims)
    }

    /// The tensors one behind the other along `axis`.
    pub fn concat(&mut self, inputs: &[ValueId], axis: usize) -> Built {
        match inputs {
            [one] => Ok(*one),
            _ => self.node(Op::Concat { axis: axis as u8 }, inputs),
        }
    }

    /// A reduction over `axes`, which stay with extent 1.
    pub fn reduce(&mut self, kind: op::ReduceKind, x: ValueId, axes: &[usize]) -> Built {
        self.node(Op::Reduce(op::Reduce { kind, axes: Axes::of(axes.iter().copied()) }), &[x])
    }

    /// The product of two tensors of rank 2 or more.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Built {
        let spec = op::MatMul { transpose_a: false, transpose_b: false, math: op::Math::Exact };
        self.node(Op::MatMul(spec, None), &[a, b])
    }
}

/// Writes the steps of a pointwise program.
pub struct ProgramWriter {
    program: Program,
}

impl ProgramWriter {
    /// A program without steps, on operands of these types.
    pub fn new(inputs: Vec<DType>) -> ProgramWriter {
        ProgramWriter { program: Program { inputs, steps: Vec::new(), outputs: Vec::new() } }
    }

    /// What was written.
    pub fn finish(self) -> Program {
        self.program
    }

    /// Appends a step whose result type follows from its operands.
    pub fn push(&mut self, op: ScalarOp, args: &[Arg]) -> Arg {
        let of = if op == ScalarOp::Select { args[1] } else { args[0] };
        let dtype = if op.is_predicate() { DType::Bool } else { self.program.dtype_of(of) };
        self.step(op, dtype, args)
    }

    /// Appends a conversion.
    pub fn cast(&mut self, x: Arg, dtype: DType) -> Arg {
        if self.program.dtype_of(x) == dtype { x } else { self.step(ScalarOp::Cast, dtype, &[x]) }
    }

    /// A constant of the type of `like`, rounded to it.
    pub fn imm(&self, like: Arg, value: f64) -> Arg {
        Arg::Imm(round_scalar(self.program.dtype_of(like), value))
    }

    /// The type of an operand.
    pub fn dtype(&self, arg: Arg) -> DType {
        self.program.dtype_of(arg)
    }

    fn step(&mut self, op: ScalarOp, dtype: DType, args: &[Arg]) -> Arg {
        let at = |k: usize| args.get(k).copied().unwrap_or(args[0]);
        self.program.steps.push(Instr { op, dtype, args: [at(0), at(1), at(2)] });
        Arg::Step(self.program.steps.len() as u16 - 1)
    }
}

/// `value` converted to `dtype`: floats are rounded, integers truncated and saturated.
pub fn round_scalar(dtype: DType, value: f64) -> Scalar {
    match dtype {
        DType::F32 => Scalar::float(dtype, f64::from(value as f32)),
        DType::F16 => Scalar::float(dtype, f64::from(lapidary_runtime::F16::from_f64(value).to_f32())),
        DType::BF16 => Scalar::float(dtype, f64::from(lapidary_runtime::BF16::from_f64(value).to_f32())),
        dtype if dtype.is_float() => Scalar::float(dtype, value),
        dtype => Scalar::int(dtype, super::eval::tensor::float_to_int(dtype, value)),
    }
}

/// The packed little-endian bytes of a scalar of a type of at least 8 bits.
pub fn scalar_bytes(scalar: Scalar) -> Vec<u8> {
    match scalar.dtype {
        DType::F64 => scalar.as_f64().to_le_bytes().to_vec(),
        DType::F32 => (scalar.as_f64() as f32).to_le_bytes().to_vec(),
        DType::F16 => lapidary_runtime::F16::from_f64(scalar.as_f64()).0.to_le_bytes().to_vec(),
        DType::BF16 => lapidary_runtime::BF16::from_f64(scalar.as_f64()).0.to_le_bytes().to_vec(),
        dtype => scalar.as_i64().to_le_bytes()[..dtype.bits() / 8].to_vec(),
    }
}

/// The one element of a constant of one element, whose type has at least 8 bits and is no float8.
pub fn scalar_of(graph: &Graph, value: ValueId) -> Option<Scalar> {
    let constant = graph.constant(value)?;
    let ty = graph.ty(value);
    if !ty.count().is(1) {
        return None;
    }
    let bytes = &constant.bytes;
    let dtype = ty.dtype;
    let scalar = match dtype {
        DType::F64 => Scalar::float(dtype, f64::from_le_bytes(bytes[..].try_into().ok()?)),
        DType::F32 => Scalar::float(dtype, f64::from(f32::from_le_bytes(bytes[..].try_into().ok()?))),
        DType::F16 => {
            let half = lapidary_runtime::F16(u16::from_le_bytes(bytes[..].try_into().ok()?));
            Scalar::float(dtype, f64::from(half.to_f32()))
        }
        DType::BF16 => {
            let half = lapidary_runtime::BF16(u16::from_le_bytes(bytes[..].try_into().ok()?));
            Scalar::float(dtype, f64::from(half.to_f32()))
        }
        DType::I64 | DType::U64 => Scalar::int(dtype, i64::from_le_bytes(bytes[..].try_into().ok()?)),
        DType::I32 => Scalar::int(dtype, i64::from(i32::from_le_bytes(bytes[..].try_into().ok()?))),
        DType::U32 => Scalar::int(dtype, i64::from(u32::from_le_bytes(bytes[..].try_into().ok()?))),
        DType::I16 => Scalar::int(dtype, i64::from(i16::from_le_bytes(bytes[..].try_into().ok()?))),
        DType::U16 => Scalar::int(dtype, i64::from(u16::from_le_bytes(bytes[..].try_into().ok()?))),
        DType::I8 => Scalar::int(dtype, i64::from(*bytes.first()? as i8)),
        DType::U8 | DType::Bool => Scalar::int(dtype, i64::from(*bytes.first()?)),
        DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => return None,
    };
    Some(scalar)
}
