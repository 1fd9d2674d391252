#![doc = include_str!("../README.md")]

pub mod faulty;
#[cfg(feature = "http-processor")]
pub mod http_processor;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(any(feature = "kafka", feature = "rdkafka"))]
pub mod kafka_options;
#[cfg(any(feature = "kafka", feature = "rdkafka"))]
mod kafka_partition;
#[cfg(any(feature = "kafka", feature = "rdkafka"))]
pub mod kafka_probe;
pub mod kafka_security;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(feature = "own-threads")]
pub mod own_threads;
#[cfg(feature = "rdkafka")]
pub mod rdkafka;
#[cfg(feature = "redis")]
pub mod redis;
mod splitmix;
#[cfg(feature = "sql")]
pub mod sql;
pub mod system;
pub mod tiered;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod tls;
#[cfg(feature = "wire")]
pub mod wire;
