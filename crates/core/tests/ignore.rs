//! Cases of gitignore syntax.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::ignore::{Ignore, MAX_LINE, MAX_LINES};
use left_core::path::RelPath;
use proptest::prelude::*;

/// A path with a trailing `/` is a folder.
fn ignored(rules: &Ignore, path: &str) -> bool {
    let name = path.strip_suffix('/').unwrap_or(path);
    rules.is_ignored(&RelPath::new(name).unwrap(), path.ends_with('/'))
}

/// Patterns, paths they ignore, paths they leave.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// Each was judged by `git check-ignore --no-index` too.
const CASES: &[Case] = &[
    ("", &[], &["a"]),
    ("# a\n\n   \n\\#b", &["#b"], &["a", "# a"]),
    ("a", &["a", "a/", "x/a", "a/x", "x/a/y"], &["ab", "x/ab"]),
    ("/a", &["a", "a/x"], &["x/a"]),
    ("a/", &["a/", "x/a/", "a/x"], &["a", "x/a"]),
    ("a/b", &["a/b", "a/b/c"], &["x/a/b", "a", "b"]),
    ("/a/*", &["a/b", "a/b/c"], &["a/", "x/a/b"]),
    ("*.o", &["x.o", "a/x.o", ".o"], &["x.os", "o"]),
    ("a?c", &["abc"], &["ac", "abbc", "a/c"]),
    ("a[bc]d", &["abd", "acd"], &["aed"]),
    ("a[!bc]d", &["aed"], &["abd", "a/d"]),
    ("a[^b]d/", &["aed/", "x/aed/"], &["a/d/", "aed", "abd/"]),
    ("*.o\n!k[!]].o", &["k].o"], &["kx.o", "x/ky.o"]),
    ("*.o\n!k[!a].o", &["ka.o", "k/.o"], &["kb.o", "x/kb.o"]),
    ("x/a[!b]", &["x/ac"], &["ac", "x/ab"]),
    ("**/b", &["b", "a/b", "a/x/b"], &["ab"]),
    ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["b", "x/a/b"]),
    ("a/**", &["a/b", "a/b/c"], &["a/", "a"]),
    ("*.o\n!keep.o", &["x.o"], &["keep.o", "a/keep.o"]),
    ("!keep.o\n*.o", &["x.o", "keep.o"], &[]),
    ("a/\n!a/b", &["a/", "a/b", "a/b/c"], &[]),
    ("a/*\n!a/b", &["a/c"], &["a/b", "a/b/c"]),
    ("/*\n!/a\n/a/*\n!/a/b", &["x", "a/c"], &["a/", "a/b"]),
    ("\\!a", &["!a"], &["a"]),
    ("a  ", &["a"], &["a  "]),
    ("a\\ ", &["a "], &["a"]),
    ("a\r\nb\r\n", &["a", "b"], &["a\r"]),
    ("\u{feff}a", &["a"], &["\u{feff}a"]),
    ("{a,b}", &["{a,b}"], &["a", "b"]),
    ("x{", &["x{"], &["x"]),
    ("[{]x}", &["{x}"], &["x}"]),
    ("\\{a", &["{a"], &["a"]),
    ("a\\*b", &["a*b"], &["axb"]),
    ("ü", &["ü", "x/ü"], &["u"]),
    ("A", &["A"], &["a"]),
];

#[test]
fn patterns_mean_what_they_mean_to_git() {
    for (text, yes, no) in CASES {
        let (rules, bad) = Ignore::parse(text.as_bytes());
        assert!(bad.is_empty(), "{text:?}: {bad:?}");
        for path in *yes {
            assert!(ignored(&rules, path), "{text:?} ignores {path:?}");
        }
        for path in *no {
            assert!(!ignored(&rules, path), "{text:?} leaves {path:?}");
        }
    }
}

#[test]
fn the_file_itself_is_never_ignored() {
    let (rules, _) = Ignore::parse(b"*\n.leftignore");
    assert!(!ignored(&rules, ".leftignore"));
    assert!(!rules.is_ignored_itself(&RelPath::new(".leftignore").unwrap(), false));
    assert!(ignored(&rules, "a"));
    assert!(ignored(&rules, "a/.leftignore"));
}

