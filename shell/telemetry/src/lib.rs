//! What a node counts and measures.
