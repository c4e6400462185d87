//! Faults on the real `archipel` binary, judged by what its clients were told.
//!
//! The binary is started, never linked: kill -9, power cuts, full disks and flipped bits hit exactly what
//! users run. A client keeps a model of what was acknowledged; afterwards the node must hold that, or refuse.
//! A cluster's clients keep histories, which must be linearizable.

pub mod bit_flip;
pub mod campaign;
pub mod cluster;
pub mod full_disk;
pub mod judge;
pub mod kill;
pub mod load;
pub mod model;
pub mod mount;
pub mod power_cut;
pub mod process;
pub mod resp;
pub mod work;
