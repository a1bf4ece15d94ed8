//! Certificates without hands.
