//! Laws of `RelPath`.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::path::{MAX_NAME, MAX_PATH, PathError, RelPath, join};
use proptest::collection::vec;
use proptest::prelude::*;

/// Names out of few bytes, so that prefixes, equal names and bytes around `/` are common.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b'a'),
        Just(b'b'),
        Just(b'.'),
        Just(b'-'),
        Just(1u8),
        Just(0xffu8),
        Just(b'0')
    ];
    vec(byte, 1..5).prop_filter("a name", |n| {
        n != b"." && n != b".." && !n.eq_ignore_ascii_case(b".left")
    })
}

fn path() -> impl Strategy<Value = RelPath> {
    vec(name(), 1..5).prop_map(|parts| RelPath::new(parts.join(&b'/')).unwrap())
}

/// Bytes that are nearly paths.
fn near_path() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => Just(b'/'),
        3 => Just(b'.'),
        1 => Just(0u8),
        3 => any::<u8>(),
        2 => proptest::sample::select(b"leftLEFT".to_vec()),
    ];
    vec(byte, 0..12)
}

proptest! {
    #[test]
    fn order_is_the_order_of_keys(a in path(), b in path()) {
        prop_assert_eq!(a.cmp(&b), a.key().cmp(&b.key()));
        prop_assert_eq!(a.cmp(&b), a.parts().cmp(b.parts()));
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
    }

    /// With much in common, as the paths of one folder have.
    #[test]
    fn order_is_the_order_of_keys_below_a_folder(dir in vec(name(), 1..8), a in path(), b in path()) {
        let below = |p: &RelPath| {
            let dir = dir.join(&b'/');
            RelPath::new([&dir[..], p.as_bytes()].join(&b'/')).unwrap()
        };
        let (a, b) = (below(&a), below(&b));
        prop_assert_eq!(a.cmp(&b), a.key().cmp(&b.key()));
    }

    #[test]
    fn a_path_is_in_its_parent_only(a in path(), b in path()) {
        prop_assert_eq!(a.is_in(Some(&b)), a.parent().as_ref() == Some(&b));
        prop_assert_eq!(a.is_in(None), a.parent().is_none());
        prop_assert!(a.parent().is_none_or(|dir| a.is_in(Some(&dir))));
    }

    #[test]
    fn a_key_is_a_path_again(a in path()) {
        prop_assert_eq!(RelPath::from_key(&a.key()).unwrap(), a);
    }

    #[test]
    fn what_is_valid_is_well_formed(bytes in near_path()) {
        let Ok(p) = RelPath::new(bytes.clone()) else { return Ok(()) };
        prop_assert_eq!(p.as_bytes(), &bytes[..]);
        prop_assert!(!bytes.contains(&0));
        for part in p.parts() {
            prop_assert!(!part.is_empty() && part != b"." && part != b"..");
            prop_assert!(!part.eq_ignore_ascii_case(b".left"));
        }
        prop_assert_eq!(RelPath::from_key(&p.key()).unwrap(), p);
    }

    #[test]
    fn keys_from_anywhere_do_not_panic(bytes in near_path()) {
        if let Ok(p) = RelPath::from_key(&bytes) {
            prop_assert_eq!(p.key(), bytes);
        }
    }

    #[test]
    fn join_undoes_parent(a in path(), n in name()) {
        prop_assert_eq!(join(a.parent().as_ref(), a.name()).unwrap(), a.clone());
        let child = a.join(&n).unwrap();
        prop_assert_eq!(child.parent(), Some(a.clone()));
        prop_assert_eq!(child.name(), &n[..]);
        prop_assert_eq!(a.with_name(&n).unwrap().parent(), a.parent());
    }

    #[test]
    fn below_means_a_prefix_of_parts(a in path(), b in path()) {
        let (pa, pb): (Vec<_>, Vec<_>) = (a.parts().collect(), b.parts().collect());
        prop_assert_eq!(a.is_below(&b), pa.len() > pb.len() && pa.starts_with(&pb));
        prop_assert!(!a.is_below(&a));
    }

    #[test]
    fn a_folder_is_followed_by_what_is_below(dir in path(), n in name(), other in path()) {
        let child = dir.join(&n).unwrap();
        prop_assert!(dir < child);
        if dir < other && other < child {
            prop_assert!(other.is_below(&dir));
        }
    }

    #[test]
    fn text_has_no_control_characters(bytes in vec(1u8.., 1..40)) {
        if let Ok(p) = RelPath::new(bytes) {
            prop_assert!(!p.to_string().chars().any(char::is_control));
        }
    }
}

#[test]
fn invalid_paths_are_named() {
    let long_name = vec![b'x'; MAX_NAME + 1];
    let long_path = [&vec![b'x'; MAX_NAME][..]; MAX_PATH / MAX_NAME + 1].join(&b'/');
    let cases: &[(&[u8], PathError)] = &[
        (b"", PathError::Empty),
        (b"/a", PathError::Absolute),
        (b"/", PathError::Absolute),
        (b"a/", PathError::EmptyPart),
        (b"a//b", PathError::EmptyPart),
        (b".", PathError::DotPart),
        (b"..", PathError::DotPart),
        (b"a/../b", PathError::DotPart),
        (b"a/.", PathError::DotPart),
        (b"a\0b", PathError::Nul),
        (b".left", PathError::Reserved),
        (b"a/.LEFT/b", PathError::Reserved),
        (&long_name, PathError::NameTooLong),
        (&long_path, PathError::TooLong),
    ];
    for (bytes, why) in cases {
        assert_eq!(RelPath::new(*bytes), Err(*why), "{bytes:?}");
    }
    for good in [
        &b".leftignore"[..],
        b"...",
        b".a",
        b"a b",
        b"\xff\xfe",
        b"a\\b",
    ] {
        RelPath::new(good).unwrap();
    }
    RelPath::new(vec![b'x'; MAX_NAME]).unwrap();
}
