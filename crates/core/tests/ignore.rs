//! Cases of gitignore syntax.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::ignore::{
    Ignore, MAX_FOLDER_TEXT, MAX_FOLDERS, MAX_LINE, MAX_LINES, MAX_NESTED, Outcome, Rules, include,
};
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

/// Rules from `(folder, text)`; the root's folder is "".
fn rules_of(files: &[(&str, &str)]) -> Rules {
    let mut rules = Rules::none();
    for (dir, text) in files {
        assert_eq!(set(&mut rules, dir, text).refused, None);
    }
    rules
}

fn set(rules: &mut Rules, dir: &str, text: &str) -> Outcome {
    let dir = RelPath::new(dir).ok();
    let all = include(text.as_bytes(), &mut |_| Ok::<_, ()>(None)).unwrap();
    rules.set(dir.as_ref(), all)
}

fn is_ignored(rules: &Rules, path: &str) -> bool {
    let name = path.strip_suffix('/').unwrap_or(path);
    rules.is_ignored(&RelPath::new(name).unwrap(), path.ends_with('/'))
}

#[test]
fn a_folders_own_rules_count_in_it_and_before_those_above() {
    // Judged by `git check-ignore --no-index` too.
    let rules = rules_of(&[
        ("", "*.tmp\n/build/\n"),
        ("a", "!keep.tmp\n/only\n*.log\n"),
        ("a/b", "!*.log\nkeep.tmp\nx/y\n"),
        ("build", "!*\n"),
    ]);
    let ignored = [
        "x.tmp",
        "a/x.tmp",
        "a/b/keep.tmp",
        "a/only",
        "a/x.log",
        "a/c/x.log",
        "a/b/x/y",
        "build/x",
        "keep.tmp",
    ];
    let left = [
        "a/keep.tmp",
        "a/c/keep.tmp",
        "a/c/only",
        "only",
        "x.log",
        "a/b/x.log",
        "a/b/c/x/y",
        ".leftignore",
        "a/.leftignore",
    ];
    for path in ignored {
        assert!(is_ignored(&rules, path), "{path}");
    }
    for path in left {
        assert!(!is_ignored(&rules, path), "{path}");
    }
}

#[test]
fn rules_of_folders_come_and_go() {
    let mut rules = rules_of(&[("a", "x"), ("a/b", "y"), ("a-b", "z")]);
    assert!(!set(&mut rules, "a", "x").changed);
    assert!(set(&mut rules, "a", "w").changed);
    assert!(is_ignored(&rules, "a/w") && !is_ignored(&rules, "a/x"));
    rules.forget(&RelPath::new("a").unwrap());
    assert!(!is_ignored(&rules, "a/w") && !is_ignored(&rules, "a/b/y"));
    assert!(is_ignored(&rules, "a-b/z"));
    assert!(set(&mut rules, "a-b", "").changed);
    assert!(!rules.has(&RelPath::new("a-b").unwrap()));
}

#[test]
fn included_files_tell_whose_rules_they_are() {
    let mut rules = rules_of(&[("", "#include common"), ("a", "#include common\nx")]);
    let common = RelPath::new("common").unwrap();
    let dirs = rules.folders_of(&common);
    assert_eq!(dirs, [None, Some(RelPath::new("a").unwrap())]);
    set(&mut rules, "", "");
    rules.forget(&RelPath::new("a").unwrap());
    assert!(!rules.depend_on(&common));
    assert!(rules.depend_on(&RelPath::new("deep/down/.leftignore").unwrap()));
    // What is wrong in them is told once.
    assert_eq!(set(&mut rules, "b", "#include ../x").complaints.len(), 1);
    assert_eq!(set(&mut rules, "b", "#include ../x"), Outcome::default());
}

#[test]
fn rules_of_all_folders_together_are_bounded() {
    let mut rules = Rules::none();
    let refused = |o: Outcome| o.refused.is_some() && !o.changed;
    for n in 0..MAX_FOLDERS {
        assert!(!refused(set(&mut rules, &format!("d{n}"), "x*[a-z]?y")));
    }
    assert!(refused(set(&mut rules, "one-more", "x")));
    assert!(!refused(set(&mut rules, "d1", "y")));

    let mut rules = Rules::none();
    let half = "x\n".repeat(MAX_LINES / 2);
    assert!(!refused(set(&mut rules, "a", &half)));
    assert!(!refused(set(&mut rules, "b", &half)));
    assert!(refused(set(&mut rules, "c", "x")));
    // One that grows too large counts no more.
    let more = set(&mut rules, "b", &half.repeat(2));
    assert!(more.refused.is_some() && more.changed);
    assert!(!is_ignored(&rules, "b/x"));

    let mut rules = Rules::none();
    let dir = |n: usize| vec!["d"; n].join("/");
    for n in 1..=MAX_NESTED {
        assert!(!refused(set(&mut rules, &dir(n), "x")));
    }
    assert!(refused(set(&mut rules, &dir(MAX_NESTED + 1), "x")));
    assert!(is_ignored(&rules, &format!("{}/x", dir(MAX_NESTED + 9))));
    let long = rules.refuses(&RelPath::new("z").unwrap(), MAX_FOLDER_TEXT as u64 + 1);
    assert!(long.unwrap().contains("64 KiB"));
}

/// A pattern of the folder `dir`, as the root's file would have to say it.
fn from_root(dir: &str, line: &str) -> String {
    let (sign, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", line),
    };
    let tied = pattern.strip_suffix('/').unwrap_or(pattern).contains('/');
    let between = if tied { "" } else { "**/" };
    format!("{sign}/{dir}/{between}{}", pattern.trim_start_matches('/'))
}

proptest! {
    /// Patterns of a folder mean the same as if they stood after all others in the root's file, with
    /// the folder before them.
    #[test]
    fn rules_of_folders_are_those_of_the_root_said_in_another_way(
        files in proptest::collection::btree_map(
            proptest::sample::select(vec!["a", "a/b", "b", "b/a/a"]),
            proptest::collection::vec("!?/?(a|b|\\*|\\?|\\*a|\\[ab\\])(/(a|b|\\*\\*/b|\\*))?/?", 0..4),
            0..4,
        ),
        root in proptest::collection::vec("!?/?[ab*]{1,2}/?", 0..3),
        path in "[ab](/[ab]){0,5}",
        is_dir: bool,
    ) {
        let mut nested = vec![(String::new(), root.join("\n"))];
        let mut flat = root;
        for (dir, lines) in files {
            nested.push((dir.to_owned(), lines.join("\n")));
            flat.extend(lines.iter().map(|line| from_root(dir, line)));
        }
        let nested: Vec<(&str, &str)> = nested.iter().map(|(d, t)| (&**d, &**t)).collect();
        let rules = rules_of(&nested);
        let (root, bad) = Ignore::parse(flat.join("\n").as_bytes());
        prop_assert!(bad.is_empty());
        let path = RelPath::new(path).unwrap();
        prop_assert_eq!(
            rules.is_ignored(&path, is_dir),
            root.is_ignored(&path, is_dir),
            "{:?} {:?} {:?}", nested, flat, path
        );
    }
}
