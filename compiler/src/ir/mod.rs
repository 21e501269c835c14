//! The typed graph: what the importer builds, what passes rewrite, and what `lower` reads.
//!
//! A closed set of operations ([`Op`]) over tensor values with symbolic extents ([`Type`]). The graph is a DAG by
//! construction; [`verify`] says what else holds. The text form ([`text`]) round-trips. The reference evaluator
//! ([`eval`]) is slow, obvious, and right: everything else is judged by it.

pub mod builder;
pub mod eval;
mod graph;
pub mod ops;
mod patch;
pub mod text;
pub mod verify;

pub use builder::Builder;
pub use graph::{
    Constant, Constraint, Count, Def, Graph, Known, Node, NodeId, Origin, Symbol, SymbolSource, Use, Value, ValueId,
};
pub use lapidary_runtime::table::{ConstraintKind, Range};
pub use lapidary_templates::{Expr, Operand as Type, Program};
pub use ops::{Op, Region, check_bytes};
pub use patch::{Patch, Ref, apply};
