//! The API as its clients see it: the real server on a port of its own, adapters in memory, bytes on a socket.

mod access;
mod batch;
mod client;
mod commands;
mod compression;
mod conditional;
mod connections;
mod cross_origin;
mod documentation;
mod events;
mod health;
mod hostile;
mod idempotency;
mod listing;
mod metrics;
mod overload;
mod read;
mod refusals;
mod server;
mod submit;
mod tls;
mod trace;
mod wait;
