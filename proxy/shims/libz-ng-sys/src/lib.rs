//! The zlib C interface that `flate2` takes from `libz-ng-sys`, served by stock zlib.
//!
//! `pingora-core` asks for `flate2` with the `zlib-ng` backend, whose build script needs cmake. Schoolgate builds
//! with Rust and a C compiler alone, so the workspace replaces that crate by this one: `libz-sys` compiles zlib with
//! the C compiler that is there anyway. `zlib-rs` was tried first; its `z_stream` differs in the allocator fields.
//! The gateway itself never compresses, so the backend's speed does not matter here.

pub use libz_sys::*;
