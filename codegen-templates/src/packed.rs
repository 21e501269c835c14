//! Moves of elements that are parts of bytes: they are spread out to a byte each, moved as bytes, and packed again.
//!
//! Contract: the operations that place elements without looking at them. Floats of 8 bits are moved as the bytes that
//! they are. Not here: Expand, which the pointwise kernels do in place, and copies of whole tensors.

use lapidary_runtime::DType;
use lapidary_runtime::op::{ScalarOp, ScatterMode};

use crate::arch::Arch;
use crate::call::Place;
use crate::candidate::{Answer, Candidate, Launch, Param, Shapes};
use crate::extent::Expr;
use crate::families::pointwise::Elementwise;
use crate::predict::Work;
use crate::problem::{Kind, Operand, Problem};
use crate::program::Program;

/// The same problem on bytes; `None` where it is another operation, or about no storage type.
pub fn on_bytes(problem: &Problem) -> Option<Problem> {
    let moves = match &problem.kind {
        Kind::Transpose(_)
        | Kind::Slice { .. }
        | Kind::Concat { .. }
        | Kind::Pad { .. }
        | Kind::Gather { .. }
        | Kind::GatherElements { .. }
        | Kind::GatherNd { .. }
        | Kind::ScatterElements { mode: ScatterMode::Set, .. }
        | Kind::ScatterNd { mode: ScatterMode::Set } => true,
        Kind::ScatterElements { .. }
        | Kind::ScatterNd { .. }
        | Kind::Pointwise(_)
        | Kind::MatMul(..)
        | Kind::Conv(..)
        | Kind::ConvTranspose(_)
        | Kind::Pool(_)
        | Kind::Reduce(_)
        | Kind::ArgReduce(_)
        | Kind::Softmax(_)
        | Kind::Attention(..)
        | Kind::Norm(..)
        | Kind::GroupNorm(..)
        | Kind::Expand
        | Kind::Resize(_)
        | Kind::RegionPool(_)
        | Kind::Recurrent(_)
        | Kind::Suppress
        | Kind::CumSum { .. }
        | Kind::TopK { .. }
        | Kind::Range
        | Kind::Extents(_)
        | Kind::Copy
        | Kind::Pair(_) => false,
    };
    let stored = |operand: &Operand| operand.dtype.is_storage();
    if !moves || !problem.outputs.iter().flatten().any(stored) {
        return None;
    }
    let byte = |operand: &Option<Operand>| {
        let bytes = |operand: &Operand| match stored(operand) {
            true => Operand { dtype: DType::U8, dims: operand.dims.clone() },
            false => operand.clone(),
        };
        operand.as_ref().map(bytes)
    };
    let all = |operands: &[Option<Operand>]| operands.iter().map(byte).collect();
    Some(Problem { kind: problem.kind.clone(), inputs: all(&problem.inputs), outputs: all(&problem.outputs) })
}

/// The answer to `problem`, from that to [`on_bytes`] of it: each operand and result of parts of bytes gets a scratch
/// buffer, a launch that fills it or is filled from it, and its place in the launches between.
///
/// # Errors
/// In words, why a tensor is not spread or packed.
pub fn of_bytes(problem: &Problem, answer: Answer, arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let mut scratch = Scratch { buffers: Vec::new(), workspace: Vec::new(), cost: 0.0 };
    let mut before = Vec::new();
    for (k, operand) in packed(&problem.inputs) {
        let buffer = scratch.add(End::Input(k), operand);
        let (from, to) = ((Place::input(k), unsigned(operand.dtype)), (Place::Workspace(buffer), DType::U8));
        before.push(scratch.convert(from, to, operand, arch, shapes)?);
    }
    let mut behind = Vec::new();
    for (k, operand) in packed(&problem.outputs) {
        let buffer = scratch.add(End::Output(k), operand);
        let (from, to) = ((Place::Workspace(buffer), DType::U8), (Place::output(k), unsigned(operand.dtype)));
        behind.push(scratch.convert(from, to, operand, arch, shapes)?);
    }
    let through = |candidate: Candidate| Candidate {
        key: format!("{}_spread", candidate.key),
        launches: before
            .iter()
            .cloned()
            .chain(candidate.launches.into_iter().map(|launch| scratch.place(launch)))
            .chain(behind.iter().cloned())
            .collect(),
        workspace: scratch.workspace.iter().cloned().chain(candidate.workspace).collect(),
        cost: candidate.cost + scratch.cost,
    };
    if scratch.buffers.is_empty() {
        return Ok(answer);
    }
    Ok(Answer { candidates: answer.candidates.into_iter().map(through).collect(), refusals: answer.refusals })
}

