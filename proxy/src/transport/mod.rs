//! Downstream connections: from accept to a request that Pingora's HTTP proxy can take, and back.
//!
//! Pingora's own listener has no deadline for a whole request head, no cap on connections, holds 100 KB per idle
//! connection and flushes every HTTP/2 frame by itself, so everything below its HTTP proxy is ours:
//!
//! 1. [`edge`]: a thread per core, each with its runtime, its accept loops and its own [`Serve`].
//! 2. `admission`, `handshakes`, `budget`: how many connections, in all and per client address, how fast, and how much
//!    they may make us hold.
//! 3. `proxy_header`, then [`crate::tls`]: who the client is, and the handshake, under one deadline.
//! 4. `io`: [`EdgeIo`], the stream that Pingora reads and writes.
//! 5. `h1`, with `head` and `chunks`: the keep-alive loop; nothing but the stream is alive while a connection idles.
//! 6. `h2`, with `frames` and `h2_upload`: the HTTP/2 driver, what a client may make it do, and how long a body may take.

mod admission;
mod budget;
mod chunks;
mod conn_info;
mod connection;
pub mod edge;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod h1;
mod h2;
mod h2_upload;
mod handshakes;
mod head;
mod io;
mod limits;
mod observer;
mod proxy_header;
mod serve;

pub use budget::Budget;
pub(crate) use budget::Held;
pub(crate) use chunks::BadChunks;
pub use conn_info::{ConnInfo, Protocol, TlsInfo, conn_info};
pub use edge::{Edge, EdgeError, EdgeHandle, EdgeOptions, MakeApp};
pub use frames::{Flood, FloodLimits};
pub(crate) use h2::SEND_BUFFER;
pub use handshakes::Rate;
pub use head::HeadFault;
pub use io::EdgeIo;
pub use limits::{ProxyProtocol, TransportLimits};
pub use observer::{ConnectionRefusal, HandshakeResult, TlsVersion, TransportObserver};
pub use serve::{Serve, Upload};
