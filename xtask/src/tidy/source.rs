//! A Rust file as far as tidiness needs to know it: which paths it names and which macros it
//! calls, comments and texts left out, tests marked. Not a parser: it reads tokens.

use std::ops::Range;

/// What a file names.
pub struct Source {
    /// Every path of at least one `::`, and every import, groups spread out.
    pub paths: Vec<Named>,
    /// Line and name of each macro call.
    pub macros: Vec<(usize, String)>,
    /// The modules under `#[cfg(test)]` that lie in files of their own.
    pub test_modules: Vec<Module>,
}

/// A module declared here that lies elsewhere.
pub struct Module {
    /// Its name.
    pub name: String,
    /// The file that a `#[path]` gives it.
    pub path: Option<String>,
}

/// A path at one place.
pub struct Named {
    /// Its line, from 1.
    pub line: usize,
    /// Its parts; the last is `*` in a glob import.
    pub parts: Vec<String>,
    /// Whether it is in a `use`.
    pub import: bool,
    /// Whether it is in an item under `#[cfg(test)]`.
    pub test: bool,
}

impl Named {
    /// Whether it names `path` or something in it; in inline code the front may be missing,
    /// as in `fs::read` after `use std::fs`, which the import itself shows.
    pub fn is_within(&self, path: &str) -> bool {
        path.split("::")
            .enumerate()
            .all(|(at, part)| self.parts.get(at).is_some_and(|p| p == part))
    }
}

/// A word or one sign, with its line.
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Source {
    /// Reads a file.
    pub fn parse(text: &str) -> Self {
        let blank = without_texts(text);
        let tokens = tokens(&blank);
        let tests = test_items(&tokens);
        let in_test = |at: usize| tests.iter().any(|range| range.contains(&at));
        let mut source = Self {
            paths: Vec::new(),
            macros: Vec::new(),
            test_modules: test_modules(&tokens, &tests, text),
        };
        let mut at = 0;
        while at < tokens.len() {
            let (line, test) = (tokens[at].line, in_test(at));
            if tokens[at].text == "use" {
                let end = position(&tokens, at, ";");
                let mut found = Vec::new();
                spread(&tokens[at + 1..end], &mut Vec::new(), &mut found);
                source
                    .paths
                    .extend(found.into_iter().map(|(line, parts)| Named {
                        line,
                        parts,
                        import: true,
                        test,
                    }));
                at = end;
            } else if is_word(tokens[at].text) {
                let (parts, next) = inline_path(&tokens, at);
                // `a != b` is no call of a macro.
                let called = text_at(&tokens, next) == "!" && text_at(&tokens, next + 1) != "=";
                if let Some(name) = parts.last().filter(|_| called) {
                    source.macros.push((line, name.clone()));
                }
                if parts.len() > 1 {
                    source.paths.push(Named {
                        line,
                        parts,
                        import: false,
                        test,
                    });
                }
                at = next;
                continue;
            }
            at += 1;
        }
        source
    }
}

