//! Moves: Transpose, Expand, Slice, Concat, Copy between two views of the same shape, and Pad.
//!
//! Elements are raw bytes, so every type of whole bytes is moved alike. Types of part of a byte are copied here only as
//! a whole tensor; [`crate::packed`] spreads them out for the others.

use lapidary_runtime::op::PadMode;

use crate::arch::Arch;
use crate::call::{As, Call, Place};
use crate::candidate::{Answer, Launch, Shapes};
use crate::extent::Expr;
use crate::predict::{Work, in_turn};
use crate::problem::{Kind, Operand, Problem};
use crate::view::{Index, View, broadcast, contiguous, powers_of_two, product};

const FAMILY: &str = "copy";
const THREADS: u32 = 256;
/// The most copies that one launch does: each has its own code and parameters.
const MOST_PARTS: usize = 8;

/// Implementations of the moves.
pub fn answer(problem: &Problem, arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let answer = if let Kind::Pad { mode, lo } = &problem.kind {
        pad(problem, *mode, lo, arch, shapes)
    } else {
        match moves(problem, shapes) {
            Ok(Some((stem, moves))) => Ok(of_moves(stem, &moves, arch, shapes)),
            Ok(None) => Ok(Answer::default()),
            Err(reason) => Err(reason),
        }
    };
    Answer::or_refusal(FAMILY, answer)
}

/// The bytes of an element that kernels move whole.
///
/// # Errors
/// In words, that the type is packed.
pub fn element(operand: &Operand) -> Result<i64, String> {
    match operand.dtype.bits() {
        bits if bits % 8 == 0 => Ok(bits as i64 / 8),
        _ => Err(format!("elements of {} are parts of bytes", operand.dtype)),
    }
}

/// Copies `count` elements of `bytes` bytes from the start of one place to the start of another.
pub fn flat(stem: &str, bytes: i64, count: &Expr, places: [Place; 2], shapes: &Shapes<'_>) -> (Launch, Work) {
    let one = vec![Expr::constant(1)];
    let view = View { dims: vec![count.clone()], strides: vec![one.clone(), one] };
    let [from, to] = places;
    let moved = Move { from, to, offsets: [Expr::constant(0), Expr::constant(0)], view, element: bytes, source: None };
    strided(stem, &moved, 16 / bytes, shapes)
}

/// One copy between two views.
#[derive(Debug)]
struct Move {
    from: Place,
    to: Place,
    /// Elements from each place to the first that its view has.
    offsets: [Expr; 2],
    /// Merged; strides of x, then of y.
    view: View,
    element: i64,
    /// The elements that are read, where they are fewer than those written.
    source: Option<Expr>,
}

impl Move {
    fn new(from: usize, element: i64, offsets: [Expr; 2], view: View) -> Move {
        Move { from: Place::input(from), to: Place::output(0), offsets, view: view.merged(), element, source: None }
    }

    /// The same copy along `rank` axes, of which the first have one element.
    fn of_rank(&self, rank: usize) -> Move {
        let lead = rank - self.view.dims.len();
        let behind = |first: i64, own: &[Expr]| -> Vec<Expr> {
            std::iter::repeat_n(Expr::constant(first), lead).chain(own.iter().cloned()).collect()
        };
        let strides = self.view.strides.iter().map(|strides| behind(0, strides)).collect();
        let view = View { dims: behind(1, &self.view.dims), strides };
        Move {
            from: self.from.clone(),
            to: self.to.clone(),
            offsets: self.offsets.clone(),
            view,
            element: self.element,
            source: self.source.clone(),
        }
    }

    fn index(&self, shapes: &Shapes<'_>) -> Index {
        // Strided reads reach positions beyond the number of elements that move.
        let reach = |strides: &[Expr]| {
            let axes = strides.iter().zip(&self.view.dims);
            axes.map(|(stride, dim)| reach_of(stride, shapes).saturating_mul(shapes.max(dim))).sum::<i64>()
        };
        let reaches = self.view.strides.iter().map(|strides| Expr::constant(reach(strides)));
        let counts: Vec<Expr> = reaches.chain([self.view.count()]).collect();
        Index::of(&counts, shapes)
    }

