//! Which way a share goes on this device, as its user chose.

use super::text::Text;

/// Which way a share goes on this device. A device that the share lets only read receives only,
/// whatever is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Both ways.
    #[default]
    TwoWay,
    /// What others change is shown and not done here.
    SendOnly,
    /// What is edited here is shown and not told.
    ReceiveOnly,
}

impl Mode {
    /// The usual.
    pub fn is_two_way(&self) -> bool {
        *self == Mode::TwoWay
    }
}

impl Text for Mode {
    const WHAT: &'static str = "`two-way`, `send-only` or `receive-only`";
    fn to_text(&self) -> String {
        match self {
            Mode::TwoWay => "two-way".into(),
            Mode::SendOnly => "send-only".into(),
            Mode::ReceiveOnly => "receive-only".into(),
        }
    }
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "two-way" => Some(Mode::TwoWay),
            "send-only" => Some(Mode::SendOnly),
            "receive-only" => Some(Mode::ReceiveOnly),
            _ => None,
        }
    }
}
