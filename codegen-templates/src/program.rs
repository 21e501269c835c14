//! Pointwise programs: straight-line code over scalars, applied to each element of a broadcast shape.
//!
//! A pointwise IR node, a fused region and the epilogue of a matrix product are all one [`Program`]. Fusing is
//! substitution: the producer's steps go in front, and the consumer reads its results.

use lapidary_runtime::DType;
use lapidary_runtime::op::{Arg, Instr, Scalar, ScalarOp};

/// Straight-line scalar code. Input `k` has type `inputs[k]`; each step computes one value; `outputs` names the values
/// that are stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Program {
    pub inputs: Vec<DType>,
    pub steps: Vec<Instr>,
    pub outputs: Vec<Arg>,
}

impl Program {
    /// A program of one step that reads inputs 0, 1, ... in order.
    pub fn single(op: ScalarOp, dtype: DType, inputs: &[DType]) -> Program {
        let arg = |k: usize| Arg::Input(if k < inputs.len() { k as u16 } else { 0 });
        let instr = Instr { op, dtype, args: [arg(0), arg(1), arg(2)] };
        Program { inputs: inputs.to_vec(), steps: vec![instr], outputs: vec![Arg::Step(0)] }
    }

    /// A program that stores its one input as it is.
    pub fn identity(dtype: DType) -> Program {
        Program { inputs: vec![dtype], steps: Vec::new(), outputs: vec![Arg::Input(0)] }
    }

    /// The type of an operand.
    pub fn dtype_of(&self, arg: Arg) -> DType {
        match arg {
            Arg::Input(k) => self.inputs[usize::from(k)],
            Arg::Step(k) => self.steps[usize::from(k)].dtype,
            Arg::Imm(scalar) => scalar.dtype,
        }
    }

    /// The type of output `k`.
    pub fn output_dtype(&self, k: usize) -> DType {
        self.dtype_of(self.outputs[k])
    }

    /// Whether the program changes nothing: it stores its first input.
    pub fn is_identity(&self) -> bool {
        self.outputs.len() == 1 && self.outputs[0] == Arg::Input(0)
    }

    /// The program with input `at` computed by output `output` of `producer`. The new inputs are this program's
    /// without `at`, then the producer's; equal operands are not merged here.
    pub fn inline(&self, at: u16, producer: &Program, output: usize) -> Program {
        let shift_steps = producer.steps.len() as u16;
        let kept = self.inputs.len() as u16 - 1;
        let of_producer = |arg: Arg| match arg {
            Arg::Input(k) => Arg::Input(kept + k),
            Arg::Step(_) | Arg::Imm(_) => arg,
        };
        let result = of_producer(producer.outputs[output]);
        let of_consumer = |arg: Arg| match arg {
            Arg::Input(k) if k == at => result,
            Arg::Input(k) => Arg::Input(if k > at { k - 1 } else { k }),
            Arg::Step(k) => Arg::Step(k + shift_steps),
            Arg::Imm(_) => arg,
        };
        let mut inputs = self.inputs.clone();
        inputs.remove(usize::from(at));
        inputs.extend_from_slice(&producer.inputs);
        let steps = producer.steps.iter().map(|instr| instr.map_args(of_producer));
        let steps = steps.chain(self.steps.iter().map(|instr| instr.map_args(of_consumer))).collect();
        let outputs = self.outputs.iter().map(|&arg| of_consumer(arg)).collect();
        Program { inputs, steps, outputs }
    }

    /// The program with input `at` computed by `first`, whose inputs come before the others.
    pub fn behind(&self, first: &Program, at: usize) -> Program {
        let joined = self.inline(at as u16, first, 0);
        let (own, others) = (first.inputs.len() as u16, self.inputs.len() as u16 - 1);
        let to: Vec<u16> = (0..others).map(|k| own + k).chain(0..own).collect();
        joined.renumber_inputs(&to, usize::from(own + others))
    }

