//! Normalizations: of rows (layer, RMS) and of groups of channels (group, instance).
//!
//! A scale or bias that is not one row repeated is applied by a pointwise kernel behind the normalization, which then
//! leaves its result unrounded in a scratch buffer.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, GroupNorm, Instr, Norm, NormKind, Scalar, ScalarOp};

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Candidate, Launch, Shapes};
use crate::epilogue;
use crate::extent::Expr;
use crate::families::pointwise::Elementwise;
use crate::families::softmax::{Team, check_float, row_teams, team_work};
use crate::predict::Work;
use crate::print;
use crate::problem::{Kind, Operand, Problem};
use crate::program::Program;
use crate::view::{broadcast, contiguous, product};

const FAMILY: &str = "norm";
const THREADS: u32 = 256;

/// Implementations of normalizations.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let rows = if let Kind::Norm(spec, program) = &problem.kind {
        Rows::of_norm(problem, spec, program.as_ref(), shapes)
    } else if let Kind::GroupNorm(spec, program) = &problem.kind {
        Rows::of_groups(problem, spec, program.as_ref())
    } else {
        return Answer::default();
    };
    Answer::or_refusal(FAMILY, rows.and_then(|rows| rows.candidates(problem, arch, shapes)))
}

/// What scale and bias are indexed by.
#[derive(Clone, Debug, PartialEq)]
enum Affine {
    /// There are none, or a pointwise kernel applies them.
    None,
    /// The position in the row.
    Element,
    /// The channel; there are `groups` of `channels`, each of `spatial` elements, in an image.
    Channel { groups: Expr, channels: Expr, spatial: Expr },
}

/// A normalization as rows of `n` elements.
struct Rows<'p> {
    name: &'static str,
    /// What is applied to each element in the end.
    program: Option<&'p Program>,
    kind: NormKind,
    affine: Affine,
    rows: Expr,
    n: Expr,
    epsilon: Scalar,
}

