//! CheckedPlan to [`PlanTables`]: what the runtime runs, in process and in an emitted crate.
//!
//! Everything is copied into an arena that the caller owns, so that tables are plain borrowed data. Extents that are
//! not constants become slots, each formula once.

use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;
use lapidary_runtime::DType;
use lapidary_runtime::table::{
    Action, Constraint, Dim, Formula, FormulaOp, Images, Kernel, Launch, NONE, Param, Place, PlanTables, Port, Profile,
    Range, Segment, Source, Step, Symbol, Target as TableTarget, Tensor,
};
use lapidary_templates::{Atom, Candidate, Expr, Operand, candidate};

use super::{CheckedPlan, Scratch};
use crate::ir::SymbolSource;
use crate::kernels::KernelSet;
use crate::lower::{BufferId, SegmentId, Step as PlanStep, TensorId, Work, cpu_op};
use crate::select::Pick;

/// The tables of a plan. `images` are the compiled kernels, or none where the tables are printed rather than run.
pub fn tables<'b>(
    plan: &CheckedPlan,
    target: TableTarget,
    kernels: &KernelSet,
    images: &'b [Images<'b>],
    bump: &'b Bump,
) -> PlanTables<'b> {
    let arena_buffers: BTreeMap<BufferId, u32> =
        plan.lifetimes.keys().enumerate().map(|(k, &buffer)| (buffer, k as u32)).collect();
    let symbols = plan.chosen.program.symbols.iter().enumerate().map(|(k, (name, _))| (&**name, k as u32)).collect();
    let mut writer =
        Writer { plan, kernels, bump, arena_buffers, symbols, slots: BTreeMap::new(), formulas: Vec::new() };
    writer.tables(target, images)
}

struct Writer<'p, 'b> {
    plan: &'p CheckedPlan,
    kernels: &'p KernelSet,
    bump: &'b Bump,
    /// The number of each buffer in `Profile::offsets`.
    arena_buffers: BTreeMap<BufferId, u32>,
    symbols: BTreeMap<&'p str, u32>,
    slots: BTreeMap<Expr, u32>,
    formulas: Vec<Formula<'b>>,
}

