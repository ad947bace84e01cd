use left_core::version::DeviceId;

use super::*;

const ID: ContentId = ContentId([1; 32]);

#[test]
fn positions_are_told_in_few_messages() {
    let told = |all: &[usize]| messages(ID, usize::MAX, all.iter().copied()).0;
    let back = |all: &[Parts]| {
        let mut out = Vec::new();
        for p in all {
            for at in 0..p.bitmap.len() * 8 {
                if p.bitmap[at / 8] >> (at % 8) & 1 == 1 {
                    out.push(p.from as usize + at);
                }
            }
        }
        out
    };
    assert!(told(&[]).is_empty());
    let far: Vec<usize> = (0..200_000).step_by(3).collect();
    for all in [&[5][..], &[0, 9, 700], &[1, 2, 90_000], &far] {
        let messages = told(all);
        assert_eq!(back(&messages), all);
        assert!(messages.iter().all(|m| m.bitmap.len() <= MAX_PARTS_BITMAP));
    }
    assert_eq!(told(&far).len(), 4);
    assert_eq!(told(&[1, 90_000]).len(), 2);
    let (some, next) = messages(ID, 2, far.iter().copied());
    let next = far.iter().position(|n| Some(*n) == next).unwrap();
    assert_eq!(back(&some), far[..next]);
}

/// A swarm with these segments in place, and one partner.
fn swarm(here: impl Iterator<Item = usize>) -> Swarm {
    let mut swarm = Swarm::default();
    swarm.begin(&DeviceId([1; 32]), ID, &[]);
    here.for_each(|n| swarm.complete(n, 1, &[]));
    hello(&mut swarm);
    swarm
}

fn hello(swarm: &mut Swarm) {
    let parts = Parts {
        content: ID,
        from: 0,
        bitmap: Vec::new(),
        hello: true,
    };
    swarm.heard(DeviceId([2; 32]), &parts, 10);
}

fn tell(swarm: &mut Swarm, now: Instant) -> Vec<u64> {
    let mut out = Vec::new();
    swarm.tell(ID, now, &mut out);
    out.iter().map(|(_, parts)| parts.from).collect()
}

#[test]
fn everything_is_not_told_again_and_again() {
    let mut swarm = swarm([8, 100_000].into_iter());
    let start = Instant::now();
    assert_eq!(tell(&mut swarm, start), [8, 100_000]);
    let mut told = 0;
    for n in 0..50 {
        hello(&mut swarm);
        told += tell(&mut swarm, start + TICK * n).len();
    }
    assert_eq!(told, 0);
    // News do not wait for that.
    swarm.complete(16, 1, &[]);
    assert_eq!(tell(&mut swarm, start + TICK), [16]);
    assert_eq!(tell(&mut swarm, start + ALL_AGAIN), [8, 100_000]);
}

#[test]
fn what_did_not_fit_is_told_later_and_only_that() {
    let far = (0..20).map(|n| n * 80_000);
    let mut swarm = swarm(far.clone());
    let start = Instant::now();
    let mut told = Vec::new();
    for n in 0..10 {
        told.extend(tell(&mut swarm, start + TICK * n));
    }
    assert!(told.iter().copied().eq(far.map(|n| n as u64)));
    let device = DeviceId([2; 32]);
    let partner = swarm.partners.get_mut(&device).unwrap();
    (partner.tell_from, partner.full_until) = (Some(18 * 80_000), start + FULL);
    swarm.complete(19 * 80_000 + 8, 1, &[]);
    assert!(tell(&mut swarm, start + TICK).is_empty());
    let late = tell(&mut swarm, start + FULL);
    assert_eq!(late, [18 * 80_000, 19 * 80_000]);
    assert!(tell(&mut swarm, start + FULL * 2).is_empty());
}
