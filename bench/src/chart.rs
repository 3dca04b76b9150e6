//! The charts as SVG: readable on light and dark pages, with every number in words beside its mark.

use std::fmt::Write as _;

use crate::report::short;
use crate::results::{Bar, Figure, Growth};

const WIDTH: f64 = 760.0;
/// Colours that people with any sort of sight tell apart (Okabe and Ito), and dashes beside them.
const STROKES: [(&str, &str); 3] = [("#0072B2", "none"), ("#E69F00", "6 4"), ("#CC79A7", "2 4")];
/// Beyond this factor between the highest and the lowest cost, every step up is ten times more.
const LINEAR_MAX: f64 = 20.0;
/// Between two lines of text.
const TEXT_HEIGHT: f64 = 15.0;
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
    let (left, right, top, bottom) = (60.0, 170.0, 40.0, 250.0);
    // So that the first number does not stand on those of the axis.
    let inset = 30.0;
    let mut svg = open(bottom + 50.0, &growth.title);
    text(&mut svg, left, 20.0, "start", "", &growth.title);
    let points = || growth.lines.iter().flat_map(|line| &line.points);
    let (first, last) = range(points().map(|point| place(point.x)));
    let height = Height::of(points().map(|point| point.server_us), bottom - top);
    let x_at = |x: f64| left + inset + (place(x) - first) / (last - first).max(1e-9) * (WIDTH - left - inset - right);
    let y_at = |us: f64| bottom - height.of_us(us);
    for &us in &height.marks {
        let (y, end) = (y_at(us), WIDTH - right);
        put(&mut svg, &format!(r#"<line class="grid" x1="{left}" y1="{y:.1}" x2="{end}" y2="{y:.1}"/>"#));
        text(&mut svg, left - 6.0, y + 4.0, "end", "dim", &format!("{us} µs"));
    }
    for point in growth.lines.first().map(|line| &line.points).into_iter().flatten() {
        text(&mut svg, x_at(point.x), bottom + 18.0, "middle", "dim", &short(point.x));
    }
    text(&mut svg, f64::midpoint(left, WIDTH - right), bottom + 38.0, "middle", "dim", &growth.axis);
    for (line, (colour, dash)) in growth.lines.iter().zip(STROKES.into_iter().cycle()) {
        let way = line.points.iter().map(|point| format!("{:.1},{:.1}", x_at(point.x), y_at(point.server_us)));
        let way = way.collect::<Vec<_>>().join(" ");
        let stroke = format!(r#"stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}""#);
        put(&mut svg, &format!(r#"<polyline points="{way}" fill="none" {stroke}/>"#));
        for point in &line.points {
            let (x, y) = (x_at(point.x), y_at(point.server_us));
            put(&mut svg, &format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#));
            // Two lines that are close leave room on one side each.
            let cheapest = points().all(|other| other.x != point.x || other.server_us >= point.server_us);
            let beside = if growth.lines.len() > 1 && cheapest { 17.0 } else { -8.0 };
            text(&mut svg, x, y + beside, "middle", "", &format!("{:.1}", point.server_us));
        }
    }
    names(&mut svg, growth, x_at, y_at);
    svg + "</svg>\n"
}

/// The name of every line behind its end, one under the other where they end together.
fn names(svg: &mut String, growth: &Growth, x_at: impl Fn(f64) -> f64, y_at: impl Fn(f64) -> f64) {
    let ends = growth.lines.iter().filter_map(|line| Some((line, line.points.last()?)));
    let mut ends: Vec<_> =
        ends.map(|(line, end)| (y_at(end.server_us) + 4.0, x_at(end.x) + 22.0, &line.name)).collect();
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = f64::MIN;
    for (y, x, name) in ends {
        let y = y.max(free);
        text(svg, x, y, "start", "", name);
        free = y + TEXT_HEIGHT;
    }
}

/// How high costs stand in a chart.
struct Height {
    /// Where there is a line across.
    marks: Vec<f64>,
    logarithmic: bool,
    high: f64,
}

impl Height {
    fn of(costs: impl Iterator<Item = f64>, high: f64) -> Self {
        let (lowest, highest) = range(costs);
        let logarithmic = highest / lowest > LINEAR_MAX;
        let marks = if logarithmic {
            (lowest.log10().floor() as i32..=highest.log10().ceil() as i32).map(|power| 10_f64.powi(power)).collect()
        } else {
            let steps = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
            let step = steps.into_iter().find(|step| highest / step <= 5.0).unwrap_or(500.0);
            (0..=(highest / step).ceil() as usize).map(|number| step * number as f64).collect()
        };
        Self { marks, logarithmic, high }
    }

    fn of_us(&self, us: f64) -> f64 {
        let scaled = |us: f64| if self.logarithmic { us.log10() } else { us };
        let (low, top) = range(self.marks.iter().copied().map(scaled));
        (scaled(us) - low) / (top - low) * self.high
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
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