/// The path that starts at `at`, and where it ends.
fn inline_path(tokens: &[Token<'_>], mut at: usize) -> (Vec<String>, usize) {
    let mut parts = vec![tokens[at].text.to_owned()];
    at += 1;
    while text_at(tokens, at) == "::" && is_word(text_at(tokens, at + 1)) {
        parts.push(tokens[at + 1].text.to_owned());
        at += 2;
    }
    (parts, at)
}

/// Spreads the tree of a `use` out: `a::{b, c::{self, d}}` → a::b, a::c, a::c::d.
fn spread(
    tokens: &[Token<'_>],
    front: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let depth = front.len();
    let mut at = 0;
    let mut line = tokens.first().map_or(0, |token| token.line);
    // Whether something stands in `front` that is not yet reported.
    let mut open = false;
    while at < tokens.len() {
        match tokens[at].text {
            "{" => {
                at += 1 + spread(&tokens[at + 1..], front, found);
                open = false;
            }
            "," | "}" => {
                if open {
                    found.push((line, front.clone()));
                }
                open = false;
                front.truncate(depth);
                if tokens[at].text == "}" {
                    return at;
                }
            }
            "::" => {}
            // The new name of a renamed import says nothing about where it comes from.
            "as" => at += 1,
            "self" if depth > 0 => {
                (open, line) = (true, tokens[at].line);
            }
            word => {
                front.push(word.to_owned());
                (open, line) = (true, tokens[at].line);
            }
        }
        at += 1;
    }
    if open {
        found.push((line, front.clone()));
    }
    front.truncate(depth);
    at
}

/// Where the items under `#[cfg(test)]` lie.
fn test_items(tokens: &[Token<'_>]) -> Vec<Range<usize>> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        if !MARK
            .iter()
            .enumerate()
            .all(|(at, mark)| text_at(tokens, start + at) == *mark)
        {
            continue;
        }
        // An item ends with its block, or with a semicolon before any block.
        let body = start + MARK.len();
        let first = tokens[body..]
            .iter()
            .position(|token| matches!(token.text, "{" | ";"));
        let Some(first) = first.map(|first| body + first) else {
            continue;
        };
        let import = tokens.get(body).is_some_and(|token| token.text == "use");
        let end = if import {
            position(tokens, body, ";")
        } else if tokens[first].text == ";" {
            first
        } else {
            closing(tokens, first)
        };
        found.push(start..end + 1);
    }
    found
}

/// The modules among the items in `tests` that have no block; `text` is the file as it is.
fn test_modules(tokens: &[Token<'_>], tests: &[Range<usize>], text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for item in tests {
        let item = tokens.get(item.clone()).unwrap_or_default();
        let [.., mark, name, end] = item else {
            continue;
        };
        if mark.text != "mod" || end.text != ";" {
            continue;
        }
        let attribute = item
            .windows(2)
            .find(|pair| pair[0].text == "[" && pair[1].text == "path");
        let line = attribute.and_then(|pair| text.lines().nth(pair[1].line - 1));
        let path = line
            .and_then(|line| line.split('"').nth(1))
            .map(str::to_owned);
        found.push(Module {
            name: name.text.to_owned(),
            path,
        });
    }
    found
}

/// The brace that closes the one at `open`.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

fn position(tokens: &[Token<'_>], from: usize, text: &str) -> usize {
    let found = tokens[from..].iter().position(|token| token.text == text);
    found.map_or(tokens.len(), |found| from + found)
}

fn text_at<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (number, content) in text.lines().enumerate() {
        let mut rest = content;
        while let Some(first) = rest.chars().next() {
            let len = if is_word(rest) {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                found.push(Token {
                    text: &rest[..len],
                    line: number + 1,
                });
            }
            rest = &rest[len..];
        }
    }
    found
}

/// `text` with comments, strings and characters as blanks; lines stay where they are.
fn without_texts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut word_before = false;
    while let Some(first) = rest.chars().next() {
        let skip = if word_before {
            literal_after_word(rest)
        } else {
            literal(rest)
        };
        if skip > 0 {
            out.extend(
                rest[..skip]
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            );
            rest = &rest[skip..];
            word_before = false;
        } else {
            out.push(first);
            word_before = first.is_alphanumeric() || first == '_';
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// Like [`literal`], but an `r` here is the end of a name and no raw string.
fn literal_after_word(text: &str) -> usize {
    if text.starts_with(['r', 'b', 'c']) {
        0
    } else {
        literal(text)
    }
}

/// How many bytes of comment, string or character `text` starts with.
fn literal(text: &str) -> usize {
    let end_at = |pattern: &str, from: usize| {
        text[from..]
            .find(pattern)
            .map_or(text.len(), |at| from + at + pattern.len())
    };
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    let prefix = text.len() - text.trim_start_matches(['b', 'c']).len();
    let body = if prefix <= 1 { &text[prefix..] } else { text };
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            return end_at(&close, prefix.min(1) + 1 + hashes + 1);
        }
    }
    if body.starts_with('"') {
        let start = text.len() - body.len();
        return start + quoted(body, '"');
    }
    if body.starts_with('\'') {
        return character(body).map_or(0, |len| text.len() - body.len() + len);
    }
    0
}

/// Length of the block comment at the start of `text`; they nest.
fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the quoted text at the start of `text`.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Length of the character at the start of `text`; none if it is a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        return Some(quoted(text, '\''));
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}
