//! Pictures of the figures: plain SVG, without scripts or fonts, readable on light and on dark.

use std::fmt::Write as _;

use super::bounds::What;
use super::figures::{Figures, Grown, Line};
use super::judge::{self, Spread};

const WIDTH: f64 = 960.0;
/// Where the axis begins and ends.
const LEFT: f64 = 470.0;
const RIGHT: f64 = 930.0;
const ROW: f64 = 15.0;

/// Follows the reader's setting; a viewer that knows no media queries shows the first colours on
/// white.
const STYLE: &str = "\
  <style>
    .paper { fill: #ffffff }
    text { font: 12px sans-serif; fill: #24292f }
    .small { font-size: 11px; fill: #57606a }
    .axis { stroke: #57606a; stroke-width: 1 }
    .grid { stroke: #d0d7de; stroke-width: 1 }
    .one { stroke: #cf222e; stroke-width: 1.5 }
    .t0 { fill: #0969da; stroke: #0969da }
    .t1 { fill: #bc4c00; stroke: #bc4c00 }
    .t2 { fill: #1a7f37; stroke: #1a7f37 }
    .t3 { fill: #8250df; stroke: #8250df }
    .t4 { fill: #bf3989; stroke: #bf3989 }
    .line { fill: none; stroke-width: 2 }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117 }
      text { fill: #e6edf3 }
      .small { fill: #9198a1 }
      .axis { stroke: #9198a1 }
      .grid { stroke: #30363d }
      .one { stroke: #ff7b72 }
      .t0 { fill: #58a6ff; stroke: #58a6ff }
      .t1 { fill: #f0883e; stroke: #f0883e }
      .t2 { fill: #56d364; stroke: #56d364 }
      .t3 { fill: #bc8cff; stroke: #bc8cff }
      .t4 { fill: #f778ba; stroke: #f778ba }
    }
  </style>
";

/// LEFT's time divided by each tool's, row by row: a dot is the median, a line the least and the
/// most. Nothing where there is nothing to compare.
pub fn ratios(figures: &Figures) -> Option<String> {
    let rows: Vec<(&Line, Vec<(&str, Spread)>)> = figures
        .rows
        .iter()
        .chain(&figures.lab)
        .map(|line| (line, compared(line)))
        .filter(|(_, ratios)| !ratios.is_empty())
        .collect();
    let mut tools: Vec<&str> = Vec::new();
    for (tool, _) in rows.iter().flat_map(|(_, ratios)| ratios) {
        if !tools.contains(tool) {
            tools.push(tool);
        }
    }
    if rows.is_empty() {
        return None;
    }
    let all = rows.iter().flat_map(|(_, ratios)| ratios);
    let least = all.map(|(_, spread)| spread.min).fold(0.1, f64::min);
    let most = rows.iter().flat_map(|(_, ratios)| ratios);
    let most = most.map(|(_, spread)| spread.max).fold(2.0, f64::max);
    let axis = Axis::over(least, most);
    let lines: usize = rows.iter().map(|(_, ratios)| ratios.len() + 1).sum();
    let height = 70.0 + ROW * count(lines) + 30.0;
    let mut svg = begin(
        height,
        "LEFT's wall time divided by each tool's; below 1 LEFT is faster",
    );
    legend(&mut svg, &tools);
    axis.draw(&mut svg, 60.0, height - 30.0);
    let mut y = 70.0;
    for (line, ratios) in &rows {
        let middle = y + ROW * count(ratios.len()) / 2.0 + 4.0;
        text(&mut svg, LEFT - 10.0, middle, "end", "", &line.title);
        for (tool, spread) in ratios {
            let class = tools.iter().position(|other| other == tool).unwrap_or(0) % 5;
            let [from, at, to] = [spread.min, spread.median, spread.max].map(|v| axis.x(v));
            let at_y = y + ROW / 2.0;
            let _ = writeln!(
                svg,
                "  <line class=\"t{class}\" stroke-width=\"2\" x1=\"{from:.1}\" x2=\"{to:.1}\" \
                 y1=\"{at_y:.1}\" y2=\"{at_y:.1}\"/>\n  <circle class=\"t{class}\" cx=\"{at:.1}\" \
                 cy=\"{at_y:.1}\" r=\"4\"><title>{}, {}: {:.2}</title></circle>",
                escape(&line.title),
                escape(tool),
                spread.median
            );
            y += ROW;
        }
        y += ROW;
    }
    Some(svg + "</svg>\n")
}

/// Time and memory against the number of files, and time and bytes against that of receivers, each
/// as a multiple of the first step. Nothing where less than two steps were measured.
pub fn growth(figures: &Figures) -> Option<String> {
    let (trees, receivers) = (&figures.trees, &figures.receivers);
    if trees.len().max(receivers.len()) < 2 {
        return None;
    }
    let mut svg = begin(330.0, "Growth; each line begins at 1");
    let per_file = |value: fn(&Grown) -> f64| curve(trees, |s| value(s) / s.count as f64);
    let memory = curve(trees, |s| s.memory[1] as f64);
    let files = [
        ("wall time a file", per_file(|s| s.wall)),
        ("CPU time a file", per_file(|s| s.cpu)),
        ("peak memory of the receiver", memory),
    ];
    plot(&mut svg, 60.0, "files", trees, &files);
    let more = [
        ("wall time", curve(receivers, |s| s.wall)),
        (
            "bytes that leave the source",
            curve(receivers, |s| s.sent as f64),
        ),
        ("CPU time of all", curve(receivers, |s| s.cpu)),
    ];
    plot(&mut svg, 500.0, "receivers of one file", receivers, &more);
    Some(svg + "</svg>\n")
}

/// A logarithmic axis.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    /// Decades around these values, which are positive.
    fn over(least: f64, most: f64) -> Self {
        Self {
            from: least.max(1e-4).log10().floor(),
            to: most.log10().ceil(),
        }
    }

    fn x(&self, value: f64) -> f64 {
        let part = (value.max(1e-4).log10() - self.from) / (self.to - self.from);
        LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn draw(&self, svg: &mut String, top: f64, bottom: f64) {
        let mut decade = self.from;
        while decade <= self.to {
            let x = self.x(10_f64.powf(decade));
            let class = if decade == 0.0 { "one" } else { "grid" };
            vertical(svg, class, x, top, bottom);
            let label = format!("{}", 10_f64.powf(decade));
            text(svg, x, bottom + 16.0, "middle", "small", &label);
            decade += 1.0;
        }
    }
}

fn compared(line: &Line) -> Vec<(&str, Spread)> {
    let left = line.cells.iter().find(|cell| cell.tool == "left");
    let others = line.cells.iter().filter(|cell| cell.tool != "left");
    others
        .filter_map(|cell| Some((cell.tool.as_str(), judge::ratio(left?, cell, What::Wall)?)))
        .collect()
}

fn curve(steps: &[Grown], value: impl Fn(&Grown) -> f64) -> Vec<f64> {
    let first = steps.first().map_or(1.0, &value).max(1e-9);
    steps.iter().map(|step| value(step) / first).collect()
}

/// One diagram of 320 × 190, its steps at equal distances.
fn plot(svg: &mut String, x: f64, what: &str, steps: &[Grown], curves: &[(&str, Vec<f64>)]) {
    if steps.len() < 2 {
        return;
    }
    let (top, bottom, width) = (50.0, 240.0, 320.0);
    let most = curves.iter().flat_map(|(_, values)| values);
    let most = most.copied().fold(1.5, f64::max) * 1.05;
    let at = |n: usize| x + width * count(n) / count(steps.len() - 1);
    let height = |value: f64| bottom - value / most * (bottom - top);
    for mark in [0.0, 1.0, most / 2.0, most] {
        let y = height(mark);
        let class = if mark == 0.0 { "axis" } else { "grid" };
        let _ = writeln!(
            svg,
            "  <line class=\"{class}\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            x + width
        );
        text(svg, x - 6.0, y + 4.0, "end", "small", &format!("{mark:.1}"));
    }
    for (n, step) in steps.iter().enumerate() {
        text(
            svg,
            at(n),
            bottom + 16.0,
            "middle",
            "small",
            &step.count.to_string(),
        );
    }
    text(svg, x + width / 2.0, bottom + 32.0, "middle", "small", what);
    for (class, (name, values)) in curves.iter().enumerate() {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(n, value)| format!("{:.1},{:.1}", at(n), height(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "  <polyline class=\"line t{class}\" style=\"fill:none\" points=\"{}\"/>",
            points.join(" ")
        );
        let y = bottom + 50.0 + 14.0 * count(class);
        let _ = writeln!(
            svg,
            "  <circle class=\"t{class}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\"/>",
            y - 4.0
        );
        text(svg, x + 10.0, y, "start", "", name);
    }
}

fn begin(height: f64, title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         {STYLE}  <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n  \
         <text x=\"12\" y=\"20\">{title}</text>\n"
    )
}

fn legend(svg: &mut String, tools: &[&str]) {
    for (n, tool) in tools.iter().enumerate() {
        let x = 20.0 + 110.0 * count(n);
        let class = n % 5;
        let _ = writeln!(
            svg,
            "  <circle class=\"t{class}\" cx=\"{x:.1}\" cy=\"40\" r=\"4\"/>"
        );
        text(svg, x + 10.0, 44.0, "start", "", tool);
    }
}

fn vertical(svg: &mut String, class: &str, x: f64, top: f64, bottom: f64) {
    let _ = writeln!(
        svg,
        "  <line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, what: &str) {
    let _ = writeln!(
        svg,
        "  <text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(what)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Axis, LEFT, RIGHT, growth, ratios};
    use crate::bench::figures::Figures;

    #[test]
    fn an_axis_holds_its_values_in_order() {
        let axis = Axis::over(0.02, 3.0);
        assert!((axis.from, axis.to) == (-2.0, 1.0));
        let places = [0.01, 0.1, 1.0, 10.0].map(|value| axis.x(value));
        assert!((places[0] - LEFT).abs() < 0.1 && (places[3] - RIGHT).abs() < 0.1);
        assert!(places.is_sorted());
        // What no logarithm has stays inside.
        assert!((axis.x(0.0) - LEFT).abs() < 0.1);
    }

    #[test]
    fn nothing_measured_makes_no_picture() {
        assert!(ratios(&Figures::default()).is_none());
        assert!(growth(&Figures::default()).is_none());
    }

    #[test]
    fn a_picture_shows_each_row_and_tool_and_is_whole() {
        let figures = Figures::parse(
            r#"{"rows": [{"name": "a", "title": "1 < 2", "cells": [
                {"tool": "left", "durable": "yes", "failures": [], "samples":
                 {"1": {"wall": 1.0, "walls": [1.0], "wire": 1, "cpu": 1.0, "memory": 1}}},
                {"tool": "rsync", "durable": "no", "failures": [], "samples":
                 {"1": {"wall": 2.0, "walls": [2.0], "wire": 1, "cpu": 1.0, "memory": 1}}}]}],
             "trees": [
                {"count": 10, "wall": 1.0, "cpu": 1.0, "memory": [1, 1], "sent": 1, "content": 1},
                {"count": 20, "wall": 2.0, "cpu": 2.0, "memory": [1, 1], "sent": 1, "content": 1}]}"#,
        )
        .expect("figures");
        for svg in [ratios(&figures), growth(&figures)] {
            let svg = svg.expect("a picture");
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert!(svg.contains("prefers-color-scheme: dark") && !svg.contains("NaN"));
        }
        let svg = ratios(&figures).expect("a picture");
        assert!(svg.contains("1 &lt; 2, rsync: 0.50"));
    }
}
