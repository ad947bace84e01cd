//! Takes figures over into the documents: `docs/benchmarks.json` keeps them all, and from it are
//! made the parts of `docs/benchmarks.md` between marks, and the pictures.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::figures::Figures;
use super::rows::ROWS;
use super::{lab, show, svg, write};
use crate::workspace;

/// Adds `newer` to what is kept, if there is any, and makes tables and pictures anew.
pub fn take_over(newer: Option<Figures>) -> Result<()> {
    let folder = workspace::root().join("docs");
    let kept = folder.join("benchmarks.json");
    let mut figures = match fs::read_to_string(&kept) {
        Ok(json) => Figures::parse(&json).with_context(|| format!("in {}", kept.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Figures::default(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", kept.display())),
    };
    let rows = ROWS.iter().chain(lab::ROWS);
    let order: Vec<&str> = rows.map(|row| row.name).collect();
    if let Some(newer) = newer {
        figures.update(newer, &order);
        write(&kept, &figures.json()?)?;
    }
    render(&figures, &folder)
}

fn render(figures: &Figures, folder: &Path) -> Result<()> {
    let page = folder.join("benchmarks.md");
    let mut text =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    for (name, content) in parts(figures) {
        text = replace(&text, name, &content)?;
    }
    for (name, picture) in [
        ("benchmarks.svg", svg::ratios(figures)),
        ("growth.svg", svg::growth(figures)),
    ] {
        if let Some(picture) = picture {
            write(&folder.join(name), &picture)?;
        }
    }
    write(&page, &text)?;
    eprintln!("written: {}", page.display());
    Ok(())
}

/// Mark → what stands there.
fn parts(figures: &Figures) -> [(&'static str, String); 6] {
    let all = |lines: &[super::Line]| {
        let lines: Vec<&super::Line> = lines.iter().collect();
        show::all_rows(&lines, "").markdown()
    };
    [
        ("machine", show::preface(figures, "- ")),
        ("bounds", show::verdicts(figures).markdown()),
        ("rows", all(&figures.rows)),
        ("limits", show::limits(&figures.limits).markdown()),
        ("lab", all(&figures.lab)),
        (
            "growth",
            format!(
                "{}\n{}",
                show::trees(&figures.trees).markdown(),
                show::receivers(&figures.receivers).markdown()
            ),
        ),
    ]
}

/// Puts `content` between the marks of `name`.
fn replace(page: &str, name: &str, content: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let lost =
        || format!("docs/benchmarks.md has lost its marks <!-- {name} --> and <!-- /{name} -->");
    let (before, rest) = page.split_once(&begin).with_context(lost)?;
    let (_, after) = rest.split_once(&end).with_context(lost)?;
    Ok(format!("{before}{begin}{content}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{parts, replace};
    use crate::bench::figures::Figures;
    use crate::workspace;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        let new = replace(page, "x", "new\n").expect("marks");
        assert_eq!(new, "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n");
        assert!(replace(page, "y", "").is_err());
    }

    /// The page is what its figures make of it: nobody has edited a table by hand.
    #[test]
    fn the_page_shows_the_figures_that_are_kept() {
        let folder = workspace::root().join("docs");
        let page = fs::read_to_string(folder.join("benchmarks.md")).expect("page");
        let json = fs::read_to_string(folder.join("benchmarks.json")).expect("figures");
        let figures = Figures::parse(&json).expect("figures");
        for (name, content) in parts(&figures) {
            assert_eq!(
                replace(&page, name, &content).expect("marks"),
                page,
                "{name}"
            );
        }
    }
}
