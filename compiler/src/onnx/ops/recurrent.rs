//! Recurrent layers (ONNX LSTM, GRU, RNN).
//!
//! The IR has one operation for the three, in layout 0; layout 1 is transposes around it. Activations that a node does
//! not name, and parameters that it does not give, get the operators' defaults here.

use lapidary_runtime::op::{Activation, ActivationKind, Cell, Direction, Recurrent};

use self::Parameter::{Needed, Optional, Unused};
use super::entry::op;
use super::{Cx, Fault, Imported, OpDef};
use crate::ir::{Op, ValueId};

pub const DEFS: &[OpDef] = &[
    OpDef { outputs: (0, 3), ..op("LSTM", 7, (3, 8), |cx| layer(cx, Kind::Lstm)) },
    OpDef { outputs: (0, 2), ..op("GRU", 7, (3, 6), |cx| layer(cx, Kind::Gru)) },
    OpDef { outputs: (0, 2), ..op("RNN", 7, (3, 6), |cx| layer(cx, Kind::Rnn)) },
];

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Lstm,
    Gru,
    Rnn,
}

/// Which axis of x and of the results comes first.
#[derive(Clone, Copy)]
enum Layout {
    Sequence,
    Batch,
}

fn layer(cx: &mut Cx<'_, '_>, kind: Kind) -> Imported {
    let direction = direction(cx)?;
    let layout = if cx.attrs.flag_or("layout", 0)? { Layout::Batch } else { Layout::Sequence };
    let cell = match kind {
        Kind::Lstm => Cell::Lstm,
        Kind::Gru => Cell::Gru { linear_before_reset: cx.attrs.flag_or("linear_before_reset", 0)? },
        Kind::Rnn => Cell::Rnn,
    };
    let input_forget = match kind {
        Kind::Lstm => cx.attrs.flag_or("input_forget", 0)?,
        Kind::Gru | Kind::Rnn => false,
    };
    let spec = Recurrent {
        cell,
        direction,
        hidden: hidden_size(cx)?,
        clip: clip(cx)?,
        activations: activations(cx, kind, direction)?,
        input_forget,
    };
    let inputs = inputs(cx, layout)?;
    let wanted = (0..3).rev().find(|&k| cx.wants(k)).map_or(1, |k| k + 1);
    let results = cx.b.node_with(Op::Recurrent(spec), &inputs, wanted)?;
    results.into_iter().enumerate().map(|(k, result)| Ok(outward(cx, layout, k, result)?)).collect()
}

pub(super) fn direction(cx: &Cx<'_, '_>) -> Result<Direction, Fault> {
    let directions =
        [("forward", Direction::Forward), ("reverse", Direction::Reverse), ("bidirectional", Direction::Bidirectional)];
    Ok(cx.attrs.choice_or("direction", Direction::Forward, &directions)?)
}

/// The extent of the state, which the attribute repeats.
fn hidden_size(cx: &Cx<'_, '_>) -> Result<u32, Fault> {
    let of_weights = cx.b.dims(cx.input(2)?).last().and_then(crate::ir::Expr::as_const);
    let Some(hidden) = cx.attrs.int_opt("hidden_size")?.or(of_weights) else {
        return Err(Fault::unsupported(
            "the size of the hidden state is not known while compiling",
            "give the node the attribute hidden_size, or its weights constant extents",
        ));
    };
    match u32::try_from(hidden) {
        Ok(hidden) if hidden > 0 => Ok(hidden),
        Ok(_) | Err(_) => Err(Fault::Invalid(format!("hidden_size is {hidden}, and must be positive"))),
    }
}

pub(super) fn clip(cx: &Cx<'_, '_>) -> Result<f32, Fault> {
    match cx.attrs.float_opt("clip")? {
        None => Ok(f32::INFINITY),
        Some(clip) if clip > 0.0 => Ok(clip),
        Some(clip) => Err(cx.attrs.bad_value("clip", format!("is {clip}"), "it must be positive").into()),
    }
}

/// The operands in layout 0.
fn inputs(cx: &mut Cx<'_, '_>, layout: Layout) -> Result<Vec<Option<ValueId>>, Fault> {
    let mut inputs: Vec<Option<ValueId>> = (0..cx.input_count()).map(|k| cx.optional(k)).collect();
    if let Layout::Batch = layout {
        // x, initial_h, initial_c
        for k in [0, 5, 6] {
            if let Some(Some(value)) = inputs.get(k).copied() {
                inputs[k] = Some(swapped(cx, value)?);
            }
        }
    }
    Ok(inputs)
}

/// A tensor of three axes with the first two swapped.
fn swapped(cx: &mut Cx<'_, '_>, value: ValueId) -> Result<ValueId, Fault> {
    if cx.b.rank(value) != 3 {
        return Err(Fault::Invalid(format!("an operand has rank {}, and 3 is needed", cx.b.rank(value))));
    }
    Ok(cx.b.transpose(value, &[1, 0, 2])?)
}