fn packed(operands: &[Option<Operand>]) -> impl Iterator<Item = (usize, &Operand)> {
    let present = operands.iter().enumerate().filter_map(|(k, operand)| Some((k, operand.as_ref()?)));
    present.filter(|(_, operand)| operand.dtype.bits() < 8)
}

/// The type whose numbers are the codes of a packed type.
fn unsigned(dtype: DType) -> DType {
    if dtype.bits() == 2 { DType::U2 } else { DType::U4 }
}

/// An operand or a result of the problem.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Input(usize),
    Output(usize),
}

struct Scratch {
    /// What scratch buffer `k` stands for.
    buffers: Vec<End>,
    workspace: Vec<Expr>,
    /// Microseconds of the launches that convert.
    cost: f64,
}

impl Scratch {
    fn add(&mut self, end: End, operand: &Operand) -> usize {
        self.buffers.push(end);
        self.workspace.push(operand.count());
        self.buffers.len() - 1
    }

    fn convert(
        &mut self,
        from: (Place, DType),
        to: (Place, DType),
        operand: &Operand,
        arch: Arch,
        shapes: &Shapes<'_>,
    ) -> Result<Launch, String> {
        let dims = vec![operand.count()];
        let elementwise = Elementwise {
            program: Program::single(ScalarOp::Cast, to.1, &[from.1]),
            inputs: vec![(from.0, dims.clone())],
            outputs: vec![to],
            dims,
        };
        let cost = |work: &Work| work.microseconds(arch);
        let kernels = elementwise.kernels(shapes)?.into_iter();
        let best = kernels.min_by(|(_, _, a), (_, _, b)| cost(a).total_cmp(&cost(b)));
        let (_, launch, work) = best.ok_or("no kernel converts it")?;
        self.cost += cost(&work);
        Ok(launch)
    }

    /// The launch with its operands and results in their scratch buffers, and its own scratch buffers behind these.
    fn place(&self, mut launch: Launch) -> Launch {
        let buffer = |end: End| self.buffers.iter().position(|other| *other == end);
        for param in &mut launch.params {
            *param = match param {
                Param::Input(k, at) => match buffer(End::Input(*k)) {
                    Some(buffer) => Param::Workspace(buffer, at.clone()),
                    None => continue,
                },
                Param::Output(k, at) => match buffer(End::Output(*k)) {
                    Some(buffer) => Param::Workspace(buffer, at.clone()),
                    None => continue,
                },
                Param::Workspace(k, at) => Param::Workspace(*k + self.buffers.len(), at.clone()),
                Param::Counters(_) | Param::I32(_) | Param::I64(_) | Param::F32(_) | Param::Handle(_) => continue,
            };
        }
        launch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families;

    fn operand(dtype: DType, dims: &str) -> Option<Operand> {
        Some(Operand { dtype, dims: dims.split(' ').map(|dim| dim.parse().expect("a formula")).collect() })
    }

    fn answer(problem: &Problem) -> Answer {
        let range = |expr: &Expr| expr.range(&|_| (1, 64));
        let typical = |expr: &Expr| expr.eval(&|_| 4);
        let arch = "sm_80".parse().expect("a known architecture");
        families::answer(problem, arch, &Shapes { range: &range, typical: &typical })
    }

    #[test]
    fn parts_of_bytes_are_spread_moved_and_packed() {
        let problem = Problem {
            kind: Kind::Slice { starts: vec![Expr::constant(1), Expr::constant(0)], steps: vec![1, 2] },
            inputs: vec![operand(DType::I4, "n 7")],
            outputs: vec![operand(DType::I4, "n-1 4")],
        };
        let candidate = answer(&problem).candidates.remove(0);
        assert_eq!(candidate.key, "copy_strided/slice_v1_spread");
        assert_eq!(candidate.workspace, ["7*n", "4*n - 4"].map(|count| count.parse().expect("a formula")));
        let places: Vec<&[Param]> = candidate.launches.iter().map(|launch| &launch.params[..2]).collect();
        let none = || Expr::constant(0);
        assert_eq!(places[0], [Param::Input(0, none()), Param::Workspace(0, none())]);
        assert_eq!(places[1], [Param::Workspace(0, Expr::constant(7)), Param::Workspace(1, none())]);
        assert_eq!(places[2], [Param::Workspace(1, none()), Param::Output(0, none())]);
    }

    #[test]
    fn bytes_are_moved_as_they_are() {
        let gather = |dtype| Problem {
            kind: Kind::Gather { axis: 0 },
            inputs: vec![operand(dtype, "n 8"), operand(DType::I64, "3")],
            outputs: vec![operand(dtype, "3 8")],
        };
        let keys = |dtype| answer(&gather(dtype)).candidates.into_iter().map(|c| c.key).collect::<Vec<_>>();
        assert_eq!(keys(DType::F8E5M2), keys(DType::U8));
        assert_eq!(on_bytes(&gather(DType::U8)), None);
    }
}
