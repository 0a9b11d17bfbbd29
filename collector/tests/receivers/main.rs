//! The receivers over real sockets, before a recorder in the store's place: what reaches the store, and what the
//! sender is told.

mod grpc;
mod http;
mod recorder;
mod remote_write;
