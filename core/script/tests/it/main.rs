//! Scripts through the store's own commands, as clients and replay run them.
mod answers;
mod harness;
mod holes;
mod hostile;
mod state;
