//! The project's own chores: tidy, test, bench.
fn main() {}
