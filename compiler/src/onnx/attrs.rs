//! A node's attributes, by name and type, with an account of which were asked for.
//!
//! An importer asks for everything that its operator defines; what is left over is an error, so that nothing a model
//! says is ignored unknowingly. Not here: defaults and meanings, which each operator's importer states.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, TypeProto};
use crate::diag::{Diagnostic, Diagnostics, Place, Result, quoted};

/// The attributes of one node. Every getter marks the attribute as known.
///
/// A name alone (`int`) is required; with `_or` it has a default; with `_opt` it may be absent. All fail with E0302
/// where the attribute has another type, and with E0306 where it still refers to an attribute of a function.
#[derive(Debug)]
pub struct Attrs<'a> {
    at: Place,
    by_name: BTreeMap<&'a str, &'a AttributeProto>,
    asked: RefCell<BTreeSet<&'a str>>,
}

impl From<&NodeProto> for Place {
    fn from(node: &NodeProto) -> Place {
        Place::Node {
            name: node.name().to_owned(),
            op: node.op_type().to_owned(),
            domain: node.domain().to_owned(),
            output: node.output.iter().find(|o| !o.is_empty()).cloned().unwrap_or_default(),
        }
    }
}

/// One getter family for each type of value: required, with a default, optional.
macro_rules! getters {
    ($($what:literal: $required:ident, $opt:ident $(, or $or:ident)? -> $type:ty = $kind:ident, $value:expr;)*) => {$(
        #[doc = concat!("The attribute `name`, ", $what, "; `None` where it is absent.")]
        pub fn $opt(&self, name: &str) -> Result<Option<$type>> {
            let Some(attribute) = self.get(name, AttributeType::$kind)? else { return Ok(None) };
            let value: fn(&'a AttributeProto) -> Option<$type> = $value;
            match value(attribute) {
                Some(value) => Ok(Some(value)),
                None => Err(self.no_value(name, AttributeType::$kind)),
            }
        }

        $(
            #[doc = concat!("The attribute `name`, ", $what, "; `default` where it is absent.")]
            pub fn $or(&self, name: &str, default: $type) -> Result<$type> {
                Ok(self.$opt(name)?.unwrap_or(default))
            }
        )?

        #[doc = concat!("The attribute `name`, ", $what, "; E0301 where it is absent.")]
        pub fn $required(&self, name: &str) -> Result<$type> {
            self.$opt(name)?.ok_or_else(|| self.missing(name, AttributeType::$kind))
        }
    )*};
}

impl<'a> Attrs<'a> {
    /// The attributes of `node`.
    ///
    /// # Errors
    /// E0304 where a name occurs twice.
    pub fn new(node: &'a NodeProto) -> Result<Attrs<'a>> {
        let at = Place::from(node);
        let mut by_name = BTreeMap::new();
        let mut found = Diagnostics::new();
        for attribute in &node.attribute {
            if by_name.insert(attribute.name(), attribute).is_some() {
                let what = format!("attribute {} is given twice", quoted(attribute.name()));
                found.push(
                    Diagnostic::error("E0304", at.clone(), what)
                        .why("nothing says which of the two counts")
                        .help("export the model again, or remove one of them"),
                );
            }
        }
        found.or(Attrs { at, by_name, asked: RefCell::default() })
    }

    /// The node, for diagnostics about it.
    pub fn at(&self) -> &Place {
        &self.at
    }

    /// Whether the attribute is given. Does not mark it as known.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    getters! {
        "an integer": int, int_opt, or int_or -> i64 = Int, |a| Some(a.i());
        "a list of integers": ints, ints_opt, or ints_or -> &'a [i64] = Ints, |a| Some(&a.ints);
        "a number": float, float_opt, or float_or -> f32 = Float, |a| Some(a.f());
        "a list of numbers": floats, floats_opt, or floats_or -> &'a [f32] = Floats, |a| Some(&a.floats);
        "a tensor": tensor, tensor_opt -> &'a TensorProto = Tensor, |a| a.t.as_deref();
        "a sparse tensor": sparse_tensor, sparse_tensor_opt -> &'a SparseTensorProto = SparseTensor,
            |a| a.sparse_tensor.as_deref();
        "a graph": graph, graph_opt -> &'a GraphProto = Graph, |a| a.g.as_deref();
        "a type": type_proto, type_proto_opt -> &'a TypeProto = TypeProto, |a| a.tp.as_deref();
    }

    /// The attribute `name`, a text; `None` where it is absent. E0303 where it is not UTF-8.
    pub fn str_opt(&self, name: &str) -> Result<Option<&'a str>> {
        let Some(attribute) = self.get(name, AttributeType::String)? else {
            return Ok(None);
        };
        self.text(name, attribute.s()).map(Some)
    }

    /// The attribute `name`, a text; `default` where it is absent. E0303 where it is not UTF-8.
    pub fn str_or(&self, name: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.str_opt(name)?.unwrap_or(default))
    }

    /// The attribute `name`, a text; E0301 where it is absent, E0303 where it is not UTF-8.
    pub fn str(&self, name: &str) -> Result<&'a str> {
        self.str_opt(name)?.ok_or_else(|| self.missing(name, AttributeType::String))
    }

    /// The attribute `name`, a list of texts; `None` where it is absent. E0303 where one is not UTF-8.
    pub fn strs_opt(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(attribute) = self.get(name, AttributeType::Strings)? else {
            return Ok(None);
        };
        attribute.strings.iter().map(|s| self.text(name, s)).collect::<Result<_>>().map(Some)
    }

    /// The attribute `name`, an integer that means false where it is 0; `default` where it is absent.
    pub fn flag_or(&self, name: &str, default: i64) -> Result<bool> {
        Ok(self.int_or(name, default)? != 0)
    }

    /// The attribute `name`, a text that must be one of `choices`; `default` where it is absent.
    ///
    /// # Errors
    /// E0303 with the choices.
    pub fn choice_or<T: Copy>(&self, name: &str, default: T, choices: &[(&str, T)]) -> Result<T> {
        let Some(given) = self.str_opt(name)? else {
            return Ok(default);
        };
        if let Some((_, value)) = choices.iter().find(|(text, _)| *text == given) {
            return Ok(*value);
        }
        let all: Vec<String> = choices.iter().map(|(text, _)| quoted(text)).collect();
        Err(self.bad_value(name, format!("is {}", quoted(given)), format!("it must be one of {}", all.join(", "))))
    }

    /// E0303: the attribute `name` is of the right type, but its value means nothing. `given` continues the sentence
    /// "attribute NAME ...", such as "is 7"; `why` says what it must be.
    pub fn bad_value(&self, name: &str, given: impl std::fmt::Display, why: impl Into<String>) -> Diagnostics {
        Diagnostic::error("E0303", self.at.clone(), format!("attribute {} {given}", quoted(name)))
            .why(why)
            .help("correct the model, or export it again")
            .into()
    }

    /// Marks attributes as known that change nothing in inference, such as BatchNormalization's `momentum`.
    pub fn ignore(&self, names: &[&str]) {
        for name in names {
            self.mark(name);
        }
    }

    /// The attributes that nobody asked for, ascending.
    pub fn unused(&self) -> Vec<&'a str> {
        let asked = self.asked.borrow();
        self.by_name.keys().copied().filter(|name| !asked.contains(name)).collect()
    }

    /// Fails where attributes are left that nobody asked for: call it when the operator is read.
    ///
    /// # Errors
    /// E0305 for each.
    pub fn finish(&self) -> Result<()> {
        let report = |name: &str| {
            Diagnostic::error("E0305", self.at.clone(), format!("attribute {} is not known", quoted(name)))
                .why("the operator does not define it in this opset, so the model may mean something else")
                .help("check the opset that the model imports, or remove the attribute")
        };
        self.unused().into_iter().map(report).collect::<Diagnostics>().or(())
    }

    fn get(&self, name: &str, kind: AttributeType) -> Result<Option<&'a AttributeProto>> {
        self.mark(name);
        let Some(attribute) = self.by_name.get(name).copied() else {
            return Ok(None);
        };
        if !attribute.ref_attr_name().is_empty() {
            let what = format!("attribute {} refers to {}", quoted(name), quoted(attribute.ref_attr_name()));
            return Err(Diagnostic::error("E0306", self.at.clone(), what)
                .why("only a node in a function's body may refer to an attribute, and the function must have it")
                .help("export the model again, or inline its functions with onnx.inliner")
                .into());
        }
        let given = kind_of(attribute);
        // An exporter that writes a list without entries cannot know its type, and an empty list has only one value.
        if given == Some(kind) || is_list(kind) && is_empty_list(attribute) {
            return Ok(Some(attribute));
        }
        let given = given.map_or("of no type", |given| given.as_str_name());
        let what = format!("attribute {} is {given}, not {}", quoted(name), kind.as_str_name());
        Err(Diagnostic::error("E0302", self.at.clone(), what)
            .why("an operator defines one type for each of its attributes")
            .help("export the model again; check that the opset it imports is the one it was written for")
            .into())
    }

    fn mark(&self, name: &str) {
        if let Some((name, _)) = self.by_name.get_key_value(name) {
            self.asked.borrow_mut().insert(name);
        }
    }

    fn text(&self, name: &str, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.bad_value(name, "is not UTF-8", "ONNX stores texts as UTF-8"))
    }

    fn missing(&self, name: &str, kind: AttributeType) -> Diagnostics {
        let what = format!("attribute {} ({}) is missing", quoted(name), kind.as_str_name());
        Diagnostic::error("E0301", self.at.clone(), what)
            .why("the operator defines no default for it")
            .help("export the model again; check that the opset it imports is the one it was written for")
            .into()
    }

    fn no_value(&self, name: &str, kind: AttributeType) -> Diagnostics {
        self.bad_value(name, "has no value", format!("its type says that it holds a {}", kind.as_str_name()))
    }
}

