//! Everything that Lapidary knows about kernels: what may be asked ([`problem`]), which implementations there are for
//! it ([`families`]), and what each GPU architecture can do ([`arch`]). It never sees a model's graph.

pub mod arch;
pub mod call;
pub mod candidate;
pub mod cost;
pub mod entry;
pub mod epilogue;
pub mod extent;
pub mod families;
pub mod headers;
pub mod package;
pub mod packed;
pub mod predict;
pub mod print;
pub mod problem;
pub mod program;
pub mod split;
pub mod tile;
pub mod view;

pub use arch::Arch;
pub use candidate::{Answer, Candidate, Launch, Param, Refusal, Shapes, Source};
pub use extent::{Atom, Expr, unescaped};
pub use problem::{Kind, Operand, Pair, Problem, Strided};
pub use program::Program;