/// Result `k` in the node's layout.
fn outward(cx: &mut Cx<'_, '_>, layout: Layout, k: usize, result: Option<ValueId>) -> Result<Option<ValueId>, String> {
    match (layout, result) {
        (Layout::Batch, Some(result)) => {
            let perm: &[usize] = if k == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] };
            cx.b.transpose(result, perm).map(Some)
        }
        (Layout::Sequence, result) => Ok(result),
        (Layout::Batch, None) => Ok(None),
    }
}

/// An activation as the operators define it: its name, and the parameters that it takes.
struct Known {
    name: &'static str,
    kind: ActivationKind,
    alpha: Parameter,
    beta: Parameter,
}

/// What an activation does with a parameter.
#[derive(Clone, Copy)]
enum Parameter {
    Unused,
    /// It is taken from the list, and must be there: the standard has no operator that would define a default.
    Needed,
    /// It is taken from the list, or is this, as for the ONNX operator of the same name.
    Optional(f32),
}

impl Parameter {
    /// The next number of the list `name`, where the parameter takes one.
    fn take(
        self,
        cx: &Cx<'_, '_>,
        name: &str,
        given: &mut impl Iterator<Item = f32>,
        activation: &str,
    ) -> Result<f32, Fault> {
        match self {
            Unused => Ok(0.0),
            Optional(default) => Ok(given.next().unwrap_or(default)),
            Needed => given.next().ok_or_else(|| {
                let why = format!("ONNX defines no default for {activation}");
                cx.attrs.bad_value(name, format!("has no number for {activation}"), why).into()
            }),
        }
    }
}

const fn known(name: &'static str, kind: ActivationKind, alpha: Parameter, beta: Parameter) -> Known {
    Known { name, kind, alpha, beta }
}

const ACTIVATIONS: &[Known] = &[
    known("Sigmoid", ActivationKind::Sigmoid, Unused, Unused),
    known("Tanh", ActivationKind::Tanh, Unused, Unused),
    known("Relu", ActivationKind::Relu, Unused, Unused),
    known("Affine", ActivationKind::Affine, Needed, Optional(0.0)),
    known("LeakyRelu", ActivationKind::LeakyRelu, Optional(0.01), Unused),
    known("ThresholdedRelu", ActivationKind::ThresholdedRelu, Optional(1.0), Unused),
    known("ScaledTanh", ActivationKind::ScaledTanh, Needed, Needed),
    known("HardSigmoid", ActivationKind::HardSigmoid, Optional(0.2), Optional(0.5)),
    known("Elu", ActivationKind::Elu, Optional(1.0), Unused),
    known("Softsign", ActivationKind::Softsign, Unused, Unused),
    known("Softplus", ActivationKind::Softplus, Unused, Unused),
];

const NONE: Activation = Activation { kind: ActivationKind::Tanh, alpha: 0.0, beta: 0.0 };

/// f, g and h of each direction, those that the cell has.
pub(super) fn activations(cx: &Cx<'_, '_>, kind: Kind, direction: Direction) -> Result<[Activation; 6], Fault> {
    let defaults: &[&str] = match kind {
        Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        Kind::Gru => &["Sigmoid", "Tanh"],
        Kind::Rnn => &["Tanh"],
    };
    let directions = match direction {
        Direction::Forward | Direction::Reverse => 1,
        Direction::Bidirectional => 2,
    };
    let names = match cx.attrs.strs_opt("activations")?.filter(|names| !names.is_empty()) {
        None => defaults.repeat(directions),
        // RNN's own default is a list of two, which exporters write out for one direction too.
        Some(mut names) if names.len() >= defaults.len() * directions && names.len() <= defaults.len() * 2 => {
            names.truncate(defaults.len() * directions);
            names
        }
        Some(names) => {
            let why = format!("the layer has {}", defaults.len() * directions);
            return Err(cx.attrs.bad_value("activations", format!("has {} names", names.len()), why).into());
        }
    };
    // The lists hold a number for each activation that takes the parameter, in order.
    let mut alphas = cx.attrs.floats_or("activation_alpha", &[])?.iter().copied();
    let mut betas = cx.attrs.floats_or("activation_beta", &[])?.iter().copied();
    let mut out = [NONE; 6];
    for (k, name) in names.into_iter().enumerate() {
        let Some(known) = ACTIVATIONS.iter().find(|known| known.name.eq_ignore_ascii_case(name)) else {
            let all: Vec<&str> = ACTIVATIONS.iter().map(|known| known.name).collect();
            let given = format!("has {}", crate::diag::quoted(name));
            return Err(cx.attrs.bad_value("activations", given, format!("there are {}", all.join(", "))).into());
        };
        let alpha = known.alpha.take(cx, "activation_alpha", &mut alphas, known.name)?;
        let beta = known.beta.take(cx, "activation_beta", &mut betas, known.name)?;
        out[k / defaults.len() * 3 + k % defaults.len()] = Activation { kind: known.kind, alpha, beta };
    }
    Ok(out)
}
