//! The conformance suite of every port.
