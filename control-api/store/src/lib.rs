//! Persistence of the control plane.