    /// The program with its inputs renumbered: input `k` becomes `to[k]`, of `count` inputs in all.
    pub fn renumber_inputs(&self, to: &[u16], count: usize) -> Program {
        let map = |arg: Arg| match arg {
            Arg::Input(k) => Arg::Input(to[usize::from(k)]),
            Arg::Step(_) | Arg::Imm(_) => arg,
        };
        let mut inputs = vec![DType::F32; count];
        for (k, &dtype) in self.inputs.iter().enumerate() {
            inputs[usize::from(to[k])] = dtype;
        }
        Program {
            inputs,
            steps: self.steps.iter().map(|instr| instr.map_args(map)).collect(),
            outputs: self.outputs.iter().map(|&arg| map(arg)).collect(),
        }
    }

    /// The program with input `at` replaced by a constant.
    pub fn bind(&self, at: u16, value: Scalar) -> Program {
        let map = |arg: Arg| match arg {
            Arg::Input(k) if k == at => Arg::Imm(value),
            Arg::Input(k) => Arg::Input(if k > at { k - 1 } else { k }),
            Arg::Step(_) | Arg::Imm(_) => arg,
        };
        let mut inputs = self.inputs.clone();
        inputs.remove(usize::from(at));
        Program {
            inputs,
            steps: self.steps.iter().map(|instr| instr.map_args(map)).collect(),
            outputs: self.outputs.iter().map(|&arg| map(arg)).collect(),
        }
    }

    /// The program with only the inputs that `keep` marks; the others must not be read.
    pub fn keep_inputs(&self, keep: &[bool]) -> Program {
        let mut next = 0;
        let to: Vec<u16> = keep
            .iter()
            .map(|&keep| {
                next += u16::from(keep);
                // What is not kept is not read either, so that its number does not matter.
                next.saturating_sub(1)
            })
            .collect();
        let inputs = self.inputs.iter().zip(keep).filter(|(_, keep)| **keep).map(|(dtype, _)| *dtype).collect();
        Program { inputs, ..self.renumber_inputs(&to, keep.len()) }
    }

    /// Drops steps that nothing reads, and merges equal ones.
    pub fn simplify(&self) -> Program {
        let mut steps: Vec<Instr> = Vec::new();
        let mut moved: Vec<Arg> = Vec::new();
        for instr in &self.steps {
            let instr = instr.map_args(|arg| match arg {
                Arg::Step(k) => moved[usize::from(k)],
                Arg::Input(_) | Arg::Imm(_) => arg,
            });
            let value = if instr.op == ScalarOp::Identity && self.same_type(&steps, instr.args[0], instr.dtype) {
                instr.args[0]
            } else if let Some(at) = steps.iter().position(|earlier| *earlier == instr) {
                Arg::Step(at as u16)
            } else {
                steps.push(instr);
                Arg::Step(steps.len() as u16 - 1)
            };
            moved.push(value);
        }
        let follow = |arg: Arg| match arg {
            Arg::Step(k) => moved[usize::from(k)],
            Arg::Input(_) | Arg::Imm(_) => arg,
        };
        let outputs = self.outputs.iter().map(|&arg| follow(arg)).collect();
        Program { inputs: self.inputs.clone(), steps, outputs }.without_dead_steps()
    }

    fn same_type(&self, steps: &[Instr], arg: Arg, dtype: DType) -> bool {
        dtype
            == match arg {
                Arg::Input(k) => self.inputs[usize::from(k)],
                Arg::Step(k) => steps[usize::from(k)].dtype,
                Arg::Imm(scalar) => scalar.dtype,
            }
    }

