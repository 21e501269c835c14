//! Short forms of [`OpDef`], so that a table of operators has one line each.

use super::{Cx, Import, Imported, MANY, OpDef};

/// What an operator's import looks like.
pub(super) type Compose = fn(&mut Cx<'_, '_>) -> Imported;

/// An operator of `ai.onnx` with one result.
pub(super) const fn op(name: &'static str, since: i64, inputs: (usize, usize), import: Compose) -> OpDef {
    OpDef { domain: "", name, since, inputs, outputs: (1, 1), import: Import::Compose(import) }
}

/// One operand, one result.
pub(super) const fn unary(name: &'static str, since: i64, import: Compose) -> OpDef {
    op(name, since, (1, 1), import)
}

/// Two operands, one result.
pub(super) const fn binary(name: &'static str, since: i64, import: Compose) -> OpDef {
    op(name, since, (2, 2), import)
}

/// One or more operands, one result.
pub(super) const fn variadic(name: &'static str, since: i64, import: Compose) -> OpDef {
    op(name, since, (1, MANY), import)
}

/// An operator of `com.microsoft`, version 1, with one result.
pub(super) const fn contrib(name: &'static str, inputs: (usize, usize), import: Compose) -> OpDef {
    OpDef { domain: "com.microsoft", ..op(name, 1, inputs, import) }
}