#[test]
fn a_walk_may_look_at_one_part_only() {
    let (rules, _) = Ignore::parse(b"a/");
    let below = RelPath::new("a/b").unwrap();
    assert!(rules.is_ignored(&below, false));
    assert!(!rules.is_ignored_itself(&below, false));
    assert!(rules.is_ignored_itself(&RelPath::new("a").unwrap(), true));
    assert!(!Ignore::none().is_ignored(&below, false));
}

#[test]
fn names_need_not_be_utf8() {
    let (rules, bad) = Ignore::parse(b"x?y\n*.tmp\n");
    assert!(bad.is_empty());
    let of = |p: &[u8]| rules.is_ignored(&RelPath::new(p).unwrap(), false);
    assert!(of(b"x\xffy"));
    assert!(of(b"\xff\xfe.tmp"));
    assert!(!of(b"\xff"));
}

#[test]
fn lines_that_are_no_pattern_are_told_and_the_others_count() {
    let long = "x".repeat(MAX_LINE + 1);
    let text = format!("a\n[z-a]\n{long}\nb\\\n{}\nb", "[".repeat(300));
    let (rules, bad) = Ignore::parse(text.as_bytes());
    assert_eq!(bad.len(), 4, "{bad:?}");
    for (message, number) in bad.iter().zip([2, 3, 4, 5]) {
        assert!(
            message.starts_with(&format!("line {number}: ")),
            "{message}"
        );
        assert!(message.len() < 300);
    }
    assert!(ignored(&rules, "a") && ignored(&rules, "b"));

    let (rules, bad) = Ignore::parse(b"a\n\xff\nb");
    assert_eq!(bad.len(), 1);
    assert!(bad[0].contains("line 2") && bad[0].contains("UTF-8"));
    assert!(ignored(&rules, "b"));
}

#[test]
fn lines_are_bounded() {
    let text: String = (0..=MAX_LINES).map(|n| format!("*x{n}y*\n")).collect();
    let (rules, bad) = Ignore::parse(text.as_bytes());
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert!(bad[0].contains("10001"));
    assert!(ignored(&rules, &format!("ax{}yb", MAX_LINES - 1)));
    assert!(!ignored(&rules, &format!("ax{MAX_LINES}yb")));

    // As many lines as fit, with a newline at the end, are not too many.
    let (_, bad) = Ignore::parse("a\n".repeat(MAX_LINES).as_bytes());
    assert!(bad.is_empty());
    let (_, bad) = Ignore::parse("b\\\n".repeat(MAX_LINES).as_bytes());
    assert_eq!(bad.len(), 101);
}

#[test]
fn a_later_pattern_wins_across_thousands() {
    let mut text = String::from("target\n");
    for n in 0..3000 {
        text += &format!("x{n}\n");
    }
    text += "!target\n";
    let (rules, _) = Ignore::parse(text.as_bytes());
    assert!(!ignored(&rules, "target"));
    assert!(ignored(&rules, "x2999"));
}

#[test]
fn patterns_too_large_to_compile_are_told_alone() {
    let monster = "[!a]*?".repeat(600);
    let text = format!("a\n{monster}\nb\n");
    let (rules, _) = Ignore::parse(text.as_bytes());
    assert!(ignored(&rules, "a") && ignored(&rules, "b"));
}

proptest! {
    #[test]
    fn no_text_panics(
        text in proptest::collection::vec(
            proptest::sample::select(b"ab/*?[]!\\{}, \n\r#-^\xff".to_vec()), 0..40),
        path in "[ab/.]{1,8}",
    ) {
        let (rules, _) = Ignore::parse(&text);
        if let Ok(path) = RelPath::new(path) {
            let itself = rules.is_ignored_itself(&path, false);
            prop_assert!(!itself || rules.is_ignored(&path, false));
            rules.is_ignored(&path, true);
        }
    }
}
