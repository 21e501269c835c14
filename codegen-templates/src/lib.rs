//! Everything that Lapidary knows about kernels: what may be asked ([`problem`]), which implementations there are for
//! it ([`families`]), and what each GPU architecture can do ([`arch`]). It never sees a model's graph.

pub mod extent;
pub mod problem;
pub mod program;

pub use extent::{Atom, Expr};
pub use problem::{Kind, Operand, Problem};
pub use program::Program;