    fn without_dead_steps(self) -> Program {
        let mut live = vec![false; self.steps.len()];
        let mark = |live: &mut Vec<bool>, args: &[Arg]| {
            for arg in args {
                if let Arg::Step(k) = arg {
                    live[usize::from(*k)] = true;
                }
            }
        };
        mark(&mut live, &self.outputs);
        for k in (0..self.steps.len()).rev() {
            if live[k] {
                mark(&mut live, self.steps[k].operands());
            }
        }
        let mut number = vec![0u16; self.steps.len()];
        let mut next = 0;
        for k in 0..self.steps.len() {
            number[k] = next;
            next += u16::from(live[k]);
        }
        let map = |arg: Arg| match arg {
            Arg::Step(k) => Arg::Step(number[usize::from(k)]),
            Arg::Input(_) | Arg::Imm(_) => arg,
        };
        let kept = self.steps.iter().zip(&live).filter(|(_, live)| **live);
        Program {
            steps: kept.map(|(instr, _)| instr.canonical().map_args(map)).collect(),
            outputs: self.outputs.iter().map(|&arg| map(arg)).collect(),
            inputs: self.inputs,
        }
    }

    /// Which inputs a step or an output reads.
    pub fn used_inputs(&self) -> Vec<bool> {
        let mut used = vec![false; self.inputs.len()];
        let steps = self.steps.iter().flat_map(|instr| instr.operands());
        for arg in steps.chain(&self.outputs) {
            if let Arg::Input(k) = arg {
                used[usize::from(*k)] = true;
            }
        }
        used
    }
}

/// Rewriting of a step's operands.
trait MapArgs {
    fn map_args(&self, map: impl Fn(Arg) -> Arg) -> Instr;
    fn canonical(&self) -> Instr;
}

impl MapArgs for Instr {
    fn map_args(&self, map: impl Fn(Arg) -> Arg) -> Instr {
        Instr { args: self.args.map(map), ..*self }
    }

    /// The operands that are not read repeat the first, so that equal steps compare equal.
    fn canonical(&self) -> Instr {
        let mut args = self.args;
        for k in self.op.arity()..3 {
            args[k] = args[0];
        }
        Instr { args, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(n: usize) -> Vec<DType> {
        vec![DType::F32; n]
    }

    #[test]
    fn inlining_puts_the_producer_first() {
        let add = Program::single(ScalarOp::Add, DType::F32, &f32s(2));
        let exp = Program::single(ScalarOp::Exp, DType::F32, &f32s(1));
        // add(x, exp(y))
        let fused = add.inline(1, &exp, 0);
        assert_eq!(fused.inputs.len(), 2);
        assert_eq!(fused.steps[0], Instr::unary(ScalarOp::Exp, DType::F32, Arg::Input(1)));
        assert_eq!(fused.steps[1].operands(), &[Arg::Input(0), Arg::Step(0)]);
        assert_eq!(fused.outputs, vec![Arg::Step(1)]);
    }

    #[test]
    fn the_first_program_reads_the_first_inputs() {
        let add = Program::single(ScalarOp::Add, DType::F32, &f32s(2));
        let sub = Program::single(ScalarOp::Sub, DType::F32, &f32s(2));
        for (at, [a, b]) in [(0, [Arg::Step(0), Arg::Input(2)]), (1, [Arg::Input(2), Arg::Step(0)])] {
            let both = sub.behind(&add, at);
            assert_eq!(both.inputs.len(), 3);
            assert_eq!(both.steps[0].operands(), &[Arg::Input(0), Arg::Input(1)]);
            assert_eq!(both.steps[1].operands(), &[a, b]);
        }
    }

    #[test]
    fn simplify_merges_and_drops() {
        let x = Arg::Input(0);
        let program = Program {
            inputs: f32s(1),
            steps: vec![
                Instr::unary(ScalarOp::Exp, DType::F32, x),
                Instr::unary(ScalarOp::Exp, DType::F32, x),
                Instr::unary(ScalarOp::Log, DType::F32, x),
                Instr::binary(ScalarOp::Add, DType::F32, Arg::Step(0), Arg::Step(1)),
            ],
            outputs: vec![Arg::Step(3)],
        };
        let simple = program.simplify();
        assert_eq!(simple.steps.len(), 2);
        assert_eq!(simple.steps[1].operands(), &[Arg::Step(0), Arg::Step(0)]);
        assert_eq!(simple.outputs, vec![Arg::Step(1)]);
    }
}
