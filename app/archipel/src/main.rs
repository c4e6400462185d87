//! The archipel command.
fn main() {}
