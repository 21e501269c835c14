//! Shapes at run time: from the extents of the caller's inputs to the extents of every tensor.
//!
//! One [`Shapes`] belongs to a session. It is made once, and [`Shapes::resolve`] allocates nothing.

use core::cell::{Cell, RefCell};

use crate::error::Error;
use crate::op::MAX_RANK;
use crate::table::{Constraint, ConstraintKind, Dim, FormulaOp, PlanTables, Profile, Source};

/// The values of a plan's symbols and slots for the shapes at hand.
#[derive(Debug)]
pub struct Shapes<'a> {
    tables: &'a PlanTables<'a>,
    profile: usize,
    /// The values of the symbols; those of counts change while a plan runs.
    symbols: Vec<Cell<i64>>,
    slots: Vec<Cell<i64>>,
    /// Of each symbol whether its value is known, rather than bounded.
    known: Vec<Cell<bool>>,
    /// The symbols' and then the slots' values of the last shapes that were accepted.
    kept: Vec<i64>,
    stack: RefCell<Vec<i64>>,
    resolved: bool,
}

/// The extents of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    rank: usize,
    dims: [usize; MAX_RANK],
}

impl Extents {
    /// The extents in `dims`. More than [`MAX_RANK`] of them do not compile; `try_from` takes a slice.
    pub fn new<const N: usize>(dims: &[usize; N]) -> Extents {
        const { assert!(N <= MAX_RANK, "a tensor has at most MAX_RANK axes") };
        let mut out = Extents { rank: N, dims: [1; MAX_RANK] };
        out.dims[..N].copy_from_slice(dims);
        out
    }

    /// These extents, but for axis `axis`.
    #[cfg(feature = "cpu")]
    pub(crate) fn with(mut self, axis: usize, extent: usize) -> Extents {
        self.dims[..self.rank][axis] = extent;
        self
    }

    /// The number of elements; as many as there can be where the product is beyond them.
    pub fn count(&self) -> usize {
        self.iter().fold(1, |count, &extent| count.saturating_mul(extent))
    }
}

impl TryFrom<&[usize]> for Extents {
    type Error = Error;

    fn try_from(dims: &[usize]) -> Result<Extents, Error> {
        let mut out = Extents { rank: dims.len(), dims: [1; MAX_RANK] };
        let Some(kept) = out.dims.get_mut(..dims.len()) else { return Err(Error::Rank { given: dims.len() }) };
        kept.copy_from_slice(dims);
        Ok(out)
    }
}

impl core::ops::Deref for Extents {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

/// What [`Shapes::resolve`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The shapes are those of the last run.
    None,
    /// Other shapes, the same profile.
    Shape,
    /// Another profile: buffers lie elsewhere.
    Profile,
}

