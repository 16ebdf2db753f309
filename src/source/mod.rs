//! Where events come in: sockets, values of this machine, values of this process.
//!
//! In: bytes from the world. Out: the same bytes, whole datagrams and frames, handed to a shard (fused) or
//! sent to one in pooled buffers (split). Owns: sockets, connections, socket files. Invariants: a source
//! decodes nothing but frames; everything it could not read is counted.

mod connection;
mod drops;
pub mod gpu;
pub mod host;
pub mod inproc;
pub mod internal;
pub mod listener;
pub mod orders;
pub mod process;
pub mod reactor;
pub mod shard_loop;
mod socket_file;
pub mod split;

pub use connection::CONNECTIONS_MAX;
pub use socket_file::GroupError;
