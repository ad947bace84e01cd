//! Laws of version vectors.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::version::{DeviceId, MAX_COUNTER, Relation, Version};
use proptest::collection::vec;
use proptest::prelude::*;

fn device() -> impl Strategy<Value = DeviceId> {
    (0u8..4).prop_map(|n| DeviceId([n; 32]))
}

fn version() -> impl Strategy<Value = Version> {
    vec((device(), 0u64..4), 0..5).prop_map(Version::from_pairs)
}

fn at_most(a: &Version, b: &Version) -> bool {
    matches!(a.relation(b), Relation::Equal | Relation::Before)
}

proptest! {
    #[test]
    fn relation_is_pointwise(a in version(), b in version()) {
        let all = |f: fn(u64, u64) -> bool| {
            (0u8..4).all(|n| f(a.counter(DeviceId([n; 32])), b.counter(DeviceId([n; 32]))))
        };
        let expected = match (all(|x, y| x <= y), all(|x, y| x >= y)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Before,
            (false, true) => Relation::After,
            (false, false) => Relation::Concurrent,
        };
        prop_assert_eq!(a.relation(&b), expected);
        prop_assert_eq!(a.relation(&b) == Relation::Equal, a == b);
    }

    #[test]
    fn relation_is_antisymmetric(a in version(), b in version()) {
        let mirrored = match b.relation(&a) {
            Relation::Before => Relation::After,
            Relation::After => Relation::Before,
            same => same,
        };
        prop_assert_eq!(a.relation(&b), mirrored);
    }

    #[test]
    fn relation_is_transitive(a in version(), b in version(), c in version()) {
        if at_most(&a, &b) && at_most(&b, &c) {
            prop_assert!(at_most(&a, &c));
        }
    }

    #[test]
    fn join_is_the_least_upper_bound(a in version(), b in version(), c in version()) {
        let j = a.join(&b);
        prop_assert!(at_most(&a, &j) && at_most(&b, &j));
        if at_most(&a, &c) && at_most(&b, &c) {
            prop_assert!(at_most(&j, &c));
        }
        prop_assert_eq!(&j, &b.join(&a));
        prop_assert_eq!(j.join(&c), a.join(&b.join(&c)));
        prop_assert_eq!(a.join(&a), a);
    }

    #[test]
    fn bump_is_after(a in version(), d in device(), now in 0u64..10, floor in 0u64..10) {
        let b = a.bump(d, now, floor);
        prop_assert_eq!(b.relation(&a), Relation::After);
        prop_assert!(b.counter(d) > floor && b.counter(d) >= now);
        for n in (0u8..4).map(|n| DeviceId([n; 32])).filter(|n| *n != d) {
            prop_assert_eq!(a.counter(n), b.counter(n));
        }
    }

    #[test]
    fn pairs_are_sorted_and_whole(a in version()) {
        prop_assert!(a.pairs().windows(2).all(|w| w[0].0 < w[1].0));
        prop_assert!(a.pairs().iter().all(|(_, c)| *c > 0));
        prop_assert_eq!(Version::from_pairs(a.pairs().iter().copied()), a);
    }

    #[test]
    fn device_ids_parse_back(bytes: [u8; 32]) {
        let d = DeviceId(bytes);
        prop_assert_eq!(DeviceId::parse(&d.to_string()), Some(d));
        prop_assert_eq!(DeviceId::parse(&d.to_string().to_lowercase()), Some(d));
    }

    #[test]
    fn no_text_makes_a_device_id_panic(text: String) {
        let _ = DeviceId::parse(&text);
    }
}

#[test]
fn counters_stay_acceptable() {
    let d = DeviceId([1; 32]);
    let v = Version::from_pairs([(d, 5)]);
    assert_eq!(v.bump(d, u64::MAX, u64::MAX).counter(d), MAX_COUNTER);
}
