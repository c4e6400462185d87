//! Minds of several nodes in a world of simulated links, disks and clocks, with partitions that are played.

mod disk;
mod groups;
mod host;
mod judge;
mod life;
mod planted;
mod scenes;
mod versions;
mod world;

use super::cluster::with_rules;
