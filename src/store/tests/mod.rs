//! What the ledger promises, tested as a plain value: round trips, crashes, damage, sums.

mod crash;
pub(crate) mod disk;
mod fold;
mod history;
mod ledger;
pub(crate) mod script;
mod year;
