//! Overlays, whole nodes among each other.

mod chord_unite;
mod chord_values;
mod chord_world;
mod kad;
mod kad_lookup;
mod kad_record;
mod kad_store;
mod kad_world;