impl<'b> Writer<'_, 'b> {
    fn tables(&mut self, target: TableTarget, images: &'b [Images<'b>]) -> PlanTables<'b> {
        let plan = self.plan;
        let program = &plan.chosen.program;
        let bump = self.bump;
        let tensors: Vec<Tensor<'b>> = (0..program.tensors.len() as u32).map(|k| self.tensor(TensorId(k))).collect();
        let scratch: Vec<Tensor<'b>> = plan.scratch.iter().map(|scratch| self.scratch_tensor(scratch)).collect();
        let constraints: Vec<Constraint<'b>> = program
            .constraints
            .iter()
            .map(|(segment, constraint)| Constraint {
                segment: segment.0,
                counts: self.counts_in(constraint),
                kind: constraint.kind,
                left: self.dim(&constraint.left),
                right: self.dim(&constraint.right),
                why: bump.alloc_str(&constraint.why),
            })
            .collect();
        let segments: Vec<Segment<'b>> =
            (0..program.segments.len() as u32).map(|k| self.segment(SegmentId(k))).collect();
        let port = |(name, tensor): &(String, TensorId)| Port { name: bump.alloc_str(name), tensor: tensor.0 };
        PlanTables {
            name: bump.alloc_str(&program.name),
            target,
            symbols: self.symbols(),
            profiles: self.profiles(),
            slots: bump.alloc_slice_copy(&self.formulas),
            constraints: bump.alloc_slice_copy(&constraints),
            inputs: bump.alloc_slice_fill_iter(program.inputs.iter().map(port)),
            outputs: bump.alloc_slice_fill_iter(program.outputs.iter().map(port)),
            run_count: program.run_count.map_or(NONE, |tensor| tensor.0),
            tensors: bump.alloc_slice_copy(&[tensors, scratch].concat()),
            weight_bytes: plan.weight_bytes,
            derived_bytes: plan.derived_bytes,
            counter_bytes: plan.counter_bytes,
            segments: bump.alloc_slice_copy(&segments),
            kernels: bump.alloc_slice_fill_iter(
                self.kernels.kernels.iter().map(|kernel| Kernel { entry: bump.alloc_str(&kernel.entry) }),
            ),
            images,
        }
    }

    fn symbols(&self) -> &'b [Symbol<'b>] {
        let symbols = self.plan.chosen.program.symbols.iter().map(|(name, symbol)| match &symbol.source {
            SymbolSource::Input { input, axis } => {
                let source = Source::Extent { input: *input as u32, axis: *axis as u32 };
                Symbol { name: self.bump.alloc_str(name), source }
            }
            SymbolSource::Count(count) => {
                let mut code = Vec::new();
                self.postfix(&count.bound, &mut code);
                let source = Source::Count { bound: self.bump.alloc_slice_copy(&code) };
                Symbol { name: self.bump.alloc_str(name), source }
            }
            SymbolSource::Outer => crate::bug!("the symbol {name} of a region reached the tables"),
        });
        self.bump.alloc_slice_fill_iter(symbols.collect::<Vec<_>>())
    }

    /// The numbers of the counts that a constraint is about.
    fn counts_in(&self, constraint: &crate::ir::Constraint) -> &'b [u32] {
        let symbols = &self.plan.chosen.program.symbols;
        let named = constraint.left.symbols().into_iter().chain(constraint.right.symbols());
        let numbers: BTreeSet<u32> = named.filter_map(|name| self.symbols.get(&*name).copied()).collect();
        let is_count = |k: &u32| matches!(symbols[*k as usize].1.source, SymbolSource::Count(_));
        self.bump.alloc_slice_fill_iter(numbers.into_iter().filter(is_count).collect::<Vec<_>>())
    }

    fn profiles(&self) -> &'b [Profile<'b>] {
        let program = &self.plan.chosen.program;
        let profiles = self.plan.arenas.iter().enumerate().map(|(k, arena)| {
            let ranges: Vec<Range> = program.symbols.iter().map(|(name, _)| program.symbol_range(name, k)).collect();
            let offsets: Vec<u64> = self.arena_buffers.keys().map(|buffer| arena.offsets[buffer]).collect();
            Profile {
                ranges: self.bump.alloc_slice_copy(&ranges),
                arena_bytes: arena.bytes,
                offsets: self.bump.alloc_slice_copy(&offsets),
            }
        });
        self.bump.alloc_slice_fill_iter(profiles.collect::<Vec<_>>())
    }

    fn tensor(&mut self, id: TensorId) -> Tensor<'b> {
        let tensor = self.plan.chosen.program.tensor(id);
        let dims = self.dims(&tensor.ty.dims);
        let at = tensor.at.as_ref().map_or(Dim::Const(0), |at| self.dim(at));
        Tensor { dtype: tensor.ty.dtype, dims, place: self.place(tensor.buffer), at }
    }

    fn scratch_tensor(&mut self, scratch: &Scratch) -> Tensor<'b> {
        let dims = self.dims(std::slice::from_ref(&scratch.bytes));
        Tensor { dtype: DType::U8, dims, place: self.place(scratch.buffer), at: Dim::Const(0) }
    }

    fn place(&self, buffer: BufferId) -> Place {
        if let Some(&offset) = self.plan.weights.get(&buffer) {
            return Place::Weight(offset);
        }
        if let Some(&offset) = self.plan.derived.get(&buffer) {
            return Place::Derived(offset);
        }
        match self.arena_buffers.get(&buffer) {
            Some(&number) => Place::Arena(number),
            None => crate::bug!("buffer {buffer:?} has no place"),
        }
    }

    fn segment(&mut self, id: SegmentId) -> Segment<'b> {
        let plan = self.plan;
        let mut steps = Vec::new();
        for (k, step) in plan.chosen.program.segment(id).iter().enumerate() {
            match step {
                PlanStep::Work(work) => match plan.chosen.pick(id, k) {
                    Pick::Runtime => steps.push(self.cpu_step(work)),
                    Pick::Kernels(candidate) => self.launches(id, k, work, candidate, &mut steps),
                },
                PlanStep::Count { symbol, at, label } => steps.push(Step {
                    action: Action::Count { symbol: *symbol as u32 },
                    inputs: self.bump.alloc_slice_copy(&[at.0]),
                    outputs: &[],
                    label: self.bump.alloc_str(label),
                }),
                PlanStep::If { condition, then_segment, else_segment, label, .. } => steps.push(Step {
                    action: Action::If {
                        then_segment: then_segment.0,
                        else_segment: else_segment.0,
                        decide: self.deciding(&step.deciding()),
                    },
                    inputs: self.bump.alloc_slice_copy(&[condition.0]),
                    outputs: &[],
                    label: self.bump.alloc_str(label),
                }),
                PlanStep::Loop(step) => {
                    let (rows, mut all): (Vec<_>, Vec<_>) =
                        step.rows.iter().map(|&(row, all)| (Some(row), Some(all))).unzip();
                    all.extend(step.rounds.as_ref().map(|rounds| Some(rounds.round)));
                    let (begin, next) = match &step.rounds {
                        Some(rounds) => (vec![&rounds.begin], rounds.next.iter().collect()),
                        None => (Vec::new(), Vec::new()),
                    };
                    let inputs = self.operands(&[&[step.condition, step.limit], rows.as_slice()].concat());
                    steps.push(Step {
                        action: Action::Loop {
                            body: step.body.0,
                            most: self.dim(&step.most),
                            begin: self.deciding(&begin),
                            next: self.deciding(&next),
                        },
                        inputs: self.bump.alloc_slice_copy(&inputs),
                        outputs: self.bump.alloc_slice_copy(&self.operands(&all)),
                        label: self.bump.alloc_str(&step.label),
                    });
                }
            }
        }
        Segment { steps: self.bump.alloc_slice_copy(&steps) }
    }

    fn operands(&self, tensors: &[Option<TensorId>]) -> Vec<u32> {
        tensors.iter().map(|tensor| tensor.map_or(NONE, |tensor| tensor.0)).collect()
    }

    fn cpu_step(&mut self, work: &Work) -> Step<'b> {
        let bump = self.bump;
        let op = cpu_op(&work.problem.kind, &mut |extent| self.dim(extent), bump);
        Step {
            action: Action::Cpu(op),
            inputs: self.bump.alloc_slice_copy(&self.operands(&work.inputs)),
            outputs: self.bump.alloc_slice_copy(&self.operands(&work.outputs)),
            label: self.bump.alloc_str(&work.label),
        }
    }

    fn launches(
        &mut self,
        segment: SegmentId,
        step: usize,
        work: &Work,
        candidate: &Candidate,
        steps: &mut Vec<Step<'b>>,
    ) {
        let plan = self.plan;
        let tensor_count = plan.chosen.program.tensors.len() as u32;
        let scratch = plan.scratch.iter().enumerate();
        let own = scratch.filter(|(_, scratch)| (scratch.segment, scratch.step) == (segment, step));
        let mut outputs = self.operands(&work.outputs);
        let results = outputs.len() as u32;
        outputs.extend(own.map(|(k, _)| tensor_count + k as u32));
        let inputs = self.bump.alloc_slice_copy(&self.operands(&work.inputs));
        let outputs = self.bump.alloc_slice_copy(&outputs);
        let label = self.bump.alloc_str(&work.label);
        for launch in &candidate.launches {
            let launch = self.launch(launch, [&work.problem.inputs, &work.problem.outputs], results);
            steps.push(Step { action: Action::Launch(launch), inputs, outputs, label });
        }
    }

    /// The launches by which a CUDA graph decides a step: they name whole operands.
    fn deciding(&mut self, launches: &[&candidate::Launch]) -> &'b [Launch<'b>] {
        let launches: Vec<Launch<'b>> = launches.iter().map(|launch| self.launch(launch, [&[], &[]], 0)).collect();
        self.bump.alloc_slice_copy(&launches)
    }

    /// `ends` are operands and results; scratch memory stands behind the `results` results.
    fn launch(&mut self, launch: &candidate::Launch, ends: [&[Option<Operand>]; 2], results: u32) -> Launch<'b> {
        let params: Vec<Param> = launch.params.iter().map(|param| self.param(param, ends, results)).collect();
        Launch {
            kernel: self.kernels.index(&launch.source),
            grid: [0, 1, 2].map(|k| self.dim(&launch.grid[k])),
            block: launch.block,
            shared: launch.shared,
            params: self.bump.alloc_slice_copy(&params),
        }
    }

    fn param(&mut self, param: &candidate::Param, ends: [&[Option<Operand>]; 2], results: u32) -> Param {
        let [inputs, outputs] = ends;
        match param {
            candidate::Param::Input(k, offset) => Param::Input(*k as u32, self.bytes(inputs, *k, offset)),
            candidate::Param::Output(k, offset) => Param::Output(*k as u32, self.bytes(outputs, *k, offset)),
            candidate::Param::Workspace(k, offset) => Param::Output(results + *k as u32, self.dim(offset)),
            candidate::Param::Counters(_) => Param::Counters,
            candidate::Param::I32(extent) => Param::I32(self.dim(extent)),
            candidate::Param::I64(extent) => Param::I64(self.dim(extent)),
            candidate::Param::F32(value) => Param::F32(*value),
            candidate::Param::Handle(k) => Param::Handle(*k as u32),
        }
    }

    /// An offset in elements of operand `k`, as bytes.
    fn bytes(&mut self, operands: &[Option<Operand>], k: usize, offset: &Expr) -> Dim {
        let bits = operands.get(k).and_then(Option::as_ref).map_or(8, |operand| operand.dtype.bits());
        self.dim(&(Expr::from(bits) * offset.clone()).floor_div(&Expr::constant(8)))
    }

    fn dims(&mut self, dims: &[Expr]) -> &'b [Dim] {
        let dims: Vec<Dim> = dims.iter().map(|dim| self.dim(dim)).collect();
        self.bump.alloc_slice_copy(&dims)
    }

    fn dim(&mut self, expr: &Expr) -> Dim {
        if let Some(value) = expr.as_const() {
            return Dim::Const(value);
        }
        if let Some(&slot) = self.slots.get(expr) {
            return Dim::Slot(slot);
        }
        let mut code = Vec::new();
        self.postfix(expr, &mut code);
        let formula = Formula { code: self.bump.alloc_slice_copy(&code), text: self.bump.alloc_str(&expr.to_string()) };
        let slot = self.formulas.len() as u32;
        self.formulas.push(formula);
        self.slots.insert(expr.clone(), slot);
        Dim::Slot(slot)
    }

    fn postfix(&self, expr: &Expr, code: &mut Vec<FormulaOp>) {
        let mut first_term = true;
        for (product, coefficient) in expr.terms() {
            let mut first_factor = true;
            if coefficient != 1 || product.is_empty() {
                code.push(FormulaOp::Const(coefficient));
                first_factor = false;
            }
            for atom in product {
                self.atom(atom, code);
                if !std::mem::replace(&mut first_factor, false) {
                    code.push(FormulaOp::Mul);
                }
            }
            if !std::mem::replace(&mut first_term, false) {
                code.push(FormulaOp::Add);
            }
        }
        if first_term {
            code.push(FormulaOp::Const(0));
        }
    }

    fn atom(&self, atom: &Atom, code: &mut Vec<FormulaOp>) {
        let (a, b, op) = match atom {
            Atom::Symbol(name) => {
                match self.symbols.get(&**name) {
                    Some(&number) => code.push(FormulaOp::Symbol(number)),
                    None => crate::bug!("symbol {name} is not declared"),
                }
                return;
            }
            Atom::FloorDiv(a, b) => (a, b, FormulaOp::FloorDiv),
            Atom::Min(a, b) => (a, b, FormulaOp::Min),
            Atom::Max(a, b) => (a, b, FormulaOp::Max),
            Atom::Broadcast(a, b) => (a, b, FormulaOp::Broadcast),
        };
        self.postfix(a, code);
        self.postfix(b, code);
        code.push(op);
    }
}
