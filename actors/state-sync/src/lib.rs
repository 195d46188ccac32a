//! The actor that plans ranges, runs sync workers, applies commits in order.