    fn typical(&self, shapes: &Shapes<'_>) -> f64 {
        (shapes.typical)(&self.view.count()).max(0) as f64
    }

    /// Bytes read and written, if every line that is touched is used.
    fn bytes(&self, shapes: &Shapes<'_>) -> f64 {
        let read = self.source.as_ref().map_or(self.typical(shapes), |count| (shapes.typical)(count).max(0) as f64);
        (read + self.typical(shapes)) * self.element as f64
    }
}

/// How far a stride may go in either direction.
pub fn reach_of(stride: &Expr, shapes: &Shapes<'_>) -> i64 {
    let (low, high) = (shapes.range)(stride);
    high.max(low.saturating_neg())
}

/// The copies that a problem asks for; `None` if it asks for something else.
fn moves(problem: &Problem, shapes: &Shapes<'_>) -> Result<Option<(&'static str, Vec<Move>)>, String> {
    let zero = || [Expr::constant(0), Expr::constant(0)];
    if let Kind::Copy = problem.kind {
        return copy(problem, shapes).map(|moved| Some(("copy", vec![moved])));
    }
    if let Kind::Transpose(spec) = &problem.kind {
        let (x, y) = (problem.input(0)?, problem.output(0)?);
        let strides = contiguous(&x.dims);
        let permuted = spec.perm[..usize::from(spec.rank)].iter().map(|&axis| strides[usize::from(axis)].clone());
        let view = View { strides: vec![permuted.collect(), contiguous(&y.dims)], dims: y.dims.clone() };
        return Ok(Some(("transpose", vec![Move::new(0, element(x)?, zero(), view)])));
    }
    if let Kind::Expand = problem.kind {
        let (x, y) = (problem.input(0)?, problem.output(0)?);
        let strides = vec![broadcast(&x.dims, &y.dims, shapes), contiguous(&y.dims)];
        let view = View { strides, dims: y.dims.clone() };
        let mut moved = Move::new(0, element(x)?, zero(), view);
        moved.source = Some(x.count());
        return Ok(Some(("expand", vec![moved])));
    }
    if let Kind::Slice { starts, steps } = &problem.kind {
        let (x, y) = (problem.input(0)?, problem.output(0)?);
        let strides = contiguous(&x.dims);
        let along = |stride: &Expr, by: &Expr| stride.clone() * by.clone();
        let first = strides.iter().zip(starts).fold(Expr::constant(0), |at, (stride, by)| at + along(stride, by));
        let stepped = strides.iter().zip(steps).map(|(stride, &step)| along(stride, &Expr::constant(step)));
        let view = View { strides: vec![stepped.collect(), contiguous(&y.dims)], dims: y.dims.clone() };
        return Ok(Some(("slice", vec![Move::new(0, element(x)?, [first, Expr::constant(0)], view)])));
    }
    if let Kind::Concat { axis } = &problem.kind {
        return concat(problem, usize::from(*axis)).map(|moves| Some(("concat", moves)));
    }
    Ok(None)
}

/// A copy of the whole tensor, in words as wide as its length allows.
fn copy(problem: &Problem, shapes: &Shapes<'_>) -> Result<Move, String> {
    let x = problem.input(0)?;
    let bytes = (Expr::from(x.dtype.bits()) * x.count()).ceil_div(&Expr::constant(8));
    // Tensors begin at multiples of 256 bytes.
    let word = powers_of_two(4).find(|&word| shapes.is_multiple(&bytes, word)).unwrap_or(1);
    let dims = vec![bytes.floor_div(&Expr::constant(word))];
    let one = vec![Expr::constant(1)];
    Ok(Move::new(0, word, [Expr::constant(0), Expr::constant(0)], View { dims, strides: vec![one.clone(), one] }))
}

