//! Which of two control lanes between the same two devices, for one share, is kept.
//!
//! Two devices that dial each other at the same instant end up with two lanes. Both ends must
//! drop the same one, whatever order they see them in, or they drop both and dial again for
//! ever. So the rule uses only what both ends know.

use left_core::message::Nonce;
use left_core::version::DeviceId;

/// What the rule needs to know of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneFacts {
    /// The peer's run, as told when this lane was opened.
    pub peer_instance: Nonce,
    /// Whether this end dialed.
    pub dialed_by_us: bool,
}

/// The verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Close the new lane.
    Existing,
    /// Close the existing lane.
    New,
}

/// Decides between a lane that is up and one that was just opened.
///
/// - The peer's run differs: the peer restarted, the existing lane is dead and does not know it
///   yet: the new one.
/// - Both ends dialed: the lane dialed by the device with the smaller id.
/// - The same end dialed twice: it has given up its first lane (a dialer never has two dials to
///   one peer and share under way): the new one.
pub fn keep(existing: &LaneFacts, new: &LaneFacts, me: DeviceId, peer: DeviceId) -> Keep {
    if existing.peer_instance != new.peer_instance || existing.dialed_by_us == new.dialed_by_us {
        return Keep::New;
    }
    let smaller_is_me = me < peer;
    if existing.dialed_by_us == smaller_is_me {
        Keep::Existing
    } else {
        Keep::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DeviceId = DeviceId([1; 32]);
    const B: DeviceId = DeviceId([2; 32]);

    /// The lane that the device `me` is left with after seeing the lanes (by dialer) in order.
    fn left_with(me: DeviceId, peer: DeviceId, order: [DeviceId; 2]) -> DeviceId {
        let facts = |dialer| LaneFacts {
            peer_instance: [9; 16],
            dialed_by_us: dialer == me,
        };
        match keep(&facts(order[0]), &facts(order[1]), me, peer) {
            Keep::Existing => order[0],
            Keep::New => order[1],
        }
    }

    #[test]
    fn crossing_dials_leave_both_ends_with_the_same_lane() {
        for (me, peer) in [(A, B), (B, A)] {
            for order in [[A, B], [B, A]] {
                assert_eq!(
                    left_with(me, peer, order),
                    A,
                    "at {me:?} in order {order:?}"
                );
            }
        }
    }

    #[test]
    fn a_restarted_peer_always_gets_through() {
        for (me, peer) in [(A, B), (B, A)] {
            for (old, new) in [(false, false), (false, true), (true, false), (true, true)] {
                let existing = LaneFacts {
                    peer_instance: [1; 16],
                    dialed_by_us: old,
                };
                let new = LaneFacts {
                    peer_instance: [2; 16],
                    dialed_by_us: new,
                };
                assert_eq!(keep(&existing, &new, me, peer), Keep::New);
            }
        }
    }

    #[test]
    fn of_two_dials_by_one_end_the_newer_stays() {
        for (me, peer) in [(A, B), (B, A)] {
            for dialed_by_us in [false, true] {
                let lane = LaneFacts {
                    peer_instance: [1; 16],
                    dialed_by_us,
                };
                assert_eq!(keep(&lane, &lane, me, peer), Keep::New);
            }
        }
    }
}
