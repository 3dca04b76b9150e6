//! The charts as SVG: readable on light and dark pages, with every number in words beside its mark.

use std::fmt::Write as _;

use crate::report::short;
use crate::results::{Bar, Figure, Growth};

const WIDTH: f64 = 760.0;
/// Colours that people with any sort of sight tell apart (Okabe and Ito); the second line is dashed as well.
const COLOURS: [&str; 2] = ["#0072B2", "#E69F00"];
const STYLE: &str = "<style>text{font:13px system-ui,sans-serif;fill:#222}.dim{fill:#666}.grid{stroke:#ddd}\
                     .bar{stroke:#222;stroke-width:2}.one{fill:#009E73}.two{fill:#D55E00}\
                     @media(prefers-color-scheme:dark){text{fill:#ddd}.dim{fill:#999}.grid{stroke:#444}.bar{stroke:#eee}}\
                     </style>";

/// Each figure as a part of what is aimed at: from the left edge to the mark in the middle is the bar.
pub(crate) fn bars(figures: &[Figure]) -> String {
    let known: Vec<(&Figure, f64)> = figures.iter().filter_map(|figure| Some((figure, reached(figure)?))).collect();
    let (left, row, top) = (340.0, 26.0, 40.0);
    let height = top + row * known.len() as f64 + 16.0;
    let mut svg = open(height, "Each figure against its bar");
    // Half the width is the bar; beyond its double the marks only say so.
    let scale = (WIDTH - left - 90.0) / 2.0;
    text(&mut svg, left, 20.0, "start", "dim", "0");
    text(&mut svg, left + scale, 20.0, "middle", "", "the bar");
    text(&mut svg, left + 2.0 * scale, 20.0, "middle", "dim", "twice");
    for (at, (figure, part)) in known.iter().enumerate() {
        let y = top + row * at as f64;
        let class = if *part >= 1.0 { "one" } else { "two" };
        text(&mut svg, left - 8.0, y + 14.0, "end", "", &figure.title);
        let width = part.min(2.0) * scale;
        put(&mut svg, &format!(r#"<rect class="{class}" x="{left}" y="{y}" width="{width:.1}" height="18" rx="2"/>"#));
        let sign = if *part >= 1.0 { "✓" } else { "✗" };
        text(&mut svg, left + width + 6.0, y + 14.0, "start", "", &format!("{sign} {part:.2}"));
    }
    let (x, bottom) = (left + scale, height - 12.0);
    put(&mut svg, &format!(r#"<line class="bar" x1="{x:.1}" y1="28" x2="{x:.1}" y2="{bottom:.1}"/>"#));
    svg + "</svg>\n"
}

/// How many times its bar a figure reaches; 1 is enough, more is better.
fn reached(figure: &Figure) -> Option<f64> {
    match figure.bar? {
        Bar::RatioMin(least) => figure.ratio().map(|ratio| ratio / least),
        Bar::Max(most) => Some(most / figure.subject.median()),
    }
}

/// Cost per order over what grows, which is ten times more with every step.
pub(crate) fn growth(growth: &Growth) -> String {
    let (left, right, top, bottom) = (60.0, 130.0, 40.0, 250.0);
    let mut svg = open(bottom + 50.0, &growth.title);
    text(&mut svg, left, 20.0, "start", "", &growth.title);
    let xs: Vec<f64> = growth.lines.iter().flat_map(|line| &line.points).map(|point| place(point.x)).collect();
    let (first, last) = xs.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    let highest = growth.lines.iter().flat_map(|line| &line.points).map(|point| point.server_us).fold(0.0, f64::max);
    let step = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0].into_iter().find(|step| highest / step <= 5.0);
    let step = step.unwrap_or(500.0);
    let ceiling = (highest / step).ceil() * step;
    let x_at = |x: f64| left + (place(x) - first) / (last - first).max(1e-9) * (WIDTH - left - right);
    let y_at = |us: f64| bottom - us / ceiling * (bottom - top);
    for number in 0..=(ceiling / step).round() as usize {
        let us = step * number as f64;
        let (y, end) = (y_at(us), WIDTH - right);
        put(&mut svg, &format!(r#"<line class="grid" x1="{left}" y1="{y:.1}" x2="{end}" y2="{y:.1}"/>"#));
        text(&mut svg, left - 6.0, y + 4.0, "end", "dim", &format!("{us} µs"));
    }
    for point in growth.lines.first().map(|line| &line.points).into_iter().flatten() {
        text(&mut svg, x_at(point.x), bottom + 18.0, "middle", "dim", &short(point.x));
    }
    text(&mut svg, f64::midpoint(left, WIDTH - right), bottom + 38.0, "middle", "dim", &growth.axis);
    for (number, line) in growth.lines.iter().enumerate() {
        let (colour, dash) = (COLOURS[number % 2], if number == 0 { "" } else { r#" stroke-dasharray="6 4""# });
        let way: Vec<String> =
            line.points.iter().map(|point| format!("{:.1},{:.1}", x_at(point.x), y_at(point.server_us))).collect();
        let way = way.join(" ");
        put(&mut svg, &format!(r#"<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>"#));
        for point in &line.points {
            let (x, y) = (x_at(point.x), y_at(point.server_us));
            put(&mut svg, &format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#));
            text(&mut svg, x, y - 8.0, "middle", "", &format!("{:.1}", point.server_us));
        }
        if let Some(end) = line.points.last() {
            text(&mut svg, x_at(end.x) + 22.0, y_at(end.server_us) + 4.0, "start", "", &line.name);
        }
    }
    svg + "</svg>\n"
}

/// On a scale of powers of ten; nothing stands one step before one.
fn place(x: f64) -> f64 {
    if x < 1.0 { -1.0 } else { x.log10() }
}

fn open(height: f64, title: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img"><title>{title}</title>{STYLE}
"#
    )
}

fn put(svg: &mut String, element: &str) {
    writeln!(svg, "{element}").expect("a string takes everything");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    put(svg, &format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#));
}