fn concat(problem: &Problem, axis: usize) -> Result<Vec<Move>, String> {
    let y = problem.output(0)?;
    let element = element(y)?;
    let strides = contiguous(&y.dims);
    let mut at = Expr::constant(0);
    let mut moves = Vec::new();
    for k in 0..problem.inputs.len() {
        let x = problem.input(k)?;
        // The result's formulas for the axes that all parts share, so that views merge.
        let mut dims = y.dims.clone();
        dims[axis] = x.dims[axis].clone();
        let view = View { strides: vec![contiguous(&dims), strides.clone()], dims };
        moves.push(Move::new(k, element, [Expr::constant(0), at.clone() * strides[axis].clone()], view));
        at = at + x.dims[axis].clone();
    }
    moves.retain(|moved| !moved.view.count().is(0));
    Ok(moves)
}

fn of_moves(stem: &'static str, moves: &[Move], arch: Arch, shapes: &Shapes<'_>) -> Answer {
    let mut answer = Answer::default();
    let legal: Vec<i64> = moves.iter().map(|moved| widest(moved, shapes)).collect();
    let mut wanted: Vec<i64> = vec![1];
    wanted.extend(legal.iter().copied().max().filter(|&vec| vec > 1));
    for vec in wanted {
        let parts = moves.iter().zip(&legal).map(|(moved, &legal)| strided(stem, moved, vec.min(legal), shapes));
        let (launches, works): (Vec<Launch>, Vec<Work>) = parts.unzip();
        answer.offer(format!("copy_strided/{stem}_v{vec}"), launches, in_turn(&works, arch));
    }
    if (2..=MOST_PARTS).contains(&moves.len()) {
        let rank = moves.iter().map(|moved| moved.view.dims.len()).max().unwrap_or(1);
        let moves: Vec<Move> = moves.iter().map(|moved| moved.of_rank(rank)).collect();
        let vec = moves.iter().map(|moved| widest(moved, shapes)).min().unwrap_or(1);
        let (launch, work) = parts(stem, &moves, vec, shapes);
        answer.offer(format!("copy_parts/{stem}_v{vec}"), vec![launch], work.microseconds(arch));
    }
    if let [moved] = moves {
        match Tiled::new(moved, shapes) {
            Ok(tiled) => {
                let (launch, work) = tiled.launch(stem, moved, shapes);
                answer.offer(tiled.key(), vec![launch], work.microseconds(arch));
            }
            Err(reason) => answer.refuse("copy_tiled", reason),
        }
    }
    answer
}

/// The most elements that one instruction may move.
fn widest(moved: &Move, shapes: &Shapes<'_>) -> i64 {
    let View { dims, strides } = &moved.view;
    let (Some((inner, _)), [x, y]) = (dims.split_last(), strides.as_slice()) else { return 1 };
    let contiguous = [x, y].iter().all(|strides| strides.last().is_some_and(|stride| stride.is(1)));
    if !contiguous {
        return 1;
    }
    let outer = x.iter().zip(y).take(dims.len() - 1).flat_map(|(x, y)| [x, y]);
    let must: Vec<&Expr> = outer.chain(&moved.offsets).chain((dims.len() > 1).then_some(inner)).collect();
    let fits = |vec: &i64| must.iter().all(|expr| shapes.is_multiple(expr, *vec));
    powers_of_two(16 / moved.element).find(fits).unwrap_or(1)
}

