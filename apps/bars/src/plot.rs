//! Lines on a grid, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 6] = [
    "#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#c77f18", "#555555",
];

pub(crate) struct Plot {
    /// Of its file.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    pub(crate) fn to_svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let widest = round_up(all().map(|(x, _)| *x).fold(0.0, f64::max));
        let highest = round_up(all().map(|(_, y)| *y).fold(0.0, f64::max));
        let x = |value: f64| LEFT + value / widest * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / highest * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            escaped(&self.title)
        );
        for step in 0..=5 {
            let share = f64::from(step) / 5.0;
            let (across, up) = (widest * share, highest * share);
            let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
            // Writing into a String cannot fail.
            let _ = write!(
                svg,
                "<path d=\"M{LEFT} {0:.1}H{right}M{1:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>\n\
                 <text x=\"{1:.1}\" y=\"{5}\" text-anchor=\"middle\">{6}</text>\n",
                y(up),
                x(across),
                LEFT - 6.0,
                y(up) + 4.0,
                number(up),
                bottom + 16.0,
                number(across),
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"16\" y=\"{3}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {3})\">{4}</text>\n",
            x(widest / 2.0),
            HEIGHT - 12.0,
            escaped(self.across),
            y(highest / 2.0),
            escaped(self.up),
        );
        for (index, (line, colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|(across, up)| format!("{:.1},{:.1}", x(*across), y(*up)))
                .collect();
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>\n\
                 <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>\n",
                points.join(" "),
                WIDTH - RIGHT + 12.0,
                TOP + 14.0 + 18.0 * index as f64,
                escaped(&line.name),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// The next 1, 2 or 5 with zeros.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * unit)
        .into_iter()
        .find(|rounded| *rounded >= value)
        .unwrap_or(10.0 * unit)
}

fn number(value: f64) -> String {
    if value >= 10.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_every_line_on_its_grid() {
        let plot = Plot {
            name: "test".to_owned(),
            title: "a < b".to_owned(),
            across: "seconds",
            up: "tasks",
            lines: vec![Line {
                name: "done".to_owned(),
                points: vec![(0.0, 0.0), (10.0, 500.0)],
            }],
        };
        let svg = plot.to_svg();
        assert!(svg.contains("a &lt; b") && svg.contains(">done<"), "{svg}");
        assert!(svg.contains("points=\"80.0,330.0 610.0,40.0\""), "{svg}");
    }

    #[test]
    fn scales_end_at_a_round_number() {
        for (value, rounded) in [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (11.0, 20.0),
            (620.0, 1_000.0),
        ] {
            assert!((round_up(value) - rounded).abs() < 1e-9, "{value}");
        }
    }
}
