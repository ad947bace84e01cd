//! The rules of synchronising, pure: no file, socket, clock, thread, async or database.
//!
//! Floors, lowest first; a module imports only from lower ones: [`probe`] ·
//! [`path`] · [`select`] · [`content`] · [`chunker`] · [`foresight`] · [`version`] · [`entry`] · [`ignore`] · [`index`] ·
//! [`membership`] · [`message`] · [`ticket`] · [`diff`] · [`conflict`] · [`reconcile`] · [`safety`] · [`plan`] · [`session`] ·
//! [`engine`].

pub mod chunker;
pub mod conflict;
pub mod content;
pub mod diff;
pub mod engine;
pub mod entry;
pub mod foresight;
pub mod ignore;
pub mod index;
pub mod membership;
pub mod message;
pub mod path;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod safety;
pub mod select;
pub mod session;
pub mod ticket;
pub mod version;
