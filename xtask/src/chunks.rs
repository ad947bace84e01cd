//! `cargo xtask chunks`: what chunks of other sizes would cost and save, on data given as files before
//! and after an edit. It changes nothing: the sizes in use are part of the protocol
//! (`crates/core/src/chunker.rs`).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use left_core::chunker::AVG_CHUNK;
use left_core::content::{Segment, WHOLE_MAX};

use chunker::Chunker;
use count::{Edit, Manifest};

mod chunker;
mod count;

const GIB: f64 = (1u64 << 30) as f64;
const HEADS: [&str; 10] = [
    "data",
    "average",
    "chunks",
    "mean",
    "manifest",
    "segment list",
    "chunk lists",
    "contents",
    "travels",
    "CPU s a GiB",
];

/// What `cargo xtask chunks` takes.
#[derive(clap::Args)]
pub struct Args {
    /// A folder with files NAME.old and NAME.new: the same data before and after an edit. Other files are
    /// not looked at.
    dir: PathBuf,
    /// Average sizes in KiB, with commas between. The smallest chunk has half of it, the largest eight
    /// times as much.
    #[arg(long, value_delimiter = ',', value_name = "KIB", value_parser = average, default_value = "4,8,16,32,64")]
    averages: Vec<usize>,
    /// How often each file is cut with each size; the median of the CPU time counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

/// Two versions of a file.
#[derive(PartialEq, Eq, Debug)]
struct Pair {
    name: String,
    old: PathBuf,
    new: PathBuf,
}

/// What one size makes of a pair.
struct Line {
    average: usize,
    manifest: Manifest,
    edit: Edit,
    cpu_per_gib: f64,
}

/// Prints the table, as Markdown.
pub fn run(args: &Args) -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!("note: not a release build; its CPU times are not the program's");
    }
    let pairs = pairs(&args.dir)?;
    let size_of_new = |pair: &Pair| size(&pair.old).and_then(|_| size(&pair.new));
    let sizes: Vec<u64> = pairs.iter().map(size_of_new).collect::<Result<_>>()?;
    let mut table = format!(
        "| {} |\n|{}\n",
        HEADS.join(" | "),
        " --- |".repeat(HEADS.len())
    );
    for (pair, size) in pairs.iter().zip(sizes) {
        eprintln!("{}", pair.name);
        for line in measure(pair, size, &args.averages, args.runs)? {
            table += &row(&pair.name, size, &line);
        }
    }
    print!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// An average size in KiB as bytes.
fn average(text: &str) -> Result<usize, String> {
    let kib = text.parse().ok();
    kib.filter(|kib: &usize| kib.is_power_of_two() && *kib <= 1024)
        .map(|kib| kib * 1024)
        .ok_or_else(|| "not a power of two from 1 to 1024".to_owned())
}

