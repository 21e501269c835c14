//! Inputs whose value the caller fixes: axes, shapes, sizes and scales that a model takes as inputs, and that are the
//! same in every run.
//!
//! A fixed input becomes an initializer, which is what ONNX means by a constant input ("IR.md", Graphs): it is no
//! argument of the compiled model any more, so no run can contradict it.

use std::fmt;
use std::str::FromStr;

use lapidary_runtime::DType;

use super::elements::{Structure, structure};
use super::proto::tensor_shape_proto::Dimension;
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{TensorProto, ValueInfoProto, type_proto};
use super::{Input, Model, inputs};
use crate::diag::{Diagnostic, Place, Result, quoted};
use crate::ir::eval::{Tensor, Values};

/// An input that was fixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fixed {
    pub name: String,
    pub value: Tensor,
}

/// The elements of a tensor as a caller writes them: `1,2,-1`, or `0.5,2` for floats; nothing for no elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers(Values);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Numbers, String> {
        let parts = || text.split(',').map(str::trim).filter(|_| !text.trim().is_empty());
        if let Ok(values) = parts().map(str::parse).collect::<std::result::Result<Vec<i64>, _>>() {
            return Ok(Numbers(Values::Int(values)));
        }
        let number = |part: &str| part.parse::<f64>().map_err(|_| format!("`{part}` is not a number"));
        parts().map(number).collect::<std::result::Result<_, _>>().map(|values| Numbers(Values::Float(values)))
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = match &self.0 {
            Values::Int(values) => values.iter().map(ToString::to_string).collect(),
            Values::Float(values) => values.iter().map(ToString::to_string).collect(),
        };
        f.write_str(&parts.join(","))
    }
}

impl From<&Tensor> for Numbers {
    fn from(tensor: &Tensor) -> Numbers {
        Numbers(tensor.decode())
    }
}

impl Numbers {
    /// Reads `NAME=V,V,..`.
    ///
    /// # Errors
    /// One sentence, for a text of another form.
    pub fn parse(text: &str) -> std::result::Result<(String, Numbers), String> {
        let (name, values) = text.rsplit_once('=').ok_or("expected NAME=VALUE,VALUE,..")?;
        Ok((name.trim().to_owned(), values.parse()?))
    }

    fn count(&self) -> usize {
        match &self.0 {
            Values::Int(values) => values.len(),
            Values::Float(values) => values.len(),
        }
    }

    /// The tensor of these elements, if the type holds each of them; floats are rounded.
    fn tensor(&self, dtype: DType, dims: Vec<usize>) -> Option<Tensor> {
        match &self.0 {
            Values::Int(values) if dtype.is_float() => {
                let values: Vec<f64> = values.iter().map(|&value| value as f64).collect();
                Some(Tensor::from_f64s(dtype, dims, &values))
            }
            Values::Int(values) => {
                let tensor = Tensor::from_i64s(dtype, dims, values);
                (tensor.to_i64s() == *values).then_some(tensor)
            }
            Values::Float(values) => dtype.is_float().then(|| Tensor::from_f64s(dtype, dims, values)),
        }
    }
}

impl Model {
    /// Makes the input `name` the constant `value`. An axis of the input that has no extent gets the one that the number
    /// of elements tells, in every input that names the same dimension.
    ///
    /// # Errors
    /// E0413, if there is no such input, or the numbers do not fit it; E0404 and E0405 of the model's inputs.
    pub fn fix_input(&mut self, name: &str, value: &Numbers) -> Result<()> {
        let known = inputs(self)?;
        let Some(input) = known.iter().find(|input| input.name == name) else {
            let names: Vec<String> = known.iter().map(|input| quoted(&input.name).to_string()).collect();
            let help = format!("its inputs are: {}", if names.is_empty() { "none".into() } else { names.join(", ") });
            return Err(refused(name, format!("the model has no input {}", quoted(name))).help(help).into());
        };
        let dims = extents(input, value.count()).map_err(|why| {
            refused(name, why).help("give each of its elements, in row-major order: NAME=VALUE,VALUE,..")
        })?;
        let Some(tensor) = value.tensor(input.dtype, dims) else {
            let why = format!("the elements are {}, which {value} is not", input.dtype);
            return Err(refused(name, why).help("give numbers that the type holds").into());
        };
        for (symbol, &extent) in input.symbols.iter().zip(&tensor.dims) {
            if let Some(symbol) = symbol {
                self.fix_dimension(symbol, extent);
            }
        }
        self.store(name, &tensor);
        self.fixed.push(Fixed { name: name.to_owned(), value: tensor });
        Ok(())
    }

    fn fix_dimension(&mut self, symbol: &str, extent: usize) {
        let Some(graph) = &mut self.proto.graph else { return };
        for dim in graph.input.iter_mut().flat_map(dimensions) {
            if matches!(&dim.value, Some(DimValue::DimParam(name)) if name == symbol) {
                dim.value = Some(DimValue::DimValue(i64::try_from(extent).unwrap_or(i64::MAX)));
            }
        }
    }

    fn store(&mut self, name: &str, tensor: &Tensor) {
        let Some(graph) = &mut self.proto.graph else { return };
        let info = graph.input.iter().find(|info| info.name() == name);
        let data_type = info.and_then(tensor_type).and_then(|ty| ty.elem_type);
        graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type,
            dims: tensor.dims.iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
            raw_data: Some(tensor.bytes.clone()),
            ..TensorProto::default()
        });
    }
}

/// The type of an input that is a tensor, or an optional one.
fn tensor_type(info: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    let ty = match structure(info.r#type.as_ref()) {
        Structure::OptionalTensor(element) => Some(element),
        Structure::Tensor => info.r#type.as_ref(),
        Structure::Sequence(_) | Structure::OptionalSequence(_) | Structure::Other => None,
    };
    match ty?.value.as_ref()? {
        TypeValue::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

fn dimensions(info: &mut ValueInfoProto) -> impl Iterator<Item = &mut Dimension> {
    let ty = info.r#type.as_mut().and_then(|ty| ty.value.as_mut());
    let shape = ty.and_then(|ty| match ty {
        TypeValue::TensorType(tensor) => tensor.shape.as_mut(),
        _ => None,
    });
    shape.into_iter().flat_map(|shape| &mut shape.dim)
}

/// The extents of an input of `count` elements: one axis may be open.
fn extents(input: &Input, count: usize) -> std::result::Result<Vec<usize>, String> {
    let fits = |dims: &[usize]| dims.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim)) == Some(count);
    let mut dims: Vec<usize> = input.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
    let open: Vec<usize> = (0..dims.len()).filter(|&axis| input.symbols[axis].is_some()).collect();
    match open.as_slice() {
        [] => {}
        &[axis] => {
            dims[axis] = 1;
            let row = dims.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim)).filter(|&row| row > 0);
            dims[axis] = row.map_or(0, |row| count / row);
        }
        _ => return Err(format!("{} of its axes have no extent, and the elements tell that of one", open.len())),
    }
    if fits(&dims) {
        return Ok(dims);
    }
    let shape = input.dims.iter().zip(&input.symbols);
    let shape: Vec<String> = shape.map(|(dim, symbol)| symbol.clone().unwrap_or_else(|| dim.to_string())).collect();
    Err(format!("its shape is [{}], which {count} elements do not fill", shape.join(", ")))
}

fn refused(name: &str, why: String) -> Diagnostic {
    Diagnostic::error("E0413", Place::value(name), "this input cannot be given that value").why(why)
}
