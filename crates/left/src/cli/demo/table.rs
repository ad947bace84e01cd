//! The demo's result.

use serde::Serialize;

use crate::cli::format;
use crate::cli::output::Output;

/// One file after one step.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) step: &'static str,
    pub(super) file: String,
    pub(super) md5_a: String,
    pub(super) md5_b: String,
    /// Of the whole step; in its first row.
    pub(super) seconds: Option<f64>,
    /// Of the whole step, both ways; in its first row.
    pub(super) wire_bytes: Option<u64>,
}

impl Row {
    /// Both sides have the file, with the same bytes.
    pub(super) fn equal(&self) -> bool {
        self.md5_a == self.md5_b && self.md5_a.len() == 32
    }
}

pub(super) fn print(rows: &[Row], json: bool) {
    let out = Output::new(json, 0);
    if rows.is_empty() {
        return;
    }
    if json {
        return rows.iter().for_each(|row| out.object(row));
    }
    let head = [
        "step",
        "file",
        "md5 on A",
        "md5 on B",
        "match",
        "seconds",
        "on the wire",
    ];
    let mut cells = vec![head.map(str::to_string)];
    cells.extend(rows.iter().map(|row| {
        [
            row.step.to_string(),
            row.file.clone(),
            row.md5_a.clone(),
            row.md5_b.clone(),
            if row.equal() { "yes" } else { "NO" }.to_string(),
            row.seconds.map(|s| format!("{s:.2}")).unwrap_or_default(),
            row.wire_bytes.map(format::bytes).unwrap_or_default(),
        ]
    }));
    out.line("");
    for row in &cells {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = cells.iter().map(|r| r[column].chars().count()).max();
            line.push_str(&format!("{cell:width$}  ", width = width.unwrap_or(0)));
        }
        out.line(line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_missing_files_are_no_match() {
        let row = |a: &str, b: &str| Row {
            step: "x",
            file: "y".into(),
            md5_a: a.into(),
            md5_b: b.into(),
            seconds: None,
            wire_bytes: None,
        };
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        assert!(row(md5, md5).equal());
        assert!(!row("missing", "missing").equal());
        assert!(!row(md5, "missing").equal());
    }
}
