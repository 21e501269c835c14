//! Passes that remove what is not needed.

pub mod cse;
pub mod dead;