/// The launch of `copy::run`, `vec` elements at a time.
fn strided(stem: &str, moved: &Move, vec: i64, shapes: &Shapes<'_>) -> (Launch, Work) {
    let View { dims, strides } = &moved.view;
    let unroll = if vec * moved.element >= 16 { 2 } else { 4 };
    let mut call = Call::new(FAMILY, format!("{stem}_{}", bits(moved.element)), "Copies one view to another");
    let index = moved.index(shapes);
    call.using("Index", index.name());
    call.ints(&[("RANK", dims.len() as i64), ("ELEMENT", moved.element)]);
    call.ints(&[("VEC", vec), ("UNROLL", unroll), ("THREADS", i64::from(THREADS))]);
    call.pointer("const void", "x", &moved.from.clone().offset(&moved.offsets[0]));
    call.pointer("void", "y", &moved.to.clone().offset(&moved.offsets[1]));
    call.literal("0");
    call.literal("0");
    call.extents("d", dims, As::Index(index));
    call.extents("xs", &strides[0], As::Index(index));
    call.extents("ys", &strides[1], As::Index(index));
    let block = i64::from(THREADS) * unroll * vec;
    let blocks = moved.view.count().ceil_div(&Expr::constant(block));
    let launch = call.launch("copy::run", THREADS, blocks);

    let elements = moved.typical(shapes);
    let element = moved.element as f64;
    let inner = strides[0].last().and_then(Expr::as_const);
    // An element read alone costs its sector, of which the caches give back a part.
    let scattered = if matches!(inner, Some(0 | 1)) { 0.0 } else { (32.0 / element).min(4.0) - 1.0 };
    let work = Work {
        bytes: moved.bytes(shapes) + elements * element * scattered,
        blocks: (elements / block as f64).ceil(),
        threads: f64::from(THREADS),
        in_flight: block as f64 * element,
        instructions: elements / vec as f64 * (8.0 + 12.0 * (dims.len() as f64 - 1.0)),
    };
    (launch, work)
}

/// The launch of `copy::parts`, `vec` elements at a time; the moves have one rank.
fn parts(stem: &str, moves: &[Move], vec: i64, shapes: &Shapes<'_>) -> (Launch, Work) {
    let element = moves[0].element;
    let rank = moves[0].view.dims.len();
    let unroll = if vec * element >= 16 { 2 } else { 4 };
    let mut call = Call::new(FAMILY, format!("{stem}_parts_{}", bits(element)), "Copies views to others, one by one");
    let wide = moves.iter().any(|moved| moved.index(shapes) == Index::I64);
    let index = if wide { Index::I64 } else { Index::I32 };
    call.using("Index", index.name());
    call.ints(&[("PARTS", moves.len() as i64), ("RANK", rank as i64), ("ELEMENT", element)]);
    call.ints(&[("VEC", vec), ("UNROLL", unroll), ("THREADS", i64::from(THREADS))]);
    let places = |side: usize| -> Vec<Place> {
        let place = |moved: &Move| [&moved.from, &moved.to][side].clone().offset(&moved.offsets[side]);
        moves.iter().map(place).collect()
    };
    call.pointers("const void", "x", &places(0));
    call.pointers("void", "y", &places(1));
    let lists = |of: fn(&Move) -> &[Expr]| moves.iter().map(|moved| Some(of(moved))).collect::<Vec<_>>();
    call.lists("d", &lists(|moved| &moved.view.dims), As::Index(index));
    call.lists("xs", &lists(|moved| &moved.view.strides[0]), As::Index(index));
    call.lists("ys", &lists(|moved| &moved.view.strides[1]), As::Index(index));
    let block = i64::from(THREADS) * unroll * vec;
    let mut blocks = Expr::constant(0);
    let mut ends = Vec::new();
    for moved in moves {
        blocks = blocks + moved.view.count().ceil_div(&Expr::constant(block));
        ends.push(blocks.clone());
    }
    call.extents("end", &ends, As::Wide);
    let works: Vec<Work> = moves.iter().map(|moved| strided(stem, moved, vec, shapes).1).collect();
    let sum = |of: fn(&Work) -> f64| works.iter().map(of).sum::<f64>();
    let work = Work {
        bytes: sum(|work| work.bytes),
        blocks: sum(|work| work.blocks),
        threads: f64::from(THREADS),
        in_flight: (block * element) as f64,
        instructions: sum(|work| work.instructions),
    };
    (call.launch("copy::parts", THREADS, blocks), work)
}

