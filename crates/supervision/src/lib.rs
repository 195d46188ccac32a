//! Supervision of actors: child specs, restart policies, intensity, backoff and exit reasons.
