//! The precision that the user asks for, made law in one pass.
//!
//! Does: give every `f32` value inside the model another type; inputs and outputs keep theirs, weights are converted
//! once at load. Sums, statistics and the steps of pointwise programs stay `f32` inside the kernels. Needs: a verified
//! graph, before fusion. Breaks: nothing, but results differ by the rounding asked for.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Instr, Math, Scalar, ScalarOp};
use lapidary_templates::Program;

use crate::ir::builder::round_scalar;
use crate::ir::{Def, Graph, Op, Type, ValueId};

/// The type that `f32` arithmetic is done in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// As the model says.
    #[default]
    Fp32,
    /// As the model says, but products of `f32` matrices are rounded to TF32.
    Tf32,
    Fp16,
    Bf16,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        match text {
            "fp32" => Ok(Precision::Fp32),
            "tf32" => Ok(Precision::Tf32),
            "fp16" => Ok(Precision::Fp16),
            "bf16" => Ok(Precision::Bf16),
            other => Err(format!("`{other}` is not a precision; there are fp32, tf32, fp16, bf16")),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
        })
    }
}

/// The graph in the precision asked for.
pub fn apply(graph: Graph, precision: Precision) -> Graph {
    match precision {
        Precision::Fp32 => graph,
        Precision::Tf32 => tf32(graph),
        Precision::Fp16 => Narrowing { to: DType::F16 }.outer(&graph),
        Precision::Bf16 => Narrowing { to: DType::BF16 }.outer(&graph),
    }
}

fn tf32(mut graph: Graph) -> Graph {
    for id in graph.order() {
        let op = match graph.node(id).op.clone() {
            Op::MatMul(spec, epilogue) => {
                Op::MatMul(lapidary_runtime::op::MatMul { math: Math::Tf32, ..spec }, epilogue)
            }
            Op::Conv(spec, epilogue) => Op::Conv(lapidary_runtime::op::Conv { math: Math::Tf32, ..spec }, epilogue),
            op => op.map_regions(|region| tf32(region.clone())),
        };
        graph.set_op(id, op);
    }
    graph
}

/// Whether a border value is converted or is inside already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Border {
    /// Inputs and outputs keep their type.
    Kept,
    /// Inputs come narrow, outputs stay so.
    Inside,
}

struct Narrowing {
    to: DType,
}

impl Narrowing {
    fn outer(&self, graph: &Graph) -> Graph {
        self.graph(graph, Border::Kept)
    }

    /// Rebuilds a graph node by node with narrow types.
    fn graph(&self, graph: &Graph, border: Border) -> Graph {
        let mut out = Graph::new(&graph.name);
        // Counts follow with the values that hold them.
        out.symbols = graph.symbols_inside();
        out.constraints = graph.constraints.clone();
        let mut moved: Vec<Option<ValueId>> = vec![None; graph.value_ids().count()];
        for &input in graph.inputs() {
            let value = graph.value(input);
            let narrow = match border {
                Border::Kept => {
                    let kept = out.add_input(&value.name, value.ty.clone());
                    self.cast(&mut out, kept, self.dtype(value.ty.dtype))
                }
                Border::Inside => out.add_input(&value.name, self.ty(&value.ty)),
            };
            moved[input.index()] = Some(narrow);
            out.take_counts(graph, input, narrow);
        }
        for id in graph.value_ids() {
            let value = graph.value(id);
            if let Def::Constant(constant) = &value.def
                && (!graph.uses(id).is_empty() || graph.is_count(id))
            {
                let kept = out.add_constant(&value.name, value.ty.clone(), constant.clone());
                out.take_counts(graph, id, kept);
                moved[id.index()] = Some(self.cast(&mut out, kept, self.dtype(value.ty.dtype)));
            }
        }
        for id in graph.order() {
            let node = graph.node(id);
            let inputs: Vec<Option<ValueId>> =
                node.inputs.iter().map(|value| value.and_then(|value| moved[value.index()])).collect();
            let results = node
                .outputs
                .iter()
                .map(|value| {
                    value.map(|value| (graph.value(value).name.clone(), self.result_type(&node.op, graph.ty(value))))
                })
                .collect();
            let added = out.add_node(self.op(&node.op), inputs, results, node.origin.clone());
            for (from, to) in node.outputs.iter().zip(out.node(added).outputs.clone()) {
                if let (Some(from), Some(to)) = (from, to) {
                    if let Some(known) = graph.value(*from).known.clone() {
                        out.set_known(to, known);
                    }
                    out.take_counts(graph, *from, to);
                    // Statistics come out as f32 whatever the operands are.
                    let wanted = self.dtype(graph.ty(*from).dtype);
                    moved[from.index()] = Some(self.cast(&mut out, to, wanted));
                }
            }
        }
        for (name, value) in graph.outputs() {
            let Some(narrow) = moved[value.index()] else { crate::bug!("output {name} was not rebuilt") };
            let output = match border {
                Border::Kept => self.cast(&mut out, narrow, graph.ty(*value).dtype),
                Border::Inside => narrow,
            };
            out.add_output(name, output);
        }
        out
    }

