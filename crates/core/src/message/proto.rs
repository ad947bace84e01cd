//! What prost makes of `proto/left.proto`.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/left.v1.rs"));
