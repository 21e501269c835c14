//! Orders of axes in which the caller wants to give an input or take an output.
//!
//! ONNX does not say what an axis means, so a format says both what the caller has and what the model has: images of the
//! model are in the other of the two orders. The importer puts a transpose at the border; the passes move it from there.
//! Not here: formats that pad or interleave channels.

use std::fmt;
use std::str::FromStr;

use super::Input;
use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};
use crate::ir::eval::Tensor;
use crate::ir::{self, Builder, Graph, Origin, Patch, SymbolSource, Type, ValueId};

/// An order of the axes of images, in the interface of a compiled model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `[n, c, spatial..]` of what the model has as `[n, spatial.., c]`.
    Nchw,
    /// `[n, spatial.., c]` of what the model has as `[n, c, spatial..]`.
    Nhwc,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Format, String> {
        match text {
            "nchw" => Ok(Format::Nchw),
            "nhwc" => Ok(Format::Nhwc),
            _ => Err(format!("{} is no format; the formats are nchw and nhwc", quoted(text))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Nchw => "nchw",
            Format::Nhwc => "nhwc",
        })
    }
}

impl Format {
    /// Reads `NAME=FORMAT`.
    ///
    /// # Errors
    /// One sentence, for a text of another form.
    pub fn parse(text: &str) -> std::result::Result<(String, Format), String> {
        let (name, format) = text.rsplit_once('=').ok_or("expected NAME=nchw or NAME=nhwc")?;
        Ok((name.trim().to_owned(), format.trim().parse()?))
    }

    /// For each axis of the interface that of the model; `None` without a spatial axis.
    fn axes(self, rank: usize) -> Option<Vec<usize>> {
        let mut axes: Vec<usize> = (0..rank).collect();
        match self {
            _ if rank < 3 => return None,
            Format::Nchw => axes[1..].rotate_right(1),
            Format::Nhwc => axes[1..].rotate_left(1),
        }
        Some(axes)
    }

    /// What the model has for each axis, as the interface has it; as it is where there is no spatial axis, which the importer
    /// refuses.
    fn permuted<T: Clone>(self, of: &[T]) -> Vec<T> {
        self.axes(of.len()).map_or(of.to_vec(), |axes| axes.into_iter().map(|axis| of[axis].clone()).collect())
    }

    /// An input as the interface has it.
    pub fn input(self, input: Input) -> Input {
        Input { dims: self.permuted(&input.dims), symbols: self.permuted(&input.symbols), ..input }
    }

    /// A tensor of the model as the interface has it; as it is where it has no spatial axis.
    pub fn tensor(self, tensor: Tensor) -> Tensor {
        self.axes(tensor.dims.len()).map_or(tensor.clone(), |axes| tensor.transposed(&axes))
    }
}

/// Gives the graph's interface the formats that were asked for.
///
/// # Errors
/// E0415 for each that names no input and no output, or one without a spatial axis, or one a second time.
pub fn apply(graph: &mut Graph, formats: &[(String, Format)]) -> Result<()> {
    let mut errors = Diagnostics::new();
    for (k, (name, format)) in formats.iter().enumerate() {
        if formats[..k].iter().any(|(earlier, _)| earlier == name) {
            let help = "state the format of an input or output once";
            errors.push(refused(name, format!("{} is given two formats", quoted(name))).help(help));
        } else {
            errors.keep(apply_one(graph, name, *format));
        }
    }
    errors.check()
}

fn apply_one(graph: &mut Graph, name: &str, format: Format) -> Result<()> {
    let input = graph.inputs().iter().position(|value| &*graph.value(*value).name == name);
    let output = graph.outputs().iter().position(|(output, _)| output == name);
    if input.is_none() && output.is_none() {
        let inputs = graph.inputs().iter().map(|value| quoted(&graph.value(*value).name).to_string());
        let all: Vec<String> = inputs.chain(graph.outputs().iter().map(|(name, _)| quoted(name).to_string())).collect();
        let what = format!("the model has no input or output {}", quoted(name));
        return Err(refused(name, what).help(format!("its inputs and outputs are: {}", all.join(", "))).into());
    }
    if let Some(k) = output {
        let value = graph.outputs()[k].1;
        let axes = axes_of(graph, name, format, value)?;
        let moved = transpose(graph, name, format, value, &axes);
        graph.set_output(k, moved);
    }
    if let Some(k) = input {
        let value = graph.inputs()[k];
        let axes = axes_of(graph, name, format, value)?;
        replace_input(graph, k, name, format, &axes);
    }
    Ok(())
}

fn axes_of(graph: &Graph, name: &str, format: Format, value: ValueId) -> Result<Vec<usize>> {
    let rank = graph.ty(value).dims.len();
    format.axes(rank).ok_or_else(|| {
        let what = format!("{} has {rank} axes, and {format} is about images", quoted(name));
        let why = "an image has a batch axis, channels, and a spatial axis at least";
        refused(name, what).why(why).help("leave its format out").into()
    })
}

/// Makes input `k` one of another order of axes, and what it was a transpose of that.
fn replace_input(graph: &mut Graph, k: usize, name: &str, format: Format, axes: &[usize]) {
    let old = graph.inputs()[k];
    let Type { dtype, dims } = graph.ty(old).clone();
    let new = graph.add_input(name, Type { dtype, dims: axes.iter().map(|&axis| dims[axis].clone()).collect() });
    let place = |axis: usize| axes.iter().position(|&from| from == axis).unwrap_or(axis);
    let back: Vec<usize> = (0..axes.len()).map(place).collect();
    let moved = transpose(graph, name, format, new, &back);
    if let Err(why) = ir::apply(graph, Patch::new(&[]).replace(old, moved)) {
        crate::bug!("the format of {name}: {why}");
    }
    let order: Vec<ValueId> = graph.inputs().iter().filter(|input| **input != new).copied().collect();
    let order: Vec<ValueId> = order.into_iter().map(|input| if input == old { new } else { input }).collect();
    graph.reorder_inputs(&order);
    for symbol in graph.symbols.values_mut() {
        if let SymbolSource::Input { input, axis } = &mut symbol.source
            && *input == k
        {
            *axis = place(*axis);
        }
    }
}

fn transpose(graph: &mut Graph, name: &str, format: Format, value: ValueId, axes: &[usize]) -> ValueId {
    let origin = Origin(vec![format!("--io-format {name}={format}").into()]);
    match Builder::new(graph, origin, name).transpose(value, axes) {
        Ok(moved) => moved,
        Err(why) => crate::bug!("the format of {name}: {why}"),
    }
}

fn refused(name: &str, what: String) -> Diagnostic {
    Diagnostic::error("E0415", Place::value(name), what)
}