fn bits(element: i64) -> String {
    format!("b{}", element * 8)
}

/// Two swapped axes through shared memory: along `column` x is contiguous, along the last axis y is.
struct Tiled {
    /// The axis along which x is contiguous.
    column: usize,
    tile: i64,
    vec_x: i64,
    vec_y: i64,
}

impl Tiled {
    fn new(moved: &Move, shapes: &Shapes<'_>) -> Result<Tiled, String> {
        let View { dims, strides } = &moved.view;
        let [x, y] = strides.as_slice() else { return Err("there are not two views".to_owned()) };
        let row = dims.len() - 1;
        if !y[row].is(1) || x[row].is(1) {
            return Err("the innermost axis of the result is contiguous in the operand too".to_owned());
        }
        let column = (0..row).find(|&axis| x[axis].is(1)).ok_or("no axis of the operand is contiguous")?;
        if moved.element > 8 {
            return Err("elements have more than 8 bytes".to_owned());
        }
        let widest = |strides: &[Expr], own: usize, offset: &Expr| {
            let outer = (0..=row).filter(|&axis| axis != own).map(|axis| &strides[axis]);
            let must: Vec<&Expr> = outer.chain([&dims[own], offset]).collect();
            let fits = |vec: &i64| must.iter().all(|expr| shapes.is_multiple(expr, *vec));
            powers_of_two(16 / moved.element).find(fits).unwrap_or(1)
        };
        Ok(Tiled {
            column,
            tile: if moved.element <= 2 { 64 } else { 32 },
            vec_x: widest(x, column, &moved.offsets[0]),
            vec_y: widest(y, row, &moved.offsets[1]),
        })
    }

    fn key(&self) -> String {
        format!("copy_tiled/t{}x{}y{}", self.tile, self.vec_x, self.vec_y)
    }

    fn launch(&self, stem: &str, moved: &Move, shapes: &Shapes<'_>) -> (Launch, Work) {
        let View { dims, strides } = &moved.view;
        let row = dims.len() - 1;
        let outer: Vec<usize> = (0..row).filter(|&axis| axis != self.column).collect();
        let pick = |from: &[Expr], absent: i64| -> Vec<Expr> {
            let picked: Vec<Expr> = outer.iter().map(|&axis| from[axis].clone()).collect();
            if picked.is_empty() { vec![Expr::constant(absent)] } else { picked }
        };
        let mut call = Call::new(
            FAMILY,
            format!("{stem}_tiled_{}", bits(moved.element)),
            "Swaps two axes through tiles in shared memory",
        );
        let index = moved.index(shapes);
        call.using("Index", index.name());
        call.ints(&[("ELEMENT", moved.element), ("OUTER", outer.len().max(1) as i64)]);
        call.ints(&[
            ("TILE", self.tile),
            ("VEC_X", self.vec_x),
            ("VEC_Y", self.vec_y),
            ("THREADS", i64::from(THREADS)),
        ]);
        call.pointer("const void", "x", &moved.from.clone().offset(&moved.offsets[0]));
        call.pointer("void", "y", &moved.to.clone().offset(&moved.offsets[1]));
        call.literal("0");
        call.literal("0");
        call.extents("o", &pick(dims, 1), As::Index(index));
        call.extents("xo", &pick(&strides[0], 0), As::Index(index));
        call.extents("yo", &pick(&strides[1], 0), As::Index(index));
        call.extent("rows", &dims[row], As::Index(index));
        call.extent("columns", &dims[self.column], As::Index(index));
        call.extent("x_row", &strides[0][row], As::Index(index));
        call.extent("y_column", &strides[1][self.column], As::Index(index));
        let tile = Expr::constant(self.tile);
        let tiles = dims[row].ceil_div(&tile) * dims[self.column].ceil_div(&tile);
        let blocks = product(&pick(dims, 1)) * tiles;
        let typical = |expr: &Expr| (shapes.typical)(expr).max(1) as f64;
        let element = moved.element as f64;
        let side = |axis: usize| typical(&dims[axis]).min(self.tile as f64);
        // A line shorter than a sector brings the rest of it along.
        let lines = |axis: usize| (32.0 / (side(axis) * element)).max(1.0);
        let half = moved.typical(shapes) * element;
        let work = Work {
            bytes: half * (lines(row) + lines(self.column)),
            blocks: typical(&blocks),
            threads: f64::from(THREADS),
            in_flight: side(row) * side(self.column) * element,
            instructions: moved.typical(shapes) * (4.0 + 6.0 / self.vec_x as f64 + 6.0 / self.vec_y as f64)
                + typical(&blocks) * f64::from(THREADS) * 60.0,
        };
        (call.launch("copy::transpose", THREADS, blocks), work)
    }
}