impl<'a> Shapes<'a> {
    /// Shapes of `tables`; nothing but constants can be read before the first [`Shapes::resolve`].
    pub fn new(tables: &'a PlanTables<'a>) -> Shapes<'a> {
        let depth = tables.slots.iter().map(|f| f.code.len()).max().unwrap_or(0);
        Shapes {
            tables,
            profile: 0,
            symbols: vec![Cell::new(0); tables.symbols.len()],
            slots: vec![Cell::new(0); tables.slots.len()],
            known: vec![Cell::new(false); tables.symbols.len()],
            kept: vec![0; tables.symbols.len() + tables.slots.len()],
            stack: RefCell::new(Vec::with_capacity(depth)),
            resolved: false,
        }
    }

    /// Reads the symbols off the inputs' extents, picks the first profile that holds them, evaluates the slots, and
    /// checks every input against its shape and the constraints. An error leaves the shapes as they were.
    pub fn resolve<'d>(&mut self, input_dims: impl Fn(usize) -> &'d [usize]) -> Result<Change, Error> {
        let before = self.profile;
        let values = || self.symbols.iter().chain(&self.slots);
        self.kept.iter_mut().zip(values()).for_each(|(kept, value)| *kept = value.get());
        let change = self.try_resolve(input_dims);
        match change {
            Ok(_) => self.resolved = true,
            Err(_) => {
                let values = self.symbols.iter().chain(&self.slots);
                values.zip(&self.kept).for_each(|(value, &kept)| value.set(kept));
                self.profile = before;
            }
        }
        change
    }

    fn try_resolve<'d>(&mut self, input_dims: impl Fn(usize) -> &'d [usize]) -> Result<Change, Error> {
        let mut same = self.resolved;
        let mut counts = false;
        for (k, symbol) in self.tables.symbols.iter().enumerate() {
            let value = match symbol.source {
                Source::Extent { input, axis } => {
                    let dims = input_dims(input as usize);
                    let Some(&extent) = dims.get(axis as usize) else {
                        return Err(self.shape_error(input as usize, dims));
                    };
                    let value = i64::try_from(extent).unwrap_or(i64::MAX);
                    same &= self.symbols[k].get() == value;
                    value
                }
                Source::Count { bound } => {
                    counts = true;
                    self.evaluate(bound)
                }
            };
            self.symbols[k].set(value);
            self.known[k].set(matches!(symbol.source, Source::Extent { .. }));
        }
        let before = self.profile;
        if !same {
            self.profile = self.pick_profile()?;
        }
        if !same || counts {
            self.evaluate_slots();
        }
        for (k, port) in self.tables.inputs.iter().enumerate() {
            let dims = input_dims(k);
            let expected = self.tables.tensors[port.tensor as usize].dims;
            let fits = dims.len() == expected.len()
                && dims.iter().zip(expected).all(|(&given, &dim)| self.dim(dim) == given as i64);
            if !fits {
                return Err(self.shape_error(k, dims));
            }
        }
        if !same {
            self.check_constraints(PlanTables::MAIN)?;
        }
        Ok(match (same, before == self.profile) {
            (true, _) => Change::None,
            (false, true) => Change::Shape,
            (false, false) => Change::Profile,
        })
    }

    fn pick_profile(&self) -> Result<usize, Error> {
        let holds = |profile: &Profile<'_>, k: usize| {
            (profile.ranges[k].min..=profile.ranges[k].max).contains(&self.symbols[k].get())
        };
        // Symbols of inputs come first; counts stay within their bounds.
        let of_inputs = self.known.iter().take_while(|known| known.get()).count();
        let all = 0..of_inputs;
        if let Some(found) = self.tables.profiles.iter().position(|p| all.clone().all(|k| holds(p, k))) {
            return Ok(found);
        }
        // Name the first symbol that no profile holds; if each alone fits somewhere, the first.
        let culprit = all.clone().find(|&k| !self.tables.profiles.iter().any(|p| holds(p, k))).unwrap_or(0);
        Err(Error::OutsideProfiles {
            symbol: self.tables.symbols[culprit].name.to_owned(),
            given: self.symbols[culprit].get(),
            ranges: self.tables.profiles.iter().map(|p| p.ranges[culprit]).collect(),
        })
    }

    fn evaluate_slots(&self) {
        for (slot, formula) in self.slots.iter().zip(self.tables.slots) {
            slot.set(self.evaluate(formula.code));
        }
    }

    fn evaluate(&self, code: &[FormulaOp]) -> i64 {
        evaluate(code, &self.symbols, &self.slots, &mut self.stack.borrow_mut())
    }

    /// Gives the count `symbol` its value, and checks what relies on it.
    ///
    /// # Errors
    /// [`Error::Count`] for a value beyond its bound, which a defect of the plan alone can make; [`Error::Constraint`].
    pub fn set_count(&self, symbol: u32, value: i64) -> Result<(), Error> {
        let (k, bound) = (symbol as usize, self.symbols[symbol as usize].get());
        if !(0..=bound).contains(&value) {
            return Err(Error::Count { symbol: self.tables.symbols[k].name.to_owned(), given: value, bound });
        }
        self.symbols[k].set(value);
        self.known[k].set(true);
        self.evaluate_slots();
        // Those of a branch are checked when it is taken, and its counts are known then.
        let main = |constraint: &Constraint<'_>| constraint.segment as usize == PlanTables::MAIN;
        self.check(|constraint| main(constraint) && constraint.counts.contains(&symbol))
    }

    /// Checks what segment `segment` relies on; a branch's constraints are checked when it is taken.
    ///
    /// # Errors
    /// [`Error::Constraint`] with the first that does not hold.
    pub fn check_constraints(&self, segment: usize) -> Result<(), Error> {
        self.check(|constraint| constraint.segment as usize == segment)
    }

    /// Checks those of the constraints whose counts are known by now.
    fn check(&self, wanted: impl Fn(&Constraint<'_>) -> bool) -> Result<(), Error> {
        let decided = |constraint: &Constraint<'_>| constraint.counts.iter().all(|&k| self.known[k as usize].get());
        for constraint in self.tables.constraints.iter().filter(|constraint| wanted(constraint) && decided(constraint))
        {
            let (left, right) = (self.dim(constraint.left), self.dim(constraint.right));
            let holds = match constraint.kind {
                ConstraintKind::Equal => left == right,
                ConstraintKind::Broadcast => left == right || left == 1 || right == 1,
            };
            if !holds {
                return Err(Error::Constraint { why: constraint.why.to_owned(), left, right });
            }
        }
        Ok(())
    }

    fn shape_error(&self, input: usize, given: &[usize]) -> Error {
        let port = &self.tables.inputs[input];
        let mut expected = String::from("[");
        for (k, &dim) in self.tables.tensors[port.tensor as usize].dims.iter().enumerate() {
            if k > 0 {
                expected.push_str(", ");
            }
            match dim {
                Dim::Const(value) => expected.push_str(&value.to_string()),
                Dim::Slot(slot) => expected.push_str(self.tables.slots[slot as usize].text),
            }
        }
        expected.push(']');
        Error::InputShape { input: port.name.to_owned(), expected, given: given.to_vec() }
    }

    /// The profile in use.
    pub fn profile(&self) -> &'a Profile<'a> {
        &self.tables.profiles[self.profile]
    }

    /// The number of the profile in use.
    pub fn profile_index(&self) -> usize {
        self.profile
    }

    /// The value of an extent.
    pub fn dim(&self, dim: Dim) -> i64 {
        match dim {
            Dim::Const(value) => value,
            Dim::Slot(slot) => self.slots[slot as usize].get(),
        }
    }

    /// The extents of tensor `index`.
    pub fn extents(&self, index: u32) -> Extents {
        let dims = self.tables.tensors[index as usize].dims;
        let mut out = Extents { rank: dims.len(), dims: [1; MAX_RANK] };
        for (k, &dim) in dims.iter().enumerate() {
            out.dims[k] = usize::try_from(self.dim(dim)).unwrap_or(0);
        }
        out
    }

    /// The byte of its place at which tensor `index` begins.
    pub fn start(&self, index: u32) -> u64 {
        u64::try_from(self.dim(self.tables.tensors[index as usize].at)).unwrap_or(0)
    }

    /// The bytes of tensor `index`.
    pub fn bytes(&self, index: u32) -> usize {
        self.tables.tensors[index as usize].dtype.bytes(self.extents(index).count())
    }
}

