//! Kademlia networks in the swarm, for the claims of the lab.

pub mod network;
