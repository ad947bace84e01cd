//! demo
use crate::daemon::handle::{Exit, UserError};
/// Plan.
pub struct Plan {}
impl Plan {
    /// x
    pub fn of_this_program(_size: u64) -> Self {
        Plan {}
    }
}
/// x
pub fn run(_: &Plan, _json: bool) -> Result<Exit, UserError> {
    Ok(Exit::Ok)
}