/// The value of a formula. Overflow saturates: a shape that large fits no profile's memory.
pub fn evaluate(code: &[FormulaOp], symbols: &[Cell<i64>], slots: &[Cell<i64>], stack: &mut Vec<i64>) -> i64 {
    stack.clear();
    for &op in code {
        let binary: fn(i64, i64) -> i64 = match op {
            FormulaOp::Const(value) => {
                stack.push(value);
                continue;
            }
            FormulaOp::Symbol(k) => {
                stack.push(symbols[k as usize].get());
                continue;
            }
            FormulaOp::Slot(k) => {
                stack.push(slots[k as usize].get());
                continue;
            }
            FormulaOp::Add => i64::saturating_add,
            FormulaOp::Mul => i64::saturating_mul,
            FormulaOp::FloorDiv => floor_div,
            FormulaOp::Min => i64::min,
            FormulaOp::Max => i64::max,
            FormulaOp::Broadcast => |a, b| if a == 1 { b } else { a },
        };
        let right = stack.pop().unwrap_or(0);
        let left = stack.pop().unwrap_or(0);
        stack.push(binary(left, right));
    }
    stack.pop().unwrap_or(0)
}

/// `a / b` rounded toward negative infinity; 0 where `b` is 0.
pub fn floor_div(a: i64, b: i64) -> i64 {
    match (a.checked_div(b), a.checked_rem(b)) {
        (Some(quotient), Some(rest)) if rest != 0 && (rest < 0) != (b < 0) => quotient - 1,
        (Some(quotient), _) => quotient,
        (None, _) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_postfix() {
        use FormulaOp::*;
        let mut stack = Vec::new();
        let code = [Symbol(0), Const(-1), Add, Const(2), FloorDiv, Const(1), Add];
        assert_eq!(evaluate(&code, &[Cell::new(48)], &[], &mut stack), 24);
        assert_eq!(evaluate(&[Symbol(0), Const(7), Broadcast], &[Cell::new(1)], &[], &mut stack), 7);
        assert_eq!(evaluate(&[Const(i64::MAX), Const(2), Mul], &[], &[], &mut stack), i64::MAX);
    }

    #[test]
    fn extents_have_bounds() {
        assert!(matches!(Extents::try_from(&[1; 9][..]), Err(Error::Rank { given: 9 })));
        assert_eq!(Extents::try_from(&[2, 3][..]).unwrap(), Extents::new(&[2, 3]));
        assert_eq!(Extents::new(&[usize::MAX, 2]).count(), usize::MAX);
    }

    #[test]
    fn division_rounds_down() {
        assert_eq!(floor_div(-1, 2), -1);
        assert_eq!(floor_div(7, -2), -4);
        assert_eq!(floor_div(7, 2), 3);
        assert_eq!(floor_div(5, 0), 0);
    }

    #[test]
    fn refused_shapes_leave_the_last_ones() {
        use crate::DType;
        use crate::table::{Formula, NONE, Place, Port, Range, Segment, Source, Symbol, Target, Tensor};
        let ranges = [Range { min: 1, opt: 1, max: 4 }];
        let dims = [Dim::Slot(0), Dim::Const(3)];
        let code = [FormulaOp::Symbol(0)];
        let tables = PlanTables {
            name: "test",
            target: Target::Cpu,
            symbols: &[Symbol { name: "n", source: Source::Extent { input: 0, axis: 0 } }],
            profiles: &[Profile { ranges: &ranges, arena_bytes: 48, offsets: &[0] }],
            slots: &[Formula { code: &code, text: "n" }],
            constraints: &[],
            inputs: &[Port { name: "x", tensor: 0 }],
            outputs: &[Port { name: "x", tensor: 0 }],
            run_count: NONE,
            tensors: &[Tensor { dtype: DType::F32, dims: &dims, place: Place::Arena(0), at: Dim::Const(0) }],
            weight_bytes: 0,
            derived_bytes: 0,
            counter_bytes: 0,
            segments: &[Segment { steps: &[] }, Segment { steps: &[] }],
            kernels: &[],
            images: &[],
        };
        let mut shapes = Shapes::new(&tables);
        assert_eq!(shapes.resolve(|_| &[2, 3]).unwrap(), Change::Shape);
        assert!(matches!(shapes.resolve(|_| &[5, 3]), Err(Error::OutsideProfiles { given: 5, .. })));
        assert!(matches!(shapes.resolve(|_| &[4, 2]), Err(Error::InputShape { .. })));
        assert_eq!(shapes.extents(0)[..], [2, 3]);
        assert_eq!(shapes.resolve(|_| &[2, 3]).unwrap(), Change::None);
        assert_eq!(shapes.resolve(|_| &[4, 3]).unwrap(), Change::Shape);
    }

    #[test]
    fn counts_are_bounds_until_they_are_known() {
        use crate::DType;
        use crate::table::{Constraint, Formula, NONE, Place, Port, Range, Segment, Source, Symbol, Target, Tensor};
        let ranges = [Range { min: 1, opt: 4, max: 8 }, Range { min: 0, opt: 8, max: 8 }];
        let (n, double) = ([FormulaOp::Symbol(0)], [FormulaOp::Symbol(1), FormulaOp::Const(2), FormulaOp::Mul]);
        let (dims, counted) = ([Dim::Slot(0)], [Dim::Slot(1)]);
        let tensor = |dims| Tensor { dtype: DType::F32, dims, place: Place::Arena(0), at: Dim::Const(0) };
        let needs = |left, right, counts, kind| Constraint { segment: 1, counts, kind, left, right, why: "w" };
        let tables = PlanTables {
            name: "test",
            target: Target::Cpu,
            symbols: &[
                Symbol { name: "n", source: Source::Extent { input: 0, axis: 0 } },
                Symbol { name: "count1", source: Source::Count { bound: &n } },
            ],
            profiles: &[Profile { ranges: &ranges, arena_bytes: 64, offsets: &[0] }],
            slots: &[Formula { code: &n, text: "n" }, Formula { code: &double, text: "2*count1" }],
            constraints: &[
                needs(Dim::Slot(1), Dim::Const(6), &[1], ConstraintKind::Broadcast),
                Constraint { segment: 2, ..needs(Dim::Slot(1), Dim::Const(0), &[1], ConstraintKind::Equal) },
            ],
            inputs: &[Port { name: "x", tensor: 0 }],
            outputs: &[Port { name: "y", tensor: 1 }],
            tensors: &[tensor(&dims), tensor(&counted)],
            run_count: NONE,
            weight_bytes: 0,
            derived_bytes: 0,
            counter_bytes: 0,
            segments: &[Segment { steps: &[] }, Segment { steps: &[] }],
            kernels: &[],
            images: &[],
        };
        let mut shapes = Shapes::new(&tables);
        // What is not known yet is not checked, and has room for all.
        assert_eq!(shapes.resolve(|_| &[5]).unwrap(), Change::Shape);
        assert_eq!(shapes.extents(1)[..], [10]);
        shapes.set_count(1, 3).unwrap();
        assert_eq!(shapes.extents(1)[..], [6]);
        // What a branch relies on is checked when it is taken.
        assert!(matches!(shapes.check_constraints(2), Err(Error::Constraint { left: 6, right: 0, .. })));
        assert!(matches!(shapes.set_count(1, 4), Err(Error::Count { given: 4, bound: 3, .. })));
        // The next run knows nothing of the last one's.
        assert_eq!(shapes.resolve(|_| &[5]).unwrap(), Change::None);
        assert_eq!(shapes.extents(1)[..], [10]);
        assert!(matches!(shapes.set_count(1, 4), Err(Error::Constraint { left: 8, right: 6, .. })));
        assert!(matches!(shapes.resolve(|_| &[9]), Err(Error::OutsideProfiles { given: 9, .. })));
    }
}