impl<'p> Rows<'p> {
    fn of_norm(
        problem: &Problem,
        spec: &Norm,
        program: Option<&'p Program>,
        shapes: &Shapes<'_>,
    ) -> Result<Rows<'p>, String> {
        let x = problem.input(0)?;
        let axis = usize::from(spec.axis);
        let factors: Vec<&Operand> = [1, 2].into_iter().filter_map(|k| problem.optional_input(k)).collect();
        let of_row = factors.iter().all(|factor| is_row(&factor.dims, &x.dims, axis, shapes));
        Ok(Rows {
            name: match spec.kind {
                NormKind::Layer => "layer_norm",
                NormKind::Rms => "rms_norm",
            },
            kind: spec.kind,
            program,
            affine: if of_row && !factors.is_empty() { Affine::Element } else { Affine::None },
            rows: product(&x.dims[..axis]),
            n: product(&x.dims[axis..]),
            epsilon: spec.epsilon,
        })
    }

    fn of_groups(problem: &Problem, spec: &GroupNorm, program: Option<&'p Program>) -> Result<Rows<'p>, String> {
        let x = problem.input(0)?;
        let [batch, channels, spatial @ ..] = x.dims.as_slice() else {
            return Err("the operand has fewer than two axes".to_owned());
        };
        let groups = Expr::constant(i64::from(spec.groups));
        let channels = channels.floor_div(&groups);
        let spatial = product(spatial);
        Ok(Rows {
            name: "group_norm",
            program,
            kind: NormKind::Layer,
            rows: batch.clone() * groups.clone(),
            n: channels.clone() * spatial.clone(),
            affine: Affine::Channel { groups, channels, spatial },
            epsilon: spec.epsilon,
        })
    }

    fn candidates(&self, problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
        let (x, y) = (problem.input(0)?, problem.output(0)?);
        let factors = [problem.optional_input(1), problem.optional_input(2)];
        [Some(x), Some(y), factors[0], factors[1]].into_iter().flatten().try_for_each(check_float)?;
        self.program.map_or(Ok(()), print::check)?;
        let behind = self.affine == Affine::None && factors.iter().any(Option::is_some);
        let mut answer = Answer::default();
        for team in row_teams(&self.n, x, shapes) {
            let key = format!("norm_rows/t{}v{}p{}", team.threads, team.vec, team.per_thread);
            if !behind {
                let (launch, work) = self.launch(problem, &team, (Place::output(0), y.dtype), shapes)?;
                answer.offer(key, vec![launch], work.microseconds(arch));
                continue;
            }
            let wide = if x.dtype == DType::F64 { DType::F64 } else { DType::F32 };
            let (launch, work) = self.launch(problem, &team, (Place::Workspace(0), wide), shapes)?;
            let affine = self.affine_behind(problem, wide)?;
            let quickest =
                affine.kernels(shapes)?.into_iter().map(|(_, launch, work)| (work.microseconds(arch), launch));
            let Some((time, affine)) = quickest.min_by(|a, b| a.0.total_cmp(&b.0)) else {
                return Err("no kernel applies the scale".to_owned());
            };
            answer.candidates.push(Candidate {
                key: format!("{key}_affine"),
                launches: vec![launch, affine],
                workspace: vec![x.count() * Expr::from(wide.bits() / 8)],
                cost: work.microseconds(arch) + time,
            });
        }
        Ok(answer)
    }

    fn launch(
        &self,
        problem: &Problem,
        team: &Team,
        (result, out): (Place, DType),
        shapes: &Shapes<'_>,
    ) -> Result<(Launch, Work), String> {
        let x = problem.input(0)?;
        let fused = self.affine != Affine::None;
        let factor = |k: usize| problem.optional_input(k).filter(|_| fused);
        let type_of = |k: usize| print::type_name(factor(k).map_or(x.dtype, |factor| factor.dtype));
        // A pointwise kernel behind the normalization applies the program with the scale.
        let program = self.program.filter(|_| matches!(result, Place::Output(..)));
        let stem = format!("{}{}_{}", self.name, program.map_or(String::new(), epilogue::stem), x.dtype);
        let mut call = Call::new(FAMILY, stem, "Normalizes rows by their own statistics");
        call.declare(behind(program, x.dtype));
        call.using("X", print::type_name(x.dtype));
        call.using("Scale", type_of(1));
        call.using("Bias", type_of(2));
        call.using("Y", print::type_name(out));
        let kind = match self.kind {
            NormKind::Layer => "LAYER",
            NormKind::Rms => "RMS",
        };
        let affine = match self.affine {
            Affine::None => "NONE",
            Affine::Element => "ELEMENT",
            Affine::Channel { .. } => "CHANNEL",
        };
        call.constant("norm::Kind", &format!("KIND = norm::Kind::{kind}"));
        call.constant("norm::Affine", &format!("AFFINE = norm::Affine::{affine}"));
        let (has_scale, has_bias) = (factor(1).is_some(), factor(2).is_some());
        call.constant("bool", &format!("HAS_SCALE = {has_scale}, HAS_BIAS = {has_bias}"));
        call.ints(&[("THREADS", i64::from(THREADS)), ("ROW_THREADS", team.threads)]);
        call.ints(&[("VEC", team.vec), ("PER_THREAD", team.per_thread)]);
        let there = |k: usize| if factor(k).is_some() { Place::input(k) } else { Place::Absent };
        let wanted = |k: usize| problem.optional_output(k).map_or(Place::Absent, |_| Place::output(k));
        call.pointer("const void", "x", &Place::input(0));
        call.pointer("const void", "scale", &there(1));
        call.pointer("const void", "bias", &there(2));
        call.pointer("void", "y", &result);
        call.pointer("float", "mean", &wanted(1));
        call.pointer("float", "inv_std", &wanted(2));
        call.extent("rows", &self.rows, As::Wide);
        call.extent("n", &self.n, As::Wide);
        match &self.affine {
            Affine::None | Affine::Element => ["1", "1", "1"].into_iter().for_each(|one| call.literal(one)),
            Affine::Channel { groups, channels, spatial } => {
                call.extent("groups", groups, As::Wide);
                call.extent("channels", channels, As::Wide);
                call.extent("spatial", spatial, As::Wide);
            }
        }
        call.literal(&print::operand(Arg::Imm(self.epsilon)));
        let typical = |expr: &Expr| (shapes.typical)(expr).max(0) as f64;
        let work = team_work(typical(&self.rows), typical(&self.n), x.dtype.bits() as i64 / 8, team, 3.0);
        let blocks = self.rows.ceil_div(&Expr::constant(i64::from(THREADS) / team.threads));
        Ok((call.launch("norm::rows", THREADS, blocks), work))
    }

    /// `y = normal * scale + bias`, whatever their shapes.
    fn affine_behind(&self, problem: &Problem, wide: DType) -> Result<Elementwise, String> {
        let (x, y) = (problem.input(0)?, problem.output(0)?);
        let mut types = vec![wide];
        let mut inputs = vec![(Place::Workspace(0), x.dims.clone())];
        let mut steps: Vec<Instr> = Vec::new();
        let mut value = Arg::Input(0);
        for (k, op) in [(1, ScalarOp::Mul), (2, ScalarOp::Add)] {
            let Some(factor) = problem.optional_input(k) else { continue };
            steps.push(Instr::unary(ScalarOp::Cast, wide, Arg::Input(types.len() as u16)));
            steps.push(Instr::binary(op, wide, value, Arg::Step(steps.len() as u16 - 1)));
            value = Arg::Step(steps.len() as u16 - 1);
            types.push(factor.dtype);
            inputs.push((Place::input(k), factor.dims.clone()));
        }
        steps.push(Instr::unary(ScalarOp::Cast, x.dtype, value));
        let outputs = vec![Arg::Step(steps.len() as u16 - 1)];
        let affine = Program { inputs: types, steps, outputs };
        let program = self.program.map_or_else(|| affine.clone(), |program| program.inline(0, &affine, 0));
        let outputs = vec![(Place::output(0), y.dtype)];
        Ok(Elementwise { program, inputs, readings: Vec::new(), indices: DType::I64, outputs, dims: y.dims.clone() })
    }
}

/// The struct that applies a program to a normalized element of type `x`.
fn behind(program: Option<&Program>, x: DType) -> String {
    let compute = print::compute_type(x);
    let body = match program {
        Some(program) => {
            let result = print::operand(program.outputs[0]);
            format!("{}    return {result};\n", print::statements(program, "    "))
        }
        None => "    return x0;\n".to_owned(),
    };
    format!("struct Program {{\n  static LAPIDARY_FN {compute} apply({compute} x0) {{\n{body}  }}\n}};")
}

/// Whether a factor holds one row, which all rows use.
fn is_row(factor: &[Expr], x: &[Expr], axis: usize, shapes: &Shapes<'_>) -> bool {
    let strides = broadcast(factor, x, shapes);
    let row = contiguous(&x[axis..]);
    let before = strides[..axis].iter().zip(x).all(|(stride, dim)| stride.is(0) || dim.is(1));
    before && strides[axis..].iter().zip(&row).zip(&x[axis..]).all(|((own, row), dim)| own == row || dim.is(1))
}
