//! Figures that other pages take from docs/performance.md are the ones that stand there. A new `make bench` changes that page
//! alone; this tells where else.

use super::markdown::{self, Document};
use super::{none, one};

/// The line before a table of such figures.
const MARKER: &str = "<!-- figures of performance.md -->";

#[test]
fn figures_are_those_that_were_measured() {
    let mut tables = 0;
    let mut wrong = Vec::new();
    for document in markdown::all() {
        tables += document.all_lines().filter(|(_, line)| *line == MARKER).count();
        wrong.extend(complaints(document));
    }
    assert!(tables > 0, "no table has the line {MARKER}");
    none(&wrong);
}

#[test]
fn others_are_found() {
    let table = |figure| {
        format!("{MARKER}\n\n| a | b |\n| --- | --- |\n| c | {figure} messages/s |\n\n4711\n")
    };
    one(&complaints(&Document::new("a.md", &table("123,456,789"))), "a.md:5: 123,456,789");
    let measured =
        figures_of_performance().into_iter().find(|figure| figure.len() > 3).expect("one");
    none(&complaints(&Document::new("a.md", &table(&measured))));
}

fn complaints(document: &Document) -> Vec<String> {
    let measured = figures_of_performance();
    let mut complaints = Vec::new();
    let (mut marked, mut inside) = (false, false);
    for (number, line) in document.all_lines() {
        marked |= line == MARKER;
        let row = line.starts_with('|');
        if marked && row {
            for figure in figures(line) {
                if !measured.contains(&figure) {
                    complaints.push(format!(
                        "{}: {figure} is not in docs/performance.md",
                        document.at(number)
                    ));
                }
            }
        }
        // The table's end.
        marked &= row || !inside;
        inside = marked && row;
    }
    complaints
}

fn figures_of_performance() -> Vec<String> {
    markdown::document("docs/performance.md").prose().flat_map(|(_, line)| figures(line)).collect()
}

/// Numbers as they are written: `1,234.5`.
fn figures(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_ascii_digit() && c != ',' && c != '.')
        .map(|word| word.trim_matches([',', '.']).to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}
