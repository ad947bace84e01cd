use std::sync::Arc;

use super::super::lane::Pulse;
use super::super::state::LaneInfo;
use super::*;

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn parts(from: u64, bitmap: &[u8]) -> Parts {
    Parts {
        content: ContentId([1; 32]),
        from,
        bitmap: bitmap.to_vec(),
        hello: false,
    }
}

/// With these partners, all connected, and somebody who has all.
fn swarm(me: u8, others: &[u8]) -> Swarm {
    let mut swarm = Swarm {
        source: true,
        ..Swarm::default()
    };
    swarm.begin(&device(me), ContentId([1; 32]), &[]);
    for other in others {
        swarm.heard(device(*other), &parts(0, &[]), 1000);
    }
    for p in swarm.partners.values_mut() {
        p.connected = true;
    }
    swarm.look();
    swarm
}

fn late(swarm: &mut Swarm, n: u8) {
    swarm.partners.get_mut(&device(n)).unwrap().late = true;
    swarm.look();
}

#[test]
fn each_segment_falls_to_exactly_one() {
    let all = [1u8, 2, 3, 4, 5];
    let swarms: Vec<Swarm> = (all.iter())
        .map(|me| {
            let others: Vec<u8> = all.iter().copied().filter(|o| o != me).collect();
            swarm(*me, &others)
        })
        .collect();
    let mut shares = [0; 5];
    for n in 0..1000 {
        let takers: Vec<usize> = (0..5).filter(|i| swarms[*i].is_ours(n)).collect();
        assert_eq!(takers.len(), 1, "{n}");
        shares[takers[0]] += 1;
        let owner = swarms[0].owner(n).map_or(1, |d| d.0[0]);
        assert_eq!(usize::from(owner), takers[0] + 1);
    }
    assert!(shares.iter().all(|s| (150..250).contains(s)), "{shares:?}");
}

#[test]
fn who_leaves_leaves_its_segments_to_the_others() {
    let mut mine = swarm(1, &[2, 3]);
    let before: Vec<bool> = (0..300).map(|n| mine.is_ours(n)).collect();
    mine.left(&device(2));
    let after: Vec<bool> = (0..300).map(|n| mine.is_ours(n)).collect();
    let kept = before.iter().zip(&after).all(|(b, a)| !b || *a);
    assert!(kept && after.iter().filter(|a| **a).count() > 120);
    mine.left(&device(3));
    assert!((0..300).all(|n| mine.is_ours(n)));
    assert!(!mine.is_active());
}

#[test]
fn one_in_and_one_out_at_once_is_a_change() {
    let mut mine = swarm(1, &[2]);
    assert!(!mine.look());
    mine.partners.remove(&device(2));
    mine.heard(device(3), &parts(0, &[]), 10);
    mine.partners.get_mut(&device(3)).unwrap().connected = true;
    assert!(mine.look());
}

#[test]
fn claims_take_no_more_room_than_there_are_segments() {
    let mut mine = swarm(1, &[2]);
    assert!(mine.heard(device(2), &parts(990, &[0xff; 8000]), 1000));
    assert!(!mine.heard(device(2), &parts(u64::MAX - 3, &[0xff; 8000]), 1000));
    let partner = &mine.partners[&device(2)];
    assert_eq!(partner.has.iter_from(0).count(), 10);
    assert!(partner.has.iter_from(0).all(|n| n < 1000));
    for n in 0..200 {
        mine.heard(device(n), &parts(0, &[1]), 1000);
    }
    assert_eq!(mine.partners.len(), MAX_PARTNERS);
}

#[test]
fn what_others_have_is_asked_of_them_and_late_ones_are_passed_over() {
    let mut mine = swarm(1, &[2]);
    let (source, other) = (device(9), device(2));
    mine.heard(other, &parts(0, &[0b11]), 1000);
    assert!(mine.may_ask(&other, false, 0));
    assert!(!mine.may_ask(&other, false, 2));
    assert!(!mine.may_ask(&source, true, 0));
    let theirs = (2..40).find(|n| !mine.is_ours(*n)).unwrap();
    assert!(!mine.may_ask(&source, true, theirs));
    late(&mut mine, 2);
    assert!(mine.may_ask(&source, true, theirs) && mine.may_ask(&source, true, 0));
    assert!(!mine.may_ask(&other, false, 0));
    // Better late than never.
    mine.source = false;
    assert!(mine.may_ask(&other, false, 0));
    mine.heard(device(3), &parts(0, &[1]), 1000);
    mine.partners.get_mut(&device(3)).unwrap().connected = true;
    assert!(!mine.may_ask(&other, false, 0) && mine.may_ask(&other, false, 1));
}