/// The pairs in a folder, by name.
fn pairs(dir: &Path) -> Result<Vec<Pair>> {
    let cannot_read = || format!("cannot read the folder {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(cannot_read)? {
        let path = entry.with_context(cannot_read)?.path();
        let (other, is_old) = match path.extension().and_then(|e| e.to_str()) {
            Some("old") => (path.with_extension("new"), true),
            Some("new") => (path.with_extension("old"), false),
            _ => continue,
        };
        ensure!(
            other.exists(),
            "{} stands alone: there is no {}",
            path.display(),
            other.display()
        );
        if is_old {
            let name = path.file_stem().unwrap_or_default();
            found.push(Pair {
                name: name.to_string_lossy().into_owned(),
                old: path,
                new: other,
            });
        }
    }
    if found.is_empty() {
        bail!("{} has no files NAME.old and NAME.new", dir.display());
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A file's size, if it is one that has chunks.
fn size(path: &Path) -> Result<u64> {
    let meta = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(meta.is_file(), "{} is not a file", path.display());
    ensure!(
        meta.len() > WHOLE_MAX,
        "{} has {} bytes; files of up to {WHOLE_MAX} travel whole, without chunks",
        path.display(),
        meta.len()
    );
    Ok(meta.len())
}

/// The sizes take turns, so that a slow minute of the machine does not meet only one of them.
fn measure(pair: &Pair, size: u64, averages: &[usize], runs: u32) -> Result<Vec<Line>> {
    let chunkers: Vec<Chunker> = averages.iter().map(|avg| Chunker::new(*avg)).collect();
    let mut times = vec![Vec::new(); chunkers.len()];
    for _ in 1..runs {
        for (chunker, times) in chunkers.iter().zip(&mut times) {
            times.push(cut(chunker, &pair.new)?.1);
        }
    }
    let mut lines = Vec::new();
    for (chunker, mut times) in chunkers.iter().zip(times) {
        let (old, _) = cut(chunker, &pair.old)?;
        let (new, time) = cut(chunker, &pair.new)?;
        times.push(time);
        lines.push(Line {
            average: chunker.average(),
            manifest: Manifest::of(&new),
            edit: Edit::between(&old, &new),
            cpu_per_gib: median(times).as_secs_f64() * GIB / size as f64,
        });
    }
    Ok(lines)
}

/// A file's segments, and the CPU time that cutting and hashing it took.
fn cut(chunker: &Chunker, path: &Path) -> Result<(Vec<Segment>, Duration)> {
    let (chunks, time) = File::open(path)
        .and_then(|file| chunker.cut(file))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok((chunker.segments(&chunks), time))
}

/// The middle one, or the longer of the two in the middle.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn row(name: &str, size: u64, line: &Line) -> String {
    let bytes = |count: u64| ByteSize(count).display().si().to_string();
    let in_use = match line.average {
        AVG_CHUNK => ", in use",
        _ => "",
    };
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {name}, {} | {} KiB{in_use} | {} | {:.1} KiB | {} | {} | {} | {} | {} | {:.2} |",
        bytes(size),
        line.average / 1024,
        line.manifest.chunks,
        line.manifest.mean() / 1024.0,
        bytes(line.manifest.bytes),
        bytes(line.edit.refs),
        bytes(line.edit.lists),
        bytes(line.edit.contents),
        bytes(line.edit.travels()),
        line.cpu_per_gib,
    );
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for name in names {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        dir
    }

    #[test]
    fn pairs_are_found_by_name_and_nothing_else() {
        let dir = folder(&["b.new", "a.tar.old", "b.old", "a.tar.new", "notes", "c.txt"]);
        let names = pairs(dir.path()).expect("pairs").into_iter();
        let names: Vec<_> = names.map(|p| (p.name, p.old, p.new)).collect();
        let path = |name| dir.path().join(name);
        assert_eq!(
            names,
            [
                ("a.tar".to_owned(), path("a.tar.old"), path("a.tar.new")),
                ("b".to_owned(), path("b.old"), path("b.new"))
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_the_folder_is_named() {
        let said = |dir: &Path| format!("{:#}", pairs(dir).expect_err("an error"));
        for alone in ["a.old", "a.new"] {
            let dir = folder(&[alone, "b.old", "b.new"]);
            let text = said(dir.path());
            assert!(
                text.contains(alone) && text.contains("stands alone"),
                "{text}"
            );
        }
        let dir = folder(&["a.txt"]);
        let text = said(dir.path());
        assert!(
            text.contains("has no files NAME.old and NAME.new"),
            "{text}"
        );
        let text = said(&dir.path().join("nowhere"));
        assert!(text.contains("nowhere: No such file"), "{text}");
        let text = format!(
            "{:#}",
            size(&dir.path().join("a.txt")).expect_err("too small")
        );
        assert!(text.contains("a.txt has 0 bytes"), "{text}");
    }

    #[test]
    fn averages_are_powers_of_two() {
        assert_eq!(average("1"), Ok(1024));
        assert_eq!(average("1024"), Ok(1024 * 1024));
        for text in ["0", "3", "2048", "-8", "8k", ""] {
            assert!(average(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let times = |all: &[u64]| all.iter().copied().map(Duration::from_secs).collect();
        assert_eq!(median(times(&[9, 1, 5])), Duration::from_secs(5));
        assert_eq!(median(times(&[9, 1])), Duration::from_secs(9));
        assert_eq!(median(times(&[7])), Duration::from_secs(7));
    }

    #[test]
    fn a_row_tells_sizes_in_words() {
        let line = Line {
            average: AVG_CHUNK,
            manifest: Manifest {
                chunks: 100,
                chunked: 1_126_400,
                bytes: 3_680,
            },
            edit: Edit {
                refs: 80,
                lists: 3_600,
                contents: 20_000,
            },
            cpu_per_gib: 0.789,
        };
        assert_eq!(
            row("log", 1_126_400, &line),
            "| log, 1.1 MB | 8 KiB, in use | 100 | 11.0 KiB | 3.7 kB | 80 B | 3.6 kB | 20.0 kB | 23.7 kB | 0.79 |\n"
        );
    }

    #[test]
    fn a_pair_of_files_is_measured() {
        let dir = folder(&[]);
        let old = crate::bench::random::Random::new(1).bytes(4 << 20);
        let mut new = old.clone();
        new[3 << 20] ^= 1;
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.old"), &old).expect("a file");
        fs::write(path("a.new"), &new).expect("a file");
        let pairs = pairs(dir.path()).expect("pairs");
        let size = size(&pairs[0].new).expect("a size");
        let lines = measure(&pairs[0], size, &[8 << 10, 32 << 10], 2).expect("lines");
        let [small, large] = &lines[..] else {
            panic!("two sizes, not {}", lines.len());
        };
        assert_eq!((small.average, large.average), (8 << 10, 32 << 10));
        // Every byte is in a chunk, and one changed byte changes one or two of them.
        for line in &lines {
            assert_eq!(line.manifest.chunked, 4 << 20);
            let least = line.average as u64 / 2;
            let most = 16 * line.average as u64;
            assert!((least..=most).contains(&line.edit.contents));
            assert!(line.cpu_per_gib > 0.0);
        }
        assert!(small.manifest.chunks > 3 * large.manifest.chunks);
    }
}