/// The type of an attribute; for files older than the `type` field, by the field that is set.
fn kind_of(attribute: &AttributeProto) -> Option<AttributeType> {
    use AttributeType as T;
    match attribute.r#type() {
        T::Undefined => {}
        known => return Some(known),
    }
    let set = [
        (T::Float, attribute.f.is_some()),
        (T::Int, attribute.i.is_some()),
        (T::String, attribute.s.is_some()),
        (T::Tensor, attribute.t.is_some()),
        (T::Graph, attribute.g.is_some()),
        (T::Floats, !attribute.floats.is_empty()),
        (T::Ints, !attribute.ints.is_empty()),
        (T::Strings, !attribute.strings.is_empty()),
        (T::Tensors, !attribute.tensors.is_empty()),
        (T::Graphs, !attribute.graphs.is_empty()),
        (T::SparseTensor, attribute.sparse_tensor.is_some()),
        (T::SparseTensors, !attribute.sparse_tensors.is_empty()),
        (T::TypeProto, attribute.tp.is_some()),
        (T::TypeProtos, !attribute.type_protos.is_empty()),
    ];
    let mut kinds = set.into_iter().filter(|(_, set)| *set).map(|(kind, _)| kind);
    let first = kinds.next();
    if kinds.next().is_some() { None } else { first }
}

fn is_list(kind: AttributeType) -> bool {
    use AttributeType as T;
    match kind {
        T::Floats | T::Ints | T::Strings | T::Tensors | T::Graphs | T::SparseTensors | T::TypeProtos => true,
        T::Undefined | T::Float | T::Int | T::String | T::Tensor | T::Graph | T::SparseTensor | T::TypeProto => false,
    }
}

/// Whether no field is set and the type, if there is one, is a list's.
fn is_empty_list(attribute: &AttributeProto) -> bool {
    let untyped = AttributeProto { name: None, r#type: None, ..attribute.clone() };
    untyped == AttributeProto::default() && kind_of(attribute).is_none_or(is_list)
}
