//! What makes a node a member of a cluster: how it begins, how others join through it, and its links.

pub(crate) mod board;
pub mod convert;
pub mod desk;
pub(crate) mod incarnation;
pub mod introduce;
pub mod join;
pub(crate) mod links;
pub(crate) mod member;
pub(crate) mod recover;
pub(crate) mod settle;
pub mod start;
pub mod survivor;
