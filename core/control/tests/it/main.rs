//! The desired state, judged from outside: refusals by table, laws over random lives of a cluster, planted bugs.

mod bytes;
mod life;
mod mesh;
mod recovery;
mod refusals;
mod versions;
mod world;