/// Pad: unpadded neighbours are merged, each result asks where it comes from.
fn pad(problem: &Problem, mode: PadMode, lo: &[Expr], arch: Arch, shapes: &Shapes<'_>) -> Result<Answer, String> {
    let (x, y) = (problem.input(0)?, problem.output(0)?);
    let mut axes: Vec<[Expr; 3]> = Vec::new();
    let mut kept_before = false;
    for ((from, to), lo) in x.dims.iter().zip(&y.dims).zip(lo) {
        let kept = from == to && lo.is(0);
        match axes.last_mut() {
            Some([last_from, last_to, _]) if kept && kept_before => {
                *last_from = last_from.clone() * from.clone();
                *last_to = last_to.clone() * to.clone();
            }
            _ => axes.push([from.clone(), to.clone(), lo.clone()]),
        }
        kept_before = kept;
    }
    if axes.is_empty() {
        axes.push([Expr::constant(1), Expr::constant(1), Expr::constant(0)]);
    }
    let list = |k: usize| -> Vec<Expr> { axes.iter().map(|axis| axis[k].clone()).collect() };
    let (name, spelled) = match mode {
        PadMode::Constant => ("constant", "CONSTANT"),
        PadMode::Edge => ("edge", "EDGE"),
        PadMode::Reflect => ("reflect", "REFLECT"),
        PadMode::Wrap => ("wrap", "WRAP"),
    };
    let element = element(x)?;
    let mut call = Call::new(FAMILY, format!("pad_{name}_{}", bits(element)), "Pads: each result asks for its source");
    let index = Index::of(&[x.count(), y.count()], shapes);
    call.using("Index", index.name());
    call.ints(&[("RANK", axes.len() as i64), ("ELEMENT", element), ("THREADS", i64::from(THREADS))]);
    call.constant("copy::PadMode", &format!("MODE = copy::PadMode::{spelled}"));
    let value = problem.optional_input(1).map_or(Place::Absent, |_| Place::input(1));
    call.pointer("const void", "x", &Place::input(0));
    call.pointer("const void", "value", &value);
    call.pointer("void", "y", &Place::output(0));
    call.extents("xd", &list(0), As::Index(index));
    call.extents("yd", &list(1), As::Index(index));
    call.extents("lo", &list(2), As::Index(index));
    let blocks = y.count().ceil_div(&Expr::constant(i64::from(THREADS)));
    let elements = (shapes.typical)(&y.count()).max(0) as f64;
    let work = Work {
        bytes: 2.0 * elements * element as f64,
        blocks: (shapes.typical)(&blocks) as f64,
        threads: f64::from(THREADS),
        in_flight: f64::from(THREADS) * element as f64,
        instructions: elements * (10.0 + 25.0 * axes.len() as f64),
    };
    let mut answer = Answer::default();
    answer.offer(format!("copy_pad/{name}"), vec![call.launch("copy::pad", THREADS, blocks)], work.microseconds(arch));
    Ok(answer)
}

#[cfg(test)]
mod tests;
