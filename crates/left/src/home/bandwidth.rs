//! `[bandwidth]` of `config.toml`: how many bytes a second all shares together may send and receive.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Below this a lane would look dead to its peer, in bytes a second.
pub const MIN_RATE: u64 = 64_000;

/// Bytes a second in each direction; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Rate {
    /// Sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// Received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
}

impl Rate {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Rate::default()
    }
}

/// One direction as typed: `5MB` (a second), `800kB/s`, `unlimited`.
pub fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    let text = text.trim();
    if ["unlimited", "off", "none"].contains(&text) {
        return Ok(None);
    }
    let number = text.strip_suffix("/s").unwrap_or(text);
    let bytes = number
        .parse::<ByteSize>()
        .map_err(|_| format!("`{text}` is no rate: write it like 5MB, 800kB or unlimited"))?;
    match bytes.as_u64() {
        n if n < MIN_RATE => Err(format!(
            "`{text}` is too slow: take at least 64kB, or pause"
        )),
        n => Ok(Some(n)),
    }
}

/// Minutes of the day, and the rate in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
    /// The rate then.
    pub rate: Rate,
}

impl Hours {
    /// Whether a minute of the day lies in them; they may go over midnight.
    pub fn holds(&self, minute: u16) -> bool {
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }

    /// `22:00-07:00 unlimited`, `08:00-18:00 up=1MB down=5MB`, `08:00-18:00 1MB` (both).
    fn parse(text: &str, rate: Rate) -> Result<Hours, String> {
        let wrong = || {
            format!(
                "`{text}` is no line of a schedule: write it like `22:00-07:00 unlimited` or \
                     `08:00-18:00 up=1MB down=5MB`"
            )
        };
        let mut words = text.split_whitespace();
        let (from, to) = words
            .next()
            .and_then(|w| w.split_once('-'))
            .ok_or_else(wrong)?;
        let minute = |text: &str| {
            let (h, m) = text.split_once(':')?;
            let two = |s: &str| (s.len() <= 2).then(|| s.parse::<u16>().ok()).flatten();
            let (h, m) = (two(h)?, two(m)?);
            (h <= 24 && m < 60 && h * 60 + m <= 1440).then_some(h * 60 + m)
        };
        let (from, to) = (
            minute(from).ok_or_else(wrong)?,
            minute(to).ok_or_else(wrong)?,
        );
        let mut hours = Hours { from, to, rate };
        let mut any = false;
        for word in words {
            any = true;
            match word.split_once('=') {
                Some(("up", rate)) => hours.rate.up = parse_rate(rate)?,
                Some(("down", rate)) => hours.rate.down = parse_rate(rate)?,
                Some(_) => return Err(wrong()),
                None => {
                    let rate = parse_rate(word)?;
                    hours.rate = Rate {
                        up: rate,
                        down: rate,
                    };
                }
            }
        }
        any.then_some(hours).ok_or_else(wrong)
    }
}

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Raw")]
pub struct BandwidthConfig {
    /// The rate at all other hours.
    pub rate: Rate,
    /// The first that holds counts.
    pub hours: Vec<Hours>,
    /// The same as written.
    pub schedule: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw {
    up: Option<String>,
    down: Option<String>,
    schedule: Vec<String>,
}

impl TryFrom<Raw> for BandwidthConfig {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let one = |text: Option<String>| text.map_or(Ok(None), |t| parse_rate(&t));
        let rate = Rate {
            up: one(raw.up)?,
            down: one(raw.down)?,
        };
        let hours = raw.schedule.iter().map(|line| Hours::parse(line, rate));
        Ok(BandwidthConfig {
            rate,
            hours: hours.collect::<Result<_, _>>()?,
            schedule: raw.schedule,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BandwidthConfig, String> {
        toml::from_str(text).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn hours_go_over_midnight() {
        let text =
            "up = \"1MB\"\nschedule = [\"22:00-07:00 unlimited\", \"12:00-13:30 down=2MB/s\"]";
        let config = read(text).unwrap();
        let up = Some(1_000_000);
        assert_eq!(config.rate, Rate { up, down: None });
        let rate = |minute| {
            let hit = config.hours.iter().find(|h| h.holds(minute));
            hit.map_or(config.rate, |h| h.rate)
        };
        for minute in [22 * 60, 1439, 0, 7 * 60 - 1] {
            assert!(rate(minute).is_unlimited(), "{minute}");
        }
        for minute in [7 * 60, 12 * 60 - 1, 13 * 60 + 30, 22 * 60 - 1] {
            assert_eq!(rate(minute), config.rate, "{minute}");
        }
        assert_eq!(
            rate(12 * 60),
            Rate {
                up,
                down: Some(2_000_000)
            }
        );
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "up = \"fast\"",
            "up = \"1kB\"",
            "schedule = [\"22:00 unlimited\"]",
            "schedule = [\"22:00-07:00\"]",
            "schedule = [\"22:00-25:00 1MB\"]",
            "schedule = [\"22:60-23:00 1MB\"]",
            "schedule = [\"22:00-23:00 left=1MB\"]",
        ] {
            let why = read(bad).unwrap_err();
            assert!(
                why.contains("write it like") || why.contains("at least"),
                "{bad}: {why}"
            );
        }
        assert!(read("").unwrap().rate.is_unlimited());
    }
}