    fn dtype(&self, dtype: DType) -> DType {
        if dtype == DType::F32 { self.to } else { dtype }
    }

    fn ty(&self, ty: &Type) -> Type {
        Type { dtype: self.dtype(ty.dtype), dims: ty.dims.clone() }
    }

    /// The type of a result of the narrow operation, by inference: some results are `f32` in any case.
    fn result_type(&self, op: &Op, ty: &Type) -> Type {
        match op {
            Op::Norm(..) if ty.dims.last().is_some_and(|dim| dim.is(1)) && ty.dtype == DType::F32 => ty.clone(),
            _ => self.ty(ty),
        }
    }

    fn cast(&self, graph: &mut Graph, value: ValueId, dtype: DType) -> ValueId {
        let ty = graph.ty(value).clone();
        if ty.dtype == dtype {
            return value;
        }
        let program = Program::single(ScalarOp::Cast, dtype, &[ty.dtype]);
        let name = graph.value(value).name.clone();
        let result = Some((name, Type { dtype, dims: ty.dims }));
        let node = graph.add_node(Op::Pointwise(program), vec![Some(value)], vec![result], Default::default());
        match graph.node(node).outputs.first() {
            Some(Some(result)) => *result,
            Some(None) | None => crate::bug!("a cast without a result"),
        }
    }

    fn op(&self, op: &Op) -> Op {
        match op {
            Op::Pointwise(program) => Op::Pointwise(self.program(program)),
            Op::MatMul(spec, epilogue) => Op::MatMul(*spec, epilogue.as_ref().map(|program| self.program(program))),
            Op::Conv(spec, epilogue) => Op::Conv(*spec, epilogue.as_ref().map(|program| self.program(program))),
            op => op.map_regions(|region| self.graph(region, Border::Inside)),
        }
    }

    fn program(&self, program: &Program) -> Program {
        let arg = |arg: Arg| match arg {
            Arg::Imm(scalar) if scalar.dtype == DType::F32 => Arg::Imm(self.scalar(scalar)),
            Arg::Imm(_) | Arg::Input(_) | Arg::Step(_) => arg,
        };
        Program {
            inputs: program.inputs.iter().map(|dtype| self.dtype(*dtype)).collect(),
            steps: program
                .steps
                .iter()
                .map(|step| Instr { op: step.op, dtype: self.dtype(step.dtype), args: step.args.map(arg) })
                .collect(),
            outputs: program.outputs.iter().map(|output| arg(*output)).collect(),
        }
    }

    /// A constant keeps within the finite range: masks are written as the most negative `f32`.
    fn scalar(&self, scalar: Scalar) -> Scalar {
        let largest = if self.to == DType::F16 { 65504.0 } else { f64::from(f32::from_bits(0x7f7f_0000)) };
        let value = scalar.as_f64();
        let clamped = if value.is_finite() { value.clamp(-largest, largest) } else { value };
        round_scalar(self.to, clamped)
    }
}
