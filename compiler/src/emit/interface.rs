//! What an emitted crate offers, named: the types of its dimensions, and the fields of its inputs and outputs.
//!
//! Read off one plan (the plans of all targets come from one graph and agree), or, for a stub, off the graph itself.

use lapidary_runtime::DType;
use lapidary_runtime::table::Range;

use super::names::{self, Names};
use crate::ir::{Expr, Graph, Type};
use crate::lower::Program;

/// What examples and tests call their own: their variables and functions.
const VARIABLES: &str = "builder check compare decode error expected inputs loaded model no_gpu noise outputs session shape start \
                         target times";

/// The names of a crate.
#[derive(Clone, Debug)]
pub struct Interface {
    /// The package, such as `ppocr-v4`.
    pub package: String,
    /// The crate, such as `ppocr_v4`.
    pub krate: String,
    /// The model's type, such as `PpocrV4`.
    pub model: String,
    pub symbols: Vec<SymbolType>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// A symbolic dimension.
#[derive(Clone, Debug)]
pub struct SymbolType {
    /// The name in the ONNX model.
    pub onnx: String,
    /// The newtype, such as `BatchSize`.
    pub ty: String,
    /// Its variable in examples, such as `batch_size`.
    pub variable: String,
    /// One a profile.
    pub ranges: Vec<Range>,
}

/// An input or an output.
#[derive(Clone, Debug)]
pub struct Port {
    /// The name in the ONNX model.
    pub onnx: String,
    pub field: String,
    /// Its variable in examples; the field's name where that is free.
    pub variable: String,
    pub dtype: DType,
    pub dims: Vec<Extent>,
}

/// An extent of a port.
#[derive(Clone, Debug, PartialEq)]
pub enum Extent {
    Const(i64),
    /// A symbol, by its number in [`Interface::symbols`].
    Symbol(usize),
    /// Follows from the symbols.
    Formula(Expr),
}

/// What a model shows its caller, before it is named in Rust: ONNX names and types, in the model's order.
struct Surface<'a> {
    symbols: Vec<(&'a str, &'a [Range])>,
    inputs: Vec<(&'a str, &'a Type)>,
    outputs: Vec<(&'a str, &'a Type)>,
}

impl Interface {
    /// Names everything that `program` shows its caller.
    pub fn of(package: &str, program: &Program) -> Interface {
        let of_inputs = program.symbols.iter().filter(|(_, symbol)| symbol.is_of_input());
        let symbols = of_inputs.map(|(name, symbol)| (&**name, symbol.ranges.as_slice()));
        let inputs = program.inputs.iter().map(|(name, tensor)| (name.as_str(), &program.tensor(*tensor).ty));
        let outputs = program.outputs.iter().map(|(name, tensor)| (name.as_str(), &program.tensor(*tensor).ty));
        let surface = Surface { symbols: symbols.collect(), inputs: inputs.collect(), outputs: outputs.collect() };
        Interface::named(package, &surface)
    }

    /// As [`Interface::of`], from an imported graph: inputs, outputs and symbols are the same behind every later stage.
    pub fn of_graph(package: &str, graph: &Graph) -> Interface {
        let of_inputs = graph.symbols.iter().filter(|(_, symbol)| symbol.is_of_input());
        let symbols = of_inputs.map(|(name, symbol)| (&**name, symbol.ranges.as_slice()));
        let inputs = graph.inputs().iter().map(|input| (&*graph.value(*input).name, graph.ty(*input)));
        let outputs = graph.outputs().iter().map(|(name, value)| (name.as_str(), graph.ty(*value)));
        let surface = Surface { symbols: symbols.collect(), inputs: inputs.collect(), outputs: outputs.collect() };
        Interface::named(package, &surface)
    }

    fn named(package: &str, surface: &Surface<'_>) -> Interface {
        let package = names::package(package);
        let mut types = Names::default();
        let model = types.ty(&package, "Compiled");
        let mut variables = Names::default();
        for taken in VARIABLES.split_whitespace() {
            variables.field(taken, "dim");
        }
        let symbols: Vec<SymbolType> = surface
            .symbols
            .iter()
            .map(|(name, ranges)| SymbolType {
                onnx: (*name).to_owned(),
                ty: types.ty(name, "Dim"),
                variable: variables.field(name, "dim"),
                ranges: ranges.to_vec(),
            })
            .collect();
        let mut ports = |ports: &[(&str, &Type)], prefix: &str| {
            let mut fields = Names::default();
            let port = |(name, ty): &(&str, &Type)| {
                let field = fields.field(name, prefix);
                Port {
                    onnx: (*name).to_owned(),
                    variable: variables.field(&field, prefix),
                    field,
                    dtype: ty.dtype,
                    dims: ty.dims.iter().map(|dim| extent(dim, &symbols)).collect(),
                }
            };
            ports.iter().map(port).collect()
        };
        let inputs = ports(&surface.inputs, "input");
        let outputs = ports(&surface.outputs, "output");
        Interface { krate: package.replace('-', "_"), package, model, symbols, inputs, outputs }
    }
}

fn extent(dim: &Expr, symbols: &[SymbolType]) -> Extent {
    let symbol = dim.as_symbol().and_then(|name| symbols.iter().position(|symbol| symbol.onnx == name));
    match (dim.as_const(), symbol) {
        (Some(value), _) => Extent::Const(value),
        (None, Some(symbol)) => Extent::Symbol(symbol),
        (None, None) => Extent::Formula(dim.clone()),
    }
}

impl Port {
    /// The Rust type of an element; `None` for storage types, which Rust does not have and which pass untyped.
    pub fn element(&self) -> Option<&'static str> {
        let name = match self.dtype {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::U64 => "u64",
            DType::U32 => "u32",
            DType::U16 => "u16",
            DType::U8 => "u8",
            DType::Bool => "bool",
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
        Some(name)
    }

    /// The shape for a reader, such as `[batch, 3, 224, 224]`.
    pub fn shape(&self, symbols: &[SymbolType]) -> String {
        let dims: Vec<String> = self
            .dims
            .iter()
            .map(|dim| match dim {
                Extent::Const(value) => value.to_string(),
                Extent::Symbol(k) => symbols[*k].onnx.clone(),
                Extent::Formula(formula) => formula.to_string(),
            })
            .collect();
        format!("[{}]", dims.join(", "))
    }
}

impl Interface {
    /// The value of a formula at the first profile's typical extents.
    pub fn typical(&self, formula: &Expr) -> i64 {
        formula.eval(&|name| {
            let symbol = self.symbols.iter().find(|symbol| symbol.onnx == name);
            symbol.map_or(1, SymbolType::typical)
        })
    }
}

impl SymbolType {
    /// The typical value in the first profile.
    pub fn typical(&self) -> i64 {
        self.ranges.first().map_or(1, |range| range.opt)
    }

    /// The values for a reader, such as `1..=8, 16..=64`.
    pub fn values(&self) -> String {
        let mut values: Vec<String> =
            self.ranges.iter().map(|range| format!("{}..={}", range.min, range.max)).collect();
        values.dedup();
        values.join(", ")
    }
}
