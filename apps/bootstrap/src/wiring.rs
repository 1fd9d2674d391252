//! Ports made of adapters.