#[test]
fn who_has_all_is_asked_now_and_then_to_know_how_fast_it_is() {
    let mut mine = swarm(1, &[2]);
    let source = device(9);
    mine.heard(device(2), &parts(0, &[0xff]), 1000);
    let now = Instant::now();
    assert!(!mine.may_ask(&source, true, 0));
    mine.kept_waiting(now);
    assert!(mine.may_ask(&source, true, 0));
    mine.asked_source();
    assert!(!mine.may_ask(&source, true, 0), "once");
    mine.speed.landed(1000, false, now);
    mine.kept_waiting(now);
    assert!(!mine.may_ask(&source, true, 0));
}

#[test]
fn who_keeps_a_segment_from_us_is_named() {
    let mut mine = swarm(1, &[2, 3]);
    let owned = |mine: &Swarm, n: u8| {
        let mut all = 2..200;
        all.find(|at| mine.owner(*at) == Some(device(n))).unwrap()
    };
    let (two, three) = (device(2), device(3));
    let n = owned(&mine, 2);
    assert_eq!(mine.kept_by(n, &[], true), Some(two), "it falls to it");
    assert_eq!(mine.kept_by(n, &[], false), None, "we work on it");
    assert_eq!(mine.kept_by(n, &[three], false), Some(three), "is asked");
    mine.heard(three, &parts(n as u64, &[1]), 1000);
    assert_eq!(mine.kept_by(n, &[], true), Some(three), "has it");
    late(&mut mine, 3);
    assert_eq!(mine.kept_by(n, &[three], true), Some(two));
    let ours = (0..200).find(|at| mine.is_ours(*at)).unwrap();
    assert_eq!(mine.kept_by(ours, &[], true), None);
    // Nobody is held to account for what only he can bring.
    mine.source = false;
    assert_eq!(mine.kept_by(n, &[two], false), None);
}

#[test]
fn who_has_not_what_it_said_is_not_believed_for_long() {
    let mut mine = swarm(1, &[2]);
    assert!(mine.heard(device(2), &parts(0, &[0b111]), 10));
    for n in 0..3 {
        assert!(mine.serves(&device(2)) && mine.may_come(n));
        mine.gone_at(&device(2), &[n], false);
        assert!(!mine.may_come(n), "only what was asked for is gone");
    }
    mine.heard(device(2), &parts(0, &[1]), 10);
    assert!(!mine.serves(&device(2)));
    assert!((0..300).all(|n| mine.is_ours(n)));
    for _ in 0..300 {
        mine.gone_at(&device(2), &[0], false);
    }
}

#[test]
fn lists_that_are_not_at_hand_are_no_fault() {
    let mut mine = swarm(1, &[2]);
    for _ in 0..300 {
        mine.heard(device(2), &parts(0, &[1]), 10);
        mine.gone_at(&device(2), &[0], true);
        assert!(!mine.may_come(0) && mine.serves(&device(2)));
    }
}

#[test]
fn who_may_fetch_it_too_counts_until_it_had_the_time_to_say_so() {
    let mut mine = Swarm::default();
    mine.begin(&device(1), ContentId([1; 32]), &[device(2)]);
    let now = Instant::now();
    assert!(mine.is_active());
    assert_eq!(mine.take_greeted(now), [device(2)]);
    assert!(mine.take_greeted(now).is_empty());
    let grace = mine.grace.as_ref().unwrap();
    assert!(grace.until <= now + GRACE && grace.until > now);
    // Who comes back is greeted again.
    mine.greet(device(2), now + GRACE);
    assert!(mine.take_greeted(now).is_empty() && !mine.is_quiet());
    assert_eq!(mine.take_greeted(now + GRACE), [device(2)]);
}

#[test]
fn a_lane_that_brings_something_is_not_given_up() {
    struct Never;
    impl crate::transfer::LaneCloser for Never {
        fn close(&self) {
            unreachable!();
        }
    }
    let (time, now) = (Duration::from_secs(1), Instant::now());
    let ago = now.checked_sub(time * 2).unwrap();
    let mut mine = swarm(1, &[2]);
    let mut peers = Peers::default();
    let mut lane = |n: u64, express, since| {
        let info = LaneInfo {
            peer: device(2),
            express,
            closer: Arc::new(Never),
            pulse: Arc::new(Pulse::new(since)),
            owed: 0,
            brought: 0,
            brought_at: None,
            small_turn: true,
        };
        peers.lanes.insert(n, info);
        Arc::clone(&peers.lanes[&n].pulse)
    };
    let pulse = lane(1, false, ago);
    lane(2, true, now);
    let partner = mine.partners.get_mut(&device(2)).unwrap();
    (partner.owes, partner.touched) = (1000, ago);
    pulse.beat();
    assert!(mine.take_stuck(&peers, time).is_empty());
    peers.lanes.get_mut(&1).unwrap().pulse = Arc::new(Pulse::new(ago));
    assert_eq!(mine.take_stuck(&peers, time), [device(2)]);
    assert!(mine.take_stuck(&peers, time).is_empty(), "once");
}
